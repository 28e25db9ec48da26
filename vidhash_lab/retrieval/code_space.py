"""The space of codes: how its bits are used, who lies near whom, and a map of it.

A map is a projection and can mislead: UMAP (McInnes, Healy and Melville, https://arxiv.org/abs/
1802.03426) keeps neighbours together, while distances between groups, their sizes and their shapes
say little. So numbers come from Hamming distances themselves, before any projection.

N videos, K bits, C labels; codes are packed (N, K/8) uint8.
"""

import warnings
from dataclasses import dataclass

import numpy as np

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
    """

    balance: np.ndarray
    entropy: np.ndarray
    correlation: np.ndarray
    distinct: int
    largest: int

    @property
    def redundancy(self):
        """Root mean square correlation of two different bits."""
        K = len(self.balance)
        off = self.correlation[~np.eye(K, dtype=bool)]
        return float(np.sqrt((off**2).mean())) if K > 1 else 0.0


def bit_use(codes):
    """Measure how packed codes use their bits -> BitUse."""
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


def purity(codes, labels, k=10):
    """Mean share of a video's k nearest others that share a label with it; labels are (N, C).

    The nearest in Hamming space, expected over all orders of those at the same distance.
    """
    result = evaluate(codes, codes, labels, labels, k=(k,), exclude_self=True)
    return float(result.precision[k - 1])


def pair_distances(codes, labels):
    """Count pairs of videos at each distance -> those that share a label, all others: (K+1,) each.

    Every pair counts twice, once from either side; no video is paired with itself.
    """
    sets, bits = checked_words(codes, codes, labels, labels)
    total, relevant = count_distances(*sets, np.arange(len(codes)), bits)
    together = relevant.sum(axis=0, dtype=np.int64)
    return together, total.sum(axis=0, dtype=np.int64) - together


def project(codes, n_neighbors=15, min_dist=0.1, seed=0):
    """Lay packed codes out on a plane by UMAP with the Hamming metric -> (N, 2) float32.

    UMAP gets each code's exact nearest neighbours from `HammingIndex`: nothing is N x N. More
    `n_neighbors` show more of the whole and less of the detail; `min_dist` is how tightly points
    that are alike may lie. The same seed gives the same map on one machine.
    """
    import umap  # compiles for seconds at its import, and only maps need it

    if not 2 <= n_neighbors < len(codes):
        raise ValueError(f"n_neighbors is {n_neighbors}; with {len(codes)} codes it can be 2 to "
                         f"{len(codes) - 1}")  # fmt: skip
    distances, found = HammingIndex(codes).search(codes, n_neighbors)
    found, distances = _self_first(found, distances.astype(np.float32))
    reducer = umap.UMAP(
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        metric="hamming",
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(found, distances / (8 * codes.shape[1]), None),
    )
    with warnings.catch_warnings():
        # Of the neighbours that were handed in, and of codes that many videos share.
        warnings.filterwarnings("ignore", module="umap")
        warnings.filterwarnings("ignore", module="sklearn")
        return reducer.fit_transform(unpack(codes).astype(np.float32))


def _self_first(found, distances):
    """Put each video first among its neighbours, where many share its code and crowd it out."""
    own = np.arange(len(found))
    place = np.where((found == own[:, None]).any(1), (found == own[:, None]).argmax(1), -1)
    found, distances = found.copy(), distances.copy()
    found[own, place], distances[own, place] = found[:, 0], distances[:, 0]
    found[:, 0], distances[:, 0] = own, 0
    return found, distances
