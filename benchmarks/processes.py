"""Time training on two processes of one thread each against one process of one thread, in one run.

    python benchmarks/processes.py [--processes 2] [--videos 256] [--rounds 6]

ConMH small at FCVID's shape (25 x 4,096), random features, batches of 128. Of each training the
first epoch warms up and the best of eleven counts: two steps that nobody disturbed. Both ways
alternate, and the best round of each is taken; on a machine that others use too a single ratio says
little, so all rounds are printed.
"""

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

from vidhash_lab import ConMH, fit, open_dataset


def main():
    """Print videos a second of both, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--videos", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    ways = (1, options.processes)
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "a.h5", np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            file["feats"] = rng.standard_normal((options.videos, 25, 4096), np.float32)
        data, speeds = open_dataset(path), {processes: [] for processes in ways}
        for processes in ways * options.rounds:
            torch.set_num_threads(processes)  # shared among them: one each
            model = ConMH.for_dataset(data, hidden_dim=256, depth=12, heads=6)
            history = fit(model, data.train, epochs=12, device="cpu", processes=processes)
            speeds[processes].append(max(row["videos_per_second"] for row in history[1:]))
    for processes, each in speeds.items():
        rounds = ", ".join(f"{speed:.0f}" for speed in each)
        print(f"{processes} processes: {max(each):.1f} videos/s (rounds: {rounds})")
    print(f"ratio {max(speeds[options.processes]) / max(speeds[1]):.2f}")


if __name__ == "__main__":
    main()
