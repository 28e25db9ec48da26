"""Pictures: what a decoded frame is turned into, S pixels a side, before a backbone sees it."""

import struct
from dataclasses import dataclass

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter

MAX_PIXELS = 1 << 26  # of one frame, 8192 x 8192: a damaged header may claim anything
MAX_ASPECT = 8  # longer pictures are squeezed to this before their middle is cut out


class BrokenVideo(ValueError):
    """A video that cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Shape:
    """What frames are turned into: S x S pixels, the middle `kept` of the shorter side."""

    size: int
    kept: float = 1.0
    grey: bool = False


class Fit:
    """Turn decoded frames into pictures (S, S, 1 or 3) as a player would show them."""

    def __init__(self, stream: av.VideoStream, shape: Shape):
        self._shape, self._reformatter = shape, VideoReformatter()
        self._pixel_aspect = float(stream.sample_aspect_ratio or 1) or 1.0

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if frame.width * frame.height > MAX_PIXELS:
            raise BrokenVideo(f"frames of {frame.width} x {frame.height} pixels are too large")
        size, kind = self._shape.size, "gray" if self._shape.grey else "rgb24"
        aspect = frame.width * self._pixel_aspect / frame.height
        aspect = min(max(aspect, 1 / MAX_ASPECT), MAX_ASPECT)
        short = max(size, round(size / self._shape.kept))
        width, height = round(short * max(aspect, 1)), round(short * max(1 / aspect, 1))
        # One thread: the threads decode different files already.
        how = {"interpolation": Interpolation.BICUBIC, "threads": 1}
        scaled = self._reformatter.reformat(frame, width, height, kind, **how)
        picture = np.atleast_3d(scaled.to_ndarray())
        top, left = (height - size) // 2, (width - size) // 2
        return upright(picture[top : top + size, left : left + size], frame)


def upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror a picture as the display matrix of its file says."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return picture
    # Stored x and y go to a x + c y and b x + d y on the screen.
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def shrink(frames: np.ndarray, size: int) -> np.ndarray:
    """Scale square pictures (T, S, S, 1 or 3) down -> (T, size, size[, 3]) uint8."""
    frames = frames[..., 0] if frames.shape[3] == 1 else frames
    if frames.shape[1] == size:
        return frames
    kind, reformatter = "rgb24" if frames.ndim == 4 else "gray", VideoReformatter()

    def scaled(frame):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), kind)
        area = Interpolation.AREA
        return reformatter.reformat(frame, size, size, interpolation=area, threads=1).to_ndarray()

    return np.stack([scaled(frame) for frame in frames])
