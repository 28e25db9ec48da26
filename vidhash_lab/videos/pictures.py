"""Pictures: what a decoded frame is turned into, S pixels a side, before a backbone sees it.

The order of steps and the roundings are those of the image processors of transformers and
torchvision: the shorter side is scaled to `resize` pixels by Pillow, the longer one is rounded
down, and the middle S x S is cut out.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

MAX_PIXELS = 1 << 26  # of one frame, 8192 x 8192: a damaged header may claim anything
MAX_ASPECT = 8  # longer pictures are squeezed to this before their middle is cut out
INTERPOLATIONS = {kind.name.lower(): kind for kind in Image.Resampling}


class BrokenVideo(ValueError):
    """A video that cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Shape:
    """What frames are turned into: S x S pixels.

    Args:
        size: S.
        resize: pixels of the shorter side before the middle is cut out, at least S; None for S.
        squeeze: make the whole picture a square of `resize` pixels, whatever its sides are.
        interpolation: "nearest", "bilinear", "bicubic", "lanczos", "box" or "hamming".

    >>> Shape(224, resize=256).interpolation
    'bicubic'
    """

    size: int
    resize: int | None = None
    squeeze: bool = False
    grey: bool = False
    interpolation: str = "bicubic"

    def __post_init__(self):
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize={self.resize} must be {self.size} pixels or more")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation={self.interpolation!r} must be one of {known}")

    def __str__(self):
        sides = "both sides" if self.squeeze else "the shorter side"
        scaled = f"{sides} scaled to {self.resize or self.size} pixels ({self.interpolation})"
        return f"{scaled}, the middle {self.size} x {self.size}, {'grey' if self.grey else 'RGB'}"

    def __call__(self, picture: np.ndarray, aspect: Fraction | None = None) -> np.ndarray:
        """Scale a picture (h, w[, 3]) uint8, as wide as `aspect` times its height -> (S, S, C)."""
        height, width = picture.shape[:2]
        aspect = Fraction(1) if self.squeeze else aspect or Fraction(width, height)
        width, height = _sides(aspect, self.resize or self.size)
        image = Image.fromarray(np.ascontiguousarray(picture))
        scaled = np.asarray(image.resize((width, height), INTERPOLATIONS[self.interpolation]))
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return np.atleast_3d(scaled[top : top + self.size, left : left + self.size])


@lru_cache
def _sides(aspect, short):
    """Return the width and height of a picture whose shorter side has `short` pixels."""
    aspect = min(max(aspect, Fraction(1, MAX_ASPECT)), Fraction(MAX_ASPECT))
    return int(short * max(aspect, 1)), int(short * max(1 / aspect, 1))


class Fit:
    """Turn decoded frames into pictures (S, S, 1 or 3) as a player would show them.

    >>> import av
    >>> from vidhash_lab.videos.writing import write_video
    >>> write_video("film.mp4", np.zeros((3, 48, 64, 3), np.uint8))
    >>> with av.open("film.mp4") as film:
    ...     fit = Fit(film.streams.video[0], Shape(32))
    ...     fit(next(film.decode(video=0))).shape
    ...
    (32, 32, 3)
    """

    def __init__(self, stream: av.VideoStream, shape: Shape):
        self._shape, self._reformatter = shape, VideoReformatter()
        self._pixel_aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if frame.width * frame.height > MAX_PIXELS:
            raise BrokenVideo(f"frames of {frame.width} x {frame.height} pixels are too large")
        kind = "gray" if self._shape.grey else "rgb24"
        # One thread: the threads decode different files already.
        picture = self._reformatter.reformat(frame, format=kind, threads=1).to_ndarray()
        aspect = Fraction(frame.width, frame.height) * self._pixel_aspect
        turned = orientation(frame)
        return self._shape(upright(picture, turned), 1 / aspect if turned[0] else aspect)


Orientation = tuple[bool, int, int]  # are the axes swapped, the steps of y and x, +-1


def orientation(frame: av.VideoFrame) -> Orientation:
    """Read how a picture is turned and mirrored from the display matrix of its file.

    >>> from vidhash_lab.videos.writing import write_video
    >>> write_video("film.mp4", np.zeros((3, 48, 64, 3), np.uint8))
    >>> with av.open("film.mp4") as film:
    ...     orientation(next(film.decode(video=0)))
    ...
    (False, 1, 1)
    """
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return False, 1, 1
    # Stored x and y go to a x + c y and b x + d y on the screen.
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    x, y = (c, b) if turned else (a, d)
    return turned, -1 if y < 0 else 1, -1 if x < 0 else 1


def upright(picture: np.ndarray, turn: Orientation) -> np.ndarray:
    """Turn and mirror a picture (h, w, …) as the display matrix of its file says.

    >>> picture = np.array([[1, 2], [3, 4]])
    >>> upright(picture, (True, 1, 1)).tolist(), upright(picture, (False, -1, 1)).tolist()
    ([[1, 3], [2, 4]], [[3, 4], [1, 2]])
    """
    turned, y, x = turn
    return (picture.swapaxes(0, 1) if turned else picture)[::y, ::x]


def shrink(frames: np.ndarray, size: int) -> np.ndarray:
    """Scale square pictures (T, S, S, 1 or 3) down -> (T, size, size[, 3]) uint8.

    >>> shrink(np.zeros((5, 64, 64, 3), np.uint8), 16).shape
    (5, 16, 16, 3)
    """
    frames = frames[..., 0] if frames.shape[3] == 1 else frames
    if frames.shape[1] == size:
        return frames
    kind, reformatter = "rgb24" if frames.ndim == 4 else "gray", VideoReformatter()

    def scaled(frame):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), kind)
        area = Interpolation.AREA
        return reformatter.reformat(frame, size, size, interpolation=area, threads=1).to_ndarray()

    return np.stack([scaled(frame) for frame in frames])
