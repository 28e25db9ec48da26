"""What MCMSH and BTH preserve: anchors of the training set, and a graph of three-level neighbours.

Every video is reduced to one point. k-means finds anchors among the points; each video's nearest
anchor, projected to H, is what its hidden states are drawn to. Two videos that share one of their
three nearest anchors are similar, two that share one only among their five are at middle distance.

Different from the released code, on purpose:

- The tags are not kept as a dense (N, N) matrix: the five nearest anchors of a video hold the same.
- There, a tag takes a kernel affinity above 1e-5 besides the shared anchor, and the affinity falls
  with the number of videos at the anchor: two videos would lose their tag where others are added.
  No tag of digit-stories depends on it (200 anchors), none of 10,000 made-up videos (440 anchors),
  1% where one made-up video in twenty lies four times as far out.
- The projection is by principal components in descending order of their variance. There they
  are the first that `numpy.linalg.eig` returns, which does not sort them.
- k-means is that of faiss, and an anchor without videos is moved, where it is dropped there.

N videos, T frames per video, D feature width, W width of a point, A anchors, H hidden width,
B videos in a batch.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from numba import njit
from tqdm.auto import tqdm

from vidhash_lab.data.catalog import cache_folder
from vidhash_lab.data.features import FeatureSet
from vidhash_lab.data.files import (
    DataError,
    check_seal,
    new_hdf5,
    refusing_damage,
    written_whole,
)

NEAREST = 5  # anchors that are kept of each video, nearest first
OTHER, SIMILAR, MIDDLE = 0, 1, 2  # tags of a pair of videos
UNSEEN = NEAREST + 1  # beyond every level
ROUNDS = 20  # of k-means at most; the released script stops after 17


@dataclass(frozen=True)
class Structures:
    """Anchors (A, W) float32 and the five nearest of each video (N, 5) int32, nearest first.

    >>> anchors = np.eye(6, dtype=np.float32)
    >>> found = Structures(anchors, np.array([[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]], np.int32))
    >>> len(found.graph()), found.nearest_anchors().shape
    (2, torch.Size([2, 6]))
    """

    anchors: np.ndarray
    nearest: np.ndarray
    saved_seconds: float = 0.0  # what finding them took, where they were read from a file

    def nearest_anchors(self, hidden_dim: int | None = None) -> torch.Tensor:
        """Look up each video's nearest anchor (N, W), or by PCA, filled up with zeros (N, H).

        >>> nearest = np.array([[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]], np.int32)
        >>> Structures(np.eye(6, dtype=np.float32), nearest).nearest_anchors(hidden_dim=8).shape
        torch.Size([2, 8])
        """
        anchors = self.anchors if hidden_dim is None else _project(self.anchors, hidden_dim)
        return torch.from_numpy(anchors[self.nearest[:, 0]].astype(np.float32))

    def graph(self) -> "NeighbourGraph":
        return NeighbourGraph(self.nearest, len(self.anchors))


def _project(anchors, dim):
    """Project anchors (A, W) on principal components, signs as scikit-learn's -> (A, dim)."""
    from scipy.linalg import eigh  # imported where it is used: it takes a while

    components, last = min(dim, *anchors.shape), len(anchors) - 1
    centred = anchors - anchors.mean(0, dtype=np.float64).astype(np.float32)
    # Left singular vectors from the small (A, A) product: a quarter of the time of a whole SVD.
    products = (centred @ centred.T).astype(np.float64)
    left = eigh(products, subset_by_index=(last + 1 - components, last))[1][:, ::-1]
    axes = left.astype(np.float32).T @ centred
    loadings = np.take_along_axis(axes, np.abs(axes).argmax(1, keepdims=True), 1)[:, 0]
    projected = left * np.copysign(np.linalg.norm(axes, axis=1), loadings)
    return np.pad(projected, ((0, 0), (0, dim - components)))


