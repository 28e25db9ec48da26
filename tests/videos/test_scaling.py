"""Scaling equals Pillow's, byte for byte."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vidhash_lab.videos.pictures import INTERPOLATIONS, Shape
from vidhash_lab.videos.scaling import (
    _as_pillow_does,
    _with_pillow,
    pixel_weights,
    scaled_middle,
)

KINDS = st.sampled_from(list(INTERPOLATIONS.values()))
SIDES, NEW_SIDES = st.integers(1, 150), st.integers(8, 150)


def with_pillow(picture, width, height, size, kind):
    """Scale the whole picture, then cut out its middle."""
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    scaled = np.atleast_3d(np.asarray(image.resize((width, height), kind)))
    top, left = (height - size) // 2, (width - size) // 2
    return scaled[top : top + size, left : left + size]


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, NEW_SIDES, NEW_SIDES, NEW_SIDES, st.sampled_from([1, 3]), KINDS)
def test_any_size_and_filter(height, width, new_height, new_width, size, channels, kind):
    draws = np.random.default_rng(height * width)
    picture = draws.choice(np.array([0, 3, 200, 255], np.uint8), (height, width, channels))
    size = min(size, new_height, new_width)
    ours = scaled_middle(picture, new_width, new_height, size, kind)
    assert np.array_equal(ours, with_pillow(picture, new_width, new_height, size, kind))


@pytest.mark.parametrize("height, width", [(720, 1280), (1280, 720), (2, 4096), (4096, 1)])
@pytest.mark.parametrize("kind", INTERPOLATIONS.values())
def test_large_pictures(height, width, kind):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for sides in ((455, 256), (256, 455)):
        ours = scaled_middle(picture, *sides, 224, kind)
        assert np.array_equal(ours, with_pillow(picture, *sides, 224, kind))


@pytest.mark.parametrize("kind", set(INTERPOLATIONS.values()) - {Image.Resampling.NEAREST})
@pytest.mark.parametrize("old, new", [(8192, 455), (455, 8192), (1, 7), (7, 1), (31, 31)])
def test_no_weight_is_left_out(old, new, kind):
    first, weights = pixel_weights(old, new, kind)
    assert (first >= 0).all() and (first + weights.shape[1] <= old).all()
    # Each weight is rounded by itself, so that sums may be off by half a unit for each.
    assert np.abs(weights.sum(1) - (1 << 22)).max() <= weights.shape[1] / 2


def test_pictures_may_be_views_and_must_not_change():
    picture = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    turned = picture.swapaxes(0, 1)[::-1, ::-1]
    turned.flags.writeable = False
    for interpolation in INTERPOLATIONS:
        shape = Shape(16, 20, interpolation=interpolation)
        assert np.array_equal(shape(turned), shape(np.array(turned)))


@pytest.mark.parametrize("height, width", [(360, 640), (640, 360), (47, 65), (32, 32)])
def test_pillow_itself_is_needed_for_nearest_alone(height, width):
    for kind in INTERPOLATIONS.values():
        short = Fraction(256, min(height, width))
        sides = int(width * short), int(height * short)
        how = _as_pillow_does(height, width, 3, *sides, 224, kind)
        assert (how is _with_pillow) == (kind == Image.Resampling.NEAREST)
