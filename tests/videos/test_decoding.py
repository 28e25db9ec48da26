"""Decoding: the frames on screen at evenly spaced times, whatever codec, rate, rotation, format."""

import random
import struct

import av
import numpy as np
import pytest

from vidhash_lab.videos import decoding
from vidhash_lab.videos.decoding import Sampling, decode_frames, frame_times, read_clip
from vidhash_lab.videos.pictures import BrokenVideo, Shape, shrink
from vidhash_lab.videos.writing import write_variants, write_video

SMALL, COLOUR = Shape(32, grey=True), Shape(32)
CODECS = {
    "x264.mp4": dict(codec="libx264", g="12"),
    "x264-open.mkv": dict(codec="libx264", g="12", **{"x264-params": "open-gop=1"}),
    "x265-open.mp4": dict(codec="libx265", **{"x265-params": "log-level=none:keyint=12"}),
    "mpeg4.avi": dict(codec="mpeg4", g="12", bf="2"),
    "vp9.webm": dict(codec="libvpx-vp9", g="12", deadline="realtime"),
    "x264.ts": dict(codec="libx264", g="12"),
    "mpeg2.mpg": dict(codec="mpeg2video", g="12", bf="2"),
}


def numbered(count, height=32, width=64):
    """Frames that show their number in eight black or white bars, and something that moves."""
    bits = np.unpackbits(np.arange(count, dtype=np.uint8)[:, None], axis=1) * 255
    frames = bits.repeat(width // 8, 1)[:, None].repeat(height, 1)
    moving = np.random.default_rng(0).integers(0, 256, (4, width), dtype=np.uint8)
    frames[:, -4:] = np.stack([np.roll(moving, 3 * n, 1) for n in range(count)])
    return frames


def numbers(clip):
    """Read the numbers from square pictures of `numbered` frames: their middle four bars."""
    bars = clip.frames[:, 4, 4::8, 0] > 127
    return (bars * [32, 16, 8, 4]).sum(1)  # bars 2 to 5 of 8: the middle half of the width


@pytest.fixture(params=[decoding.KEPT_BYTES, 0], ids=["kept", "read twice"])
def packets(request, monkeypatch):
    """Keep packets, as of a small file, or read them twice, as of a large one."""
    monkeypatch.setattr(decoding, "KEPT_BYTES", request.param)


@pytest.mark.parametrize("name", CODECS)
def test_seeking_gives_the_frames_that_decoding_everything_gives(tmp_path, packets, name):
    path = tmp_path / name
    write_video(path, numbered(100), 25, **CODECS[name])
    for count in (3, 25, 150):
        found, truth = (read_clip(path, count, SMALL, seek=seek) for seek in (True, False))
        assert np.array_equal(found.frames, truth.frames)
        assert np.allclose(found.times, truth.times) and found.seconds == truth.seconds
        expected = np.array(Sampling(count).times(0, 100 * 64)) // 64
        assert np.array_equal(numbers(found), expected & 0b111100), (name, count)


def test_most_codecs_are_not_decoded_whole(tmp_path, packets, monkeypatch):
    monkeypatch.setattr(decoding, "_read_all", None)
    for name in ("x264.mp4", "x264-open.mkv", "x265-open.mp4", "vp9.webm"):
        write_video(tmp_path / name, numbered(100), 25, **CODECS[name])
        assert len(read_clip(tmp_path / name, 3, SMALL).frames) == 3


def test_a_seek_that_goes_too_far_is_not_trusted(tmp_path, packets):
    path = tmp_path / "a.webm"
    write_video(path, numbered(100), 25, **CODECS["vp9.webm"])
    data = path.read_bytes().replace(b"\x81\x03\xc0\x80", b"\x81\x43\xc0\x80")  # 960 -> 17344 ms
    path.write_bytes(data[: data.rindex(b"\x81\x07\x80\x80")])  # up to 1920 ms: the index is lost
    found, truth = (read_clip(path, 7, SMALL, seek=seek) for seek in (True, False))
    assert np.array_equal(found.frames, truth.frames)


def test_clocks_that_begin_anew_within_a_file_are_not_trusted(tmp_path, packets):
    parts = [tmp_path / "one.ts", tmp_path / "two.ts"]  # two recordings, one after the other
    for path, start in zip(parts, (0, 0.5)):
        write_video(path, numbered(50), times=start + np.arange(50) / 25, **CODECS["x264.ts"])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(path.read_bytes() for path in parts))
    found, truth = (read_clip(joined, 10, SMALL, seek=seek) for seek in (True, False))
    assert np.array_equal(found.frames, truth.frames)
    assert np.allclose(found.times, truth.times) and found.seconds == truth.seconds


