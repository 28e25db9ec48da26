"""Shots: cuts are found where a film cuts, and not in motion or flashes; frames are shared out."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidhash_lab.videos.backbones import Backbone
from vidhash_lab.videos.decoding import Sampling, read_clip, share_out
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.pictures import Shape
from vidhash_lab.videos.shots import find_cuts, find_shots
from vidhash_lab.videos.writing import write_video

RATE = 10


def scene(length, seed, speed=1):
    """A picture of blotches that moves to the side."""
    blotches = np.random.default_rng(seed).integers(0, 256, (6, 24, 3), dtype=np.uint8)
    picture = blotches.repeat(8, 0).repeat(8, 1)  # (48, 192, 3)
    return np.stack([np.roll(picture, -speed * n, 1)[:, :64] for n in range(length)])


def film(path, *lengths):
    scenes = [scene(length, seed) for seed, length in enumerate(lengths)]
    write_video(path, np.concatenate(scenes), RATE, crf="10")
    return np.cumsum(lengths)[:-1] / RATE


@pytest.mark.parametrize("lengths", [(40,), (20, 20), (30, 5, 12, 40), (4, 4, 4, 60)])
def test_cuts_are_where_scenes_change(tmp_path, lengths):
    cuts = film(tmp_path / "a.mp4", *lengths)
    found = find_shots(tmp_path / "a.mp4")
    assert np.allclose(found.cuts, cuts, atol=0.01)
    assert len(found.times) == len(found.changes) == sum(lengths) and found.changes[0] == 0


def test_motion_and_flashes_are_no_cuts(tmp_path):
    frames = scene(60, seed=3, speed=6)
    frames[30] = 255
    write_video(tmp_path / "a.mp4", frames, RATE, crf="10")
    assert not len(find_shots(tmp_path / "a.mp4").cuts)
    assert find_cuts(np.array([0, 1, 1, 60.0, 1, 1])).tolist() == [3]
    assert not len(find_cuts(np.array([0, 1, 1, 60.0, 60.0, 1, 1])))  # in and out: a flash
    assert not len(find_cuts(np.zeros(5)))


@given(st.integers(1, 60), st.lists(st.integers(1, 500), min_size=1, max_size=12))
def test_shots_have_their_share_of_the_frames(count, lengths):
    shares = share_out(count, lengths)
    assert sum(shares) == count and len(shares) == len(lengths)
    if count >= len(lengths):
        assert min(shares) >= 1
        # No frame could move and shorten the longest stretch of all.
        longest = max(length / share for length, share in zip(lengths, shares))
        for length, share in zip(lengths, shares):
            assert share == 1 or length / (share - 1) >= longest - 1e-9
    else:  # the longest have one each
        least = min(length for length, share in zip(lengths, shares) if share)
        assert max(shares) == 1
        assert all(length <= least for length, share in zip(lengths, shares) if not share)


@given(st.integers(1, 12), st.integers(1, 4), st.sets(st.integers(1, 99), max_size=9))
def test_no_window_goes_beyond_its_shot(windows, window, cuts):
    sampling = Sampling(windows * window, window, sorted(cuts))
    times = np.array(sampling.times(0, 100))
    assert len(times) == windows * window and (np.diff(times) >= 0).all()
    shots = np.searchsorted(sorted(cuts), times, "right").reshape(windows, window)
    assert (shots == shots[:, :1]).all()


def test_frames_are_taken_of_every_shot(tmp_path):
    cuts = film(tmp_path / "films/a.mp4", 30, 5, 45)
    clip = read_clip(tmp_path / "films/a.mp4", Sampling(8, 1, cuts), Shape(32))
    # 30, 5 and 45 frames share 8: 3, 1 and 4; each from the middle of its stretch.
    middles = [5, 15, 25, 32.5, *(35 + 45 / 4 * (np.arange(4) + 0.5))]
    assert np.allclose(clip.times, np.floor(np.array(middles) + 1e-9) / RATE, atol=1e-3)
    uniform = read_clip(tmp_path / "films/a.mp4", 8, Shape(32))
    assert not (np.searchsorted(cuts, uniform.times, "right") == 1).any()  # the short one is missed


MEANS = Backbone(lambda frames: frames.mean((2, 3)), "means", 32)
CLIPS = Backbone(
    lambda clips: clips.mean((3, 4)).unflatten(1, (2, -1)).mean(2), "clips", 32, window=6, rows=2
)


@pytest.mark.parametrize("backbone, each", [(MEANS, 1), (CLIPS, 3)])
def test_extraction_by_shots(tmp_path, backbone, each):
    cuts = film(tmp_path / "films/a.mp4", 30, 10, 40)
    film(tmp_path / "films/b.mp4", 50)
    extract(tmp_path / "films", tmp_path / "out.h5", 8, backbone, sample="shots", thumbnails=32)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["feats"].shape == (2, 8, 3) and file["thumbnails"].shape == (2, 8, 32, 32, 3)
        times, shots = file["frame_times"][:], file["shots"][:]
        assert "none beyond its shot" in file.attrs["frames"]
        thumbnails, feats = file["thumbnails"][:], file["feats"][:]
    expected = [0, 0, 0, 1, 2, 2, 2, 2] if each == 1 else [0, 0, 0, 0, 1, 1, 2, 2]
    expected = expected if each == 1 else np.searchsorted(cuts, times[0], "right")
    assert np.array_equal(shots[0], expected) and set(shots[0]) == {0, 1, 2}
    assert not shots[1].any()
    window = backbone.window
    clip = read_clip(tmp_path / "films/a.mp4", Sampling(8 * each, window, cuts), backbone.shape)
    assert np.allclose(times[0], clip.times.reshape(8, each).mean(1), atol=1e-6)
    assert np.array_equal(thumbnails[0], clip.frames[each // 2 :: each])
    rows = clip.frames.reshape(8, each, -1, 3).mean((1, 2)) / 255
    assert np.allclose(feats[0], rows, atol=2e-3)


def test_rows_that_do_not_divide_and_samples_that_are_none(tmp_path):
    film(tmp_path / "films/a.mp4", 20)
    with pytest.raises(ValueError, match="must be a multiple of the 2 rows"):
        extract(tmp_path / "films", tmp_path / "out.h5", 7, CLIPS)
    with pytest.raises(ValueError, match="sample='scenes' must be one of uniform, shots"):
        extract(tmp_path / "films", tmp_path / "out.h5", 8, CLIPS, sample="scenes")
