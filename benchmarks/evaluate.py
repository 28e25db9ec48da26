"""Time and weigh `evaluate` on the largest published protocol, beside a plain transcription.

    python benchmarks/evaluate.py

FCVID's protocol with random codes: 45,600 test videos against themselves, 64 bits, 239 labels. The
transcription is what a script would write first: for a block of queries, distances by a matrix
product, a full argsort, relevance by a matrix product, and average precision of that one order
(no ties, no curves). It is measured on the first queries only and scaled by their number.
"""

import resource
import statistics
import time

import numpy as np
import torch

from vidhash_lab.retrieval.hamming import count_distances
from vidhash_lab.retrieval.metrics import evaluate

VIDEOS, BITS, LABELS, CUTOFFS = 45_600, 64, 239, (5, 20, 40, 60, 80, 100)
PLAIN_QUERIES, PLAIN_BLOCK, REPEATS = 912, 304, 3


def random_videos():
    """Random codes (N, K/8) and labels (N, C): one a video, two for every second one."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (VIDEOS, BITS // 8), dtype=np.uint8)
    labels = np.zeros((VIDEOS, LABELS), dtype=bool)
    for step in (1, 2):
        rows = np.arange(0, VIDEOS, step)
        labels[rows, rng.integers(0, LABELS, len(rows))] = True
    return codes, labels


def plain_map(codes, labels):
    """mAP {k: float} of the first queries, with matrices of a block of queries by N."""
    signs = torch.from_numpy(np.unpackbits(codes, axis=1)).float() * 2 - 1
    labels = torch.from_numpy(labels).float()
    ranks = torch.arange(1, VIDEOS + 1)
    totals = dict.fromkeys(CUTOFFS, 0.0)
    for start in range(0, PLAIN_QUERIES, PLAIN_BLOCK):
        rows = slice(start, start + PLAIN_BLOCK)
        order = ((BITS - signs[rows] @ signs.T) / 2).argsort(dim=1, stable=True)
        relevant = (labels[rows] @ labels.T > 0).gather(1, order)
        gain = relevant * relevant.cumsum(dim=1) / ranks
        for k in CUTOFFS:
            totals[k] += float(gain[:, :k].sum() / k)
    return {k: total / PLAIN_QUERIES for k, total in totals.items()}


def seconds_of(function, *arguments, **options):
    """Median seconds of some runs after one to warm up."""
    function(*arguments, **options)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function(*arguments, **options)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    codes, labels = random_videos()
    evaluate(codes[:200], codes[:200], labels[:200], labels[:200])  # compiles, or loads the cache
    start = time.perf_counter()
    count_distances.__wrapped__.recompile()
    compiling = time.perf_counter() - start

    sets = codes, codes, labels, labels
    before = peak_megabytes()
    result = evaluate(*sets, k=CUTOFFS)
    above = peak_megabytes() - before
    print(result.protocol, f"on {torch.get_num_threads()} threads")
    print(f"peak memory above inputs and imports  {above:8.0f} MB, measured")
    print(f"compiling, once per installation      {compiling:8.1f} s, measured")
    ours = seconds_of(evaluate, *sets, k=CUTOFFS)
    for options in ({"denominator": "relevant"}, {"ties": "stable"}):
        seconds = seconds_of(evaluate, *sets, k=CUTOFFS, **options)
        print(f"evaluate, {options!s:28}{seconds:8.1f} s, median of {REPEATS}")
    print(f"evaluate, as by default               {ours:8.1f} s, median of {REPEATS}")

    plain = plain_map(codes, labels)
    stable = evaluate(codes[:PLAIN_QUERIES], codes, labels[:PLAIN_QUERIES], labels, ties="stable")
    assert np.allclose(list(plain.values()), list(stable.map_at.values()), atol=1e-5)
    scaled = seconds_of(plain_map, codes, labels) * VIDEOS / PLAIN_QUERIES
    print(f"plain transcription                   {scaled:8.1f} s, scaled from")
    print(f"  {PLAIN_QUERIES} queries (median of {REPEATS}): {scaled / ours:.0f} times as long")


if __name__ == "__main__":
    main()
