"""Hash centres of 450 clusters: both ends of what is found, of its start, and of random codes.

    python benchmarks/hash_centres.py

The ends are the least Hamming distance of two centres, and the correlation of their inner products
with the clusters' similarity. The clusters are those of the digit stories (feature centres in 128
principal components), and made-up ones in 30 groups.
"""

import time

import numpy as np

from vidhash_lab import open_dataset
from vidhash_lab.hash_centres import (
    both_ends,
    hadamard_codes,
    margin,
    semantic_centres,
    similarities,
)
from vidhash_lab.models.s5vh import principal_means
from vidhash_lab.structures import find_anchors

CLUSTERS = 450


def made_up_centres():
    random = np.random.default_rng(0)
    groups = 1.5 * random.standard_normal((30, 40))
    return groups[random.integers(0, 30, CLUSTERS)] + random.standard_normal((CLUSTERS, 40))


def report(name, features):
    similarity, random = similarities(features), np.random.default_rng(1)
    for bits in (16, 32, 64):
        started = time.perf_counter()
        found = semantic_centres(features, bits)
        seconds = time.perf_counter() - started
        print(f"{name}, {bits} bits, margin {margin(CLUSTERS, bits)}, {seconds:.1f} s:")
        for kind, codes in (
            ("random codes", random.choice([-1.0, 1.0], (CLUSTERS, bits))),
            ("Hadamard start", hadamard_codes(CLUSTERS, bits)),
            ("semantic", found),
        ):
            least, correlation = both_ends(codes, similarity)
            print(f"    {kind:15} least distance {least:2}, correlation {correlation:6.3f}")


def main():
    train = open_dataset("digit-stories").train
    report("digit stories", find_anchors(principal_means(train, 128), CLUSTERS))
    report("made up", made_up_centres())


if __name__ == "__main__":
    main()
