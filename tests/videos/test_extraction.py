"""A folder of videos: what the file holds, what is skipped, how it goes on after any stop."""

import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab.data import DataError, FeatureSet, open_dataset
from vidhash_lab.data.files import seal
from vidhash_lab.data.stories.network import digit_features
from vidhash_lab.videos import extraction, parts
from vidhash_lab.videos.__main__ import main
from vidhash_lab.videos.backbones import Backbone
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.parts import locked
from vidhash_lab.videos.pictures import BrokenVideo
from vidhash_lab.videos.writing import write_video

NAMES = ["a/one.mp4", "a/two.mp4", "b/deep/one.mkv", "b/größe.mp4", "c.avi"]


def describe(frames):
    """Describe frames by eight numbers, the means of their rows."""
    return frames.mean((1, 3)).unflatten(1, (8, -1)).mean(2)


MEANS = Backbone(describe, "means", 32, grey=True)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for name in NAMES:
        frames = random.integers(0, 256, (12, 4, 6, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        codec = "mpeg4" if name.endswith("avi") else "libx264"
        write_video(folder / name, frames, 6, codec=codec)
    return folder


@pytest.fixture
def folder(films, tmp_path):
    return shutil.copytree(films, tmp_path / "films")


@pytest.fixture
def count_reads(monkeypatch):
    """Record the names of the files that are decoded."""
    seen, read = [], extraction.read_clip

    def counting(path, *rest):
        seen.append(path.name)
        return read(path, *rest)

    monkeypatch.setattr(extraction, "read_clip", counting)
    return seen


def test_the_file_opens_as_a_data_set(folder, tmp_path):
    report = extract(folder, tmp_path / "out.h5", 5, "digits", "folders")
    assert (report.videos, report.skipped) == (5, {})
    dataset = open_dataset(tmp_path / "out.h5")
    features = dataset.train
    assert dataset.self_query and features.rows([0]).shape == (1, 5, 128)
    described = digit_features(torch.from_numpy(features.thumbnails[:]) / 255)
    assert torch.allclose(features.rows(np.arange(5)), described, atol=5e-3)
    assert features.attributes["category_names"].tolist() == ["a", "b"]
    expected = [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]  # c.avi lies in no folder
    assert np.array_equal(features.labels, np.array(expected, bool))
    assert "digits" in features.attributes["backbone"]
    assert "5 frames, the middles of equal stretches" in features.attributes["frames"]
    assert features.video_ids.tolist() == NAMES
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.allclose(file["seconds"], 2, atol=0.1)
        # Five stretches of 0.4 s, 12 frames of 1/6 s: on screen are frames 1, 3, 6, 8 and 10.
        assert np.allclose(file["frame_times"][0], np.array([1, 3, 6, 8, 10]) / 6, atol=1e-3)
    files = [".out.h5.lock", "films", "out.h5", "out.h5.card.json", "out.h5.card.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_views_do_not_depend_on_the_other_videos(folder, tmp_path):
    extract(folder, tmp_path / "all.h5", 5, MEANS, num_views=2)
    shutil.rmtree(folder / "a")
    extract(folder, tmp_path / "few.h5", 5, MEANS, num_views=2)
    every, few = FeatureSet(tmp_path / "all.h5"), FeatureSet(tmp_path / "few.h5")
    assert few.num_views == 2 and few.views.shape == (3, 2, 5, 8)
    assert np.allclose(every.views[2:5], few.views[:], atol=1e-3)
    assert np.abs(few.views[:, 0] - few.views[:, 1]).mean() > 0.01


def test_colour_and_thumbnails_smaller_than_the_frames(folder, tmp_path):
    extract(folder, tmp_path / "out.h5", 4, lambda frames: frames.mean((2, 3)), thumbnails=16)
    features = FeatureSet(tmp_path / "out.h5")
    assert features.thumbnails.shape == (5, 4, 16, 16, 3)
    means = features.thumbnails[:].mean((2, 3)) / 255
    assert np.allclose(features.rows(np.arange(5)), means, atol=0.01)


def test_broken_files_are_skipped_with_their_reasons(folder, tmp_path, capsys):
    (folder / "empty.mp4").touch()
    (folder / "text.mov").write_text("these are words")
    (folder / "note.txt").write_text("no video by its ending")
    (folder / "._one.mp4").write_text("what a Mac leaves behind")
    write_video(folder / "still.mp4", np.zeros((1, 32, 32), np.uint8))
    out = str(tmp_path / "out.h5")
    main([str(folder), out, "--num-frames", "5", "--backbone", "digits"])
    printed = capsys.readouterr().out
    assert "5 videos, 3 files skipped" in printed
    for reason in ("the file is empty", "not a video file", "one frame only"):
        assert reason in printed
    with h5py.File(out) as file:
        assert {"empty.mp4", "still.mp4", "text.mov"} <= set(file["skipped_ids"].asstr())
    assert len(FeatureSet(out)) == 5


def test_a_folder_without_any_video_and_one_that_is_not_there(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        extract(tmp_path / "nowhere", tmp_path / "out.h5", 5, MEANS)
    with pytest.raises(DataError, match=r"no file ends in \.3gp"):
        extract(tmp_path, tmp_path / "out.h5", 5, MEANS)
    (tmp_path / "a.mp4").write_text("words")
    with pytest.raises(DataError, match=r"no video of two frames.*a\.mp4: not a video file"):
        extract(tmp_path, tmp_path / "out.h5", 5, MEANS)
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "out.h5"), "--backbone", "digits"])
    assert "no video of two frames" in capsys.readouterr().err
    assert not (tmp_path / "out.h5").exists()


def test_a_second_run_reads_only_what_is_new(folder, tmp_path, count_reads):
    out = tmp_path / "out.h5"
    (folder / "bad.mp4").write_text("words")
    extract(folder, out, 5, MEANS)
    before, made = FeatureSet(out).rows(np.arange(5)), out.stat().st_mtime_ns
    count_reads.clear()
    assert extract(folder, out, 5, MEANS).skipped.keys() == {"bad.mp4"}
    assert count_reads == [] and out.stat().st_mtime_ns == made
    (folder / "c.avi").unlink()
    shutil.copy(folder / "a/one.mp4", folder / "a/three.mp4")
    shutil.copy(folder / "a/one.mp4", folder / "bad.mp4")
    report = extract(folder, out, 5, MEANS, "folders")
    assert sorted(count_reads) == ["bad.mp4", "three.mp4"] and (report.videos, report.skipped) == (
        6,
        {},
    )
    with h5py.File(out) as file:
        assert file["video_ids"].asstr()[:].tolist() == [
            *NAMES[:1],
            "a/three.mp4",
            *NAMES[1:4],
            "bad.mp4",
        ]
    after = FeatureSet(out)
    assert torch.equal(after.rows([0, 2, 3, 4]), before[:4]) and after.labels.shape == (6, 2)
    assert torch.equal(after.rows([1, 5]), before[[0, 0]])


CHILD = """
import sys, time
from vidhash_lab.videos import extraction
from vidhash_lab.videos.backbones import Backbone
extraction.SAVE_SECONDS, extraction.FRAMES_AT_ONCE, calls = 0, 1, []
def describe(frames):
    calls.append(1)
    time.sleep(600 if len(calls) > 4 else 0)  # four videos, then it waits to be killed
    return frames.mean((1, 3)).unflatten(1, (8, -1)).mean(2)
extraction.extract(sys.argv[1], sys.argv[2], 5, Backbone(describe, "means", 32, grey=True))
"""


def test_killed_while_it_writes_and_run_again(folder, tmp_path, count_reads):
    for name in NAMES[:4]:
        shutil.copy(folder / name, folder / f"copy-{name.replace('/', '-')}")
    out, parts = tmp_path / "out.h5", tmp_path / "out.h5.parts"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(out)])
    while len(list(parts.glob("part-*.h5"))) < 4:
        assert child.poll() is None, "the child ended before it could be killed"
        time.sleep(0.01)
    with pytest.raises(DataError, match=r"out\.h5: another run is writing it"):
        extract(folder, out, 5, MEANS)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not out.exists()
    report = extract(folder, out, 5, MEANS)
    assert report.videos == 9 and len(count_reads) <= 5  # the parts' videos are not read again
    extract(folder, tmp_path / "straight.h5", 5, MEANS)
    with h5py.File(out) as file, h5py.File(tmp_path / "straight.h5") as straight:
        ids = file["video_ids"].asstr()[:].tolist()
        assert len(set(ids)) == 9 and ids == straight["video_ids"].asstr()[:].tolist()
        for key in ("feats", "thumbnails", "frame_times", "seconds", "sizes", "modified"):
            assert np.array_equal(file[key], straight[key]), key
    assert not parts.exists()


