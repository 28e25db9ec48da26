"""Folders as they are: what is named as a film and is none, and files that change meanwhile."""

import os
import socket
from fractions import Fraction

import av
import h5py
import numpy as np
import pytest
from av.stream import Disposition

from vidhash_lab.videos import extraction
from vidhash_lab.videos.backbones import Backbone
from vidhash_lab.videos.decoding import frame_times, read_clip
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.pictures import BrokenVideo, Shape
from vidhash_lab.videos.writing import write_video

SHAPE, MEANS = Shape(32), Backbone(lambda frames: frames.mean((2, 3)), "means", 32)


def write_film(path, seconds):
    pictures = np.random.default_rng(0).integers(0, 200, (10 * seconds, 48, 64), dtype=np.uint8)
    write_video(path, pictures, 10)


def write_sound(path, *pictures):
    """Write a second of silence and streams of pictures, each (codec, number, brightness)."""
    form = "matroska" if path.suffix == ".mkv" else "mp4"
    with av.open(str(path), "w", format=form) as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        streams = [container.add_stream(codec, rate=20) for codec, *_ in pictures]
        packets = []
        for stream, (codec, count, brightness) in zip(streams, pictures):
            pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            if count == 1:
                stream.disposition = Disposition.attached_pic
            for number in range(count):
                picture = np.full((48, 64, 3), brightness, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture).reformat(format=pixels)
                frame.pts, frame.time_base = number, Fraction(1, 20)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        container.mux([*sound.encode(silence), *sound.encode(None), *packets])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_film_with_a_cover_is_the_film(tmp_path, name):
    write_sound(tmp_path / name, ("mjpeg", 1, 250), ("libx264", 20, 50))
    clip = read_clip(tmp_path / name, 20, SHAPE)
    assert np.allclose(clip.times, np.arange(20) / 20) and clip.seconds == pytest.approx(1)
    assert np.abs(clip.frames.astype(int) - 50).max() < 5


@pytest.fixture
def folder(tmp_path):
    """A folder of two films, of one and two seconds."""
    write_film(tmp_path / "films" / "a.mp4", 1)
    write_film(tmp_path / "films" / "b.mkv", 2)
    return tmp_path / "films"