class NeighbourGraph:
    """Tags of pairs of videos, and partners drawn by tag; memory grows as N.

    The level of a pair is the least m for which they share one of their m nearest anchors,
    `nearest` (N, 5). SIMILAR is level 1 to 3 (a video is similar to itself), MIDDLE is level 5,
    else OTHER. `DataError` where a video is similar to all, so that it has no dissimilar partner.

    >>> nearest = np.array([[0, 1, 2, 3, 4], [1, 5, 6, 7, 8], [9, 8, 7, 4, 3]])
    >>> graph = NeighbourGraph(nearest, num_anchors=10)
    >>> graph.tags([0]).tolist()  # similar to itself and to video 1, at middle distance to video 2
    [[1, 1, 2]]
    """

    def __init__(self, nearest: np.ndarray, num_anchors: int):
        self.nearest = np.ascontiguousarray(nearest, np.int32)
        anchors = self.nearest.ravel()
        order = np.argsort(anchors, kind="stable").astype(np.int32)
        members, ranks = np.divmod(order, NEAREST)  # of each anchor, one after another
        starts = np.searchsorted(anchors[order], np.arange(num_anchors + 1))
        self._lists = self.nearest, starts, members, ranks
        without = self.dissimilar(torch.arange(len(self)), torch.Generator()) == len(self)
        if without.any():
            raise DataError(
                f"video {int(without.nonzero()[0])} is similar to all {len(self)} videos: with "
                f"{num_anchors} anchors, all share one. Use more, or leave out identical videos."
            )

    def __len__(self) -> int:
        return len(self.nearest)

    def tags(self, videos: np.ndarray) -> np.ndarray:
        """Tag videos (B,) with all N -> (B, N) uint8: OTHER, SIMILAR or MIDDLE.

        >>> nearest = np.array([[0, 1, 2, 3, 4], [1, 5, 6, 7, 8], [9, 8, 7, 4, 3]])
        >>> NeighbourGraph(nearest, num_anchors=10).tags([0, 1]).tolist()
        [[1, 1, 2], [1, 1, 0]]
        """
        return _tags(np.atleast_1d(videos), *self._lists)

    def are_similar(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Compare videos (B,) with videos (B,), pair by pair -> (B,) bool.

        >>> nearest = np.array([[0, 1, 2, 3, 4], [1, 5, 6, 7, 8], [9, 8, 7, 4, 3]])
        >>> graph = NeighbourGraph(nearest, num_anchors=10)
        >>> graph.are_similar(torch.tensor([0, 0]), torch.tensor([1, 2])).tolist()
        [True, False]
        """
        closest = torch.from_numpy(self.nearest[:, :3])
        return (closest[one, :, None] == closest[other, None]).flatten(1).any(1)

    def similar(self, videos: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw for each video (B,) a similar one, which may be the video itself -> (B,).

        >>> nearest = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
        >>> drawn = NeighbourGraph(nearest, 10).similar(torch.tensor([0, 1, 2]), torch.Generator())
        >>> set(drawn[:2].tolist()) <= {0, 1}, drawn[2].item()
        (True, 2)
        """
        return self._draw(videos, generator, SIMILAR)

    def dissimilar(
        self, videos: torch.Tensor, generator: torch.Generator, unlike: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw for each video (B,) one at middle distance, else any that is not similar -> (B,).

        One that is similar to its `unlike` (B,) is drawn once more, as in the released code.

        >>> nearest = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
        >>> NeighbourGraph(nearest, 10).dissimilar(torch.tensor([0, 1]), torch.Generator()).tolist()
        [2, 2]
        """
        drawn = self._draw(videos, generator, MIDDLE)
        if unlike is not None:
            again = self.are_similar(drawn, unlike)
            drawn[again] = self._draw(videos[again], generator, MIDDLE)
        return drawn

    def _draw(self, videos, generator, tag):
        uniform = torch.rand(len(videos), generator=generator, dtype=torch.float64).numpy()
        return torch.from_numpy(_draw(videos.numpy(), uniform, tag, *self._lists))


def draw_pairs(
    graph: NeighbourGraph, videos: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw partners for videos (B,) -> partners (B,), half of them similar, and labels ±1 (B,).

    >>> nearest = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
    >>> graph, videos = NeighbourGraph(nearest, 10), torch.tensor([0, 1, 2, 0])
    >>> partners, labels = draw_pairs(graph, videos, torch.Generator().manual_seed(0))
    >>> (graph.are_similar(videos, partners) == (labels > 0)).all().item()
    True
    """
    alike = torch.rand(len(videos), generator=generator) < 0.5
    partners = torch.empty_like(videos)
    partners[alike] = graph.similar(videos[alike], generator)
    partners[~alike] = graph.dissimilar(videos[~alike], generator)
    return partners, alike * 2.0 - 1


def find_structures(
    train: FeatureSet,
    num_anchors: int,
    seed: int = 0,
    *,
    points: Callable[[FeatureSet], np.ndarray] | None = None,
    recipe: str = "mean features",
) -> Structures:
    """Find the anchors of a feature set and each video's nearest five.

    They are kept in `structures/` beside the feature file (else in the cache folder), by the
    fingerprint of `train`, `num_anchors`, `seed` and `recipe`, what the points are made of, in
    words. `points` maps `train` to (N, W) float32; None = mean features. A damaged file is a
    warning, and written anew. `DataError` where there are too few different videos.

    >>> from vidhash_lab import open_dataset
    >>> found = find_structures(open_dataset("digit-stories-mini").train, num_anchors=20)
    >>> found.anchors.shape, found.nearest.shape
    ((20, 128), (600, 5))
    """
    made_of = json.dumps([train.fingerprint(), num_anchors, seed, recipe])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    beside = train.paths[0].parent
    folder = (beside if os.access(beside, os.W_OK) else cache_folder()) / "structures"
    path = folder / f"{train.paths[0].stem}-{key}.h5"
    if path.is_file():
        try:
            check_seal(path)
            with refusing_damage(path), h5py.File(path) as file:
                seconds = float(file.attrs["seconds"])
                return Structures(file["anchors"][:], file["nearest"][:], seconds)
        except DataError as error:
            warnings.warn(f"{error} Its structures are found anew.", stacklevel=2)
    import faiss  # imported where it is used: it takes a while

    started = time.perf_counter()
    found = (points or video_means)(train)
    anchors = find_anchors(found, num_anchors, seed)
    structures = Structures(anchors, faiss.knn(found, anchors, NEAREST)[1].astype(np.int32))
    with written_whole(path, sealed=True) as temporary, new_hdf5(temporary) as file:
        file["anchors"], file["nearest"] = structures.anchors, structures.nearest
        file.attrs["seconds"] = time.perf_counter() - started
    return structures


def video_means(train: FeatureSet) -> np.ndarray:
    """Average every video over its frames, in one pass over the set -> (N, D) float32.

    >>> from vidhash_lab import open_dataset
    >>> video_means(open_dataset("digit-stories-mini").query).shape
    (60, 128)
    """
    means = np.empty((len(train), train.feature_dim), np.float32)
    with tqdm(total=len(train), desc="means", unit="video") as bar:
        for indices, frames in train.batches():
            means[indices] = frames.mean(1)
            bar.update(len(indices))
    return means


def find_anchors(points: np.ndarray, num_anchors: int, seed: int = 0) -> np.ndarray:
    """Cluster points (N, W) float32 -> anchors (A, W), or `DataError` for too few points.

    >>> find_anchors(np.random.default_rng(0).random((50, 4), np.float32), num_anchors=6).shape
    (6, 4)
    """
    import faiss

    distinct = len({hash(point.tobytes()) for point in points})
    if not NEAREST <= num_anchors <= distinct:
        raise DataError(
            f"{num_anchors} anchors asked for: it takes at least {NEAREST}, and at most as many as "
            f"there are different videos, {distinct} of {len(points)}. Choose num_anchors so."
        )
    anchors, before = None, np.inf
    for _ in tqdm(range(ROUNDS), desc="k-means", unit="round"):
        # One round a call, so that there is progress to show. faiss splits large clusters for
        # those that come out empty; the bounds keep it from sampling or warning.
        kmeans = faiss.Kmeans(points.shape[1], num_anchors, niter=1, seed=seed)
        kmeans.cp.min_points_per_centroid, kmeans.cp.max_points_per_centroid = 1, len(points)
        kmeans.train(points, init_centroids=anchors)
        anchors, error = kmeans.centroids, kmeans.obj[-1]
        if error > before * (1 - 1e-4):
            break
        before = error
    return _fill_empty(points, anchors)


def _fill_empty(points, anchors):
    """Move anchors that are nearest to no point to the points that lie farthest from theirs."""
    import faiss

    for _ in range(ROUNDS):
        distances, nearest = faiss.knn(points, anchors, 1)
        empty = np.flatnonzero(np.bincount(nearest[:, 0], minlength=len(anchors)) == 0)
        if not len(empty):
            return anchors
        farthest = np.argsort(distances[:, 0], kind="stable")[::-1]
        anchors[empty] = points[farthest[: len(empty)]]
    problem = f"k-means leaves {len(empty)} of {len(anchors)} anchors without videos"
    raise DataError(f"{problem}: many videos are nearly identical. Use fewer anchors.")


@njit(nogil=True, cache=True)
def _candidates(video, depth, nearest, starts, members, ranks, levels, touched):
    """Set `levels` of the videos that are at most at level `depth`, list them -> their number."""
    count = 0
    for rank in range(depth):
        anchor = nearest[video, rank]
        for place in range(starts[anchor], starts[anchor + 1]):
            other, level = members[place], max(rank, ranks[place]) + 1
            if level <= depth and level < levels[other]:
                if levels[other] == UNSEEN:
                    touched[count], count = other, count + 1
                levels[other] = level
    return count


@njit(nogil=True, cache=True)
def _tags(videos, nearest, starts, members, ranks):
    out = np.zeros((len(videos), len(nearest)), np.uint8)
    levels = np.full(len(nearest), UNSEEN, np.uint8)
    touched = np.empty(len(nearest), np.int64)
    for row, video in enumerate(videos):
        count = _candidates(video, NEAREST, nearest, starts, members, ranks, levels, touched)
        for other in touched[:count]:
            level = levels[other]
            out[row, other] = SIMILAR if level <= 3 else MIDDLE if level == 5 else OTHER
            levels[other] = UNSEEN
    return out


@njit(nogil=True, cache=True)
def _draw(videos, uniform, tag, nearest, starts, members, ranks):
    """Draw among videos of `tag`, else all not similar -> (B,), N where all videos are similar."""
    out = np.empty(len(videos), np.int64)
    levels = np.full(len(nearest), UNSEEN, np.uint8)
    touched = np.empty(len(nearest), np.int64)
    depth = 3 if tag == SIMILAR else NEAREST
    for row, video in enumerate(videos):
        count = _candidates(video, depth, nearest, starts, members, ranks, levels, touched)
        choices = 0
        for other in touched[:count]:
            touched[choices] = other
            choices += tag == SIMILAR or levels[other] == 5
            levels[other] = UNSEEN
        if choices:
            out[row] = touched[int(uniform[row] * choices)]
        else:
            count = _candidates(video, 3, nearest, starts, members, ranks, levels, touched)
            similar = np.sort(touched[:count])
            levels[similar] = UNSEEN
            drawn = int(uniform[row] * (len(nearest) - count))  # counted without the similar ones
            for other in similar:
                drawn += other <= drawn
            out[row] = drawn
    return out
