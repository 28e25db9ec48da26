"""Evaluation and exact search on two workers of one thread, beside one process of two threads.

    python benchmarks/cluster.py [--items 1000000] [--queries 100000] [--labels 239]
        [--codes 10000000]

Random codes of 64 bits; labels, one a video, two for every second one, as in `evaluate.py`. The
cluster is dask's own on this machine: its scheduler lives in this process and shares the two cores.
The work is seconds on the clock and seconds of processors, of all processes together. Peaks of
memory are those of each worker above what it had when the libraries were loaded.
"""

import argparse
import os
import statistics
import time

import faiss
import numpy as np
import psutil
import torch
from distributed import Client, LocalCluster

from vidhash_lab import HammingIndex, ShardedIndex, evaluate

WORKERS, K, REPEATS = 2, 100, 5


def random_videos(count, num_labels, rng):
    """Random codes (N, 8) and labels (N, C)."""
    codes, labels = (
        rng.integers(0, 256, (count, 8), dtype=np.uint8),
        np.zeros((count, num_labels), bool),
    )
    for step in (1, 2):
        rows = np.arange(0, count, step)
        labels[rows, rng.integers(0, num_labels, len(rows))] = True
    return codes, labels


def cpu_seconds():
    """Seconds of processors that this process has used."""
    return sum(psutil.Process().cpu_times()[:2])


def begin_peak():
    """Forget the peak of this process's memory, as Linux lets one, and return its bytes now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return psutil.Process().memory_info().rss


def peak():
    """Peak of this process's memory in bytes since `begin_peak`."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def measured(call, client=None):
    """Call -> result, seconds on the clock, seconds of processors of all processes."""
    before = cpu_seconds() + (sum(client.run(cpu_seconds).values()) if client else 0)
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    after = cpu_seconds() + (sum(client.run(cpu_seconds).values()) if client else 0)
    return result, seconds, after - before


def compare_evaluation(client, queries, items, num_labels):
    """Evaluate on the workers and here, and print what both took."""
    rng = np.random.default_rng(0)
    query_codes, query_labels = random_videos(queries, num_labels, rng)
    codes, labels = random_videos(items, num_labels, rng)
    sets = query_codes, codes, query_labels, labels
    small = query_codes[:2000], codes[:2000], query_labels[:2000], labels[:2000]
    evaluate(*small), evaluate(*small, client=client)  # load what is compiled
    before = client.run(begin_peak)
    ours, seconds, work = measured(lambda: evaluate(*sets, client=client), client)
    above = [(end - before[name]) / 1e6 for name, end in client.run(peak).items()]
    one, one_seconds, one_work = measured(lambda: evaluate(*sets))
    assert all(np.array_equal(a, b) for a, b in zip(ours.histograms, one.histograms))
    assert ours.map_at == one.map_at
    inputs = sum(array.nbytes for array in sets) / 1e6
    print(f"evaluate {queries:,} queries x {items:,} items, {num_labels} labels: equal")
    print(f"  inputs {inputs:,.0f} MB")
    print(f"  one process, {WORKERS} threads   {one_seconds:7.1f} s, {one_work:7.1f} CPU s")
    print(f"  {WORKERS} workers, 1 thread each {seconds:7.1f} s, {work:7.1f} CPU s")
    print(f"  ratio {seconds / one_seconds:.2f} on the clock, {work / one_work:.2f} of CPU")
    print(f"  worker memory above libraries, peak: {', '.join(f'{mb:.0f} MB' for mb in above)}")


def compare_search(client, count):
    """Search 100 queries in shards and in one index, and print what both took."""
    rng = np.random.default_rng(1)
    codes, queries = (rng.integers(0, 256, (n, 8), dtype=np.uint8) for n in (count, 100))
    before = client.run(begin_peak)
    sharded, built, _ = measured(lambda: ShardedIndex(codes, client), client)
    found = sharded.search(queries, K)
    above = [(end - before[name]) / 1e6 for name, end in client.run(peak).items()]
    index = HammingIndex(codes)
    for ours, theirs in zip(found, index.search(queries, K)):
        assert np.array_equal(ours, theirs)
    print(f"{K} nearest of 100 queries in {count:,} codes of 64 bits; equal")
    for some in (100, 1):
        times = {"shards": [], "one": []}
        for _ in range(REPEATS):  # in turns
            for name, searched in (("shards", sharded), ("one", index)):
                _, seconds, _ = measured(lambda s=searched, n=some: s.search(queries[:n], K))
                times[name].append(seconds)
        shards, one = (statistics.median(times[name]) for name in ("shards", "one"))
        print(
            f"  {some:3} queries: HammingIndex {1e3 * one:.0f} ms, ShardedIndex "
            f"{1e3 * shards:.0f} ms, ratio {shards / one:.2f} (medians of {REPEATS})"
        )
    print(
        f"  built in {built:.1f} s; worker memory, peak: {', '.join(f'{m:.0f} MB' for m in above)}"
    )


def main():
    """Print what an evaluation and a search take on both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=239)
    parser.add_argument("--codes", type=int, default=10_000_000)
    options = parser.parse_args()
    torch.set_num_threads(WORKERS)
    faiss.omp_set_num_threads(WORKERS)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    size = {"n_workers": WORKERS, "threads_per_worker": 1, "memory_limit": "4GB"}
    with LocalCluster(**size, dashboard_address=None) as cluster, Client(cluster) as client:
        if options.queries:
            compare_evaluation(client, options.queries, options.items, options.labels)
        if options.codes:
            compare_search(client, options.codes)


if __name__ == "__main__":
    main()
