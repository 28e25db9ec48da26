"""Films as they are: clips equal what a plain decode, written here apart from the kit, gives.

PyAV cannot write, so these are not here: Dolby Vision, ProRes RAW and other camera formats, fields
coded as pictures of their own (PAFF), VP9 of 10 bits, AV1 of 4:2:2, HEVC with alpha, and edits at
another speed. AVI keeps no times of display: B-frames in it are shown at an even rate.
"""

import struct
from fractions import Fraction
from math import cos, sin
from unittest import mock

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from vidhash_lab.videos import decoding
from vidhash_lab.videos.decoding import read_clip
from vidhash_lab.videos.pictures import Shape

COLOUR, GREY = Shape(32), Shape(32, grey=True)
HEIGHT, WIDTH, COUNT = 48, 64, 40  # frames 48 wide make x265 write past its memory
H264 = ("libx264", "yuv420p", {"g": "12", "bf": "3"})
OPEN_GROUPS = {"x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
OPEN = ("libx264", "yuv420p", H264[2] | OPEN_GROUPS)
FIELDS = ("libx264", "yuv420p", H264[2] | {"flags": "+ildct+ilme", "x264-params": "tff=1"})
HEVC = ("libx265", "yuv420p", {"x265-params": "log-level=none:keyint=12:scenecut=0"})
VP9 = ("libvpx-vp9", "yuv420p", {"g": "12", "deadline": "realtime"})
AV1 = ("libsvtav1", "yuv420p", {"g": "12", "preset": "12"})
MPEG4 = ("mpeg4", "yuv420p", {"g": "12", "bf": "2"})
MPEG2 = ("mpeg2video", "yuv420p", {"g": "12", "bf": "2"})
MJPEG, GIF = ("mjpeg", "yuvj420p", {}), ("gif", "rgb8", {})
FFV1 = ("ffv1", "yuv444p", {})
FILMS = {
    "h264": (H264, "mp4 mkv avi mov ts"),
    "open": (OPEN, "mkv ts"),
    "interlaced": (FIELDS, "mp4 ts"),
    "10-bit": (("libx264", "yuv420p10le", H264[2]), "mp4"),
    "4:2:2": (("libx264", "yuv422p10le", H264[2]), "mkv"),
    "hevc": (HEVC, "mp4 mkv ts"),
    "hevc-10-bit": (("libx265", "yuv420p10le", HEVC[2]), "mp4"),
    "vp9": (VP9, "mp4 mkv webm avi"),
    "av1": (AV1, "mp4 mkv webm"),
    "mpeg4": (MPEG4, "mp4 mkv avi ts"),
    "mpeg4-even": (("mpeg4", "yuv420p", {"g": "12"}), "avi"),
    "mpeg2": (MPEG2, "mpg ts"),
    "mjpeg": (MJPEG, "mkv avi mov"),
    "gif": (GIF, "gif"),
}
NAMES = [f"{name}.{form}" for name, (_, forms) in FILMS.items() for form in forms.split()]
VARYING = (
    "h264.mp4 h264.ts open.mkv interlaced.ts hevc.mkv hevc.ts vp9.webm vp9.avi av1.mp4 mpeg4.mp4 "
    "mpeg4-even.avi mjpeg.avi gif.gif"
).split()
STEPS = np.random.default_rng(0).choice([0.04, 0.1, 0.25, 0.9], COUNT - 1)
TIMES = [int(1000 * time) for time in np.r_[0, np.cumsum(STEPS)].round(2)]


def numbered(count=COUNT, height=HEIGHT, width=WIDTH):
    """Pictures that show twice their number in eight bars, above a colour that changes."""
    bars = np.unpackbits(2 * np.arange(count, dtype=np.uint8)[:, None], axis=1) * 255
    bars = bars.repeat(-(-width // 8), 1)[:, None, :width, None]
    pictures = bars.repeat(height, 1).repeat(3, 3)
    for number, picture in enumerate(pictures):
        picture[height // 2 :] = 40 + 5 * number, 200 - 4 * number, 90
    return pictures


def numbers(clip):
    """Read the numbers from the six bars in the middle of pictures 64 x 48."""
    return (clip.frames[:, 5, [2, 8, 13, 18, 24, 29], 0] > 127) @ [32, 16, 8, 4, 2, 1]


def write(path, film, pictures=None, times=None, rate=10, **settings):
    """Write pictures, arrays or frames of PyAV, with a codec; `settings` are its context's."""
    codec, pixels, options = film
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no encoder {codec} here")
    pictures = numbered() if pictures is None else pictures
    unit = Fraction(1, rate if times is None else 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        for number, picture in enumerate(pictures):
            frame = picture
            if isinstance(picture, np.ndarray):
                kind = "rgb24" if picture.shape[2] == 3 else "rgba"
                frame = av.VideoFrame.from_ndarray(picture, kind).reformat(format=pixels)
            if number == 0:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
                stream.options, context = options, stream.codec_context
                for name, value in ({"time_base": unit} | settings).items():
                    setattr(context, name, value)
            frame.pts, frame.time_base = number if times is None else times[number], unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def remux(path, target, first_key=0):
    """Copy the packets from one of the key frames on -> their times."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        packets = packets[keys[first_key] :]
        times = [packet.pts for packet in packets]
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in packets:
            packet.stream = stream
            container.mux(packet)
    return times


def fitted(picture, aspect=None):
    """Scale a picture so that its shorter side has 32 pixels, and cut out the middle."""
    height, width = picture.shape[:2]
    aspect = aspect or Fraction(width, height)
    size = (int(32 * aspect), 32) if aspect >= 1 else (32, int(32 / aspect))
    scaled = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    top, left = (size[1] - 32) // 2, (size[0] - 32) // 2
    return scaled[top : top + 32, left : left + 32]


def decoded(path):
    """Decode a film whole -> its pictures, the seconds at which they are shown, and its end."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        frames = list(container.decode(stream))
        unit, rate = stream.time_base, stream.average_rate
    ticks = [frame.pts for frame in frames]
    if None in ticks or ticks != sorted(set(ticks)):
        ticks, unit, last = list(range(len(ticks))), 1 / rate, 1
    else:
        last = frames[-1].duration or int(np.median(np.diff(ticks)))
    times = [(tick - ticks[0]) * unit for tick in ticks]
    return [frame.to_ndarray(format="rgb24") for frame in frames], times, times[-1] + last * unit


def check(path, turn=np.asarray, aspect=None, counts=(7, 60)):
    """Compare clips with the frames on screen in the middles of stretches -> a clip, numbers."""
    pictures, times, end = decoded(path)
    for count in counts:
        middles = [end * (2 * n + 1) / (2 * count) for n in range(count)]
        chosen = [max(n for n, time in enumerate(times) if time <= m) for m in middles]
        truth = np.stack([fitted(turn(pictures[n]), aspect) for n in chosen])
        for kept, seek in ((decoding.KEPT_BYTES, True), (0, True), (0, False)):
            with mock.patch.object(decoding, "KEPT_BYTES", kept):
                clip = read_clip(path, count, COLOUR, seek)
            assert np.array_equal(clip.frames, truth), (path.name, count, kept, seek)
            assert np.allclose(clip.times, [float(times[n]) for n in chosen], atol=1e-5)
            assert clip.seconds == pytest.approx(float(end), abs=1e-6)
    return clip, np.array(chosen)


@pytest.mark.parametrize("name", NAMES)
def test_every_codec_in_every_container(tmp_path, name):
    film, rate = FILMS[name.split(".")[0]][0], 25 if "mpeg2" in name else 10
    write(tmp_path / name, film, rate=rate)
    clip, chosen = check(tmp_path / name)
    assert np.array_equal(numbers(clip), chosen)
    assert np.array_equal(chosen, (np.arange(60) + 0.5) * COUNT // 60)
    assert clip.seconds == pytest.approx(COUNT / rate)


@pytest.mark.parametrize("name", VARYING)
def test_rates_that_vary(tmp_path, name):
    write(tmp_path / name, FILMS[name.split(".")[0]][0], times=TIMES)
    clip, chosen = check(tmp_path / name)
    assert np.array_equal(numbers(clip), chosen)
    assert np.allclose(clip.times, np.array(TIMES)[chosen] / 1000, atol=2e-3)


@pytest.mark.parametrize("film", [OPEN, HEVC, MPEG2], ids=["h264", "hevc", "mpeg2"])
def test_a_film_cut_at_an_open_group_begins_with_a_frame_that_can_be_decoded(tmp_path, film):
    write(tmp_path / "whole.mkv", film, rate=25)
    times = remux(tmp_path / "whole.mkv", tmp_path / "cut.mkv", first_key=1)
    assert min(times) < times[0]
    clip, _ = check(tmp_path / "cut.mkv", counts=(3, 7, 60))
    assert clip.seconds < len(times) / 25


@pytest.mark.parametrize("first, frames", [(0, 20), (5, 35), (5.5, 20), (17, 10)])
@pytest.mark.parametrize("film", [H264, HEVC, MPEG4, MJPEG], ids=["h264", "hevc", "mpeg4", "mjpeg"])
def test_edit_lists(tmp_path, film, first, frames):
    path = tmp_path / "a.mp4"
    write(path, film)
    with av.open(str(path)) as container:
        tick = 0.1 / container.streams.video[0].time_base
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 8
    count, seconds, start = struct.unpack_from(">IIi", data, place)
    assert (count, seconds) == (1, 4000)
    struct.pack_into(">Ii", data, place + 4, 100 * frames, start + round(first * tick))
    path.write_bytes(data)
    clip, chosen = check(path)
    assert clip.seconds == pytest.approx(frames / 10, abs=0.11)
    assert np.array_equal(numbers(clip), chosen + np.ceil(first))


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "vp9.webm", "h264.ts"])
def test_films_that_start_late(tmp_path, name):
    late = [1500 + 100 * number for number in range(COUNT)]
    write(tmp_path / name, FILMS[name.split(".")[0]][0], times=late)
    if name.endswith("mp4"):
        data = (tmp_path / name).read_bytes()
        empty = struct.unpack_from(">IIi", data, data.index(b"elst") + 8)
        assert empty == (2, 1500, -1)
    clip, chosen = check(tmp_path / name)
    assert clip.times[0] == 0 and np.array_equal(numbers(clip), chosen)


def display(picture, matrix):
    """Put every pixel where a display matrix (a, b, c, d) says."""
    a, b, c, d = (round(value) for value in matrix)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    shown = np.empty((down.max() + 1, across.max() + 1, 3), np.uint8)
    shown[down, across] = picture
    return shown


MATRICES = [(x, 0, 0, y) for x in (1, -1) for y in (1, -1)]
MATRICES += [(0, x, y, 0) for x in (1, -1) for y in (1, -1)]
MATRICES += [(cos(0.1), sin(0.1), -sin(0.1), cos(0.1))]  # the nearest right angle counts


@pytest.mark.parametrize("matrix", MATRICES)
def test_pictures_are_turned_and_mirrored(tmp_path, matrix):
    path, film, wide = tmp_path / "a.mp4", ("libx264", "yuv444p", {}), Fraction(3, 2)
    write(path, film, numbered(6), sample_aspect_ratio=wide)
    data = bytearray(path.read_bytes())
    a, b, c, d = (round(65536 * value) for value in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    remux(path, tmp_path / "a.mkv")
    aspect = wide * Fraction(WIDTH, HEIGHT)
    aspect = 1 / aspect if abs(matrix[1]) > 0.5 else aspect
    for name in ("a.mp4", "a.mkv"):
        check(tmp_path / name, lambda picture: display(picture, matrix), aspect, counts=(3,))


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2)], ids=["wide", "tall"])
@pytest.mark.parametrize(
    "name",
    ["h264.mp4", "h264.mkv", "hevc.mp4", "h264.ts", "av1.mp4", "mpeg4.avi", "mjpeg.mov", "gif.gif"],
)
def test_pixels_that_are_not_square(tmp_path, name, aspect):
    film = FILMS[name.split(".")[0]][0]
    write(tmp_path / name, film, numbered(6), sample_aspect_ratio=aspect)
    check(tmp_path / name, aspect=Fraction(WIDTH, HEIGHT) * aspect, counts=(3,))


@pytest.mark.parametrize(
    "name", ["vp9.webm", "av1.mp4", "mjpeg.avi", "mpeg4.mkv", "gif.gif", "rgb.mkv"]
)
def test_odd_sizes(tmp_path, name):
    film = FFV1 if name == "rgb.mkv" else FILMS[name.split(".")[0]][0]
    write(tmp_path / name, film, numbered(6, 47, 65))
    assert decoded(tmp_path / name)[0][0].shape == (47, 65, 3)
    check(tmp_path / name, counts=(3,))


@pytest.mark.parametrize(
    "name, film",
    [
        ("a.webm", ("libvpx-vp9", "yuva420p", {"deadline": "realtime", "auto-alt-ref": "0"})),
        ("a.mkv", ("ffv1", "bgra", {})),
        ("a.mov", ("qtrle", "argb", {})),
        ("a.apng", ("apng", "rgba", {})),
    ],
)
def test_alpha_is_left_out(tmp_path, name, film):
    colours = numbered(6)
    alpha = np.zeros((6, HEIGHT, WIDTH, 1), np.uint8)
    alpha[:, :, WIDTH // 2 :] = 130
    write(tmp_path / name, film, np.concatenate([colours, alpha], 3))
    clip, _ = check(tmp_path / name, counts=(6,))
    assert np.abs(clip.frames - np.stack([fitted(c) for c in colours]).astype(int)).mean() < 3


def test_what_is_transparent_in_a_gif_is_white(tmp_path):
    pictures = [Image.new("RGBA", (64, 48), (9 * n, 200, 90, 255)) for n in range(4)]
    for picture in pictures:
        picture.paste((0, 0, 0, 0), (0, 0, 32, 48))
    lasting = {"duration": [100, 300, 100, 100], "disposal": 2}
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], **lasting)
    clip, chosen = check(tmp_path / "a.gif", counts=(6,))
    assert chosen.tolist() == [0, 1, 1, 1, 2, 3] and (clip.frames[:, :, :14] == 255).all()
    assert np.array_equal(clip.frames[:, 9, -1], [(9 * n, 200, 90) for n in chosen])


WEIGHTS = {"ITU709": (0.2126, 0.0722), "ITU601": (0.299, 0.114), "BT2020": (0.2627, 0.0593)}
PATCHES = np.array(
    [(120, 100, 180), (60, 140, 90), (200, 120, 130), (235, 128, 128), (16, 128, 128)]
)


def red_green_blue(patches, matrix, is_full):
    """Turn 8-bit Y, Cb, Cr (N, 3) into R, G, B by the formulas of the standards."""
    red, blue = WEIGHTS[matrix]
    black, luma, chroma = (0, 255, 255) if is_full else (16, 219, 224)
    y, b, r = ((patches - (black, 128, 128)) / (luma, chroma, chroma)).T
    r, b = y + 2 * (1 - red) * r, y + 2 * (1 - blue) * b
    g = (y - red * r - blue * b) / (1 - red - blue)
    return (255 * np.stack([r, g, b], 1).clip(0, 1)).round().astype(np.uint8)


def patches_of(pixels):
    """Make frames of one colour each, of 8 or 10 bits."""
    kind, times = ("<u2", 4) if "10le" in pixels else ("u1", 1)
    for patch in PATCHES:
        frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
        for plane, value in zip(frame.planes, patch * times):
            plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, value, kind))
        yield frame


