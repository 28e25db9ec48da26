"""Feature sets that travel, and blocks of them: the same videos, from files opened anew."""

import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab.data import DataError, FeatureSet, open_dataset


@pytest.fixture
def three_files(tmp_path):
    """Write three files of one set, 5, 17 and 8 videos, that hold all that a set may have."""
    draws, paths = np.random.default_rng(0), []
    for count in (5, 17, 8):
        paths.append(tmp_path / f"{count}.h5")
        with h5py.File(paths[-1], "w") as file:
            file["feats"] = draws.standard_normal((count, 4, 6)).astype("f4")
            file["views"] = draws.standard_normal((count, 2, 4, 6)).astype("f2")
            file["labels"] = draws.random((count, 3)) < 0.5
            file["fine_labels"] = draws.random((count, 7)) < 0.5
            file["thumbnails"] = draws.integers(0, 255, (count, 4, 5, 5), dtype="u1")
            file["video_ids"] = [f"{count}-{number}" for number in range(count)]
            file.attrs["backbone"] = "none"
    return paths


def assert_block(found, whole, block):
    """Compare all that a set says with the block of the whole one."""
    rows = np.arange(len(whole))[block]
    assert len(found) == len(rows) and (found.num_frames, found.feature_dim) == (4, 6)
    here = np.arange(len(rows))[::-1]
    assert torch.equal(found.rows(here), whole.rows(rows[::-1]))
    assert torch.equal(found.view_rows(here, 1), whole.view_rows(rows[::-1], 1))
    assert np.array_equal(found.pictures(here), whole.pictures(rows[::-1]))
    assert np.array_equal(found.labels, whole.labels[rows])
    assert np.array_equal(found.video_ids, whole.video_ids[rows])
    assert np.array_equal(found.features[:], whole.features[rows])
    assert found.features.where(0) == whole.features.where(rows[0])
    assert found.attributes == whole.attributes
    if whole.fine_labels is not None:
        assert np.array_equal(found.fine_labels, whole.fine_labels[rows])


BLOCKS = [slice(None), slice(0, 4), slice(3, 23), slice(-6, None), slice(22, 1000)]


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_these_videos_here_and_pickled(three_files, block, in_memory):
    whole = FeatureSet(three_files, in_memory=in_memory)
    assert_block(whole[block], whole, block)
    assert_block(pickle.loads(pickle.dumps(whole[block])), whole, block)
    rows = np.arange(30)[block]
    for part in (whole[block], pickle.loads(pickle.dumps(whole[block]))):
        assert_block(part[1:3], whole, slice(rows[1], rows[1] + 2))
        assert_block(pickle.loads(pickle.dumps(part[1:3])), whole, slice(rows[1], rows[1] + 2))


def test_options_travel_with_the_set(random_features, three_files):
    with h5py.File(random_features("classes.h5", (30, 4, 6)), "a") as file:
        del file["labels"]
        file["labels"] = np.arange(30)[:, None] % 9
        path = file.filename
    whole = FeatureSet(path, classes=9, views=three_files)
    for found in (whole, pickle.loads(pickle.dumps(whole))):
        assert np.array_equal(found[4:9].labels.argmax(1), [4, 5, 6, 7, 8])
        assert torch.equal(found[4:9].view_rows(2, 0), FeatureSet(three_files).view_rows(6, 0))
    for given, classes in ((np.eye(30), None), (np.arange(30) % 9, 9)):
        whole = FeatureSet(path, labels=given, classes=classes)
        found = pickle.loads(pickle.dumps(whole[4:9]))
        assert np.array_equal(found.labels, whole.labels[4:9])


def test_what_travels_is_small_and_holds_no_open_file(random_features):
    features = FeatureSet(random_features(shape=(500, 10, 12)), in_memory=True)
    assert len(pickle.dumps(features)) < 1000


def test_a_block_reads_and_sends_no_labels_but_its_own(random_features):
    features = FeatureSet(random_features(shape=(500, 2, 3)), labels=np.eye(500))
    assert len(pickle.dumps(features[3:5])) < 2500


def test_another_process_in_another_folder_reads_the_same(random_features, monkeypatch, tmp_path):
    features = FeatureSet(random_features())
    monkeypatch.chdir(tmp_path)
    relative = FeatureSet("features.h5")[10:30]
    (tmp_path / "set.pickle").write_bytes(pickle.dumps(relative))
    (tmp_path / "elsewhere").mkdir()
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).rows([3]).tolist())"
    command = [sys.executable, "-c", code, str(tmp_path / "set.pickle")]
    done = subprocess.run(command, cwd="elsewhere", capture_output=True, text=True, check=True)
    assert eval(done.stdout) == features.rows([13]).tolist()


def test_a_data_set_that_queries_itself_still_does(random_features):
    dataset = pickle.loads(pickle.dumps(open_dataset(random_features())))
    assert dataset.self_query and dataset.query is dataset.train


def test_files_that_are_others_where_they_arrive(random_features):
    path = random_features()
    sent, block = (pickle.dumps(features) for features in (FeatureSet(path), FeatureSet(path)[:8]))
    random_features(shape=(60, 10, 12))
    for what in (sent, block):
        with pytest.raises(DataError, match=r"\(60, 10, 12\) here, but were \(64, 10, 12\)"):
            pickle.loads(what)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"features\.h5: no such feature file"):
        pickle.loads(sent)


def test_a_block_is_a_slice_with_videos_in_it(random_features):
    features = FeatureSet(random_features())
    for wrong in (3, [1, 2], slice(0, 9, 2)):
        with pytest.raises(TypeError, match=r"a block of videos is \[a:b\]"):
            features[wrong]
    with pytest.raises(TypeError):
        list(features)  # Python would count through the rows
    with pytest.raises(ValueError, match=r"\[64:70\] of FeatureSet\(64 videos.*no video"):
        features[64:70]
    with pytest.raises(IndexError, match="rows are 0 to 3"):
        features[10:14].rows([4])


def test_odd_values_of_a_block_are_named_by_their_place_in_the_file(random_features):
    path = random_features()
    with h5py.File(path, "a") as file:
        file["feats"][21] = np.nan
    block = FeatureSet(path)[20:30]
    with pytest.raises(DataError, match=r"features\.h5, row 21"):
        block.rows([0, 1])
    with pytest.raises(DataError, match=r"in 1 of the videos read, first: .*row 21"):
        block.validate()
    assert torch.isfinite(FeatureSet(path)[22:30].rows(range(8))).all()
    assert FeatureSet(path)[22:30].fingerprint() != FeatureSet(path)[23:30].fingerprint()
