"""Scaling as Pillow does it, to the last bit, and faster: what is cut out alone, many rows at once.

Pillow scales the rows of a picture, rounds to bytes, and then scales its columns, or the other way
round. Each new pixel is a sum of old ones by weights in units of 2 ** -22. The weights here are
Pillow's own: it scales a picture of 32-bit numbers that is black but for a few bright pixels.

h x w is the size of a picture, C its channels, S the pixels a side that are cut out.
"""

from functools import lru_cache
from math import ceil

import numpy as np
from numba import njit
from PIL import Image

BITS = 22  # of the fraction of a weight
HALF = 1 << (BITS - 1)  # rounds to the nearest
REACH = 5  # pixels, of the larger ones: no filter of Pillow sees more on a side
ROWS = 64  # scaled at once: so many sums stay in the processor's nearest cache


def scaled_middle(
    picture: np.ndarray, width: int, height: int, size: int, kind: Image.Resampling
) -> np.ndarray:
    """Scale (h, w, C) uint8 to `width` x `height`, cut out the middle -> (S, S, C) uint8."""
    how = _as_pillow_does(*picture.shape, width, height, size, kind)
    return how(picture, width, height, size, kind)


@lru_cache(maxsize=256)
def _as_pillow_does(old_height, old_width, channels, width, height, size, kind):
    """Choose the function that scales as Pillow does: which side comes first depends on all sides.

    Noise is scaled in both orders; Pillow itself is taken where neither gives what it gives.
    """
    shape = (old_height, old_width, channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    truth = _with_pillow(noise, width, height, size, kind)
    for how in (_rows_first, _columns_first) if kind != Image.Resampling.NEAREST else ():
        if np.array_equal(how(noise, width, height, size, kind), truth):
            return how
    return _with_pillow


def _with_pillow(picture, width, height, size, kind):
    picture = np.ascontiguousarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    scaled = np.atleast_3d(np.asarray(Image.fromarray(picture).resize((width, height), kind)))
    top, left = (height - size) // 2, (width - size) // 2
    return scaled[top : top + size, left : left + size]


def _rows_first(picture, width, height, size, kind):
    across = _middle(picture.shape[1], width, size, kind)
    down = _middle(picture.shape[0], height, size, kind)
    return _scale(np.ascontiguousarray(picture), *across, *down)


def _columns_first(picture, width, height, size, kind):
    return _rows_first(picture.swapaxes(0, 1), height, width, size, kind).swapaxes(0, 1)


def _middle(old, new, size, kind):
    """Return the weights of the middle `size` of the `new` pixels of a side."""
    first, weights = pixel_weights(old, new, kind)
    middle = slice((new - size) // 2, (new - size) // 2 + size)
    return first[middle], weights[middle]


@lru_cache(maxsize=256)
def pixel_weights(old: int, new: int, kind: Image.Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Ask Pillow how `new` pixels of a row are made of `old` ones.

    Returns which old pixel each new one begins with (new,), and the weights from there on
    (new, W) int32, in units of 2 ** -22.
    """
    reach = REACH * max(old / new, 1)
    span = min(old, 2 * ceil(reach) + 2)
    first = np.floor((np.arange(new) + 0.5) * old / new - reach).astype(int).clip(0, old - span)
    # A new pixel sees one bright pixel of a row: these are `span` apart, and no window is wider.
    bright = np.zeros((span, old), np.int32)
    bright[np.arange(old) % span, np.arange(old)] = 1 << BITS
    seen = np.asarray(Image.fromarray(bright).resize((new, span), kind))
    weights = seen[(first[:, None] + np.arange(span)) % span, np.arange(new)[:, None]]
    zeros = (weights != 0).argmax(1)  # before the first weight
    most = int((span - (weights[:, ::-1] != 0).argmax(1) - zeros).max())
    skipped = np.minimum(zeros, span - most)
    weights = np.take_along_axis(weights, skipped[:, None] + np.arange(most), 1)
    return first + skipped, np.ascontiguousarray(weights)


@njit(nogil=True, cache=True)
def _scale(picture, first_across, across, first_down, down):
    channels, size = picture.shape[2], len(first_across)
    top, bottom = first_down.min(), first_down.max() + down.shape[1]
    left = first_across.min() * channels
    right = (first_across.max() + across.shape[1]) * channels
    rows = picture.reshape(len(picture), -1)
    narrow = np.empty((bottom - top, size * channels), np.uint8)
    columns, sums = np.zeros((right - left, ROWS), np.uint8), np.empty(ROWS, np.int32)
    for start in range(top, bottom, ROWS):
        count = min(ROWS, bottom - start)
        for y in range(count):
            for place in range(left, right):
                columns[place - left, y] = rows[start + y, place]
        for place in range(size * channels):
            x, channel = divmod(place, channels)
            begin = first_across[x] * channels + channel - left
            _weigh(columns, begin, channels, across[x], sums)
            for y in range(count):
                narrow[start - top + y, place] = _to_byte(sums[y])
    small, sums = np.empty((size, size * channels), np.uint8), np.empty(size * channels, np.int32)
    for y in range(size):
        _weigh(narrow, first_down[y] - top, 1, down[y], sums)
        for place in range(size * channels):
            small[y, place] = _to_byte(sums[place])
    return small.reshape(size, size, channels)


@njit(nogil=True, inline="always")
def _weigh(lines, begin, step, weights, sums):
    """Sum every `step`-th line from `begin` on, by weights, into `sums`."""
    sums[:] = HALF
    for number in range(len(weights)):
        line, weight = lines[begin + number * step], weights[number]
        for place in range(len(sums)):
            sums[place] += np.int32(line[place]) * weight


@njit(nogil=True, inline="always")
def _to_byte(value):
    return np.uint8(min(max(value >> BITS, 0), 255))
