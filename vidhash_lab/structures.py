"""What MCMSH and BTH preserve: anchors of the training set, and a graph of three-level neighbours.

Every video is reduced to one point. k-means finds anchors among the points; each video's nearest
anchor, projected to H, is what its hidden states are drawn to. Two videos that share one of their
three nearest anchors are similar, two that share one only among their five are at middle distance.
The released codes keep that graph as a dense (N, N) matrix; here it is five anchors a video.

N videos, T frames per video, D feature width, W width of a point, A anchors, H hidden width,
B videos in a batch.
"""

import hashlib
import json
import os
from dataclasses import dataclass

import faiss
import h5py
import numpy as np
import torch
from numba import njit
from tqdm.auto import tqdm

from vidhash_lab.data.catalog import cache_folder
from vidhash_lab.data.files import DataError, written_whole

NEAREST = 5  # anchors that a video keeps, nearest first
OTHER, SIMILAR, MIDDLE = 0, 1, 2  # tags of a pair of videos
ROUNDS = 20  # of k-means at most; the released script stops after 17


@dataclass(frozen=True)
class Structures:
    """Anchors (A, W) float32 and, of every video, its nearest five (N, 5) int32, nearest first."""

    anchors: np.ndarray
    nearest: np.ndarray

    def nearest_anchors(self, hidden_dim=None):
        """Look up each video's nearest anchor -> (N, W) float32, or by PCA of the anchors (N, H).

        Where H is more than the components there are, the rest is zero: distances stay.
        """
        anchors = self.anchors
        if hidden_dim is not None:
            from sklearn.decomposition import PCA  # scikit-learn takes a second to import

            components = min(hidden_dim, *anchors.shape)
            anchors = PCA(components, random_state=0).fit_transform(anchors)
            anchors = np.pad(anchors, ((0, 0), (0, hidden_dim - components)))
        return torch.from_numpy(anchors[self.nearest[:, 0]].astype(np.float32))

    def graph(self):
        """Return the graph of these neighbours."""
        return NeighbourGraph(self.nearest, len(self.anchors))


class NeighbourGraph:
    """Tags of pairs of videos, and partners drawn by tag; memory grows as N.

    The level of a pair is the smallest m for which the two share one of their m nearest anchors.
    SIMILAR is level 1 to 3 (a video is similar to itself), MIDDLE is level 5, all else OTHER.
    A video that is similar to all others is a `DataError`: there is none to tell it from.
    """

    def __init__(self, nearest, num_anchors):
        self.nearest = np.ascontiguousarray(nearest, np.int32)
        anchors = self.nearest.ravel()
        order = np.argsort(anchors, kind="stable").astype(np.int32)
        self._members, self._ranks = np.divmod(order, NEAREST)  # of each anchor, one after another
        self._starts = np.searchsorted(anchors[order], np.arange(num_anchors + 1))
        drawn = self.dissimilar(torch.arange(len(self)), torch.Generator())
        if (drawn < 0).any():
            raise DataError(
                f"video {int((drawn < 0).nonzero()[0])} is similar to all {len(self)} videos: with "
                f"{num_anchors} anchors, everybody shares one with it. Use more anchors, or leave "
                "out videos that are identical."
            )

    def __len__(self):
        return len(self.nearest)

    def tags(self, videos):
        """Tag videos (B,) with all others -> (B, N) uint8."""
        videos = np.atleast_1d(np.asarray(videos))
        return _tags(videos, self.nearest, self._starts, self._members, self._ranks)

    def similar(self, videos, generator):
        """Draw for each video (B,) one that is similar, itself among them -> (B,)."""
        return self._draw(videos, generator, SIMILAR, torch.full_like(videos, -1))

    def dissimilar(self, videos, generator, unlike=None):
        """Draw for each video (B,) one at middle distance -> (B,).

        `unlike` (B,) are videos that the drawn ones shall not be similar to either. A video that
        has nobody at middle distance gets anybody who is not similar, as in the released code;
        where `unlike` leaves nobody, it is not asked for.
        """
        unlike = torch.full_like(videos, -1) if unlike is None else unlike
        return self._draw(videos, generator, MIDDLE, unlike)

    def _draw(self, videos, generator, tag, unlike):
        uniform = torch.rand(len(videos), generator=generator, dtype=torch.float64).numpy()
        lists = self.nearest, self._starts, self._members, self._ranks
        return torch.from_numpy(_draw(videos.numpy(), unlike.numpy(), uniform, tag, *lists))


def draw_pairs(graph, videos, generator):
    """Draw partners for videos (B,) -> partners (B,) and labels (B,): half are similar, +1.

    The others are dissimilar, -1.
    """
    alike = torch.rand(len(videos), generator=generator) < 0.5
    partners = torch.empty_like(videos)
    partners[alike] = graph.similar(videos[alike], generator)
    partners[~alike] = graph.dissimilar(videos[~alike], generator)
    return partners, alike * 2.0 - 1


