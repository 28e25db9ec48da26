"""Affinity propagation of 128 videos x 25 frames, 50 iterations, beside a loop over scikit-learn.

    python benchmarks/affinity_propagation.py

Similarities are those of real frames (digit stories, minus squared distances), and random ones,
where many videos use all 50 iterations. Medians of runs after one to warm up; both stop at
convergence. Labels differ where scikit-learn broke a tie by chance or a video did not converge.
`OMP_NUM_THREADS=1` measures one thread, `cuda` as argument a GPU.
"""

import statistics
import sys
import time
import warnings

import numpy as np
import torch
from sklearn.cluster import AffinityPropagation

from vidhash_lab import open_dataset
from vidhash_lab.affinity import affinity_propagation

VIDEOS, FRAMES, ITERATIONS, REPEATS = 128, 25, 50, 7


def scikit_learn(similarities):
    """Labels (B, M), one video after the other."""
    model = AffinityPropagation(affinity="precomputed", max_iter=ITERATIONS, random_state=0)
    return np.stack([model.fit(matrix).labels_ for matrix in similarities.numpy()])


def ours(similarities):
    """Labels (B, M), where the similarities are."""
    return affinity_propagation(similarities, iterations=ITERATIONS)[1]


def seconds_of(function, similarities):
    """Median seconds of some runs after one to warm up, and what the function returns."""
    result, times = function(similarities).tolist(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function(similarities).tolist()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return statistics.median(times), np.array(result)


def main():
    """Print both times, their ratio and the share of equal labels for each kind."""
    warnings.simplefilter("ignore")  # some random matrices do not converge
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    frames = open_dataset("digit-stories-mini").train.rows(range(VIDEOS)).double()
    generator = torch.Generator().manual_seed(0)
    kinds = {
        "real frames": -(frames[:, :, None] - frames[:, None]).square().sum(3),
        "random": torch.rand(VIDEOS, FRAMES, FRAMES, generator=generator).double(),
    }
    print(f"{VIDEOS} videos x {FRAMES} frames on {device}, {torch.get_num_threads()} threads")
    for kind, similarities in kinds.items():
        plain, expected = seconds_of(scikit_learn, similarities)
        fast, labels = seconds_of(ours, similarities.to(device))
        same = (labels == expected).all(axis=1).mean()
        print(
            f"{kind:12} scikit-learn {1000 * plain:6.1f} ms, ours {1000 * fast:5.2f} ms, "
            f"{plain / fast:5.1f} times as fast, {same:.1%} of videos labelled alike"
        )


if __name__ == "__main__":
    main()
