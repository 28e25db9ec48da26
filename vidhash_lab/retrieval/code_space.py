"""The space of codes: how its bits are used, who lies near whom, and a map of it.

A map by UMAP (McInnes, Healy and Melville, https://arxiv.org/abs/1802.03426) keeps neighbours
together; distances between groups, their sizes and shapes say little. So numbers come from Hamming
distances, before any projection. N videos, K bits, C labels; codes are packed (N, K/8) uint8.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from vidhash_lab.extras import needs
from vidhash_lab.retrieval.codes import unpack
from vidhash_lab.retrieval.hamming import check_codes, checked_words, count_distances
from vidhash_lab.retrieval.metrics import evaluate
from vidhash_lab.retrieval.search import HammingIndex


@dataclass(frozen=True, eq=False)
class BitUse:
    """How a set of codes uses its bits.

    `balance` (K,) is the mean of each bit in {-1, +1}: 0 is best, a bit of ±1 says nothing.
    `entropy` (K,) is each bit's own, in bits. `correlation` (K, K) is 0 where a bit is constant.
    `distinct` counts different codes, `largest` the videos that share the most common one.

    >>> use = bit_use(np.array([[255], [0], [255]], np.uint8))
    >>> use.distinct, use.largest, use.balance.round(2)[0].item()
    (2, 2, 0.33)
    """

    balance: np.ndarray
    entropy: np.ndarray
    correlation: np.ndarray
    distinct: int
    largest: int

    @property
    def redundancy(self) -> float:
        """Root mean square correlation of two different bits.

        >>> round(bit_use(np.array([[255], [0]], np.uint8)).redundancy, 3)  # all say the same
        1.0
        """
        off_diagonal = self.correlation[~np.eye(len(self.balance), dtype=bool)]
        return float(np.sqrt((off_diagonal**2).mean()))


def bit_use(codes: np.ndarray) -> BitUse:
    """Measure how packed codes (N, K/8) use their bits.

    >>> bit_use(np.array([[240], [15]], np.uint8)).entropy.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    bits = unpack(check_codes("these", codes)).astype(np.float64)  # (N, K) in {-1, +1}
    balance = bits.mean(axis=0)
    share = np.stack([(1 + balance) / 2, (1 - balance) / 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(share * np.log2(share), axis=0)
        centred = bits - balance
        scale = np.sqrt((centred**2).sum(axis=0))
        correlation = np.nan_to_num(centred.T @ centred / np.outer(scale, scale), nan=0.0)
    _, counts = np.unique(codes, axis=0, return_counts=True)
    return BitUse(balance, entropy, correlation, len(counts), int(counts.max()))


def purity(codes: np.ndarray, labels: np.ndarray, k: int = 10) -> float:
    """Mean share of the k nearest, 1..N-1, that share a label, expected over orders of ties.

    >>> codes = np.array([[0], [1], [255], [254]], np.uint8)
    >>> purity(codes, np.eye(2)[[0, 0, 1, 1]].astype(bool), k=1)
    1.0
    """
    result = evaluate(codes, codes, labels, labels, k=(k,), exclude_self=True)
    return float(result.precision[k - 1])


def pair_distances(codes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count pairs of videos (each twice) by distance -> those that share a label, others (K+1,).

    >>> codes = np.array([[0], [1], [255]], np.uint8)
    >>> alike, others = pair_distances(codes, np.eye(2, dtype=bool)[[0, 0, 1]])
    >>> alike.tolist(), others.tolist()
    ([0, 2, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 2, 2])
    """
    total, relevant = count_distances(*checked_words(codes, codes, labels, labels, True))
    together = relevant.sum(axis=0, dtype=np.int64)
    return together, total.sum(axis=0, dtype=np.int64) - together


def project(
    codes: np.ndarray, n_neighbors: int = 15, min_dist: float = 0.1, seed: int = 0
) -> np.ndarray:
    """Lay packed codes out on a plane by UMAP with the Hamming metric -> (N, 2) float32.

    More `n_neighbors`, 2 to N-1, show more of the whole; `min_dist` is how tightly points may lie.
    The seed makes the map: it starts from the codes' principal axes, as Kobak and Linderman (2021)
    advise, and not from UMAP's spectral layout, which another rounding turns or mirrors.

    >>> codes = np.random.default_rng(0).integers(0, 256, (50, 2), dtype=np.uint8)
    >>> project(codes, n_neighbors=5).shape
    (50, 2)
    """
    needs("notebooks", "umap")
    import umap  # compiles for seconds at its import, and only maps need it

    N, K = len(codes), 8 * codes.shape[1]
    if not 2 <= n_neighbors < N:
        raise ValueError(f"n_neighbors={n_neighbors} must lie in 2..{N - 1} for {N} codes")
    distances, found = HammingIndex(codes).search(codes, n_neighbors)
    # UMAP expects each video first among its neighbours, also where others of its code fill them.
    own = np.arange(N)
    is_own = found == own[:, None]
    place = np.where(is_own.any(1), is_own.argmax(1), -1)
    found[own, place], distances[own, place] = found[:, 0], distances[:, 0]
    found[:, 0], distances[:, 0] = own, 0
    neighbours = found, distances.astype(np.float32) / K, None
    options = {"n_neighbors": n_neighbors, "min_dist": min_dist, "precomputed_knn": neighbours}
    options |= {"init": principal_axes(codes), "random_state": seed, "n_jobs": 1}
    reducer = umap.UMAP(metric="hamming", **options)
    with warnings.catch_warnings():
        # UMAP warns of neighbours that it did not find itself and of codes that videos share.
        warnings.filterwarnings("ignore", module="umap")
        warnings.filterwarnings("ignore", module="sklearn")
        return reducer.fit_transform(unpack(codes).astype(np.float32))


def principal_axes(codes: np.ndarray) -> np.ndarray:
    """Place packed codes on the first two principal axes of their bits, 10 wide -> (N, 2) float32.

    What the axes come from is made of whole numbers, and places are rounded, so that memory and
    threads, which change the order of sums, do not change the map.

    >>> principal_axes(np.array([[255], [240], [0]], np.uint8)).shape
    (3, 2)
    """
    bits = unpack(codes).astype(np.float64)
    total = bits.sum(0)
    covariance = len(bits) * (bits.T @ bits) - np.outer(total, total)  # times N squared: exact
    axes = np.linalg.eigh(covariance)[1][:, :-3:-1]  # (K, 2), the widest first
    strongest = np.abs(axes).round(6).argmax(0), [0, 1]
    axes *= np.sign(axes[strongest])  # an axis has no direction of its own
    places = bits @ axes
    places -= places.mean(0)
    return (places * (10 / max(np.abs(places).max(), 1e-9))).round(3).astype(np.float32)