def find_structures(train, num_anchors, seed=0, *, points=None, recipe="mean features"):
    """Find the anchors of a feature set and each video's nearest five -> `Structures`.

    They are kept in `structures/` beside the feature file (in the cache folder where that cannot
    be written), under a key of the files, `num_anchors`, `seed` and `recipe`.

    Args:
        points: function of `train` -> (N, W) float32; None = mean features of each video.
        recipe: what the points are made of, in words; other words, other structures.
    """
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in train.paths]
    key = hashlib.sha256(json.dumps([files, num_anchors, seed, recipe]).encode()).hexdigest()[:16]
    beside = train.paths[0].parent
    folder = (beside if os.access(beside, os.W_OK) else cache_folder()) / "structures"
    path = folder / f"{train.paths[0].stem}-{key}.h5"
    if not path.is_file():
        found = (points or video_means)(train)
        anchors = find_anchors(found, num_anchors, seed)
        nearest = faiss.knn(found, anchors, NEAREST)[1].astype(np.int32)
        with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
            file["anchors"], file["nearest"] = anchors, nearest
    return _read(path)


def video_means(train):
    """Average every video over its frames, in one pass over the set -> (N, D) float32."""
    means = np.empty((len(train), train.feature_dim), np.float32)
    with tqdm(total=len(train), desc="means", unit="video") as bar:
        for indices, frames in train.batches():
            means[indices] = frames.mean(1)
            bar.update(len(indices))
    return means


def find_anchors(points, num_anchors, seed=0):
    """Cluster points (N, W) float32 by k-means -> anchors (A, W), none of them without points."""
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
    """Move anchors that are nobody's nearest to the points that lie farthest from theirs."""
    for _ in range(ROUNDS):
        distances, nearest = faiss.knn(points, anchors, 1)
        empty = np.flatnonzero(np.bincount(nearest[:, 0], minlength=len(anchors)) == 0)
        if not len(empty):
            return anchors
        farthest = np.argsort(distances[:, 0], kind="stable")[::-1]
        anchors[empty] = points[farthest[: len(empty)]]
    raise DataError(
        f"k-means leaves {len(empty)} of {len(anchors)} anchors without videos: many videos are "
        "nearly identical. Use fewer anchors."
    )


def _read(path):
    try:
        with h5py.File(path) as file:
            return Structures(file["anchors"][:], file["nearest"][:])
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: not structures of this kit ({error}); delete it.") from error


@njit(nogil=True, cache=True)
def _candidates(video, depth, nearest, starts, members, ranks, levels, touched):
    """Set `levels` of all who are at most at level `depth`; list them in `touched` -> how many."""
    count = 0
    for rank in range(depth):
        anchor = nearest[video, rank]
        for place in range(starts[anchor], starts[anchor + 1]):
            other, level = members[place], max(rank, ranks[place]) + 1
            if level > depth:
                continue
            if levels[other] == 0:
                touched[count], count = other, count + 1
                levels[other] = level
            elif level < levels[other]:
                levels[other] = level
    return count


@njit(nogil=True, cache=True)
def _tags(videos, nearest, starts, members, ranks):
    out = np.zeros((len(videos), len(nearest)), np.uint8)
    levels = np.zeros(len(nearest), np.uint8)
    touched = np.empty(len(nearest), np.int64)
    for row, video in enumerate(videos):
        count = _candidates(video, NEAREST, nearest, starts, members, ranks, levels, touched)
        for other in touched[:count]:
            level = levels[other]
            out[row, other] = SIMILAR if level <= 3 else MIDDLE if level == 5 else OTHER
            levels[other] = 0
    return out


@njit(nogil=True, cache=True)
def _are_similar(nearest, one, other):
    for a in range(3):
        for b in range(3):
            if nearest[one, a] == nearest[other, b]:
                return True
    return False


@njit(nogil=True, cache=True)
def _anybody(video, shunned, uniform, nearest):
    """Find the first who is not similar to `video` nor to `shunned`, from a random place on."""
    start = int(uniform * len(nearest))
    for step in range(len(nearest)):
        other = (start + step) % len(nearest)
        if not _are_similar(nearest, other, video):
            if shunned < 0 or not _are_similar(nearest, other, shunned):
                return other
    return -1


@njit(nogil=True, cache=True)
def _draw(videos, unlike, uniform, tag, nearest, starts, members, ranks):
    """Draw uniformly among those of `tag` that are not similar to `unlike`, or else `_anybody`."""
    out = np.empty(len(videos), np.int64)
    levels = np.zeros(len(nearest), np.uint8)
    touched = np.empty(len(nearest), np.int64)
    depth = 3 if tag == SIMILAR else NEAREST
    for row, video in enumerate(videos):
        count = _candidates(video, depth, nearest, starts, members, ranks, levels, touched)
        fit, shunned = 0, unlike[row]
        for other in touched[:count]:
            wanted = tag == SIMILAR or levels[other] == 5
            levels[other] = 0
            if wanted and (shunned < 0 or not _are_similar(nearest, other, shunned)):
                touched[fit], fit = other, fit + 1
        if fit:
            out[row] = touched[int(uniform[row] * fit)]
        else:
            out[row] = _anybody(video, shunned, uniform[row], nearest)
            if out[row] < 0:
                out[row] = _anybody(video, -1, uniform[row], nearest)
    return out
