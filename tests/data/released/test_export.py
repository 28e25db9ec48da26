"""What was written in a published layout opens again as the same rows and labels, whole or not."""

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab.data import DataError, FeatureSet, VideoDataset, export, open_dataset
from vidhash_lab.data.released.sets import PUBLISHED_SETS

pytestmark = pytest.mark.filterwarnings("ignore:.*not the published")
SIZES = {"train": 21, "database": 13, "query": 5}


@pytest.fixture
def three_sets(random_features):
    return {
        role: FeatureSet(random_features(f"{role}.h5", (n, 4, 6), seed=n, dtype="float16"))
        for role, n in SIZES.items()
    }


def as_layout(name, sets):
    """The roles that a layout has one file for are one set, as it wants."""
    parts, published = {}, PUBLISHED_SETS[name]
    return VideoDataset(
        "mine", *(parts.setdefault(getattr(published, role), sets[role]) for role in SIZES)
    )


@pytest.mark.parametrize("layout", sorted(PUBLISHED_SETS))
def test_an_export_opens_as_the_same_rows_and_labels(three_sets, tmp_path, layout):
    dataset, folder = as_layout(layout, three_sets), tmp_path / "out" / layout
    paths = export(dataset, folder, layout)
    assert sorted(paths) == sorted(folder.iterdir())
    again = open_dataset(layout, folder)
    assert again.self_query == dataset.self_query
    assert (again.train is again.database) == (dataset.train is dataset.database)
    for role in SIZES:
        ours, theirs = getattr(dataset, role), getattr(again, role)
        assert torch.equal(theirs.rows(range(len(theirs))), ours.rows(range(len(ours))))
        if role != "train" or theirs.labels is not None:
            assert np.array_equal(theirs.labels, ours.labels)
    with h5py.File(paths[0]) as file:
        assert file["feats"].dtype == np.float32 and file["feats"].chunks is None


def test_a_whole_data_set_by_batches(tmp_path):
    dataset = open_dataset("digit-stories-mini")
    export(dataset, tmp_path, "activitynet")
    again = open_dataset("activitynet", tmp_path)
    assert torch.equal(again.train.rows(range(600)), dataset.train.rows(range(600)))
    assert np.array_equal(again.database.labels, dataset.database.labels)


def test_an_export_that_fails_leaves_what_was_there(three_sets, tmp_path):
    folder = tmp_path / "out"
    paths = export(VideoDataset("mine", **three_sets), folder, "activitynet")
    before = {path: path.read_bytes() for path in paths}
    with h5py.File(three_sets["query"].paths[0], "a") as file:
        file["feats"][3] = np.nan
    three_sets["train"] = three_sets["database"]
    with pytest.raises(DataError, match=r"query\.h5, row 3"):
        export(VideoDataset("mine", **three_sets), folder, "activitynet")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_labels_of_other_videos_do_not_stay(three_sets, random_features, tmp_path):
    plain, labelled = random_features("plain.h5", (8, 4, 6), labels=None), three_sets["query"]
    export(VideoDataset("one", labelled, labelled, labelled), tmp_path / "out")
    with pytest.raises(DataError, match=r"fcv_train_labels\.mat: already there"):
        export(VideoDataset("two", FeatureSet(plain), labelled, labelled), tmp_path / "out")
    (tmp_path / "out" / "fcv_train_labels.mat").unlink()
    export(VideoDataset("two", FeatureSet(plain), labelled, labelled), tmp_path / "out")
    assert open_dataset("fcvid", tmp_path / "out").train.labels is None


def test_a_data_set_that_does_not_fit_the_layout(three_sets, random_features, tmp_path):
    dataset = VideoDataset("mine", **three_sets)
    with pytest.raises(DataError, match=r"'fcvid' database and query are one file, fcv_test"):
        export(dataset, tmp_path / "out")
    with pytest.raises(DataError, match=r"'ucf101' train and database are one file, ucf_train"):
        export(dataset, tmp_path / "out", "ucf101")
    plain = FeatureSet(random_features("plain.h5", (8, 4, 6), labels=None))
    with pytest.raises(DataError, match=r"plain\.h5: has no labels.*fcv_test_labels\.mat"):
        export(VideoDataset("plain", plain, plain, plain), tmp_path / "out")
    labelled = three_sets["query"]
    with pytest.raises(DataError, match="5 videos are too few for the 9 files"):
        export(VideoDataset("few", labelled, labelled, labelled), tmp_path / "out", "yfcc")
    with pytest.raises(ValueError, match="no layout 'kinetics', only fcvid, activitynet"):
        export(dataset, tmp_path / "out", "kinetics")
    assert not (tmp_path / "out").exists()
