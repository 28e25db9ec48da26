"""The five published layouts open as their authors meant them; files that do not fit are named."""

import re

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from vidhash_lab.data import DataError, open_dataset
from vidhash_lab.data.released.mat_files import read_mat_labels
from vidhash_lab.data.released.sets import PUBLISHED_SETS

SETS = sorted(PUBLISHED_SETS)
pytestmark = pytest.mark.filterwarnings("ignore:.*not the published")


def feats(folder, *files):
    rows = []
    for file in files:
        with h5py.File(folder / file) as opened:
            rows.append(torch.from_numpy(opened["feats"][:]))
    return torch.cat(rows)


def write_labels(path, key, rows, columns):
    scipy.io.savemat(path, {key: np.eye(columns, dtype="u1")[np.arange(rows) % columns]})


@pytest.mark.parametrize("name", SETS)
def test_rows_and_labels_are_those_of_the_files(write_published, name):
    folder, published = write_published(name), PUBLISHED_SETS[name]
    dataset = open_dataset(name, root=folder)
    assert dataset.name == name
    for role in ("train", "database", "query"):
        part, opened = getattr(published, role), getattr(dataset, role)
        assert torch.equal(opened.rows(range(len(opened))), feats(folder, *part.feats))
        if part.labels:
            labels = [read_mat_labels(folder / file, part.key) for file in part.labels]
            assert np.array_equal(opened.labels, np.concatenate(labels))
    assert (dataset.database.labels is not None) and (dataset.query.labels is not None)


def test_which_set_is_which(write_published):
    opened = {name: open_dataset(name, root=write_published(name)) for name in SETS}
    assert [name for name in SETS if opened[name].self_query] == ["fcvid"]
    same = [name for name in SETS if opened[name].train is opened[name].database]
    assert same == ["hmdb51", "ucf101"]
    yfcc = opened["yfcc"]
    assert [len(s.paths) for s in (yfcc.train, yfcc.database, yfcc.query)] == [9, 2, 1]
    assert yfcc.train.paths[8].name == "yfcc_train_feats_9.h5" and len(yfcc.train) == 54


def test_options_reach_the_features(write_published, tmp_path):
    with h5py.File(tmp_path / "views.h5", "w") as file:
        file["views"] = np.ones((6, 2, 3, 8), "f4")
    folder = write_published("ucf101")
    dataset = open_dataset("ucf101", folder, views=tmp_path / "views.h5", in_memory=True)
    assert dataset.train.num_views == 2 and dataset.query.num_views == 0
    assert dataset.train is dataset.database


def test_labels_of_fcvids_training_videos_may_be_missing(write_published):
    folder = write_published("fcvid")
    assert open_dataset("fcvid", folder).train.labels.shape == (6, 4)
    (folder / "fcv_train_labels.mat").unlink()
    assert open_dataset("fcvid", folder).train.labels is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["activitynet", "hmdb51"])
def test_the_published_counts_open_without_a_word(tmp_path, name):
    published = PUBLISHED_SETS[name]
    for part in published.parts:
        shape = part.videos, published.num_frames, published.feature_dim
        with h5py.File(tmp_path / part.feats[0], "w") as file:
            file["padding"] = np.zeros(1 << 20, "u1")  # a file without any rows is refused
            # Chunks that nobody wrote take no place on disk.
            file.create_dataset("feats", shape, "f4", chunks=(1, *shape[1:]))
        for file in part.labels:
            write_labels(tmp_path / file, part.key, part.videos, published.categories)
    dataset = open_dataset(name, tmp_path)
    assert len(dataset.database) == published.database.videos
    assert dataset.query.labels.shape == (published.query.videos, published.categories)


@pytest.mark.parametrize("name", SETS)
def test_a_subset_opens_with_a_warning_that_names_both_counts(write_published, name):
    published, folder = PUBLISHED_SETS[name], write_published(name)
    with pytest.warns(UserWarning) as caught:
        open_dataset(name, folder)
    (said,) = [str(w.message) for w in caught]
    files = len(published.database.feats)
    assert f"{6 * files} videos, published are {published.database.videos}" in said
    assert f"3 frames a video (T), published are {published.num_frames}" in said
    assert f"8 features a frame (D), published are {published.feature_dim}" in said
    assert f"4 categories (C), published are {published.categories}" in said
    assert caught[0].filename.endswith("test_sets.py")


