"""Decoding: T frames of S x S pixels spread evenly over the shown time of a video file.

The timeline is what a player shows: it is cut into T equal stretches, and of each the frame on
screen in its middle is taken; where shots are told apart, no stretch goes beyond its shot. A list
of the packets, which costs no decoding, tells when every frame is shown. Decoding starts at the key
frame before a wanted frame and ends with the last wanted one that depends on it. Packets of a small
file are kept from the list; in a large one each seek is checked against it. Where that cannot be
exact (no time stamps, a seek that lands elsewhere, a beginning that cannot be decoded), all frames
are decoded in order.
"""

import errno
import os
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, chain, dropwhile, pairwise
from math import inf
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidhash_lab.videos.pictures import MAX_PIXELS, BrokenVideo, Fit, Shape, orientation, upright

MAX_FRAMES = 20_000_000  # 90 hours at 60 a second
KEPT_BYTES = 32 << 20  # of packets; a film of more is read twice
ONE_FRAME = "has one frame only: a picture, not a video"
# Formats that hold their pictures themselves. Others, as `concat` and `hls`, are lists of files.
FORMATS = (
    "apng asf avi dv flv gif h264 hevc ivf m4v matroska mjpeg mov mpeg mpegts mpegvideo mxf nut "
    "ogg rm webm wtv"
)
OPTIONS = {"format_whitelist": FORMATS.replace(" ", ","), "protocol_whitelist": "file"}
DECODING_TIMES = ("avi", "asf", "mxf")
SKIPPABLE = ("h264", "hevc")  # codecs that can leave out a frame that no other depends on


class _NotExact(Exception):
    """Seeking did not bring the frames that were asked for: decode them all."""


