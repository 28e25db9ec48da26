"""Read thousands of damaged video and label files: none may end the program or hang it.

    python tests/fuzz/fuzz_videos.py 3000 --seed 0

Tiny films in several containers and codecs are cut short, or bits, bytes and stretches of them are
changed, half of the time in the first and last kilobyte, where indexes lie. Folders of them are
extracted in a process of their own with limits on time and memory. Prints how many came through,
why the others were skipped, and the peak of memory; a file that ends the process is kept, named.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from vidhash_lab.data import DataError, FeatureSet
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.labels import read_video_labels
from vidhash_lab.videos.writing import write_video

BATCH, SECONDS, MEMORY = 250, 300, 8 << 30  # files a process, its limits
FILMS = {
    "h264.mp4": dict(codec="libx264", g="4"),
    "plain.mp4": dict(codec="libx264", preset="ultrafast"),
    "hevc.mp4": dict(codec="libx265", **{"x265-params": "log-level=none"}),
    "mpeg4.avi": dict(codec="mpeg4", g="3"),
    "vp9.webm": dict(codec="libvpx-vp9", deadline="realtime"),
    "h264.mkv": dict(codec="libx264", g="5"),
    "h264.ts": dict(codec="libx264"),
    "mjpeg.mov": dict(codec="mjpeg", pixels="yuvj420p"),
    "gif.gif": dict(codec="gif", pixels="rgb8"),
}


def films(folder):
    """Write one tiny film of each kind -> {name: bytes}."""
    frames = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 3), dtype=np.uint8)
    frames = frames.repeat(8, 1).repeat(8, 2)
    for name, options in FILMS.items():
        write_video(folder / name, frames, 10, **options)
    return {name: (folder / name).read_bytes() for name in FILMS}


def damage(data, chance):
    """Change a file at random in one of five ways, one to eight times -> bytes."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        if not data:
            break
        near_ends = chance.random() < 0.5 and len(data) > 2048
        place = chance.randrange(1024) if near_ends else chance.randrange(max(1, len(data)))
        place = len(data) - 1 - place if near_ends and chance.random() < 0.5 else place
        stretch = slice(place, place + chance.choice([1, 2, 4, 8, 64]))
        match chance.randrange(5):
            case 0:
                del data[max(1, place) :]
            case 1:
                data[place : place + 1] = bytes([data[place] ^ 1 << chance.randrange(8)])
            case 2:
                data[stretch] = chance.choice([bytes, chance.randbytes])(len(data[stretch]))
            case 3:
                data[stretch] = b"\xff" * len(data[stretch])
            case 4:
                data[stretch] = data[stretch] * 2 if chance.random() < 0.5 else b""
    return bytes(data)


def run(folder):
    """Extract one folder in this process and check what it made; prints a line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out, files = folder / "out.h5", sum(path.is_file() for path in folder.iterdir())
    started = time.perf_counter()
    try:
        report = extract(folder, out, 5, "digits")
        told = report.skipped | report.unread
        assert report.videos + len(told) == files, "a file is missing in the report"
        features = FeatureSet(out)
        features.validate()
        assert len(features) == report.videos
        skipped = list(report.skipped.values())
    except DataError as error:
        assert "no video of two frames" in str(error), error
        skipped = ["all of them"] * files
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([files - len(skipped), skipped, peak, time.perf_counter() - started]))


def extract_apart(folder):
    """Extract a folder in another process -> (its line, None), or (None, how it died)."""
    command = [sys.executable, __file__, "--folder", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None, f"took over {SECONDS} s"
    if done.returncode:
        return None, f"exit {done.returncode}: {done.stderr[-500:]}"
    return json.loads(done.stdout.splitlines()[-1]), None


def find_culprits(folder, kept):
    """Extract the files of a folder one by one and keep those that end the process."""
    for path in sorted(path for path in folder.iterdir() if path.suffix != ".h5"):
        with tempfile.TemporaryDirectory() as alone:
            shutil.copy(path, alone)
            how = extract_apart(Path(alone))[1]
        if how:
            kept.mkdir(parents=True, exist_ok=True)
            print(f"CULPRIT {shutil.copy(path, kept)}: {how}", flush=True)


def fuzz_labels(count, chance):
    """Read damaged label files: an answer or a `DataError`, nothing else."""
    ids = [f"{n}.mp4" for n in range(20)]
    text = "video,label\n" + "".join(f"{id},{n % 3}\n" for n, id in enumerate(ids))
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        for _ in range(count):
            path.write_bytes(damage(text.encode(), chance))
            try:
                read_video_labels(path, ids)
            except DataError:
                refused += 1
    print(f"{count} label files: {refused} refused with a clear error")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("count", nargs="?", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        return run(options.folder)
    chance = random.Random(options.seed)
    good, peak, slowest, deaths, reasons = 0, 0.0, 0.0, 0, Counter()
    for start in range(0, options.count, BATCH):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            whole = films(folder)
            for path in folder.iterdir():
                path.unlink()
            count = min(BATCH, options.count - start)
            for number in range(count):
                name = chance.choice(sorted(whole))
                (folder / f"{number:04d}-{name}").write_bytes(damage(whole[name], chance))
            line, how = extract_apart(folder)
            if line is None:
                deaths += 1
                print(f"a process ended: {how}")
                find_culprits(folder, Path("build/fuzz"))
                continue
            good, peak, slowest = good + line[0], max(peak, line[2]), max(slowest, line[3])
            reasons.update(
                reason.split(":")[0 if "Error" not in reason else -1] for reason in line[1]
            )
    print(f"{options.count} files: {good} came through, {deaths} processes ended")
    print(f"slowest {BATCH} files {slowest:.1f} s, peak memory {peak:.0f} MB")
    for reason, times in reasons.most_common():
        print(f"{times:6d}  {reason}")
    fuzz_labels(options.count, chance)


if __name__ == "__main__":
    main()