def check_colours(path, matrix, is_full):
    truth = red_green_blue(PATCHES, matrix, is_full)
    clip = read_clip(path, len(PATCHES), COLOUR)
    assert np.abs(clip.frames - truth[:, None, None].astype(int)).max() <= 3  # ffmpeg's rounding
    light = np.asarray(Image.fromarray(truth[None]).convert("L"))[0]
    grey = read_clip(path, len(PATCHES), GREY).frames
    assert np.abs(grey - light[:, None, None, None].astype(int)).max() <= 3


@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize(
    "name, codec, pixels",
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv422p10le"),
        ("a.mov", "libx264", "yuv444p"),
        ("a.mp4", "libx265", "yuv420p10le"),
        ("a.mkv", "ffv1", "yuv422p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mp4", "libsvtav1", "yuv420p10le"),
    ],
)
def test_ranges_and_matrices(tmp_path, name, codec, pixels, matrix, is_full):
    film = (codec, pixels, {"crf": "1", "x265-params": "log-level=none"})
    colours = {"colorspace": Colorspace[matrix], "color_range": ColorRange(1 + is_full)}
    write(tmp_path / name, film, patches_of(pixels), **colours)
    check_colours(tmp_path / name, matrix, is_full)


def test_films_that_do_not_say_their_range(tmp_path):
    write(tmp_path / "a.avi", ("mpeg4", "yuv420p", {"qscale": "1"}), patches_of("yuv420p"))
    check_colours(tmp_path / "a.avi", "ITU601", False)
    write(tmp_path / "b.avi", ("mjpeg", "yuvj420p", {"qscale": "1"}), patches_of("yuvj420p"))
    check_colours(tmp_path / "b.avi", "ITU601", True)