def test_an_interrupt_keeps_what_is_described(folder, tmp_path, count_reads, monkeypatch):
    monkeypatch.setattr(extraction, "FRAMES_AT_ONCE", 5)
    calls = []

    def interrupted(frames):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return describe(frames)

    with pytest.raises(KeyboardInterrupt):
        extract(folder, tmp_path / "out.h5", 5, Backbone(interrupted, "means", 32, grey=True))
    count_reads.clear()
    assert extract(folder, tmp_path / "out.h5", 5, MEANS).videos == 5
    assert len(count_reads) == 2


def test_a_damaged_part_is_made_again(folder, tmp_path, count_reads):
    out, folder_of_parts = tmp_path / "out.h5", tmp_path / "out.h5.parts"
    extract(folder, out, 5, MEANS)
    before = FeatureSet(out).rows(np.arange(5))
    folder_of_parts.mkdir()
    part = folder_of_parts / "part-00000001.h5"
    shutil.move(out, part)
    seal(part)
    whole = part.read_bytes()
    with h5py.File(part) as file:  # one bit of the first feature, which HDF5 does not notice
        place = file["feats"].id.get_offset()
    flipped = bytearray(whole)
    flipped[place] ^= 1
    (folder_of_parts / "part-00000002.h5").write_bytes(flipped)
    (folder_of_parts / "part-00000003.h5").write_bytes(whole[: len(whole) // 2])
    (folder_of_parts / ".part-00000004.h5.77").write_bytes(b"left behind")
    count_reads.clear()
    with pytest.warns(UserWarning) as warned:
        assert extract(folder, out, 5, MEANS).videos == 5
    told = [str(each.message) for each in warned]
    assert "part-00000002.h5: damaged: its checksum is another one" in told[0]
    assert "part-00000003.h5: has no checksum: cut short" in told[1] and len(told) == 2
    assert count_reads == [] and torch.equal(FeatureSet(out).rows(np.arange(5)), before)
    assert not folder_of_parts.exists()


def test_a_part_that_cannot_be_read_for_a_moment_is_kept(folder, tmp_path, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "out.h5.parts").mkdir()
    part = tmp_path / "out.h5.parts" / "part-00000001.h5"
    part.touch()
    monkeypatch.setattr(parts, "check_seal", deny)
    with pytest.raises(PermissionError):
        extract(folder, tmp_path / "out.h5", 5, MEANS)
    assert part.exists()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_what_the_system_does_not_give_is_tried_again(folder, tmp_path, monkeypatch, error):
    out, read = tmp_path / "out.h5", extraction.read_clip
    (folder / "a" / "bad.mp4").write_text("words")

    def fail(path, *rest):
        if path.name in ("one.mp4", "c.avi"):
            raise error
        return read(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "read_clip", fail)
        for _ in range(2):
            report = extract(folder, out, 5, MEANS, "folders")
            assert report.videos == 3 and report.skipped.keys() == {"a/bad.mp4"}
            assert report.unread.keys() == {"a/one.mp4", "c.avi"}
            reason = "Permission denied" if error.args else "MemoryError"
            assert f"run again for them\n  a/one.mp4: {reason}" in str(report)
    assert FeatureSet(out).labels.tolist() == [[1, 0], [0, 1], [0, 1]]
    report = extract(folder, out, 5, MEANS, "folders")
    assert (report.videos, report.unread) == (5, {})
    extract(folder, tmp_path / "straight.h5", 5, MEANS, "folders")
    straight = FeatureSet(tmp_path / "straight.h5")
    assert torch.equal(FeatureSet(out).rows(np.arange(5)), straight.rows(np.arange(5)))


def test_a_folder_that_vanishes_ends_the_run_and_loses_nothing(folder, tmp_path, monkeypatch):
    read, hidden = extraction.read_clip, folder.with_name("unmounted")

    def unmount(path, *rest):
        if path.name == "one.mkv":  # the third
            folder.rename(hidden)
        return read(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        patch.setattr(extraction, "FRAMES_AT_ONCE", 1)
        patch.setattr(extraction, "read_clip", unmount)
        last = r"b/deep/one\.mkv: No such file.*b/größe\.mp4: No such file.*c\.avi: No such file"
        with pytest.raises(OSError, match=f"3 files in a row could not be read: {last}"):
            extract(folder, tmp_path / "out.h5", 5, MEANS)
    hidden.rename(folder)
    assert extract(folder, tmp_path / "out.h5", 5, MEANS).videos == 5


def test_skipped_files_are_read_again_when_asked(folder, tmp_path, monkeypatch):
    read = extraction.read_clip

    def fail(path, *rest):
        if path.name == "c.avi":
            raise BrokenVideo("an earlier version could not read it")
        return read(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "read_clip", fail)
        extract(folder, tmp_path / "out.h5", 5, MEANS)
    assert extract(folder, tmp_path / "out.h5", 5, MEANS).skipped.keys() == {"c.avi"}
    assert extract(folder, tmp_path / "out.h5", 5, MEANS, retry_skipped=True).videos == 5


def test_a_folder_that_cannot_be_listed_is_an_error(folder, tmp_path, monkeypatch):
    scan = os.scandir

    def deny(path):
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PermissionError, match="deep"):
        extract(folder, tmp_path / "out.h5", 5, MEANS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_frames", value) for value in (0, -1, 2.5, "5")),
        *(("thumbnails", value) for value in (0, 1.5)),
        *(("num_views", value) for value in (-1, None)),
    ],
)
def test_numbers_that_mean_nothing_are_refused_before_any_work(folder, tmp_path, name, value):
    given = {"num_frames": 5, "backbone": MEANS, name: value}
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a whole number from [01] on"):
        extract(folder, tmp_path / "new" / "out.h5", **given)
    assert not (tmp_path / "new").exists()


def test_two_names_that_give_one_id(folder, tmp_path):
    shutil.copy(folder / "c.avi", os.fsencode(folder) + b"/x\xff.avi")
    shutil.copy(folder / "c.avi", folder / "x\\udcff.avi")
    with pytest.raises(DataError, match="two files have the name"):
        extract(folder, tmp_path / "out.h5", 5, MEANS)


def test_an_output_that_cannot_be_made(folder, tmp_path, count_reads):
    for out in (folder / "c.avi" / "out.h5", tmp_path / ("ü" * 125 + ".h5"), "/proc/out.h5"):
        with pytest.raises(DataError, match=r"(out|ü)\.h5: cannot be written"):
            extract(folder, out, 5, MEANS)
    with pytest.raises(DataError, match="not written by"):
        extract(folder, folder / "a", 5, MEANS)
    assert count_reads == []


def test_a_folder_that_cannot_be_written(folder, tmp_path, monkeypatch, count_reads):
    out = tmp_path / "out.h5"

    def deny(*_, **__):
        raise OSError(30, "Read-only file system")

    extract(folder, out, 5, MEANS)
    count_reads.clear()
    monkeypatch.setattr(parts.FileLock, "acquire", deny)
    assert extract(folder, out, 5, MEANS).videos == 5  # all is done
    with pytest.raises(DataError, match=r"new\.h5: cannot be written \(Read-only"):
        extract(folder, tmp_path / "new.h5", 5, MEANS)
    shutil.copy(folder / "c.avi", folder / "d.avi")
    with pytest.raises(DataError, match=r"out\.h5: cannot be written \(Read-only"):
        extract(folder, out, 5, MEANS)
    assert count_reads == []


def test_another_network_of_the_same_name_is_refused(folder, tmp_path):
    def weighted(seed):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(3, 4).requires_grad_(False)
        return lambda frames: layer(frames.mean((2, 3)))

    for _ in range(2):
        assert extract(folder, tmp_path / "out.h5", 2, weighted(0)).videos == 5
    with pytest.raises(DataError, match=r"begun with backbone '.*<lambda> \w{12}', now"):
        extract(folder, tmp_path / "out.h5", 2, weighted(1))


def test_other_settings_and_foreign_files_are_refused(folder, tmp_path, random_features):
    out = tmp_path / "out.h5"
    extract(folder, out, 5, MEANS)
    with pytest.raises(DataError, match=r"begun with num_frames 5, now 6\. .* or remove out\.h5"):
        extract(folder, out, 6, MEANS)
    foreign = random_features("foreign.h5")
    with pytest.raises(DataError, match=r"foreign\.h5: there, and not written by `extract`"):
        extract(folder, foreign, 5, MEANS)
    assert len(FeatureSet(foreign)) == 64


def test_features_that_are_no_numbers_are_a_reason(folder, tmp_path):
    def odd(frames):
        return describe(frames) * torch.where(frames.mean() > 0.5, 1e9, 1.0)

    bright = np.full((4, 32, 32), 255, np.uint8)
    write_video(folder / "bright.mp4", bright)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "FRAMES_AT_ONCE", 5)
        report = extract(folder, tmp_path / "out.h5", 5, Backbone(odd, "odd", 32, grey=True))
    assert "too large for float16" in report.skipped["bright.mp4"]
    FeatureSet(tmp_path / "out.h5").validate()


