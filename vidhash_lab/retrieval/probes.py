"""Probes: what codes know of a question that a mean over all labels does not ask.

Q queries, N items of the database, C labels, K bits; codes are packed (N, K/8) uint8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidhash_lab.retrieval.hamming import checked_words, count_distances


@dataclass(frozen=True, eq=False)
class TwinProbe:
    """How codes rank videos of a query's own fine label and of its twin, each (Q,).

    Ranks are means, 1 = nearest, expected under ties; `preference` is the share of (own, twin)
    pairs in which the own one is nearer, ties by half. NaN where the database does not hold both.

    >>> codes, stories = np.array([[0], [1], [255]], np.uint8), np.array([[1, 0], [1, 0], [0, 1]])
    >>> twin_probe(codes[:1], codes, stories[:1], stories, twins=[1, 0]).twin_rank
    array([3.])
    """

    own_rank: np.ndarray
    twin_rank: np.ndarray
    preference: np.ndarray

    def __str__(self) -> str:
        own, twin, share = (np.nanmean(x) for x in (self.own_rank, self.twin_rank, self.preference))
        return f"mean rank {own:.0f} of its own, {twin:.0f} of its twin; own nearer in {share:.1%}"


def twin_probe(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    twins: Sequence[int],
) -> TwinProbe:
    """Ask whether codes tell fine labels from their twins -> TwinProbe.

    `twins` (C,) names the twin of each fine label, for example the story told backwards. ValueError
    unless twins are pairs, c = twins[twins[c]] and not c itself.

    >>> codes, stories = np.array([[0], [1], [255]], np.uint8), np.array([[1, 0], [1, 0], [0, 1]])
    >>> twin_probe(codes[:1], codes, stories[:1], stories, twins=[1, 0]).preference
    array([1.])
    """
    twins, query_labels, places = np.asarray(twins), np.asarray(query_labels), np.arange(len(twins))
    is_order = np.array_equal(np.sort(twins, axis=None), places)
    if not is_order or (twins[twins] != places).any() or (twins == places).any():
        raise ValueError(f"twins must be pairs of the {len(twins)} fine labels, not {twins}")
    if query_labels.shape[1:] != twins.shape:
        raise ValueError(f"{len(twins)} twins for labels of shape {query_labels.shape}")
    (total, own), (_, twin) = (
        count_distances(*checked_words(query_codes, database_codes, labels, database_labels))
        for labels in (query_labels, query_labels[:, twins])
    )
    rank = np.cumsum(total, axis=1) - (total - 1) / 2  # mean rank within each distance
    farther = twin.sum(axis=1, keepdims=True) - np.cumsum(twin, axis=1) + twin / 2
    with np.errstate(invalid="ignore"):
        return TwinProbe(
            own_rank=(own * rank).sum(axis=1) / own.sum(axis=1),
            twin_rank=(twin * rank).sum(axis=1) / twin.sum(axis=1),
            preference=(own * farther).sum(axis=1) / (own.sum(axis=1) * twin.sum(axis=1)),
        )
