"""Decoding: T frames spread evenly over the shown time of a video file, and no other if possible.

The timeline is what a player shows: T equal stretches of it, of each the frame on screen in its
middle. A list of the packets, which costs no decoding, tells when every frame is shown, whatever
the frame rate does. Decoding starts at the key frame before a wanted frame and ends behind the
last wanted one that depends on it; each seek is checked against the list. Where that cannot be
exact (no time stamps, a seek that lands elsewhere), all frames are decoded in order.

T frames a video, S pixels a side.
"""

from bisect import bisect_right
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidhash_lab.videos.pictures import MAX_PIXELS, BrokenVideo, Fit, Shape, upright

MAX_FRAMES = 20_000_000  # 90 hours at 60 a second
ONE_FRAME = "has one frame only: a picture, not a video"
SKIPPABLE = ("h264", "hevc")  # codecs that can leave out a frame that no other depends on


class _NotExact(Exception):
    """Seeking did not bring the frames that were asked for: decode them all."""


@dataclass(frozen=True)
class Clip:
    """The frames (T, S, S, 1 or 3) uint8 of a video, their times (T,) and its length, seconds."""

    frames: np.ndarray
    times: np.ndarray
    seconds: float


def read_clip(path, num_frames: int, shape: Shape, seek: bool = True) -> Clip:
    """Read `num_frames` evenly spaced frames of a video file; short videos repeat frames.

    With `seek=False` every frame is decoded, which gives the same clip and takes longer. Raises
    `BrokenVideo` with the reason for whatever is no video of two frames or more.
    """
    if Path(path).stat().st_size == 0:
        raise BrokenVideo("the file is empty")
    if seek:
        with suppress(_NotExact), _open(path) as (container, stream):
            packets = _list(path, container)
            return _read_listed(container, stream, packets, num_frames, shape)
    return _read_all(path, num_frames, shape)


@contextmanager
def _open(path):
    """Open the best video stream of a file for decoding in this thread alone."""
    try:
        container = av.open(str(path), metadata_errors="replace")
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
        context.thread_count = 1  # files are decoded side by side, frames of one are not
        context.options = {"max_pixels": str(MAX_PIXELS)}
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise BrokenVideo(f"cannot be decoded: {error.strerror or error}") from error


# ---- by the list of packets --------------------------------------------------------------------


@dataclass(frozen=True)
class _Packets:
    """The packets of a stream in decoding order, and when their frames are shown."""

    pts: list[int]
    sizes: list[int]
    keys: list[int]  # places of the packets where decoding can start
    shown: list[int]  # places of the packets whose frames are shown, by time
    end: int


def _list(path, container):
    """List the packets of a file's video stream without decoding them."""
    stream = container.streams.best("video")
    packets, limit = [], min(MAX_FRAMES, 1000 + Path(path).stat().st_size)
    for packet in container.demux(stream):
        if packet.size:
            packets.append(_facts(packet))
        if len(packets) > limit:
            raise BrokenVideo("holds more packets than bytes: its index is damaged")
    if any(pts is None for pts, *_ in packets):
        raise _NotExact
    keys = [place for place, packet in enumerate(packets) if packet[2]]
    shown = [place for place, packet in enumerate(packets) if not packet[3]]
    shown.sort(key=lambda place: packets[place][0])
    pts = [packet[0] for packet in packets]
    if not shown or len({pts[place] for place in shown}) < len(shown) or keys[:1] != [0]:
        raise _NotExact
    last = packets[shown[-1]]
    end = last[0] + max(last[4] or _usual_step([pts[place] for place in shown]), 1)
    return _Packets(pts, [packet[1] for packet in packets], keys, shown, end)


def _facts(packet):
    return packet.pts, packet.size, packet.is_keyframe, packet.is_discard, packet.duration


def _usual_step(times):
    return int(np.median(np.diff(times))) if len(times) > 1 else 1


