"""CHAIN: segment sampling, views, three tasks that can be switched off, no leak of positions."""

import warnings

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab import CHAIN, CHAINConfig, FeatureSet, VideoDataset, encode, fit, load, save
from vidhash_lab.losses import scene_contrast
from vidhash_lab.models.chain import find_scenes, segment_sample

TINY = {"bits": 16, "num_frames": 10, "feature_dim": 12, "hidden_dim": 16, "heads": 2}
TINY |= {"clip_frames": 4}


@pytest.fixture
def viewed(random_features):
    """A set whose views are the features plus their number times 100."""
    path = random_features(shape=(48, 10, 12))
    with h5py.File(path, "r+") as file:
        feats = file["feats"][:]
        file["views"] = np.stack([feats + 100 * view for view in range(3)], axis=1)
    return FeatureSet(path)


def sampled(train, generator, count=24, **changes):
    model = CHAIN(CHAINConfig(**TINY | changes))
    return model, model.sample(train, torch.arange(count), generator)


@pytest.mark.parametrize("frames, clip", [(25, 12), (25, 25), (24, 12), (10, 1), (10, 3)])
def test_a_clip_takes_one_frame_of_every_segment(generator, frames, clip):
    places = segment_sample(5000, frames, clip, generator)
    assert places.shape == (5000, clip) and (places.diff(dim=1) > 0).all()
    borders = np.arange(clip + 1) * frames // clip
    for segment in range(clip):
        drawn = np.bincount(places[:, segment], minlength=frames)
        own = np.arange(borders[segment], borders[segment + 1])
        assert drawn.sum() == drawn[own].sum() and drawn[own].min() > 0.8 * 5000 / len(own)


def test_clips_are_two_different_views_of_a_video(viewed, generator):
    _, batch = sampled(viewed, generator)
    assert batch["frames"].shape == (2, 24, 4, 12) and batch["places"].shape == (2, 24, 4)
    view = (batch["frames"] / 100).round().flatten(2).median(2).values
    assert (view[0] != view[1]).all() and set(view.unique().tolist()) == {0.0, 1.0, 2.0}
    clean = viewed.rows(range(24))
    for clip in range(2):
        expected = clean.gather(1, batch["places"][clip][..., None].expand(24, 4, 12))
        found = batch["frames"][clip] - 100 * view[clip][:, None, None]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (batch["places"][0] != batch["places"][1]).any()


def test_a_subclass_chooses_which_frames_its_clips_show(viewed, generator):
    class SameFrames(CHAIN):
        def draw_places(self, count, generator):
            return super().draw_places(count, generator)[:1].repeat(2, 1, 1)

    batch = SameFrames(CHAINConfig(**TINY)).sample(viewed, torch.arange(24), generator)
    assert torch.equal(*batch["places"])
    apart = (batch["frames"][0] - batch["frames"][1]) / 100  # the same frames in other renderings
    torch.testing.assert_close(apart, apart.round(), atol=1e-3, rtol=0)
    assert (apart.round() != 0).all()


def test_a_subclass_chooses_which_renderings_its_clips_show(viewed, generator):
    class AsTheyAre(CHAIN):
        def two_renderings(self, train, indices, generator, share):
            return [train.rows(indices[share])] * 2

    batch = AsTheyAre(CHAINConfig(**TINY)).sample(viewed, torch.arange(24), generator)
    for frames, places in zip(batch["frames"], batch["places"]):
        whole = viewed.rows(range(24))
        assert torch.equal(frames, whole.gather(1, places[..., None].expand_as(frames)))


