"""Clips are augmented whole: one draw for all frames of a clip, another for the next clip."""

import pytest
import torch

from vidhash_lab.data.augmentation import BRIGHTNESS, CROP_AREA, CROP_RATIO, augment_clips


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_all_frames_of_a_clip_get_the_same_and_clips_get_different(generator):
    picture = torch.rand(1, 1, 1, 16, 16, generator=generator)
    clips = augment_clips(picture.expand(6, 5, 1, 16, 16), generator)
    assert torch.equal(clips, clips[:, :1].expand_as(clips))
    first = clips[:, 0].flatten(1)
    assert (torch.cdist(first, first) + torch.eye(6) > 0.1).all()


def test_which_frame_it_is_makes_no_difference(generator):
    clips = torch.rand(3, 5, 3, 16, 20, generator=generator)
    augmented = augment_clips(clips, seeded(1))
    assert torch.equal(augment_clips(clips.flip(1), seeded(1)), augmented.flip(1))
    assert torch.equal(augment_clips(clips[:, :2], seeded(1)), augmented[:, :2])


def test_the_seed_decides_and_nobody_elses_random_numbers_move(generator):
    clips = torch.rand(2, 3, 1, 16, 16, generator=generator)
    state = torch.random.get_rng_state()
    moving = seeded(1)
    once, twice = augment_clips(clips, moving), augment_clips(clips, moving)
    assert torch.equal(once, augment_clips(clips, seeded(1))) and not torch.equal(once, twice)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 3, 1, 32, 32), (2, 1, 3, 24, 48), (1, 2, 3, 7, 5)])
def test_shape_type_and_range_stay(shape, dtype, generator):
    clips = augment_clips(torch.rand(shape, generator=generator, dtype=dtype), generator)
    assert clips.shape == shape and clips.dtype == dtype
    assert 0 <= clips.min() and clips.max() <= 1 and clips.std() > 0.05


def test_grey_stays_grey_up_to_the_borders(generator):
    clips = augment_clips(torch.full((50, 1, 1, 16, 16), 0.5), generator).flatten(1)
    assert (clips.amax(1) - clips.amin(1)).max() < 1e-5
    assert 0.5 * BRIGHTNESS[0] <= clips.min() < 0.45 and 0.55 < clips.max() <= 0.5 * BRIGHTNESS[1]


def test_what_is_kept_of_a_wide_picture(generator):
    across = torch.linspace(0.2, 0.8, 80).expand(40, 80)
    down = torch.linspace(0.2, 0.8, 40)[:, None].expand(40, 80)
    grey = torch.full((40, 80), 0.5)
    clips = torch.stack([across, down, grey])[None, :, None].expand(60, 3, 1, 40, 80)
    across, down, grey = augment_clips(clips, generator)[:, :, 0].unbind(1)
    brightness = grey[:, 0, 0] / 0.5
    width = (across[:, 0, -1] - across[:, 0, 0]) / brightness / 0.6  # below 0: a mirror
    height = (down[:, -1, 0] - down[:, 0, 0]) / brightness / 0.6
    area, ratio = width * height, width / height
    assert CROP_AREA[0] - 0.05 < area.min() < 0.7 and 0.9 < area.max() < CROP_AREA[1] + 0.01
    assert CROP_RATIO[0] - 0.04 < ratio.min() < 1 < ratio.max() < CROP_RATIO[1] + 0.04
    assert across[:, 0, 0].std() > 0.01  # crops lie here and there


@pytest.mark.parametrize(
    "clips",
    [
        torch.zeros(3, 1, 8, 8),
        torch.zeros(2, 3, 4, 8, 8),
        torch.zeros(2, 3, 1, 8, 8, dtype=torch.uint8),
    ],
)
def test_other_clips_are_refused(clips, generator):
    with pytest.raises(ValueError, match=r"expected floats in \[0, 1\] of shape \(B, T, 1 or 3"):
        augment_clips(clips, generator)
