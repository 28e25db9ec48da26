"""Time exact PCA against incremental PCA, and tell how much of the true subspace each finds.

    python benchmarks/pca.py [--videos 10000] [--dims 512 4096] [--bits 64]

Rows have a spectrum that falls by a power of its index and are drawn once. The share of the
subspace is the mean squared cosine between the true components and those found.
"""

import argparse
import time

import torch

from vidhash_lab.models.baselines import exact_pca, incremental_pca


def main():
    """Print a line for each width and way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--bits", type=int, default=64)
    options = parser.parse_args()
    for dim in options.dims:
        draw = torch.Generator().manual_seed(0)
        scales = torch.arange(1.0, dim + 1) ** -0.5
        rows = torch.randn(options.videos, dim, generator=draw) * scales
        centred = (rows - rows.mean(0)).double()
        _, axes = torch.linalg.eigh(centred.T @ centred)
        axes, seconds = axes[:, -options.bits :], {}
        for find in (exact_pca, incremental_pca):
            started = time.perf_counter()
            _, found = find(rows.split(512), options.bits)
            seconds[find] = time.perf_counter() - started
            share = (axes.T @ found.double()).square().sum() / options.bits
            print(f"{dim:5d} {find.__name__:16s} {seconds[find]:7.2f} s, finds {share:.1%}")
        print(f"{dim:5d} ratio {seconds[incremental_pca] / seconds[exact_pca]:.1f}")


if __name__ == "__main__":
    main()
