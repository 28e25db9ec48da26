"""Time the extraction of a folder against a plain loop over its files, in one run.

    python benchmarks/extraction.py

Digit stories, enlarged and stretched over 10 s, are written as mp4 files of 320 x 240 at 25 frames
a second (x264 as it is by default: some eight key frames a film, at changes of the picture). The
plain loop opens file by file, decodes every frame, keeps 25 evenly spaced ones, scales them,
describes that one video and appends the row. Both give rows of the same network. They alternate, in
rounds of some seconds, and the best of each counts: work that nobody else on the machine disturbed.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path

import av
import h5py
import numpy as np

from vidhash_lab import open_dataset
from vidhash_lab.data.stories.network import one_thread
from vidhash_lab.videos.backbones import open_backbone
from vidhash_lab.videos.extraction import extract, list_videos
from vidhash_lab.videos.writing import write_video

VIDEOS, ROUNDS, T = 120, 8, 25


def write_films(folder):
    """Write stories as films of 250 frames, 320 x 240."""
    stories = open_dataset("digit-stories-mini").database
    for number in range(VIDEOS):
        picture = stories.pictures(number)[0].repeat(7, 1).repeat(10, 2)  # (25, 224, 320)
        picture = np.pad(picture, [(0, 0), (8, 8), (0, 0)])
        write_video(folder / f"{number:03d}.mp4", picture.repeat(10, 0), preset="veryfast")


@one_thread()
def plain_loop(folder, out, backbone):
    """Extract file by file, frame by frame."""
    with h5py.File(out, "w") as file:
        feats = file.create_dataset("feats", (0, T, 128), "float16", maxshape=(None, T, 128))
        for video in list_videos(folder):
            with av.open(str(video.path)) as container:
                count, frames = container.streams.video[0].frames, []
                wanted = set(np.linspace(0, count - 1, T).round().astype(int).tolist())
                for number, frame in enumerate(container.decode(video=0)):
                    if number in wanted:
                        frames.append(frame.reformat(32, 32, "gray").to_ndarray()[..., None])
            feats.resize(len(feats) + 1, 0)
            feats[-1] = backbone(np.stack(frames))


def quiet_extract(folder, out, backbone):
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        extract(folder, out, T, backbone)


def main():
    backbone, seconds = open_backbone("digits"), {plain_loop: [], quiet_extract: []}
    with tempfile.TemporaryDirectory() as folder:
        films = Path(folder) / "films"
        write_films(films)
        for number in range(ROUNDS):
            for function, found in seconds.items():
                started = time.perf_counter()
                function(films, Path(folder) / f"{function.__name__}{number}.h5", backbone)
                found.append(time.perf_counter() - started)
        megabytes = sum(path.stat().st_size for path in films.iterdir()) / VIDEOS / 1e6
    print(f"{VIDEOS} films of 10 s, {megabytes:.2f} MB each, {os.cpu_count()} cores")
    for function, found in seconds.items():
        rounds = ", ".join(f"{VIDEOS / each:.0f}" for each in found)
        print(f"{function.__name__:14s} {VIDEOS / min(found):6.1f} videos/s (rounds: {rounds})")
    ratio = min(seconds[plain_loop]) / min(seconds[quiet_extract])
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
