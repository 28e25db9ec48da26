"""Time training on two processes of one thread each against one process of one thread, in one run.

    python benchmarks/processes.py [--processes 2] [--videos 1024] [--epochs 2]

ConMH small at FCVID's shape (25 x 4,096), random features, batches of 128. The first epoch warms
up; the second counts. On a machine that others use too the ratio says little.
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
    parser.add_argument("--videos", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "a.h5", np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            file["feats"] = rng.standard_normal((options.videos, 25, 4096), np.float32)
        data, speeds = open_dataset(path), {}
        for processes in (1, options.processes):
            torch.set_num_threads(processes)  # shared among them: one each
            model = ConMH.for_dataset(data, hidden_dim=256, depth=12, heads=6)
            history = fit(
                model, data.train, epochs=options.epochs, device="cpu", processes=processes
            )
            speeds[processes] = history[-1]["videos_per_second"]
            print(f"{processes} processes: {speeds[processes]:.1f} videos/s", flush=True)
    print(f"ratio {speeds[options.processes] / speeds[1]:.2f}")


if __name__ == "__main__":
    main()