def sample_times(start: int, end: int, num_frames: int) -> list[int]:
    """Return the middles of `num_frames` equal parts of [start, end), rounded down."""
    return [start + (2 * i + 1) * (end - start) // (2 * num_frames) for i in range(num_frames)]


def _read_listed(container, stream, packets, num_frames, shape):
    if len(packets.shown) < 2:
        raise BrokenVideo(ONE_FRAME)
    times = [packets.pts[place] for place in packets.shown]
    wanted = [
        packets.shown[bisect_right(times, time) - 1]
        for time in sample_times(times[0], packets.end, num_frames)
    ]
    pictures, fit = {}, Fit(stream, shape)
    for start, places in _runs(packets, sorted(set(wanted))):
        _decode_run(container, stream, packets, start, places, fit, pictures)
    frames = np.stack([pictures[packets.pts[place]] for place in wanted])
    return _clip(frames, [packets.pts[place] for place in wanted], packets, times[0], stream)


def _clip(frames, pts, packets, start, stream):
    unit = float(stream.time_base)
    times = np.array([(time - start) * unit for time in pts], np.float32)
    return Clip(frames, times, (packets.end - start) * unit)


def _runs(packets, wanted):
    """Group the wanted places by the key frame where their decoding starts."""
    runs = {}
    for place in wanted:
        nearest = bisect_right(packets.keys, place) - 1
        # A frame decoded behind a key frame but shown before it may depend on what came earlier.
        while nearest and packets.pts[packets.keys[nearest]] > packets.pts[place]:
            nearest -= 1
        runs.setdefault(packets.keys[nearest], []).append(place)
    return sorted(runs.items())


def _decode_run(container, stream, packets, start, places, fit, pictures):
    """Decode from the packet `start` to the last of `places`, keep the pictures of these."""
    context, missing = stream.codec_context, {packets.pts[place] for place in places}
    skips = context.name in SKIPPABLE
    container.seek(packets.pts[start], stream=stream)
    place = None
    for packet in container.demux(stream):
        if place is None:  # behind a seek: go on to the key frame
            if not packet.size or (packet.is_keyframe and packet.pts > packets.pts[start]):
                raise _NotExact
            if (packet.pts, packet.size) != (packets.pts[start], packets.sizes[start]):
                continue
            place = start
        if (packet.pts, packet.size) != (packets.pts[place], packets.sizes[place]):
            raise _NotExact
        if skips:
            context.skip_frame = "DEFAULT" if packet.pts in missing else "NONREF"
        _keep(context.decode(packet), missing, fit, pictures)
        if place == places[-1]:
            break
        place += 1
    if missing:
        _keep(context.decode(None), missing, fit, pictures)
    if missing:
        raise _NotExact


def _keep(frames, missing, fit, pictures):
    for frame in frames:
        if frame.pts in missing:
            missing.remove(frame.pts)
            pictures[frame.pts] = fit(frame)


# ---- by decoding everything --------------------------------------------------------------------


def _read_all(path, num_frames, shape):
    """Decode a file twice: when is every frame shown, then the wanted pictures."""
    shown, end, unit = _shown(path)
    wanted = [bisect_right(shown, t) - 1 for t in sample_times(shown[0], end, num_frames)]
    pictures, distinct = {}, set(wanted)
    with _open(path) as (container, stream):
        fit = Fit(stream, shape)
        for number, frame in enumerate(container.decode(stream)):
            if number in distinct:
                pictures[number] = fit(frame)
    if len(pictures) < len(distinct):
        raise BrokenVideo("decodes differently every time: it is damaged")
    frames = np.stack([pictures[number] for number in wanted])
    times = np.array([(shown[number] - shown[0]) * unit for number in wanted], np.float32)
    return Clip(frames, times, float((end - shown[0]) * unit))


def _shown(path):
    """Decode a file -> when its frames are shown, when the last of them ends, the unit of both."""
    shown, last = [], 0
    limit = min(MAX_FRAMES, 1000 + Path(path).stat().st_size)
    with _open(path) as (container, stream):
        for frame in container.decode(stream):
            shown.append(frame.pts)
            last = frame.duration
            if len(shown) > limit:
                raise BrokenVideo("gives more frames than it has bytes: it is damaged")
        rate = stream.average_rate or stream.guessed_rate or 25
        unit = stream.time_base
    if len(shown) < 2:
        raise BrokenVideo(ONE_FRAME if shown else "has no frame that can be decoded")
    if None in shown or any(b <= a for a, b in pairwise(shown)):
        shown, unit, last = list(range(len(shown))), 1 / rate, 1  # no times: frames of equal length
    return shown, shown[-1] + max(last or _usual_step(shown), 1), unit


def frame_times(path) -> list[float]:
    """Return when each frame of a video is shown, in seconds from the first."""
    shown, _, unit = _shown(path)
    return [float((time - shown[0]) * unit) for time in shown]


def decode_frames(path):
    """Yield every frame of a video as it is shown, (h, w, 3) uint8."""
    reformatter = VideoReformatter()
    with _open(path) as (container, stream):
        for frame in container.decode(stream):
            picture = reformatter.reformat(frame, format="rgb24", threads=1)
            yield upright(picture.to_ndarray(), frame)