def test_frames_are_those_on_screen_when_rates_vary(tmp_path, packets):
    path = tmp_path / "variable.mp4"
    # Eight frames in the first second, one that stands for three, eight in the last second.
    times = np.r_[np.arange(8) / 8, 1.0, 4 + np.arange(8) / 8]
    # 4 times the number: the last two bars are out of the picture.
    write_video(path, numbered(68)[::4], 8, times=times)
    for seek in (True, False):
        clip = read_clip(path, 10, SMALL, seek)
        assert clip.seconds == pytest.approx(5, abs=0.01)
        middles = (np.arange(10) + 0.5) / 2
        expected = np.searchsorted(times, middles, "right") - 1
        assert np.array_equal(numbers(clip) // 4, expected)
        assert np.allclose(clip.times, times[expected], atol=2e-3)


def test_a_film_that_starts_late_and_one_shorter_than_asked_for(tmp_path):
    write_video(tmp_path / "late.mkv", numbered(20)[::4], 10, times=5 + np.arange(5) / 10)
    clip = read_clip(tmp_path / "late.mkv", 10, SMALL)
    assert np.array_equal(numbers(clip) // 4, np.repeat(np.arange(5), 2))
    assert clip.times[0] == 0 and clip.seconds == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "matrix, turn",
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # as a phone held upright writes it
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    ],
)
def test_pictures_stand_as_the_display_matrix_says(tmp_path, matrix, turn):
    path, frames = tmp_path / "turned.mp4", np.zeros((4, 32, 32, 3), np.uint8)
    frames[:, :16, :16], frames[:, :16, 16:] = (250, 20, 20), (20, 20, 250)
    write_video(path, frames, pixels="yuv444p")
    straight = read_clip(path, 2, COLOUR).frames[0]
    data, one = bytearray(path.read_bytes()), 1 << 16
    a, b, c, d = (value * one for value in matrix)
    place = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    assert struct.unpack(">9i", data[place : place + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert np.array_equal(read_clip(path, 2, COLOUR).frames[0], turn(straight))
    assert np.array_equal(next(decode_frames(path)), turn(straight))


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv422p10le", "yuv420p10le", "gray"])
def test_pixel_formats_give_the_same_picture(tmp_path, pixels):
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    frames = np.broadcast_to(ramp, (3, 32, 32))
    write_video(tmp_path / "a.mp4", frames, pixels=pixels, crf="1")
    for shape in (SMALL, COLOUR):
        picture = read_clip(tmp_path / "a.mp4", 2, shape).frames[0]
        assert np.abs(picture.astype(int).mean((0, 2)) - ramp).max() <= 4


def test_colours_are_the_films(tmp_path):
    frames = np.full((3, 32, 32, 3), (200, 40, 90), np.uint8)
    write_video(tmp_path / "a.mp4", frames, pixels="yuv444p", crf="1")
    assert (
        np.abs(read_clip(tmp_path / "a.mp4", 2, COLOUR).frames - frames[:2].astype(int)).max() < 5
    )


@pytest.mark.parametrize("height, width", [(33, 47), (2, 300), (300, 2), (1, 1), (5, 16)])
def test_odd_sizes(tmp_path, height, width):
    frames = np.random.default_rng(0).integers(0, 256, (5, height, width), dtype=np.uint8)
    write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixels="yuv444p")
    assert read_clip(tmp_path / "a.mkv", 3, COLOUR).frames.shape == (3, 32, 32, 3)


def test_the_middle_of_the_picture_is_kept(tmp_path):
    frames = np.zeros((3, 64, 128), np.uint8)
    frames[:, 16:48, 48:80] = 255
    write_video(tmp_path / "a.mp4", frames, crf="1")
    picture = read_clip(tmp_path / "a.mp4", 2, Shape(32, 64, grey=True)).frames[0]
    assert picture[1:-1, 1:-1].min() > 240
    whole = read_clip(tmp_path / "a.mp4", 2, SMALL).frames[0]
    assert whole.mean() == pytest.approx(255 / 4, abs=6)


def test_shrinking_averages():
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    truth = frames.reshape(2, 8, 4, 8, 4, 3).mean((2, 4))
    assert np.abs(shrink(frames, 8) - truth).max() < 2
    assert np.array_equal(shrink(frames[..., :1], 32), frames[..., 0])


def test_files_that_are_no_video_say_why(tmp_path):
    path = tmp_path / "a.mp4"
    path.touch()
    with pytest.raises(BrokenVideo, match="empty"):
        read_clip(path, 5, SMALL)
    path.write_text("not a film " * 50)
    with pytest.raises(BrokenVideo, match="not a video file"):
        read_clip(path, 5, SMALL)
    write_video(path, numbered(1))
    with pytest.raises(BrokenVideo, match="one frame only"):
        read_clip(path, 5, SMALL)
    write_video(path, numbered(50))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BrokenVideo, match="cut short"):
        read_clip(path, 5, SMALL)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux([*stream.encode(sound), *stream.encode(None)])
    with pytest.raises(BrokenVideo, match="no pictures, only audio"):
        read_clip(path, 5, SMALL)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n",
    ],
)
def test_lists_of_other_files_are_no_films(tmp_path, text):
    for name in ("other.mp4", "other.ts"):
        write_video(tmp_path / name, numbered(10))
        assert read_clip(tmp_path / name, 5, SMALL)
    for name in ("list.mp4", "list.m3u8"):
        (tmp_path / name).write_text(text)
        for read in (lambda path: read_clip(path, 5, SMALL), frame_times):
            with pytest.raises(BrokenVideo, match="not a video file"):
                read(tmp_path / name)


