"""Time and memory of the preserved structures at FCVID's size: 45,585 videos, 2,000 anchors.

The points are made up, since FCVID is not here: 239 categories scattered in a latent space of 40
dimensions, seen through a random layer of 4,096 ReLUs. Prints seconds, the peak of memory beyond
the points, and milliseconds to draw partners for 256 videos. A draw costs as many steps as there
are videos at the same five anchors: an anchor that is near most videos would make it slow.
"""

import resource
import time

import faiss
import numpy as np
import torch

from vidhash_lab.runs import median_milliseconds
from vidhash_lab.structures import MIDDLE, NEAREST, SIMILAR, Structures, find_anchors

VIDEOS, LATENT, WIDTH, ANCHORS, BATCH = 45_585, 40, 4096, 2000, 256


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def made_up_points():
    random = np.random.default_rng(0)
    places = 2 * random.standard_normal((239, LATENT), np.float32)
    latent = places[random.integers(0, len(places), VIDEOS)]
    latent += random.standard_normal((VIDEOS, LATENT), np.float32)
    weights = random.standard_normal((LATENT, WIDTH), np.float32) / LATENT**0.5
    points = latent @ weights
    for block in np.array_split(points, 100):  # in pieces, to leave no peak behind
        block += 0.2 * random.standard_normal(block.shape, np.float32)
        np.maximum(block, 0, out=block)
    return points


def main():
    points, started = made_up_points(), time.perf_counter()
    before = peak_megabytes()
    anchors = find_anchors(points, ANCHORS)
    structures = Structures(anchors, faiss.knn(points, anchors, NEAREST)[1].astype(np.int32))
    structures.nearest_anchors(256)
    graph = structures.graph()
    seconds = time.perf_counter() - started
    print(f"anchors, nearest, projection, graph: {seconds:.0f} s")
    print(f"memory beyond the points: {peak_megabytes() - before:.0f} MB")

    generator = torch.Generator().manual_seed(0)
    videos = torch.randperm(VIDEOS, generator=generator)[:BATCH]

    def draw():
        graph.similar(videos, generator)
        graph.dissimilar(videos, generator)

    print(
        f"a similar and a dissimilar partner for {BATCH} videos: {median_milliseconds(draw):.2f} ms"
    )
    tags = graph.tags(videos)
    print(f"partners to choose from: {(tags == SIMILAR).sum(1).mean():.0f} similar, ", end="")
    print(f"{(tags == MIDDLE).sum(1).mean():.0f} at middle distance")


if __name__ == "__main__":
    main()
