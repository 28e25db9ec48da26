"""Near-duplicates of real files: every copy is compared with its own original, in its own row."""

import numpy as np
import pytest

from vidhash_lab import DataError, near_duplicates, open_dataset
from vidhash_lab.data.features import FeatureSet
from vidhash_lab.models import baselines
from vidhash_lab.videos.near_duplicates import _compare
from vidhash_lab.videos.writing import VARIANTS, write_video


def test_distances_and_what_is_found():
    codes = np.zeros((3, 1 + len(VARIANTS), 2), np.uint8)
    codes[:, :, 0] = np.array([0b0, 0b1111, 0b11111111])[:, None]
    codes[0, 1] = [0b1, 0]  # one bit off
    codes[0, 2] = [0b11, 0]  # in the middle between two originals: not found
    codes[1, 1] = [0b11111111, 0]  # at another original
    found = _compare(codes, None)
    first, second, *_ = VARIANTS
    assert found.distances[first].tolist() == [1, 4, 0] and found.found[first] == 2 / 3
    assert found.distances[second].tolist() == [2, 0, 0] and found.found[second] == 2 / 3
    assert found.unrelated.tolist() == [4, 8, 4] and found.bits == 16
    table = str(found).splitlines()
    assert table[1].split()[-4:] == ["1", "0", "4", "67%"]
    assert table[-2].split()[-3:] == ["4", "4", "8"]


def test_copies_of_films_are_nearer_than_other_films(tmp_path):
    dataset = open_dataset("digit-stories-mini")
    model = baselines.ITQ.for_dataset(dataset, bits=64)
    model.prepare(dataset.train)
    paths = [tmp_path / f"{number}.mp4" for number in range(6)]
    for path, frames in zip(paths, dataset.query.pictures(np.arange(6))):
        write_video(path, frames.repeat(4, 1).repeat(4, 2), 10, crf="12")
    found = near_duplicates(model, paths, "digits", tmp_path / "copies")
    assert list(found.distances) == list(VARIANTS) and len(found.unrelated) == 15
    for how in ("half the size", "25 % faster", "25 % slower"):
        assert np.median(found.distances[how]) < np.median(found.unrelated) / 2, how
        assert found.found[how] >= 5 / 6
    pictures = FeatureSet(found.features).pictures(np.arange(54)).reshape(6, 9, 25, 32, 32)
    bar = 1 + list(VARIANTS).index("a black bar below")
    assert pictures[:, bar, :, -4:].max() < 60 < pictures[:, 0, :, -4:].max()
    again = found.hashed_by(model)
    assert str(again) == str(found) and again.features == found.features
    shorter = baselines.LSH.for_dataset(dataset, bits=16).prepare(dataset.train)
    other = found.hashed_by(shorter)
    assert other.bits == 16 and len(other.unrelated) == 15
    assert other.unrelated.tolist() != found.unrelated.tolist()
    with pytest.raises(ValueError, match="was built for videos of"):
        found.hashed_by(baselines.LSH(shorter.config.__class__(bits=16, num_frames=9)))
    paths[1].write_text("no film")
    with pytest.raises(DataError, match=r"1\.mp4: not a video file"):
        near_duplicates(model, paths, "digits", tmp_path / "others")
    with pytest.raises(ValueError, match="an empty folder"):
        near_duplicates(model, paths, "digits", tmp_path / "copies")