def test_a_subclass_chooses_how_frames_are_grouped(viewed, generator):
    class Halves(CHAIN):
        def group(self, states):
            assert not states.requires_grad
            M = states.shape[1]
            return (torch.arange(M) * 2 // M).expand(states.shape[:2])

    off = {"contrastive_weight": 0, "order_weight": 0, "scene_weight": 1}
    model = Halves(CHAINConfig(**TINY | off))
    batch = model.sample(viewed, torch.arange(24), generator)
    states = model.states(batch["frames"].flatten(0, 1), batch["places"].flatten(0, 1))
    halves = torch.tensor([0, 0, 1, 1]).expand(48, 4)
    expected = scene_contrast(states, halves, model.config.scene_temperature)
    torch.testing.assert_close(model.losses(batch)["scene"], expected)
    with torch.no_grad():
        assert model.scenes(viewed.rows(0)).tolist() == [[0] * 5 + [1] * 5]


def test_without_views_one_warning_says_that_clips_differ_in_time_alone(random_features, generator):
    train = FeatureSet(random_features(shape=(48, 10, 12)))
    model = CHAIN(CHAINConfig(**TINY))
    with pytest.warns(UserWarning, match="has 0 views, and two are needed"):
        model.sample(train, torch.arange(24), generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = model.sample(train, torch.arange(24), generator)
    assert torch.equal(batch["frames"][0], train.rows(range(24)).gather(
        1, batch["places"][0][..., None].expand(24, 4, 12)))  # fmt: skip


def test_the_order_task_cannot_see_positions(generator):
    """Permuting the frames permutes the guesses and changes nothing else."""
    model = CHAIN(CHAINConfig(**TINY))
    frames = torch.randn(5, 4, 12, generator=generator)
    order = torch.rand(5, 4, generator=generator).argsort(1)
    shuffled = frames.gather(1, order[..., None].expand_as(frames))
    for mode in (True, False):
        model.train(mode)
        guesses = model.order_logits(frames)
        expected = guesses.gather(1, order[..., None].expand_as(guesses))
        torch.testing.assert_close(model.order_logits(shuffled), expected, atol=1e-5, rtol=1e-4)
    places = torch.arange(4).expand(5, 4)  # with positions, order matters
    seen, moved = model.states(frames, places), model.states(shuffled, places)
    assert (moved - seen.gather(1, order[..., None].expand_as(seen))).abs().max() > 0.01


def test_the_order_task_knows_which_frame_stands_where(viewed, generator):
    model, batch = sampled(viewed, generator)
    batch["frames"] = torch.arange(4.0).expand(2, 24, 4)[..., None].repeat(1, 1, 1, 12)
    asked = []

    def order_logits(frames):
        asked.append(frames)
        return frames[..., :1] * torch.zeros(4) + torch.nn.functional.one_hot(
            frames[..., 0].long(), 4) * 50.0  # fmt: skip

    model.order_logits = order_logits
    assert model.losses(batch)["order"] < 1e-4  # whoever reads the place off the frame is right
    assert (asked[0].diff(dim=1) != 1).any()  # but frames came shuffled


@pytest.mark.parametrize("off", ["contrastive", "order", "scene"])
def test_a_task_that_is_off_costs_nothing(viewed, generator, off, monkeypatch):
    model, batch = sampled(viewed, generator, **{f"{off}_weight": 0.0})
    calls = {"states": 0, "scenes": 0}
    plain = model.states

    def states(*arguments):
        calls["states"] += 1
        return plain(*arguments)

    def scenes(states):
        calls["scenes"] += 1
        return find_scenes(states)

    model.states = states
    monkeypatch.setattr("vidhash_lab.models.chain.find_scenes", scenes)
    assert set(model.losses(batch)) == {"contrastive", "order", "scene"} - {off}
    assert calls == {"states": 1 if off == "order" else 2, "scenes": 0 if off == "scene" else 1}


def test_scenes_are_found_where_frames_change(generator):
    states = torch.zeros(2, 9, 16)
    states[0, 3:6, 0], states[0, 6:, 1] = 10, 10
    states[1, 5:, 2] = 10
    states += 0.1 * torch.randn(states.shape, generator=generator)
    first, second = find_scenes(states).tolist()
    assert first == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert not set(second[:5]) & set(second[5:])  # a scene may be cut in two, never joined


def test_trains_saves_and_encodes(viewed, tmp_path):
    torch.manual_seed(0)
    model = CHAIN(CHAINConfig(**TINY))
    before = {name: value.clone() for name, value in model.named_parameters()}
    history = fit(model, viewed, epochs=4, batch_size=24, learning_rate=1e-2, precision="32-true")
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    save(model, tmp_path / "chain.pt")
    np.testing.assert_array_equal(
        encode(load(tmp_path / "chain.pt"), viewed), encode(model, viewed)
    )
    assert model.scenes(viewed.rows(range(3))).shape == (3, 10)


def test_a_clip_longer_than_the_video_is_refused():
    with pytest.raises(ValueError, match="clip_frames is 11"):
        CHAINConfig(**TINY | {"clip_frames": 11})


@pytest.mark.parametrize("T, M", [(10, 10), (25, 12)])
def test_a_clip_of_short_videos_has_all_their_frames(random_features, T, M):
    videos = FeatureSet(random_features(shape=(8, T, 6)))
    data = VideoDataset("short", videos, videos, videos)
    assert CHAIN.for_dataset(data, 16).config.clip_frames == M
    assert CHAIN.for_dataset(data, 16, clip_frames=3).config.clip_frames == 3
