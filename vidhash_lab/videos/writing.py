"""Video files written from frames (T, h, w, 3): stories as real films, near-duplicates of a film.

A near-duplicate is the same video re-encoded, resized, cropped, framed, or played faster.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from vidhash_lab.data.files import written_whole
from vidhash_lab.videos.decoding import decode_frames, frame_times

# In several threads, and with its macroblock tree on some processors, x264 writes the same frames
# as another file every time.
REPEATABLE = {"libx264": {"threads": "1", "mbtree": "0"}}
CONTAINERS = {"mkv": "matroska", "m4v": "mp4", "ts": "mpegts", "mpg": "mpeg"}  # by ending


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    rate: float = 25,
    *,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    **options: str,
) -> None:
    """Write frames, an array (T, h, w[, 1 or 3]) uint8 or any iterable of pictures, to a file.

    The path's ending names the container: .mp4, .mkv, .webm, .avi and others. `rate` is frames a
    second, or `times` the seconds (T,) at which frames are shown, rising, in whole milliseconds.
    yuv420p `pixels` need even h and w: odd frames get one more row or column, a copy of the last.
    `options` are the codec's, for example crf="18". ValueError for other shapes and for no frames.

    >>> write_video("film.mp4", np.zeros((10, 48, 64, 3), np.uint8), rate=25)
    """
    path, ticks, stream, reformatter = Path(path), Fraction(1, 1000), None, VideoReformatter()
    ending = path.suffix.lower().removeprefix(".")
    # The temporary name has no ending, so the container is named to ffmpeg.
    form = CONTAINERS.get(ending, ending)
    with written_whole(path) as new, av.open(str(new), "w", format=form) as container:
        for number, picture in enumerate(frames):
            frame = _frame(picture, even="420" in pixels)
            frame = reformatter.reformat(frame, format=pixels, threads=1)
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
                stream.height, stream.width = frame.height, frame.width
                stream.pix_fmt = pixels
                stream.options = REPEATABLE.get(codec, {}) | options
                if pixels.startswith("gray"):  # ffmpeg makes grey of all 256 levels: say so
                    stream.codec_context.color_range = ColorRange.JPEG
                if times is not None:
                    stream.codec_context.time_base = ticks
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), ticks
            container.mux(stream.encode(frame))
        if stream is None:
            raise ValueError(f"{path}: there are no frames to write")
        container.mux(stream.encode(None))


def _frame(picture, even):
    """Turn a picture into a frame of ffmpeg's, with even sides if need be."""
    picture = np.asarray(picture, np.uint8)
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"a frame is {picture.shape}; expected (h, w) or (h, w, 3)")
    if even:
        picture = np.pad(picture, [*((0, side % 2) for side in picture.shape[:2]), (0, 0)], "edge")
    picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")


def _middle(picture, share):
    """Cut the middle, `share` of each side, out of a picture (h, w, 3)."""
    height, width = picture.shape[:2]
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    return picture[top : height - top, left : width - left]


def _smaller(picture):
    """Average 2 x 2 pixels of a picture (h, w, 3) -> (h // 2, w // 2, 3)."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    cells = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return cells.mean((1, 3)).round().astype(np.uint8)


def _barred(picture):
    picture = picture.copy()
    picture[-(len(picture) // 6) :] = 0
    return picture


@dataclass(frozen=True)
class Variant:
    """What happens to a film; `crf` is x264's quality, 18 is hardly visible, 40 is poor.

    >>> Variant(speed=1.5).crf
    18
    """

    change: Callable[[np.ndarray], np.ndarray] = np.asarray  # of each picture (h, w, 3)
    speed: float = 1.0
    cut: float = 0.0  # the share of frames that is missing at the beginning
    crf: int = 18


VARIANTS = {
    "re-encoded, poorly": Variant(crf=40),
    "half the size": Variant(_smaller),
    "cropped to 90 %": Variant(partial(_middle, share=0.9)),
    "cropped to 75 %": Variant(partial(_middle, share=0.75)),
    "a black bar below": Variant(_barred),
    "25 % faster": Variant(speed=1.25),
    "25 % slower": Variant(speed=0.8),
    "without the first fifth": Variant(cut=0.2),
}


def write_variants(video: str | Path, folder: str | Path) -> dict[str, Path]:
    """Write near-duplicates of a video as mp4 -> {how: path}; `BrokenVideo` if it cannot be.

    >>> frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    >>> write_video("film.mp4", frames)
    >>> sorted(write_variants("film.mp4", "copies"))[:3]
    ['25 % faster', '25 % slower', 'a black bar below']
    """
    times, paths = np.array(frame_times(video)), {}
    for number, (how, variant) in enumerate(VARIANTS.items()):
        first = int(variant.cut * len(times))
        shown = (times[first:] - times[first]) / variant.speed
        pictures = (variant.change(each) for each in islice(decode_frames(video), first, None))
        rate = max(1, (len(shown) - 1) / shown[-1])
        paths[how] = Path(folder) / f"{Path(video).stem}-{number}.mp4"
        write_video(paths[how], pictures, rate, times=shown, crf=str(variant.crf))
    return paths