@pytest.fixture
def odd_files(folder, monkeypatch):
    """Put what is no film into the folder -> how the reason of each begins."""
    write_sound(folder / "sound.mp4")
    write_sound(folder / "cover.mp4", ("mjpeg", 1, 250))
    (folder / "hls.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    write_film(folder / "folder.mp4" / "inside.mp4", 1)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "nowhere.mp4").symlink_to("none")
    (folder / "circle.mp4").symlink_to("circle.mp4")
    (folder / "null.mp4").symlink_to("/dev/null")
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.mp4")
        yield {
            "circle.mp4": "a link that leads nowhere",
            "concat.mp4": "not a video file",
            "cover.mp4": "has one frame only: a picture, not a video",
            "folder.mp4": "a folder, not a file",
            "hls.mp4": "not a video file",
            "nowhere.mp4": "a link that leads nowhere",
            "null.mp4": "a pipe, a socket or a device, not a file",
            "pipe.mp4": "a pipe, a socket or a device, not a file",
            "socket.mp4": "a pipe, a socket or a device, not a file",
            "sound.mp4": "has no pictures, only audio",
        }


@pytest.mark.parametrize("sample", ["uniform", "shots"])
def test_what_is_named_as_a_film_has_a_line_in_the_report(folder, tmp_path, odd_files, sample):
    out = tmp_path / "out.h5"
    for retry in (False, True, False):
        report = extract(folder, out, 2, MEANS, sample=sample, retry_skipped=retry)
        assert (report.videos, report.skipped.keys(), report.unread) == (3, odd_files.keys(), {})
        assert all(f"\n  {id}: {why}" in str(report) for id, why in odd_files.items())
    made = out.stat().st_mtime_ns
    (folder / "folder.mp4" / "note.txt").touch()
    assert extract(folder, out, 2, MEANS, sample=sample).videos == 3
    assert out.stat().st_mtime_ns == made


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for read in (frame_times, lambda path: read_clip(path, 2, SHAPE)):
        with pytest.raises(BrokenVideo, match="a pipe, a socket or a device, not a file"):
            read(tmp_path / "pipe.mp4")
        with pytest.raises(IsADirectoryError):
            read(tmp_path)


def test_a_link_that_leads_to_a_film_later(folder, tmp_path):
    (folder / "c.mp4").symlink_to(tmp_path / "later.mp4")
    assert extract(folder, tmp_path / "out.h5", 2, MEANS).skipped.keys() == {"c.mp4"}
    write_film(tmp_path / "later.mp4", 1)
    report = extract(folder, tmp_path / "out.h5", 2, MEANS)
    assert (report.videos, report.skipped) == (3, {})


@pytest.fixture
def after_listing(monkeypatch):
    """Return a function that lets something happen between listing and reading."""
    listed = extraction.list_videos

    def happen(change):
        def list_and_change(folder):
            files = listed(folder)
            change()
            return files

        monkeypatch.setattr(extraction, "list_videos", list_and_change)

    yield happen


def test_files_that_vanish_before_they_are_read(folder, tmp_path, after_listing):
    lost = [folder / f"c{number}.mp4" for number in range(4)]
    for path in lost:
        write_film(path, 1)
    after_listing(lambda: [path.unlink(missing_ok=True) for path in lost])
    report = extract(folder, tmp_path / "out.h5", 2, MEANS)
    assert (report.videos, report.skipped) == (2, {})
    assert report.unread == {path.name: "No such file or directory" for path in lost}
    report = extract(folder, tmp_path / "out.h5", 2, MEANS)
    assert (report.videos, report.skipped, report.unread) == (2, {}, {})


def test_a_folder_that_is_emptied_ends_the_run(folder, tmp_path, after_listing):
    write_film(folder / "c.mp4", 1)
    after_listing(lambda: (folder.rename(tmp_path / "unmounted"), folder.mkdir()))
    with pytest.raises(OSError, match="3 files in a row could not be read"):
        extract(folder, tmp_path / "out.h5", 2, MEANS)


def grow(path):
    with open(path, "ab") as file:
        file.write(b"\0\0\0\x08free")


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def replace(path):
    write_film(path, 3)


def become_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("is_early", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("change", [grow, cut, replace, become_a_pipe, os.utime, os.unlink])
def test_a_file_that_changes_while_it_is_read(folder, tmp_path, monkeypatch, change, is_early):
    out, read = tmp_path / "out.h5", extraction.read_clip

    def read_and_change(path, *rest):
        steps = [lambda: read(path, *rest)]
        if path.name == "a.mp4":
            steps.insert(0 if is_early else 1, lambda: change(path))
        return next(filter(None, [step() for step in steps]))

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "read_clip", read_and_change)
        report = extract(folder, out, 2, MEANS)
    is_gone = change is os.unlink and is_early
    why = "No such file or directory" if is_gone else "changed while it was read"
    assert (report.videos, report.skipped, report.unread) == (1, {}, {"a.mp4": why})
    with h5py.File(out) as file:
        assert file["video_ids"].asstr()[:].tolist() == ["b.mkv"] and not len(file["skipped_ids"])
    report = extract(folder, out, 2, MEANS)
    assert report.unread == {} and len(report.skipped) == (change in (cut, become_a_pipe))
    with h5py.File(out) as file:
        seconds = dict(zip(file["video_ids"].asstr()[:], file["seconds"][:].round(2)))
    expected = {grow: 1, replace: 3, os.utime: 1}
    assert seconds == {"b.mkv": 2} | ({"a.mp4": expected[change]} if change in expected else {})


def test_what_the_system_denies_the_search_for_shots_is_tried_again(folder, tmp_path, monkeypatch):
    def denying(opens):
        def denied(path, *rest, **options):
            if "a.mp4" in str(path):
                raise av.error.PermissionError(13, "Permission denied", str(path))
            return opens(path, *rest, **options)

        return denied

    with monkeypatch.context() as patch:
        patch.setattr(av, "open", denying(av.open))
        patch.setattr("builtins.open", denying(open))
        report = extract(folder, tmp_path / "out.h5", 2, MEANS, sample="shots")
    assert report.unread == {"a.mp4": "Permission denied"}
    assert extract(folder, tmp_path / "out.h5", 2, MEANS, sample="shots").videos == 2
