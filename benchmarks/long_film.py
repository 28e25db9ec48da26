"""Time the extraction of a film of hours, and of thousands of tiny files; tell memory and shares.

    python benchmarks/long_film.py [--minutes 180] [--files 10000]

The film has 640 x 360 pixels at 25 frames a second (x264 as it is by default, one key frame in
250); of tiny files, of two frames each, the plain decoding of each is timed beside. Each part runs
in a process of its own, whose peak of memory is told.
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from vidhash_lab.videos.backbones import Backbone
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.writing import write_video

MEANS = Backbone(lambda frames: frames.mean((2, 3)), "means", 224)


def write_film(path, minutes):
    """Write a film of moving blotches that cuts every five seconds, the same in every minute."""
    blotches = np.random.default_rng(0).integers(0, 256, (12, 9, 24, 3), dtype=np.uint8)
    pictures = blotches.repeat(40, 1).repeat(40, 2)  # (12, 360, 960, 3)
    frames = (np.roll(pictures[n // 125], -(n % 125), 1)[:, :640] for n in range(1500))
    minute = path.with_name("minute.mp4")
    write_video(minute, frames, 25, preset="veryfast")
    with av.open(str(minute)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        copy = target.add_stream_from_template(stream)
        for number in range(minutes):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = (
                    t + number * 60 // packet.time_base for t in (packet.pts, packet.dts)
                )
                again.time_base, again.is_keyframe = packet.time_base, packet.is_keyframe
                again.duration, again.stream = packet.duration, copy
                target.mux(again)
    minute.unlink()


def quiet_extract(folder, out, **options):
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        return extract(folder, out, **options)


def measured(function, *arguments, **options):
    """Run a function in a new process -> seconds, peak of its memory in MB."""

    def child(pipe):
        started = time.perf_counter()
        function(*arguments, **options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((time.perf_counter() - started, peak))

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    found = ours.recv()
    process.join()
    return found


def decode_each(folder):
    for path in folder.iterdir():
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")


def main():
    """Print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=int, default=180)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder, length = Path(folder), 60 * options.minutes
        if options.minutes:
            (folder / "films").mkdir()
            write_film(folder / "films/long.mp4", options.minutes)
            megabytes = (folder / "films/long.mp4").stat().st_size / 1e6
            print(f"a film of {options.minutes} minutes, {megabytes:.0f} MB")
            for sample in ("uniform", "shots"):
                out = folder / f"{sample}.h5"
                how = {"num_frames": 25, "backbone": MEANS, "sample": sample}
                seconds, peak = measured(quiet_extract, folder / "films", out, **how)
                share = f"{seconds / length:.2%} of its length"
                print(f"{sample:8s} {seconds:6.1f} s, {share}, {peak:.0f} MB at most")
        if options.files:
            write_video(folder / "one.mp4", np.zeros((2, 32, 32), np.uint8), 5)
            (folder / "tiny").mkdir()
            for number in range(options.files):
                shutil.copy(folder / "one.mp4", folder / f"tiny/{number:05d}.mp4")
            seconds, peak = measured(
                quiet_extract, folder / "tiny", folder / "tiny.h5", num_frames=2, backbone=MEANS
            )
            plain, _ = measured(decode_each, folder / "tiny")
            each = 1000 / options.files
            print(
                f"{options.files} files: {seconds * each:.2f} ms each, decoding alone "
                f"{plain * each:.2f} ms, {peak:.0f} MB at most"
            )


if __name__ == "__main__":
    main()