@dataclass(frozen=True)
class Clip:
    """The frames (T, S, S, 1 or 3) uint8 of a video, their times (T,) and its length, seconds.

    >>> Clip(np.zeros((5, 32, 32, 3), np.uint8), times=np.arange(5) / 25, seconds=0.2).seconds
    0.2
    """

    frames: np.ndarray
    times: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken.

    Args:
        num_frames: how many, each from the middle of a stretch.
        window: so many stretches that follow each other lie within one shot; divides `num_frames`.
        cuts: where shots begin but the first, in seconds; each shot has its share of the frames.

    >>> Sampling(num_frames=4, cuts=[5.0]).times(0, 10)
    [1, 3, 6, 8]
    """

    num_frames: int
    window: int = 1
    cuts: Sequence[float] = ()

    def times(self, start: int, end: int, unit: float = 1.0) -> list[int]:
        """Return the middles of the stretches of [start, end), in `unit` seconds, rounded down.

        >>> Sampling(num_frames=4).times(0, 8)
        [1, 3, 5, 7]
        """
        bounds = [start, *(start + round(cut / unit) for cut in self.cuts), end]
        lengths = [b - a for a, b in pairwise(bounds)]
        shares = [self.window * n for n in share_out(self.num_frames // self.window, lengths)]
        shots = zip(bounds, lengths, shares)
        return [a + (2 * i + 1) * b // (2 * n) for a, b, n in shots for i in range(n)]


def share_out(count: int, lengths: Sequence[float]) -> list[int]:
    """Share `count` among shots by their lengths, one or more each; to the longest, if too few.

    One after the other goes to the shot whose stretches are the longest yet (D'Hondt's rule).

    >>> share_out(6, [1.0, 2.0, 3.0])
    [1, 2, 3]
    """
    longest = sorted(range(len(lengths)), key=lambda shot: -lengths[shot])[:count]
    shares = [int(shot in longest) for shot in range(len(lengths))]
    for _ in range(count - len(longest)):
        shares[max(longest, key=lambda shot: lengths[shot] / shares[shot])] += 1
    return shares


def read_clip(path: str | Path, sampling: Sampling | int, shape: Shape, seek: bool = True) -> Clip:
    """Read frames of a video file, a number of them evenly spaced; short videos repeat frames.

    `seek=False` decodes every frame, for the same clip. `BrokenVideo` says what is wrong with it.

    >>> from vidhash_lab.videos.writing import write_video
    >>> write_video("film.mp4", np.zeros((10, 48, 64, 3), np.uint8))
    >>> read_clip("film.mp4", 4, Shape(32)).frames.shape
    (4, 32, 32, 3)
    """
    sampling = Sampling(sampling) if isinstance(sampling, int) else sampling
    try:
        return _read(path, sampling, shape, seek)
    except BrokenVideo:
        _read_bytes(path)
        return _read(path, sampling, shape, seek)


def _read_bytes(path):
    """Read a file for the system's errors, which ffmpeg does not tell from damage.

    Where every byte can be read and ffmpeg fails again, it is damage.
    """
    _check_kind(path)
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass


def _read(path, sampling, shape, seek):
    if seek:
        with suppress(_NotExact), _open(path) as (container, stream):
            packets = _list_packets(path, container)
            return _read_listed(container, stream, packets, sampling, shape)
    return _read_all(path, sampling, shape)


def _check_kind(path):
    """Refuse what is no file, or an empty one, unopened: to open a pipe is to wait for a writer."""
    about = os.stat(path)
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(about.st_mode):
        raise BrokenVideo("a pipe, a socket or a device, not a file")
    if about.st_size == 0:
        raise BrokenVideo("the file is empty")


@contextmanager
def _open(path):
    _check_kind(path)
    try:
        # "file:" keeps a colon in a name from being taken for a protocol.
        container = av.open(f"file:{path}", metadata_errors="replace", options=OPTIONS)
    except MemoryError:  # ffmpeg's too: its class is one of both
        raise
    except av.ArgumentError as error:
        raise BrokenVideo("not a video file: its format is not one that is read") from error
    except av.FFmpegError as error:
        raise BrokenVideo(f"not a video file, or cut short: {error.strerror or error}") from error
    with container:
        stream = container.streams.best("video")
        if stream is None:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise BrokenVideo(f"has no pictures, only {kinds}")
        context = stream.codec_context
        if context is None:
            raise BrokenVideo("its pictures are in a codec that is not known")
        context.thread_count = 1  # the threads decode different files
        context.options = {"max_pixels": str(MAX_PIXELS)}
        try:
            yield container, stream
        except MemoryError:
            raise
        except av.FFmpegError as error:
            raise BrokenVideo(f"cannot be decoded: {error.strerror or error}") from error


def _on_screen(times, end, unit, sampling):
    """Number the frames, shown from these times on, that are on screen when one is wanted."""
    return [bisect_right(times, time) - 1 for time in sampling.times(times[0], end, unit)]


def _end(times, duration):
    """Return when the last frame ends: after its duration, or the usual one if none is known."""
    if not duration:
        duration = int(np.median(np.diff(times))) if len(times) > 1 else 1
    return times[-1] + max(duration, 1)


def _clip(pictures, times, wanted, end, unit):
    """Make the clip of the wanted frames, by number; `unit` is that of the times, in seconds."""
    frames = np.stack([pictures[number] for number in wanted])
    seconds = np.array([(times[number] - times[0]) * unit for number in wanted], np.float32)
    return Clip(frames, seconds, float((end - times[0]) * unit))


def _most_frames(path):
    """Bound the packets and frames that a file can hold: a damaged index may give endless ones."""
    return min(MAX_FRAMES, 1000 + Path(path).stat().st_size)


@dataclass(frozen=True)
class _Packets:
    """The packets of a stream in decoding order, and when their frames are shown."""

    pts: tuple[int, ...]
    sizes: tuple[int, ...]
    keys: list[int]  # places of the packets where decoding can start
    shown: list[int]  # places of the packets whose frames are shown, in the order of …
    times: list[int]  # … these times
    end: int
    kept: list[av.Packet]  # all of them, or none where they are too many bytes


def _list_packets(path, container):
    packets, most, stream = [], _most_frames(path), container.streams.best("video")
    kept, room = [], KEPT_BYTES
    for p in container.demux(stream):
        if p.size:
            packets.append((p.pts, p.size, p.is_keyframe, p.is_discard, p.duration))
            room -= p.size
            kept.append(p)
            if room < 0:
                kept.clear()
        if len(packets) > most:
            raise BrokenVideo("holds more packets than bytes: its index is damaged")
    if not packets or any(pts is None for pts, *_ in packets):
        raise _NotExact
    pts, sizes, starts, discarded, durations = zip(*packets)
    keys = [place for place, is_key in enumerate(starts) if is_key]
    shown = [place for place, is_discarded in enumerate(discarded) if not is_discarded]
    shown.sort(key=lambda place: pts[place])
    times = [pts[place] for place in shown]
    if not times or len(set(times)) < len(times) or keys[:1] != [0]:
        raise _NotExact
    # Frames shown before the first key frame depend on what was cut off: decoders leave them out.
    if times[0] < pts[0]:
        raise _NotExact
    # What comes before a key frame is shown before it, unless the clock begins anew in the file.
    latest = list(accumulate(pts, max))
    if any(pts[key] <= latest[key - 1] for key in keys[1:]):
        raise _NotExact
    # These formats may give the times of decoding, which only rise, for those of display.
    rises = container.format.name in DECODING_TIMES and list(pts) == sorted(pts)
    if rises and stream.codec_context.has_b_frames:
        raise _NotExact
    if len(times) == 1:
        raise BrokenVideo(ONE_FRAME)
    return _Packets(pts, sizes, keys, shown, times, _end(times, durations[shown[-1]]), kept)


def _read_listed(container, stream, packets, sampling, shape):
    """Decode the wanted frames alone, from the key frames before them."""
    unit = float(stream.time_base)
    wanted = _on_screen(packets.times, packets.end, unit, sampling)
    runs = {}  # wanted places by the key frame where their decoding starts
    for place in sorted({packets.shown[number] for number in wanted}):
        nearest = bisect_right(packets.keys, place) - 1
        # A frame decoded behind a key frame but shown before it may depend on what came earlier.
        while nearest and packets.pts[packets.keys[nearest]] > packets.pts[place]:
            nearest -= 1
        runs.setdefault(packets.keys[nearest], []).append(place)
    found, fit = {}, Fit(stream, shape)
    for start, places in sorted(runs.items()):
        _decode_run(container, stream, packets, start, places, fit, found)
    pictures = {number: found[packets.times[number]] for number in wanted}
    return _clip(pictures, packets.times, wanted, packets.end, unit)


def _decode_run(container, stream, packets, start, places, fit, pictures):
    """Decode from the packet `start` to the last of `places`, keep the pictures of these."""
    context, missing = stream.codec_context, {packets.pts[place] for place in places}
    may_skip, run, shown = context.name in SKIPPABLE, packets.kept[start : places[-1] + 1], -inf
    if run:
        context.flush_buffers()  # as a seek does
    else:
        run = _demux_run(container, stream, packets, range(start, places[-1] + 1))
    for packet in chain(run, [None]):  # None asks the decoder for the frames it still holds
        if not missing:
            return
        if packet and may_skip:
            context.skip_frame = "DEFAULT" if packet.pts in missing else "NONREF"
        for frame in context.decode(packet):
            if frame.pts is None or frame.pts <= shown:  # frames come in the order of display
                raise _NotExact
            shown = frame.pts
            if shown in missing:
                missing.remove(shown)
                pictures[shown] = fit(frame)
    if missing:
        raise _NotExact


def _demux_run(container, stream, packets, places):
    """Seek, then yield the packets at `places`, each checked against the list."""
    listed = [(packets.pts[place], packets.sizes[place]) for place in places]
    start = listed[0][0]

    def is_before(packet):  # a later key frame: the seek went too far
        if not packet.size or (packet.is_keyframe and packet.pts > start):
            raise _NotExact
        return (packet.pts, packet.size) != listed[0]

    container.seek(start, stream=stream)
    for known, packet in zip(listed, dropwhile(is_before, container.demux(stream))):
        if (packet.pts, packet.size) != known:
            raise _NotExact
        yield packet


def _read_all(path, sampling, shape):
    """Decode a file twice: when is every frame shown, then the wanted pictures."""
    times, end, unit = _shown(path)
    wanted = _on_screen(times, end, unit, sampling)
    with _open(path) as (container, stream):
        fit, distinct = Fit(stream, shape), set(wanted)
        numbered = enumerate(container.decode(stream))
        pictures = {number: fit(frame) for number, frame in numbered if number in distinct}
    if len(pictures) < len(distinct):
        raise BrokenVideo("decodes differently every time: it is damaged")
    return _clip(pictures, times, wanted, end, unit)


def _shown(path, see=None):
    """Decode a file -> when its frames are shown, when the last of them ends, the unit of both.

    `see` is called with every frame.
    """
    times, duration, most = [], 0, _most_frames(path)
    with _open(path) as (container, stream):
        for frame in container.decode(stream):
            times.append(frame.pts)
            duration = frame.duration
            if see:
                see(frame)
            if len(times) > most:
                raise BrokenVideo("gives more frames than it has bytes: it is damaged")
        rate = stream.average_rate or stream.guessed_rate or 25
        unit = stream.time_base
    if len(times) < 2:
        raise BrokenVideo(ONE_FRAME if times else "has no frame that can be decoded")
    if None in times or any(b <= a for a, b in pairwise(times)):
        times, unit, duration = range(len(times)), 1 / rate, 1  # no times: frames of equal length
    return times, _end(times, duration), unit


def frame_times(
    path: str | Path, see: Callable[[av.VideoFrame], None] | None = None
) -> list[float]:
    """Return when each frame of a video is shown, in seconds from the first; `see` sees each.

    >>> from vidhash_lab.videos.writing import write_video
    >>> write_video("film.mp4", np.zeros((3, 48, 64, 3), np.uint8), rate=25)
    >>> frame_times("film.mp4")
    [0.0, 0.04, 0.08]
    """
    try:
        times, _, unit = _shown(path, see)
    except BrokenVideo:
        _read_bytes(path)
        raise
    return [float((time - times[0]) * unit) for time in times]


def decode_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield every frame of a video as it is shown, (h, w, 3) uint8.

    >>> from vidhash_lab.videos.writing import write_video
    >>> write_video("film.mp4", np.zeros((3, 48, 64, 3), np.uint8))
    >>> [frame.shape for frame in decode_frames("film.mp4")]
    [(48, 64, 3), (48, 64, 3), (48, 64, 3)]
    """
    reformatter = VideoReformatter()
    with _open(path) as (container, stream):
        for frame in container.decode(stream):
            picture = reformatter.reformat(frame, format="rgb24", threads=1)
            yield upright(picture.to_ndarray(), orientation(frame))
