"""Hamming distances of packed codes: counted and ordered, one query at a time on every core.

Codes are packed (N, K/8) uint8 in the order of numpy.packbits, K bits each. The compiled functions
go through a whole database for each query, so that no (Q, N) matrix of distances ever exists;
`RadiusCurve` and nearly all of `metrics` need nothing but the counts they leave.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

# Masks to count the bits of a word in parallel: sums of 2, of 4, of 8, then of all.
PAIRS, QUADS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
BYTES, ONES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


def check_codes(name, codes):
    """Return packed codes as an array; ValueError says what is wrong with the `name` codes."""
    codes = np.asarray(codes)
    if codes.dtype != np.uint8 or codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(
            f"{name} codes must be packed bits, a non-empty (N, K/8) uint8 array, "
            f"not {codes.dtype} {codes.shape}"
        )
    return codes


def checked_words(query_codes, database_codes, query_labels, database_labels):
    """Check both codes, then both labels -> the four in that order as rows of words, and K."""
    codes = check_codes("query", query_codes), check_codes("database", database_codes)
    if codes[0].shape[1] != codes[1].shape[1]:
        raise ValueError(
            f"query codes have {codes[0].shape[1]} bytes, database codes {codes[1].shape[1]}"
        )
    if query_labels is None or database_labels is None:
        raise ValueError("these videos have no labels, and what is relevant is judged by them")
    labels = np.asarray(query_labels), np.asarray(database_labels)
    for name, its_codes, its_labels in zip(("query", "database"), codes, labels):
        if its_labels.ndim != 2 or len(its_labels) != len(its_codes):
            raise ValueError(
                f"{name} labels must be multi-hot, ({len(its_codes)}, C) for as many codes, "
                f"not {its_labels.shape}"
            )
        if not ((its_labels == 0) | (its_labels == 1)).all():
            raise ValueError(f"{name} labels must be multi-hot, 0 or 1, not class numbers")
    if labels[0].shape[1] != labels[1].shape[1]:
        raise ValueError(
            f"query labels have {labels[0].shape[1]} columns, database labels {labels[1].shape[1]}"
        )
    packed = [np.packbits(its_labels.astype(bool), axis=1) for its_labels in labels]
    return [_as_words(rows) for rows in (*codes, *packed)], 8 * codes[0].shape[1]


def _as_words(rows):
    """Widen (N, W) uint8 to (N, ceil(W / 8)) uint64, filled up with zeros."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
    return np.ascontiguousarray(padded).view(np.uint64)  # columns first, as .mat files give them


@njit(inline="always")
def _distance(a, b):
    """Hamming distance of two rows of words; LLVM turns the sums into a popcount instruction."""
    distance = np.uint64(0)
    for word in range(len(a)):
        x = a[word] ^ b[word]
        x -= (x >> np.uint64(1)) & PAIRS
        x = (x & QUADS) + ((x >> np.uint64(2)) & QUADS)
        x = (x + (x >> np.uint64(4))) & BYTES
        distance += (x * ONES) >> np.uint64(56)
    return distance


@njit(inline="always")
def _share(a, b):
    """1 if two rows of words have a bit in common, else 0."""
    common = np.uint64(0)
    for word in range(len(a)):
        common |= a[word] & b[word]
    return np.uint64(common != 0)


@njit(parallel=True, nogil=True, cache=True)
def distance_histograms(query_codes, codes, query_labels, labels, own_item, bits):
    """Count the items at each distance -> all and relevant ones, each (Q, bits + 1) int32.

    Codes and labels are rows of words; relevant items share a label with the query. Query i
    leaves out item `own_item[i]` (-1: none).
    """
    total = np.zeros((len(query_codes), bits + 1), np.int32)
    relevant = np.zeros((len(query_codes), bits + 1), np.int32)
    for query in prange(len(query_codes)):
        counts = np.zeros((2, bits + 1), np.int32)
        for item in range(len(codes)):
            if item != own_item[query]:
                shared = _share(query_labels[query], labels[item])
                counts[shared, _distance(query_codes[query], codes[item])] += 1
        total[query] = counts[0] + counts[1]
        relevant[query] = counts[1]
    return total, relevant


@njit(parallel=True, nogil=True, cache=True)
def ranked_relevance(query_codes, codes, query_labels, labels, own_item, total):
    """Order all items by distance, then by place in the database -> relevance (Q, N) bool.

    A counting sort: `total` (Q, bits + 1) are the histograms of the same queries.
    """
    ranked = np.zeros((len(query_codes), total[0].sum()), np.bool_)
    for query in prange(len(query_codes)):
        rank = np.cumsum(total[query]) - total[query]  # of the next item at each distance
        for item in range(len(codes)):
            if item != own_item[query]:
                distance = _distance(query_codes[query], codes[item])
                ranked[query, rank[distance]] = _share(query_labels[query], labels[item]) != 0
                rank[distance] += 1
    return ranked


@dataclass(frozen=True, eq=False)
class RadiusCurve:
    """Precision and recall of all that lies within a Hamming radius 0..K, each array (K+1,).

    "micro" divides counts summed over queries, "macro" averages the queries' own ratios. A query
    that retrieves nothing has precision 0, and `empty` is the share of such queries: precision
    within radius 2 is `precision_macro[2]`, to be read beside `empty[2]`.
    """

    radius: np.ndarray
    precision_micro: np.ndarray
    recall_micro: np.ndarray
    precision_macro: np.ndarray
    recall_macro: np.ndarray
    empty: np.ndarray


def radius_curve(total, relevant):
    """Precision and recall within each radius from histograms (Q, K+1) -> RadiusCurve."""
    retrieved = np.cumsum(total, axis=1, dtype=np.int32)
    hits = np.cumsum(relevant, axis=1, dtype=np.int32)
    all_retrieved, all_hits = retrieved.sum(axis=0), hits.sum(axis=0)
    return RadiusCurve(
        radius=np.arange(total.shape[1]),
        precision_micro=all_hits / np.maximum(all_retrieved, 1),
        recall_micro=all_hits / max(all_hits[-1], 1),
        precision_macro=(hits / np.maximum(retrieved, 1)).mean(axis=0),
        recall_macro=(hits / np.maximum(hits[:, -1:], 1)).mean(axis=0),
        empty=(retrieved == 0).mean(axis=0),
    )


def row_blocks(length, row_bytes):
    """Cut `length` rows into slices of about 16 MB an array, at most 4,096 rows each."""
    step = max(1, min(4096, 2**24 // row_bytes))
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