@pytest.mark.parametrize("name", SETS)
def test_a_missing_file_is_named_with_what_was_found_and_who_offers_it(write_published, name):
    published, folder = PUBLISHED_SETS[name], write_published(name)
    for missing in published.files:
        content = (folder / missing).read_bytes()
        (folder / missing).unlink()
        with pytest.raises(FileNotFoundError) as error:
            open_dataset(name, folder)
        said = str(error.value)
        assert f"{folder}: {missing} missing; found [" in said
        assert published.offered in said and all(file in said for file in published.files)
        (folder / missing).write_bytes(content)


def test_no_root_and_no_folder(tmp_path):
    for name in SETS:
        with pytest.raises(FileNotFoundError, match=r"needs root=.*_feats.*https://"):
            open_dataset(name)
        with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; expected.*https"):
            open_dataset(name, tmp_path / "nowhere")


def test_labels_that_do_not_fit_the_features(write_published):
    for name in SETS:
        folder = write_published(name)
        for part in PUBLISHED_SETS[name].parts:
            for file in part.labels:
                content = (folder / file).read_bytes()
                for key, rows, says in [
                    (part.key, 5, r"is \(5, 4\); expected one row for each of the 6"),
                    ("other", 6, rf"no matrix `{part.key}`; found \['other'\]"),
                ]:
                    write_labels(folder / file, key, rows, 4)
                    with pytest.raises(DataError, match=f"{re.escape(str(folder / file))}.*{says}"):
                        open_dataset(name, folder)
                (folder / file).write_bytes(content)


@pytest.mark.parametrize(
    "name, file, says",
    [
        ("yfcc", "yfcc_test_labels_1.mat", r"labels_2\.mat: `labels` has 4 columns, but .*_1"),
        ("yfcc", "yfcc_test_labels_2.mat", r"labels_2\.mat: `labels` has 5 columns, but .*_1"),
        ("yfcc", "query1000_labels.mat", r"`labels` has 5 columns, .* of yfcc_test_labels_1\.mat"),
        (
            "activitynet",
            "q_label.mat",
            r"`q_label` has 5 columns, but `re_label` of re_label\.mat has",
        ),
        ("ucf101", "ucf_train_labels.mat", r"ucf_test_labels\.mat: .* 4 columns, .* has 5"),
        ("fcvid", "fcv_train_labels.mat", r"fcv_test_labels\.mat: .* 4 columns, .* has 5"),
    ],
)
def test_labels_of_other_categories(write_published, name, file, says):
    folder = write_published(name)
    key = next(part.key for part in PUBLISHED_SETS[name].parts if file in part.labels)
    write_labels(folder / file, key, 6, 5)
    with pytest.raises(DataError, match=says):
        open_dataset(name, folder)


def test_features_of_other_widths(write_published):
    folder = write_published("yfcc")
    with h5py.File(folder / "query1000_feats.h5", "w") as file:
        file["feats"] = np.ones((6, 3, 9), "f4")
    with pytest.raises(DataError, match=r"query1000_feats\.h5: videos are \(T, D\) = \(3, 9\)"):
        open_dataset("yfcc", folder)
    with h5py.File(folder / "yfcc_train_feats_4.h5", "w") as file:
        file["feats"] = np.ones((6, 2, 8), "f4")
    with pytest.raises(DataError, match=r"yfcc_train_feats_4\.h5: `feats` has rows \(2, 8\)"):
        open_dataset("yfcc", folder)


def test_training_labels_in_the_feature_file_itself(write_published):
    folder = write_published("activitynet")
    with h5py.File(folder / "train_feats.h5", "a") as file:
        file["labels"] = np.ones((6, 5), "u1")
    with pytest.raises(DataError, match=r"re_label\.mat: .* 4 columns, .* train_feats\.h5 has 5"):
        open_dataset("activitynet", folder)
