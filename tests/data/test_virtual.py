"""Virtual data sets: those that lie in their own file open, whatever could be missing does not."""

import h5py
import numpy as np
import pytest

from vidhash_lab.data import DataError, FeatureSet

N, T, D = 6, 4, 3
STORED = np.random.default_rng(0).random((N, T, D), np.float32)


def layout_of(file, blocks, rows=None, source="stored", dtype="f4"):
    """Show `blocks`, {row: rows of the source}, as `feats` of so many rows."""
    shape = len(file[source])
    rows = rows or max(at + stop - start for at, (start, stop) in blocks.items())
    layout = h5py.VirtualLayout((rows, T, D), dtype)
    part = h5py.VirtualSource(".", source, (shape, T, D), file[source].dtype)
    for at, (start, stop) in blocks.items():
        layout[at : at + stop - start] = part[start:stop]
    return layout


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "features.h5", "w", libver="latest") as file:
        file["stored"] = STORED
    return tmp_path / "features.h5"


def make(path, key="feats", **options):
    with h5py.File(path, "a", libver="latest") as file:
        file.create_virtual_dataset(key, layout_of(file, **options))


def test_a_virtual_set_reads_the_rows_that_it_shows(path):
    make(path, blocks={0: (0, 6), 6: (2, 5), 9: (0, 6)})
    feature_set = FeatureSet(path)
    expected = np.concatenate([STORED, STORED[2:5], STORED])
    rows = np.random.default_rng(1).permutation(len(expected))
    assert np.array_equal(feature_set.rows(rows).numpy(), expected[rows])
    assert np.array_equal(feature_set[4:8].rows(range(4)).numpy(), expected[4:8])


def test_virtual_sets_of_virtual_sets_repeat_a_block_a_thousand_times(path):
    make(path, key="inner", blocks={6 * copy: (0, 6) for copy in range(30)})
    make(path, source="inner", blocks={180 * copy: (0, 180) for copy in range(40)})
    feature_set = FeatureSet(path)
    assert len(feature_set) == 6 * 30 * 40
    rows = np.random.default_rng(1).integers(0, len(feature_set), 50)
    assert np.array_equal(feature_set.rows(rows).numpy(), STORED[rows % N])


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": {0: (0, 6)}, "rows": 7},
        {"blocks": {1: (0, 6)}},
        {"blocks": {0: (0, 3), 4: (3, 6)}},
        {"blocks": {0: (0, 3), 2: (3, 6)}, "rows": 6},
        {"blocks": {0: (0, 6)}, "dtype": "f2"},
    ],
    ids=["no last row", "no first row", "a gap", "an overlap", "another type"],
)
def test_rows_that_no_part_shows_are_refused(path, options):
    make(path, **options)
    with pytest.raises(DataError, match=r"features\.h5: `feats` is a link, a virtual data set"):
        FeatureSet(path)


@pytest.mark.parametrize("instead", ["nothing", "shorter", "soft link", "itself", "external"])
def test_a_source_that_became_another_is_refused(path, instead):
    make(path, blocks={0: (0, 6), 6: (0, 6)})
    with h5py.File(path, "a") as file:
        file.move("stored", "away")
        if instead == "shorter":
            file["stored"] = STORED[:5]
        elif instead == "soft link":
            file["stored"] = h5py.SoftLink("/away")
        elif instead == "itself":
            file["stored"] = file["feats"]
        elif instead == "external":
            file.create_dataset("stored", STORED.shape, "f4", external="/etc/passwd")
    with pytest.raises(DataError, match=r"features\.h5: `feats` is a link, a virtual data set"):
        FeatureSet(path)


def test_a_ring_of_virtual_sets_has_an_end(path):
    make(path, blocks={0: (0, 6)})
    make(path, key="second", source="feats", blocks={0: (0, 6)})
    with h5py.File(path, "a") as file:
        del file["stored"]
        file["stored"] = file["second"]
    with pytest.raises(DataError, match=r"features\.h5: `feats` is a link, a virtual data set"):
        FeatureSet(path)


def test_whole_sources_are_known_after_the_file_was_closed(path):
    """HDF5 then no longer knows how large a source was, only that all of it was meant."""
    layout = h5py.VirtualLayout((2 * N, T, D), "f4")
    layout[:N] = layout[N:] = h5py.VirtualSource(".", "stored", (N, T, D), "f4")
    with h5py.File(path, "a", libver="latest") as file:
        file.create_virtual_dataset("feats", layout)
    assert np.array_equal(FeatureSet(path).rows(range(N, 2 * N)).numpy(), STORED)


def test_parts_of_rows_are_refused(path):
    layout = h5py.VirtualLayout((N, T, D), "f4")
    source = h5py.VirtualSource(".", "stored", (N, T, D), "f4")
    layout[:, :2], layout[:, 2:] = source[:, :2], source[:, 2:]
    with h5py.File(path, "a", libver="latest") as file:
        file.create_virtual_dataset("feats", layout)
    with pytest.raises(DataError, match=r"features\.h5: `feats` is a link, a virtual data set"):
        FeatureSet(path)
