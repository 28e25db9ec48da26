"""Video files written from frames: stories as real films, and near-duplicates of a film.

A near-duplicate is the same video after someone has re-encoded, resized, cropped or framed it, or
played it faster. T frames a video, h x w pixels.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange

from vidhash_lab.data.decoding import decode_frames
from vidhash_lab.data.rows import written_whole


def write_video(path, frames, rate=25, *, times=None, codec="libx264", pixels="yuv420p", **options):
    """Write frames (T, h, w[, 1 or 3]) uint8 to a video file whose ending names its container.

    Args:
        rate: frames a second.
        times: seconds (T,) at which frames are shown, rising, in whole milliseconds; else `rate`.
        pixels: pixel format, for example "yuv444p". yuv420p needs even h and w: frames of an odd
            size are given one more row or column, a copy of the last.
        options: of the codec, for example crf="18", preset="ultrafast".
    """
    frames = np.asarray(frames, np.uint8)
    frames = frames[..., None] if frames.ndim == 3 else frames
    if frames.ndim != 4 or not len(frames) or frames.shape[3] not in (1, 3):
        raise ValueError(f"frames are {frames.shape}; expected (T, h, w) or (T, h, w, 3)")
    if "420" in pixels:
        odd = [(0, side % 2) for side in frames.shape[1:3]]
        frames = np.pad(frames, [(0, 0), *odd, (0, 0)], mode="edge")
    path, ticks = Path(path), Fraction(1, 1000)
    with written_whole(path) as new:
        # ffmpeg's own name for the container, since the temporary name has no ending
        with av.open(str(new), "w", format=_container(path)) as container:
            stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt, stream.options = pixels, options
            if pixels.startswith("gray"):  # ffmpeg makes grey of all 256 levels: say so
                stream.codec_context.color_range = ColorRange.JPEG
            if times is not None:
                stream.codec_context.time_base = ticks
            for number, picture in enumerate(frames):
                picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
                if times is not None:
                    frame.pts, frame.time_base = round(1000 * times[number]), ticks
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def _container(path):
    ending = path.suffix.lower().removeprefix(".")
    names = {"mkv": "matroska", "m4v": "mp4", "ts": "mpegts", "mpg": "mpeg"}
    return names.get(ending, ending)


# ---- near-duplicates ---------------------------------------------------------------------------


def _part(frames, share):
    """Cut the middle out of frames (T, h, w, 3), `share` of each side."""
    height, width = frames.shape[1:3]
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    return frames[:, top : height - top, left : width - left]


def _smaller(frames):
    """Halve the size of frames (T, h, w, 3), four pixels becoming one."""
    T, h, w, C = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2].shape
    cells = frames[:, :h, :w].reshape(T, h // 2, 2, w // 2, 2, C)
    return cells.mean((2, 4)).round().astype(np.uint8)


def _barred(frames):
    """Cover the lowest sixth of frames with a black bar."""
    frames = frames.copy()
    frames[:, -(frames.shape[1] // 6) :] = 0
    return frames


# What happens to frames (T, h, w, 3) and to their rate, and how well they are encoded (x264's crf:
# 18 is hardly visible, 40 is poor).
VARIANTS = {
    "re-encoded, poorly": (lambda frames: frames, 1.0, 40),
    "half the size": (_smaller, 1.0, 18),
    "cropped to 90 %": (lambda frames: _part(frames, 0.9), 1.0, 18),
    "cropped to 75 %": (lambda frames: _part(frames, 0.75), 1.0, 18),
    "a black bar below": (_barred, 1.0, 18),
    "25 % faster": (lambda frames: frames, 1.25, 18),
    "25 % slower": (lambda frames: frames, 0.8, 18),
    "without the first fifth": (lambda frames: frames[len(frames) // 5 :], 1.0, 18),
}


def write_variants(video, folder) -> dict[str, Path]:
    """Write the near-duplicates of a short video into `folder` as mp4 -> {how: path}."""
    frames, rate = decode_frames(video)
    paths = {}
    for number, (how, (change, speed, crf)) in enumerate(VARIANTS.items()):
        paths[how] = Path(folder) / f"{Path(video).stem}-{number}.mp4"
        write_video(paths[how], change(frames), rate * speed, crf=str(crf))
    return paths
