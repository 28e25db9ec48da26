"""The report says what a folder holds and what is wrong with it, and never breaks down."""

import re
import runpy
import sys

import h5py
import numpy as np
import pytest
import scipy.io

from vidhash_lab.data.released.sets import PUBLISHED_SETS
from vidhash_lab.data.report import report


@pytest.fixture
def told():
    """Return a function: path -> (whether all is well, what was said)."""

    def tell(path):
        lines = []
        return report(path, lines.append), "\n".join(lines)

    return tell


@pytest.mark.parametrize("name", sorted(PUBLISHED_SETS))
def test_a_published_layout(write_published, told, name):
    published, folder = PUBLISHED_SETS[name], write_published(name)
    well, said = told(folder)
    assert well and f"{published.title} in {folder}" in said
    for part in published.parts:
        assert all(f"{f}: 6 videos, T x D 3 x 8, float32, contiguous" in said for f in part.feats)
        for file in part.labels:
            assert f"{file}: `{part.key}`, labels of 6 videos, 4 columns" in said
        assert f"videos, published are {part.videos}" in said
    assert ("query is database" in said) == (name == "fcvid")
    assert ("database is training set" in said) == (name in ("ucf101", "hmdb51"))
    assert said.endswith("can be worked with, but is not the published set.")


def test_the_published_set_itself(tmp_path, told, monkeypatch):
    whole = PUBLISHED_SETS["hmdb51"]
    for part in whole.parts:
        with h5py.File(tmp_path / part.feats[0], "w") as file:
            file["padding"] = np.zeros(1 << 20, "u1")  # a file without any rows is refused
            shape = part.videos, 25, 4096
            file.create_dataset("feats", shape, "f4", chunks=(1, 25, 4096), fillvalue=1)
        labels = np.eye(51, dtype="u1")[np.arange(part.videos) % 50]
        scipy.io.savemat(tmp_path / part.labels[0], {"labels": labels})
    monkeypatch.setattr("vidhash_lab.data.report.odd_videos", lambda *_, **__: ([], []))
    well, said = told(tmp_path)
    assert well and said.endswith("as published.") and "!" not in said
    assert "1 categories empty (50), 0 videos without one" in said


@pytest.mark.parametrize("name", sorted(PUBLISHED_SETS))
def test_each_missing_file_is_named(write_published, told, name):
    published, folder = PUBLISHED_SETS[name], write_published(name)
    for missing in published.files:
        content = (folder / missing).read_bytes()
        (folder / missing).unlink()
        well, said = told(folder)
        assert not well and re.search(f"WRONG .*{missing}: no such", said)
        assert published.offered in said and "cannot be worked with" in said
        (folder / missing).write_bytes(content)


def test_every_odd_video_and_every_bad_file_is_told_at_once(write_published, told):
    folder = write_published("yfcc")
    for file, value in [("yfcc_test_feats_2.h5", np.nan), ("yfcc_train_feats_3.h5", 0)]:
        with h5py.File(folder / file, "a") as opened:
            opened["feats"][1] = opened["feats"][4] = value
    (folder / "yfcc_train_feats_7.h5").write_bytes(b"no HDF5")
    scipy.io.savemat(folder / "yfcc_test_labels_1.mat", {"labels": np.full((6, 4), 7)})
    well, said = told(folder)
    assert not well and "things that are wrong: 3" in said
    assert re.search(r"WRONG .*test_feats_2\.h5: .*: 2 videos have NaN.* First rows: 1, 4", said)
    assert re.search(r"! .*train_feats_3\.h5: .*: 2 videos are all zero.* First rows: 1, 4", said)
    assert re.search(r"WRONG .*train_feats_7\.h5: not an HDF5 file", said)
    assert re.search(r"WRONG .*labels_1\.mat, row 0, column 0: `labels` is 7", said)


def test_files_that_contradict_each_other(write_published, told):
    folder = write_published("activitynet")
    scipy.io.savemat(folder / "q_label.mat", {"q_label": np.eye(6)})
    with h5py.File(folder / "test_feats.h5", "a") as opened:
        opened["feats"][1] = np.nan  # hides no contradiction
    well, said = told(folder)
    assert not well and "things that are wrong: 2" in said
    assert re.search(r"WRONG .*q_label\.mat: .* 6 columns, .* re_label\.mat has 4", said)


def test_ones_own_folder_file_and_a_folder_of_folders(random_features, tmp_path, told):
    (tmp_path / "mine").mkdir()
    for part, count in (("train", 9), ("database", 7), ("query", 3)):
        random_features(f"mine/{part}.h5", (count, 10, 12), chunks=(3, 10, 12), compression="gzip")
    well, said = told(tmp_path / "mine")
    assert well and "query.h5: 3 videos, T x D 10 x 12, float32, chunks (3, 10, 12), gzip" in said
    assert said.endswith("mine: can be worked with.") and "sets of their own" in said
    assert told(tmp_path) == (well, said)
    well, said = told(random_features("one.h5"))
    assert well and "self-query" in said and "labels of 64 videos, 5 columns" in said
    (tmp_path / "mine" / "query.h5").unlink()
    well, said = told(tmp_path / "mine")
    assert not well and "query.h5" in said


def test_nothing_that_is_known(tmp_path, told):
    (tmp_path / "notes.txt").write_text("text")
    well, said = told(tmp_path)
    assert not well and "found ['notes.txt']" in said and "fcv_test_feats.h5" in said
    assert told(tmp_path / "nowhere") == (False, f"{tmp_path / 'nowhere'}: no such file or folder.")
    well, said = told(tmp_path / "notes.txt")
    assert not well and "not an HDF5 file" in said


def test_from_the_command_line(write_published, tmp_path, monkeypatch, capsys):
    def run(path):
        monkeypatch.setattr(sys, "argv", ["vidhash_lab.data", str(path)])
        with pytest.raises(SystemExit) as left:
            runpy.run_module("vidhash_lab.data", run_name="__main__")
        return left.value.code, capsys.readouterr().out

    code, said = run(write_published("hmdb51"))
    assert code == 0 and "HMDB51 in" in said
    code, said = run(tmp_path / "nowhere")
    assert code == 1 and "no such file or folder" in said
