"""Views of the digit stories: what they hold, when they are built, that damage is healed."""

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab.data import open_dataset
from vidhash_lab.data.augmentation import augment_clips
from vidhash_lab.data.files import seal
from vidhash_lab.data.stories import views
from vidhash_lab.data.stories.digit_stories import (
    DigitStoriesConfig,
    open_or_build,
    seeded_generator,
)
from vidhash_lab.data.stories.network import digit_features
from vidhash_lab.data.stories.views import open_or_build_views

SIZES = {"train": 60, "database": 20, "query": 10, "seed": 3}
TINY = DigitStoriesConfig(**SIZES)


def read(path, key="views"):
    with h5py.File(path) as file:
        return file[key][:]


@pytest.fixture
def folder(tmp_path):
    return open_or_build(TINY, tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return open_or_build_views(TINY, open_or_build(TINY, tmp_path_factory.mktemp("digits")), 2)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_views_lie_beside_the_videos_and_leave_them_alone(folder, capfd):
    before = files(folder)
    path = open_or_build_views(TINY, folder, 3)
    assert path.parent == folder and "building 3 views" in capfd.readouterr().err
    after = files(folder)
    after.pop(path.name)
    assert after == before
    with h5py.File(path) as file:
        assert file["views"].shape == (60, 3, 25, 128) and file["views"].dtype == np.float16
        assert file["views"].chunks is None
        assert {"config", "backbone", "augmentation"} <= set(file.attrs)


def test_views_are_features_of_augmented_thumbnails(built):
    thumbnails = torch.from_numpy(read(built.with_name("train.h5"), "thumbnails"))
    generator = seeded_generator(TINY, "train view 1")
    frames = torch.cat(
        [augment_clips(part[:, :, None] / 255, generator) for part in thumbnails.split(views.CHUNK)]
    )
    expected = digit_features(frames[:, :, 0])
    assert np.allclose(read(built)[:, 1], expected, rtol=2e-3, atol=2e-3)


def test_a_view_resembles_its_own_video(built):
    features = read(built.with_name("train.h5"), "feats").astype("f4").mean(1)
    for view in read(built).astype("f4").mean(2).swapaxes(0, 1):
        norms = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(view, axis=1)
        cosine = features @ view.T / norms
        others = cosine[~np.eye(60, dtype=bool)]
        assert cosine.diagonal().mean() > 0.9 and others.mean() < 0.8
        assert 0.8 < view.mean() / features.mean() < 1.2  # on the same scale


def test_every_view_is_another_and_their_number_does_not_matter(built, folder):
    first, second = read(built).swapaxes(0, 1)
    assert (first != second).any((1, 2)).all()
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    assert np.array_equal(read(open_or_build_views(TINY, folder, 1))[:, 0], first)
    assert torch.equal(state, torch.random.get_rng_state()) and threads == torch.get_num_threads()


def test_finished_views_are_not_built_again(built, monkeypatch):
    monkeypatch.setattr(views, "build_views", None)
    assert open_or_build_views(TINY, built.parent, 2) == built


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def grow_old(path):
    with h5py.File(path, "a") as file:
        file.attrs["views_version"] = 0
    seal(path)


def lose_a_video(path):
    with h5py.File(path, "a") as file:
        rest = file["views"][1:]
        del file["views"]
        file["views"] = rest
    seal(path)


def zero_some_bytes(path):
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(100))


@pytest.mark.parametrize("damage", [cut_in_half, grow_old, lose_a_video, zero_some_bytes])
def test_damaged_views_are_built_again(built, folder, damage):
    path = folder / built.name
    path.write_bytes(built.read_bytes())
    damage(path)
    with pytest.warns(UserWarning, match="damaged or old"):
        open_or_build_views(TINY, folder, 2)
    assert np.array_equal(read(path), read(built)) and len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing(folder, monkeypatch, error):
    calls, before = [], files(folder)

    def interrupt(frames):
        calls.append(frames)
        if len(calls) == 2:
            raise error
        return digit_features(frames)

    monkeypatch.setattr(views, "digit_features", interrupt)
    with pytest.raises(error):
        open_or_build_views(TINY, folder, 2)
    assert len(calls) == 2 and files(folder) == before


@pytest.mark.parametrize("number", [0, -1])
def test_no_views_at_all_are_refused(folder, number):
    with pytest.raises(ValueError, match=f"num_views={number}"):
        open_or_build_views(TINY, folder, number)


def test_a_data_set_with_views_by_name(built):
    root = built.parent.parent
    plain = open_dataset("digit-stories", root, **SIZES)
    assert plain.train.num_views == 0
    dataset = open_dataset("digit-stories-mini", root, num_views=2, **SIZES)
    assert dataset.train.num_views == 2 and dataset.train.views.paths == [built]
    assert dataset.database.num_views == dataset.query.num_views == 0
    expected = torch.from_numpy(read(built)[[7, 3, 59], [1, 0, 1]]).float()
    assert torch.equal(dataset.train.view_rows([7, 3, 59], torch.tensor([1, 0, 1])), expected)
    dataset.validate()
