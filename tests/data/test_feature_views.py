"""Views in feature sets: one view of each video comes back as written, and no other is read."""

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab.data import DataError, FeatureSet, open_dataset, rows


def write_views(path, shape=(64, 4, 10, 12), dtype="float16", **options):
    data = np.random.default_rng(shape[0]).standard_normal(shape).astype(dtype)
    with h5py.File(path, "a") as file:
        file.create_dataset("views", data=data, **options)
    return path, torch.from_numpy(data).float()


STORAGE = {
    "contiguous": {},
    "a chunk for every view": {"chunks": (5, 1, 10, 12), "compression": "gzip"},
    "views in one chunk": {"chunks": (3, 4, 5, 12)},
}


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("block_bytes", [8 << 20, 20_000])
def test_views_are_those_of_the_file(
    random_features, tmp_path, monkeypatch, block_bytes, storage, in_memory
):
    monkeypatch.setattr(rows, "BLOCK_BYTES", block_bytes)
    options = STORAGE[storage]
    first, begin = write_views(tmp_path / "first.h5", (40, 4, 10, 12), **options)
    second, end = write_views(tmp_path / "second.h5", (24, 4, 10, 12), **options)
    truth = torch.cat([begin, end])
    features = FeatureSet(random_features(), views=[first, second], in_memory=in_memory)
    assert features.num_views == 4
    draws = np.random.default_rng(0)
    videos, views = draws.integers(0, 64, 50), draws.integers(0, 4, 50)  # unsorted, with repeats
    read = features.view_rows(videos, views)
    assert read.dtype == torch.float32 and torch.equal(read, truth[videos, views])
    assert torch.equal(features.view_rows(torch.tensor([63, 0]), 2), truth[[63, 0], 2])
    assert torch.equal(features.view_rows(5, 3), truth[5:6, 3])
    assert len(features.view_rows([], [])) == 0
    assert np.array_equal(features.views[5, 3], truth[5, 3])


def test_views_in_the_feature_file(random_features):
    path, truth = write_views(random_features())
    assert torch.equal(FeatureSet(path).view_rows([9, 2], [0, 3]), truth[[9, 2], [0, 3]])
    assert open_dataset(path).train.num_views == 4


def test_views_of_a_folder_or_a_file_may_lie_elsewhere(random_features, tmp_path):
    views, _ = write_views(tmp_path / "views.h5", (64, 2, 10, 12))
    assert open_dataset(random_features("mine.h5"), views=views).train.num_views == 2
    for part in ("train", "database", "query"):
        random_features(f"{part}.h5")
    dataset = open_dataset(tmp_path, views=views)
    assert dataset.train.num_views == 2 and dataset.query.num_views == 0


def test_a_set_without_views_says_so(random_features):
    features = FeatureSet(random_features())
    assert features.views is None and features.num_views == 0
    with pytest.raises(DataError, match=r"features\.h5: has no `views`"):
        features.view_rows([0], [0])


def test_views_that_are_not_asked_for_are_not_read(random_features, tmp_path):
    path, truth = write_views(tmp_path / "v.h5", chunks=(64, 1, 10, 12), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["views"].id.get_chunk_info_by_coord((0, 1, 0, 0))
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    features = FeatureSet(random_features(), views=path)
    assert torch.equal(features.view_rows([3, 50], [2, 0]), truth[[3, 50], [2, 0]])
    with pytest.raises(DataError, match="`views`, row 3 and after it, damaged"):
        features.view_rows([3], [1])


@pytest.mark.parametrize("wrong", [4, -1, [0, 4]])
def test_a_view_that_is_not_there(random_features, wrong):
    path, _ = write_views(random_features())
    for in_memory in (False, True):
        with pytest.raises(IndexError, match=r"`views`, column (4|-1); columns are 0 to 3"):
            FeatureSet(path, in_memory=in_memory).view_rows([1, 2], wrong)
    with pytest.raises(TypeError, match="columns are asked for by integers"):
        FeatureSet(path).view_rows([1, 2], 0.5)


@pytest.mark.parametrize(
    "shape, dtype, says",
    [
        ((63, 4, 10, 12), "f4", r"\(63, 4, 10, 12\), but `feats` of .* = \(64, 10, 12\)"),
        ((64, 4, 9, 12), "f4", r"\(64, 4, 9, 12\), but `feats`"),
        ((64, 4, 10, 13), "f4", r"\(64, 4, 10, 13\), but `feats`"),
        ((64, 10, 12), "f4", r"`views` has shape \(64, 10, 12\); expected \(N, V, T, D\)"),
        ((64, 0, 10, 12), "f4", "nothing in it"),
        ((64, 4, 10, 12), "f8", "`views` is float64; features are float16 or float32"),
    ],
)
def test_views_that_do_not_fit(random_features, tmp_path, shape, dtype, says):
    path, _ = write_views(tmp_path / "views.h5", shape, dtype)
    with pytest.raises(DataError, match=says) as error:
        FeatureSet(random_features(), views=path)
    assert str(path) in str(error.value)


def test_views_with_values_that_are_no_numbers(random_features):
    path, _ = write_views(random_features())
    with h5py.File(path, "a") as file:
        file["views"][7, 2, 3, 4] = np.nan
        file["views"][9, 1] = 0
    features = FeatureSet(path)
    features.view_rows([6, 7], [2, 1])
    with pytest.raises(DataError, match=r"`views` has NaN.* in 1 of the videos read.*row 7"):
        features.view_rows([6, 7], 2)
    with (
        pytest.warns(UserWarning, match="zero in `views`"),
        pytest.raises(DataError, match="row 7"),
    ):
        features.validate()