def test_the_lock_is_free_after_an_error(folder, tmp_path):
    with pytest.raises(DataError, match=r"backbone \S* \w{12}: gave \(\)"):
        extract(folder, tmp_path / "out.h5", 5, lambda frames: frames.sum())
    with locked(tmp_path / "out.h5"):
        pass


def test_shards_are_the_whole(folder, tmp_path, capsys):
    (folder / "b/broken.mp4").write_bytes(b"words")
    whole = extract(folder, tmp_path / "whole.h5", 5, MEANS, "folders")
    shards = [tmp_path / f"shard-{i}.h5" for i in range(3)]
    reports = [
        extract(folder, path, 5, MEANS, "folders", shard=(i, 3)) for i, path in enumerate(shards)
    ]
    assert [report.videos for report in reports] == [2, 1, 2]
    assert {k: v for report in reports for k, v in report.skipped.items()} == whole.skipped
    together, alone = FeatureSet(shards), FeatureSet(tmp_path / "whole.h5")
    assert together.video_ids.tolist() == alone.video_ids.tolist()
    rows = np.arange(len(alone))
    assert torch.equal(together.rows(rows), alone.rows(rows))
    assert np.array_equal(together.labels, alone.labels)
    main([str(folder), str(tmp_path / "again.h5"), "--backbone", "digits", "--shard", "2", "3"])
    assert FeatureSet(tmp_path / "again.h5").video_ids.tolist() == alone.video_ids.tolist()[3:]
    for odd in ((3, 3), (-1, 3), (0, 0), (0, 7)):
        with pytest.raises(ValueError, match=r"must be \(i, n\), i from 0"):
            extract(folder, tmp_path / "odd.h5", 5, MEANS, shard=odd)
