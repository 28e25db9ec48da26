"""The same videos described by another network: whose features, of which frames, at what scale."""

import numpy as np
import pytest
import torch

from vidhash_lab import open_dataset
from vidhash_lab.data.files import DataError
from vidhash_lab.data.stories.descriptions import describe_again, untrained_network
from vidhash_lab.data.stories.network import shipped_network


def test_the_shipped_network_gives_the_data_set_again(tmp_path):
    data = open_dataset("digit-stories-mini")
    again = open_dataset(describe_again(data, shipped_network().features, tmp_path))
    for name in ("train", "database", "query"):
        ours, theirs = getattr(again, name), getattr(data, name)
        same, scale = theirs.rows(range(60)), data.train.rows(range(len(data.train))).std()
        torch.testing.assert_close(ours.rows(range(60)) * scale, same, rtol=0.01, atol=0.01)
        for key in ("labels", "fine_labels"):
            np.testing.assert_array_equal(getattr(ours, key), getattr(theirs, key))
    assert again.train.rows(range(len(data.train))).std() == pytest.approx(1, abs=1e-3)


def test_an_untrained_network_differs_by_its_seed_alone_and_looks_at_the_frame():
    data = open_dataset("digit-stories-mini")
    frames = torch.from_numpy(data.query.pictures(range(4))).flatten(0, 1) / 255
    one, again, other = (
        untrained_network(data.train, seed).features(frames).detach() for seed in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.std(0).mean() > 0.1 * one.std()  # not the same for all frames


def test_refuses_a_set_without_thumbnails(random_features, tmp_path):
    path = random_features(shape=(20, 6, 8))
    with pytest.raises(DataError, match=r"features\.h5: has no `thumbnails`"):
        describe_again(open_dataset(path), torch.sigmoid, tmp_path)