def test_names_that_look_like_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "concat:a.mp4", numbered(10))
    assert read_clip("concat:a.mp4", 5, SMALL).frames.shape == (5, 32, 32, 1)


def test_what_the_system_says_is_not_what_a_film_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_clip(tmp_path / "nowhere.mp4", 5, SMALL)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder.mp4" / "inside").touch()
    with pytest.raises(IsADirectoryError):
        read_clip(tmp_path / "folder.mp4", 5, SMALL)


@pytest.mark.parametrize("times", [1, 2])
def test_an_error_of_the_disk_that_passes(tmp_path, monkeypatch, times):
    path, opens, errors = tmp_path / "a.mp4", av.open, [5] * times
    write_video(path, numbered(50))
    truth = read_clip(path, 5, SMALL)

    def fail(*arguments, **options):
        if errors:
            raise av.error.OSError(errors.pop(), "Input/output error", str(path))
        return opens(*arguments, **options)

    monkeypatch.setattr(av, "open", fail)
    if times == 1:
        assert np.array_equal(read_clip(path, 5, SMALL).frames, truth.frames)
    else:  # as damaged files do
        with pytest.raises(BrokenVideo, match="cut short: Input/output error"):
            read_clip(path, 5, SMALL)
    errors[:] = [5]
    monkeypatch.setattr("builtins.open", open_that_fails)
    with pytest.raises(OSError, match="the disk"):
        read_clip(path, 5, SMALL)


def test_too_little_memory_is_not_what_a_film_is(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise av.error.MemoryError(12, "Cannot allocate memory")

    write_video(tmp_path / "a.mp4", numbered(5))
    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(MemoryError):
        read_clip(tmp_path / "a.mp4", 5, SMALL)


def open_that_fails(*_, **__):
    raise OSError(5, "the disk fails")


@pytest.mark.parametrize("name", ["x264.mp4", "mpeg4.avi", "x264.ts", "vp9.webm"])
def test_damaged_files_are_refused_or_read(tmp_path, name):
    write_video(tmp_path / name, numbered(10, 16, 32), **CODECS[name])
    whole, chance = (tmp_path / name).read_bytes(), random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 4, 16])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (tmp_path / name).write_bytes(
            data[: chance.choice([len(data), chance.randrange(len(data))])]
        )
        try:
            clip = read_clip(tmp_path / name, 5, SMALL)
        except BrokenVideo:
            continue
        assert clip.frames.shape == (5, 32, 32, 1) and np.isfinite(clip.seconds)


def test_written_frames_come_back(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), dtype=np.uint8)
    frames = frames.repeat(8, 1).repeat(8, 2)
    write_video(tmp_path / "a.mp4", frames, 12.5, pixels="yuv444p", crf="1")
    back = np.stack(list(decode_frames(tmp_path / "a.mp4")))
    assert np.abs(back - frames.astype(int)).mean() < 3
    assert np.allclose(frame_times(tmp_path / "a.mp4"), np.arange(7) / 12.5)
    for wrong, says in ((frames[0, 0, 0], r"expected \(h, w\)"), ([], "no frames")):
        with pytest.raises(ValueError, match=says):
            write_video(tmp_path / "b.mp4", wrong)
    assert not (tmp_path / "b.mp4").exists()


def test_films_are_written_the_same_every_time(tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "a.mp4"
    small = [random.integers(0, 256, (25, 32, 32), dtype=np.uint8) for _ in range(8)]
    for frames in small:
        seen = set()
        for _ in range(4):
            write_video(path, frames.repeat(3, 1).repeat(3, 2), 5, preset="veryfast")
            seen.add(path.read_bytes())
        assert len(seen) == 1


def test_near_duplicates_are_what_they_say(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(60, 48, 64), 20)
    paths = write_variants(tmp_path / "a.mp4", tmp_path / "copies")
    found = {how: np.stack(list(decode_frames(path))) for how, path in paths.items()}
    assert found["half the size"].shape == (60, 24, 32, 3)
    assert found["cropped to 75 %"].shape == (60, 36, 48, 3)
    assert found["a black bar below"][:, -6:].max() < 40
    assert len(found["without the first fifth"]) == 48
    for how, seconds in (("25 % faster", 2.36), ("25 % slower", 3.69), ("half the size", 2.95)):
        assert frame_times(paths[how])[-1] == pytest.approx(seconds, abs=0.01)
    assert paths["re-encoded, poorly"].stat().st_size < (tmp_path / "a.mp4").stat().st_size
