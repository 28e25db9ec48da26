"""Shots: where a film cuts from one scene to another, found from small pictures of all its frames.

A cut is a sudden change among calm ones: the mean change of a pixel from the frame before is large
in itself, and twice that of each of the frames around it. A camera that moves changes every frame,
a flash changes two: neither is a cut. Fades and dissolves are not found. (PySceneDetect's adaptive
detector compares with the mean of the same four neighbours, and takes a flash for two cuts.)

F frames.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from vidhash_lab.videos.decoding import frame_times

SMALL = 32  # pixels a side of the pictures that are compared
LEAST_CHANGE, TIMES_NEIGHBOURS = 12.0, 2.0  # of 255; of any of the two frames on each side


@dataclass(frozen=True, eq=False)
class Shots:
    """When frames are shown (F,), in seconds, how much each changes (F,), and where shots begin.

    >>> Shots(np.array([0.0, 0.04]), np.array([0.0, 0.1]), np.array([])).times.tolist()
    [0.0, 0.04]
    """

    times: np.ndarray
    changes: np.ndarray
    cuts: np.ndarray  # seconds, of all shots but the first


def find_shots(path: str | Path) -> Shots:
    """Decode a video whole and find its cuts; `BrokenVideo` says what is wrong with it.

    >>> from vidhash_lab.videos.writing import write_video
    >>> frames = np.zeros((20, 48, 64, 3), np.uint8)
    >>> frames[10:] = 255
    >>> write_video("film.mp4", frames, rate=25)
    >>> find_shots("film.mp4").cuts.tolist()
    [0.4]
    """
    reformatter, before, changes = VideoReformatter(), [None], []

    def see(frame):
        how = {"interpolation": Interpolation.AREA, "threads": 1}
        small = reformatter.reformat(frame, SMALL, SMALL, "rgb24", **how).to_ndarray().astype(int)
        changes.append(0.0 if before[0] is None else np.abs(small - before[0]).mean())
        before[0] = small

    times, changes = np.array(frame_times(path, see)), np.array(changes)
    return Shots(times, changes, times[find_cuts(changes)])


def find_cuts(changes: np.ndarray) -> np.ndarray:
    """Number the frames (F,) at which shots begin, by how much each changes from the one before.

    >>> changes = np.ones(30)
    >>> changes[12] = 50
    >>> find_cuts(changes).tolist()
    [12]
    """
    padded = np.pad(changes, 2)
    around = [padded[2 + step : len(padded) - 2 + step] for step in (-2, -1, 1, 2)]
    return np.flatnonzero(
        (changes >= LEAST_CHANGE) & (changes >= TIMES_NEIGHBOURS * np.max(around, 0))
    )
