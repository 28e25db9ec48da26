"""Hamming distances and shared labels of packed codes: matrices, histograms, ranked relevance.

Codes are packed (N, K/8) uint8 in the order of numpy.packbits, K bits each; labels are multi-hot
(N, C). The compiled functions use every core and never hold a (Q, N) matrix of distances.
"""

import functools

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads

# Masks to count the bits of a word in parallel: sums of 2, of 4, of 8, then of all.
PAIRS, QUADS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
BYTES, ONES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


def distances(query_codes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Count the bits in which codes (Q, K/8) and (N, K/8) differ -> distances (Q, N) int32.

    Takes 13 bytes a pair: pass large sets in blocks. ValueError for codes of different widths.

    >>> distances(np.array([[0]], np.uint8), np.array([[0], [1], [255]], np.uint8)).tolist()
    [[0, 1, 8]]
    """
    queries, items = (_as_words(rows) for rows in _check_both_codes(query_codes, codes))
    by_word = zip(queries.T, items.T)
    return sum(np.bitwise_count(a[:, None] ^ b).astype(np.int32) for a, b in by_word)


def is_relevant(query_labels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tell which items share a label with a query: (Q, C) or (C,), (N, C) -> (Q, N) or (N,).

    >>> is_relevant(np.array([1, 0]), np.array([[1, 0], [0, 1], [1, 1]])).tolist()
    [True, False, True]
    """
    _check_labelled(query_labels, labels)
    # Counts of shared labels by the fast product of floats; they are exact below 2 ** 24.
    return np.asarray(query_labels, np.float32) @ np.asarray(labels, np.float32).T > 0


def check_codes(name: str, codes: np.ndarray) -> np.ndarray:
    """Return packed codes as an array; ValueError says what is wrong with the `name` codes.

    >>> check_codes("query", np.array([[129]], np.uint8)).tolist()
    [[129]]
    """
    codes = np.asarray(codes)
    if codes.dtype != np.uint8 or codes.ndim != 2 or 0 in codes.shape:
        wanted = "packed bits, a non-empty (N, K/8) uint8 array"
        raise ValueError(f"{name} codes must be {wanted}, not {codes.dtype} {codes.shape}")
    return codes


def _check_both_codes(query_codes, database_codes):
    codes = check_codes("query", query_codes), check_codes("database", database_codes)
    _check_widths("codes", "bytes", *codes)
    return codes


def _check_widths(what, unit, query, database):
    if query.shape[1] != database.shape[1]:
        widths = f"{query.shape[1]} {unit}, database {what} {database.shape[1]}"
        raise ValueError(f"query {what} have {widths}")


def _check_labelled(query_labels, labels):
    if query_labels is None or labels is None:
        raise ValueError("these videos have no labels, and labels decide what is relevant")


def checked_words(query_codes, database_codes, query_labels, database_labels, exclude_self=False):
    """Check codes and labels for `count_distances`; with `exclude_self`, query i skips item i.

    >>> codes, labels = np.array([[0], [255]], np.uint8), np.eye(2, dtype=bool)
    >>> len(checked_words(codes, codes, labels, labels))
    6
    """
    codes = _check_both_codes(query_codes, database_codes)
    _check_labelled(query_labels, database_labels)
    labels = np.asarray(query_labels), np.asarray(database_labels)
    for name, its_codes, its_labels in zip(("query", "database"), codes, labels):
        wanted = f"{name} labels must be multi-hot, ({len(its_codes)}, C) for as many codes"
        if its_labels.ndim != 2 or len(its_labels) != len(its_codes):
            raise ValueError(f"{wanted}, not {its_labels.shape}")
        if not ((its_labels == 0) | (its_labels == 1)).all():
            raise ValueError(f"{wanted}, of 0 and 1, not class numbers")
    _check_widths("labels", "columns", *labels)
    queries, items = map(len, codes)
    if exclude_self and queries != items:
        raise ValueError(f"exclude_self needs as many queries ({queries}) as items ({items})")
    own_item = np.arange(queries) if exclude_self else np.full(queries, -1)
    packed = [np.packbits(its_labels.astype(bool), axis=1) for its_labels in labels]
    return *map(_as_words, (*codes, *packed)), own_item, 8 * codes[0].shape[1]


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


def _in_torch_threads(compiled):
    """Run in torch's number of threads, and leave it: numba would set its own for torch as well."""

    @functools.wraps(compiled)
    def run(*arguments):
        threads = torch.get_num_threads()
        set_num_threads(min(threads, config.NUMBA_NUM_THREADS))
        try:
            return compiled(*arguments)
        finally:
            torch.set_num_threads(threads)

    return run


@_in_torch_threads
@njit(parallel=True, nogil=True, cache=True)
def count_distances(query_codes, codes, query_labels, labels, own_item, bits):
    """Count items by distance -> all, relevant (Q, bits + 1); query i skips item `own_item[i]`.

    >>> codes, labels = np.array([[0], [255]], np.uint8), np.eye(2, dtype=bool)
    >>> total, relevant = count_distances(*checked_words(codes, codes, labels, labels))
    >>> total.tolist()
    [[1, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0, 1]]
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


@_in_torch_threads
@njit(parallel=True, nogil=True, cache=True)
def ranked_relevance(query_codes, codes, query_labels, labels, own_item, total):
    """Sort by distance, then place, counting by `total` (Q, bits + 1) -> relevance (Q, N) bool.

    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
    >>> *words, own_item, bits = checked_words(codes, codes, labels, labels)
    >>> total, relevant = count_distances(*words, own_item, bits)
    >>> ranked_relevance(*words, own_item, total).tolist()[2]
    [True, False, False]
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


def row_blocks(length, row_bytes):
    """Cut `length` rows into slices of about 16 MB an array, at most 4,096 rows each.

    >>> row_blocks(5000, row_bytes=10)
    [slice(0, 4096, None), slice(4096, 5000, None)]
    """
    step = max(1, min(4096, 2**24 // row_bytes))
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
