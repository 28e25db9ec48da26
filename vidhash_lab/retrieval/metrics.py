"""Retrieval metrics for binary codes, exact under ties, without an N x N matrix.

Hamming distances are integers, so many items share one, and a sort leaves them in any order. Two
histograms over the distances 0..K, of all items and of the relevant ones, are all that matters of a
query: expected, best and worst values follow in closed form (McSherry and Najork, "Computing
information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008,
https://doi.org/10.1007/978-3-540-78646-7_38).

Q queries, N items that a query can find, K bits, C labels, G ranks, B queries of a block. Codes
are packed (N, K/8) uint8 in the order of numpy.packbits; smaller distance is closer. Two videos
are relevant to each other when they share a label. A query with nothing relevant scores 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from vidhash_lab.data.features import VideoDataset
from vidhash_lab.retrieval import cluster, hamming
from vidhash_lab.retrieval.codes import encode

if TYPE_CHECKING:
    from distributed import Client

CUTOFFS = (5, 20, 40, 60, 80, 100)
DENOMINATORS = {"k": "K", "min": "min(K, relevant)", "relevant": "relevant in top K"}
CHOICES = {
    "ties": ("expected", "best", "worst", "stable"),
    "denominator": tuple(DENOMINATORS),
    "labels": ("labels", "fine_labels"),
}


@dataclass(frozen=True, eq=False)
class RadiusCurve:
    """Precision and recall of all that lies within a Hamming radius 0..K, each array (K+1,).

    "micro" divides counts summed over queries, "macro" averages the queries' own ratios. A query
    that finds nothing has precision 0, and `empty` is the share of such queries.

    >>> from vidhash_lab import evaluate
    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
    >>> curve = evaluate(codes, codes, labels, labels, k=1).radius
    >>> curve.recall_macro.round(2).tolist()
    [0.67, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    radius: np.ndarray
    precision_micro: np.ndarray
    recall_micro: np.ndarray
    precision_macro: np.ndarray
    recall_macro: np.ndarray
    empty: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """What `evaluate` found, with the protocol that makes it comparable.

    `average_precision[k]` is (Q,); `relevant` (Q,) counts what each query could find. `ranks` (G,)
    are all to 100 (or to the largest k), then a geometric grid up to N; `precision` and `recall`
    (G,) are means over queries of the top `ranks`, with ties as in the average precision. `radius`
    and `histograms`, two (Q, K+1) of all items and of the relevant ones, do not depend on ties.

    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
    >>> found = evaluate(codes, codes, labels, labels, k=2)
    >>> found.map_at, found.relevant.tolist(), found.bits
    ({2: 0.8333333333333334}, [2, 2, 1], 8)
    """

    average_precision: dict[int, np.ndarray]
    relevant: np.ndarray
    ranks: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    radius: RadiusCurve
    histograms: tuple[np.ndarray, np.ndarray] = field(repr=False)
    num_queries: int
    database_size: int
    bits: int
    ties: str
    denominator: str
    exclude_self: bool

    @property
    def map_at(self) -> dict[int, float]:
        """Mean average precision {k: float}.

        >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
        >>> evaluate(codes, codes, labels, labels, k=1).map_at
        {1: 1.0}
        """
        return {k: float(scores.mean()) for k, scores in self.average_precision.items()}

    @property
    def ceiling(self) -> dict[int, float]:
        """The most that `map_at` could be {k: float}: below 1 where k > relevant items.

        >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 1, 1]]
        >>> evaluate(codes[:1], codes, labels[:1], labels, k=2).ceiling  # one relevant item, AP / 2
        {2: 0.5}
        """
        best = {k: np.minimum(self.relevant, k) for k in self.average_precision}
        return {k: float((n / _divisor(n, k, self.denominator)).mean()) for k, n in best.items()}

    @property
    def area(self) -> float:
        """Area under `precision` over `recall`; from recall 0 on, the first precision holds.

        >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
        >>> evaluate(codes, codes, labels, labels, k=1).area
        0.9722222222222223
        """
        return float(np.trapezoid([self.precision[0], *self.precision], [0.0, *self.recall]))

    def precision_at(self, recall: np.ndarray) -> np.ndarray:
        """Interpolate the curve by rank: precision where it reaches each `recall`, any shape.

        >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
        >>> evaluate(codes, codes, labels, labels, k=1).precision_at(np.array([0.5])).tolist()
        [1.0]
        """
        return np.interp(recall, [0.0, *self.recall], [self.precision[0], *self.precision])

    def with_ties(self, ties: str) -> "Evaluation":
        """Evaluate with other ties, from the same histograms; ValueError for "stable".

        >>> codes, labels = np.zeros((3, 1), np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
        >>> found = evaluate(codes[:1], codes, labels[:1], labels, k=1)
        >>> [found.with_ties(ties).map_at[1] for ties in ("worst", "expected", "best")]
        [0.0, 0.6666666666666666, 1.0]
        """
        if ties == self.ties:
            return self
        _check_choices(ties=ties)
        if ties == "stable":
            raise ValueError('ties="stable" needs the order of the database: evaluate with it')
        cutoffs = list(self.average_precision)
        by_rank = _score_by_rank(*self.histograms, cutoffs, ties, self.denominator)
        return replace(self, ties=ties, **by_rank)

    @property
    def protocol(self) -> str:
        """One line for figures: curves are comparable only where it is the same.

        >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
        >>> evaluate(codes, codes, labels, labels, k=1).protocol
        '3 queries -> 3 items, 8 bits, ties expected, AP / K, self not excluded'
        """
        return (
            f"{self.num_queries:,} queries -> {self.database_size:,} items, {self.bits} bits, "
            f"ties {self.ties}, AP / {DENOMINATORS[self.denominator]}, "
            f"self {'excluded' if self.exclude_self else 'not excluded'}"
        )


def score(
    model: nn.Module | tuple[np.ndarray, np.ndarray],
    dataset: VideoDataset,
    *,
    k: int | Sequence[int] | None = None,
    ties: str = "expected",
    denominator: str = "k",
    labels: str = "labels",
    client: "Client | None" = None,
) -> Evaluation:
    """Search the database of a data set with all its queries and judge what is found.

    `model` encodes each set once; packed codes (query, database) may stand in its place. Where
    the query set is the database (`self_query`), no video finds itself. `labels` or "fine_labels"
    decide what is relevant; the rest is as in `evaluate`. ValueError where a set has no labels.
    With a `distributed.Client`, its workers encode and count.

    >>> from vidhash_lab import ITQ, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> result = score(ITQ.for_dataset(data, bits=16).prepare(data.train, seed=0), data, k=20)
    >>> 0 < result.map_at[20] < result.ceiling[20]
    True
    """
    _check_choices(ties=ties, denominator=denominator, labels=labels)
    _check_order(ties, client)
    cutoffs = _checked_cutoffs(k, len(dataset.database) - dataset.self_query)
    known = getattr(dataset.query, labels), getattr(dataset.database, labels)
    for name, its_labels in zip(("query", "database"), known):
        if its_labels is None:
            raise ValueError(
                f"{dataset.name}: the {name} set has no `{labels}`, which decide what is relevant. "
                f"Add them, (N, C) multi-hot, to {getattr(dataset, name).paths[0]}."
            )
    codes = model
    if isinstance(model, nn.Module):
        codes = [encode(model, dataset.query, client=client)] * 2
        if not dataset.self_query:
            codes[1] = encode(model, dataset.database, client=client)
    protocol = {"ties": ties, "denominator": denominator, "exclude_self": dataset.self_query}
    return evaluate(*codes, *known, k=cutoffs, client=client, **protocol)


def evaluate(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    *,
    k: int | Sequence[int] | None = None,
    ties: str = "expected",
    denominator: str = "k",
    exclude_self: bool = False,
    client: "Client | None" = None,
) -> Evaluation:
    """Score (Q, K/8) and (N, K/8) codes with (Q, C) and (N, C) multi-hot labels -> Evaluation.

    AP@k = sum over ranks r <= k of rel(r) * precision(r), divided by k ("k", as the released
    repositories do), by min(k, relevant) ("min") or by the relevant ones of the top k ("relevant").
    Without `k`, those of `CUTOFFS` that the database can fill, or its size if that is below 5.
    Within a distance, `ties` takes the mean over all orders ("expected"), the bounds ("best",
    "worst") or database order ("stable"). `exclude_self`: query i is database item i and must not
    find itself. ValueError for unknown names, wrong shapes, and k above what a query can find.

    With a `distributed.Client`, its workers count blocks of queries x blocks of items, with the
    same result for all `ties` but "stable"; see `cluster.check_cluster` for what it raises then.

    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.array([[1, 0], [1, 0], [0, 1]])
    >>> evaluate(codes[:1], codes, labels[:1], labels, k=3).map_at[3]
    0.6666666666666666
    """
    _check_choices(ties=ties, denominator=denominator)
    _check_order(ties, client)
    sets = query_codes, database_codes, query_labels, database_labels
    *words, own_item, bits = hamming.checked_words(*sets, exclude_self)
    num_queries, database_size = len(words[0]), len(words[1])
    cutoffs = _checked_cutoffs(k, database_size - bool(exclude_self))
    if client is None:
        total, relevant = hamming.count_distances(*words, own_item, bits)
    else:
        total, relevant = cluster.count_distances(client, *words, own_item, bits)

    def ranked(rows):
        queries = words[0][rows], words[1], words[2][rows], words[3], own_item[rows]
        return hamming.ranked_relevance(*queries, total[rows])

    return Evaluation(
        **_score_by_rank(total, relevant, cutoffs, ties, denominator, ranked),
        relevant=relevant.sum(axis=1),
        radius=radius_curve(total, relevant),
        histograms=(total, relevant),
        num_queries=num_queries,
        database_size=database_size,
        bits=bits,
        ties=ties,
        denominator=denominator,
        exclude_self=bool(exclude_self),
    )


def average_precision(
    relevance: np.ndarray, k: int, denominator: str = "k", total_relevant: np.ndarray | None = None
) -> np.ndarray:
    """Average precision at k of (Q, N) bool relevance in ranked order -> (Q,).

    For rankings that are given, hence without ties; `denominator` as in `evaluate`. For "min",
    `total_relevant` (Q,) counts the relevant items where the rankings were cut off.

    >>> average_precision(np.array([[True, False, True, False]]), k=4).round(3).tolist()
    [0.417]
    """
    _check_choices(denominator=denominator)
    relevance = np.asarray(relevance, dtype=bool)
    (k,) = _checked_cutoffs(k, relevance.shape[1])
    hits = np.cumsum(relevance[:, :k], axis=1)
    gain = relevance[:, :k] * hits / np.arange(1, k + 1)
    if denominator == "relevant":
        total_relevant = hits[:, -1]
    elif total_relevant is None:
        total_relevant = relevance.sum(axis=1)
    return gain.sum(axis=1) / _divisor(total_relevant, k, denominator)


def radius_curve(total: np.ndarray, relevant: np.ndarray) -> RadiusCurve:
    """Precision and recall within each radius from histograms (Q, K+1) -> RadiusCurve.

    >>> total, relevant = np.array([[1, 1, 2]]), np.array([[1, 0, 1]])  # at distances 0, 1 and 2
    >>> radius_curve(total, relevant).precision_micro.tolist()
    [1.0, 0.5, 0.5]
    """
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


def _score_by_rank(total, relevant, cutoffs, ties, denominator, ranked=None):
    """Score histograms (Q, K+1) at every rank -> what an Evaluation says of ranks, by name.

    Only "stable" needs `ranked`, a function: slice of queries -> relevance (B, N) in ranked order.
    """
    items, found = total[0].sum(), relevant.sum(axis=1)
    ranks = np.arange(1, min(max([100, *cutoffs]), items) + 1)
    ranks = np.union1d(ranks, np.geomspace(len(ranks), items, 100).round().astype(int))
    scores, precision, recall = [], 0, 0
    for rows in hamming.row_blocks(len(found), items if ties == "stable" else 8 * len(ranks)):
        if ties == "stable":
            order = ranked(rows)
            hits = np.add.reduceat(order, [0, *ranks[:-1]], axis=1, dtype=np.int64).cumsum(axis=1)
            scores.append([average_precision(order, k, denominator, found[rows]) for k in cutoffs])
        else:
            block = total[rows], relevant[rows]
            hits, gain = _hits_and_gain(*block, ranks, ties)
            scores.append([_tied_precision(*block, gain, k, ties, denominator) for k in cutoffs])
        precision = precision + (hits / ranks).sum(axis=0) / len(found)
        recall = recall + (hits / np.maximum(found[rows, None], 1)).sum(axis=0) / len(found)
    scores = dict(zip(cutoffs, np.hstack(scores)))
    return {"average_precision": scores, "ranks": ranks, "precision": precision, "recall": recall}


def _tie_groups(total, relevant, ranks):
    """Find the distance at each of (G,) ranks in (B, K+1) histograms -> four (B, G) arrays.

    They count its items and the relevant among them, and the items and relevant items before it.
    """
    ends = np.cumsum(total, axis=1, dtype=np.int64)
    # Shifted, the rows follow one another in one sorted array: a single search serves all.
    shift = np.arange(len(total))[:, None] * ends[0, -1]
    place = np.searchsorted((ends + shift).ravel(), ranks + shift)
    before = (ends - total).ravel()[place]
    hits_before = (np.cumsum(relevant, axis=1, dtype=np.int64) - relevant).ravel()[place]
    return total.ravel()[place], relevant.ravel()[place], before, hits_before


def _hits_and_gain(total, relevant, ranks, ties):
    """Relevant items in the top (G,) ranks, and rel(r) * precision(r) there: each (B, G)."""
    size, inside, before, hits_before = _tie_groups(total, relevant, ranks)
    place = ranks - before  # 1..size, within the distance
    if ties == "expected":
        chance = inside / size
        # Given that an item is relevant, the others are spread evenly over the other places.
        hits_at = hits_before + 1 + (place - 1) * (inside - 1) / np.maximum(size - 1, 1)
        return hits_before + place * chance, chance * hits_at / ranks
    last_before = 0 if ties == "best" else size - inside  # place before the relevant items
    hits = hits_before + np.clip(place - last_before, 0, inside)
    is_relevant = (last_before < place) & (place <= last_before + inside)
    return hits, is_relevant * hits / ranks


def _tied_precision(total, relevant, gain, k, ties, denominator):
    """Average precision at k (B,) from the `gain` at every rank, for all `ties` but "stable".

    Divided by the relevant items of the top k, it depends on how many of them, h, come from the
    distance that straddles rank k: h is hypergeometric, and given h it is a distance of its own.
    """
    if denominator != "relevant":
        return gain[:, :k].sum(axis=1) / _divisor(relevant.sum(axis=1), k, denominator)
    size, inside, before, hits_before = _tie_groups(total, relevant, np.array([k]))  # (B, 1)
    places, h = k - before, np.arange(k + 1)
    cells = np.stack(np.broadcast_arrays(h, inside - h, places - h, size - inside - places + h))
    possible = (cells >= 0).all(axis=0)  # (B, k + 1)
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, k + 1)))  # sum of 1 / r for r <= index
    if ties == "best":  # ranks before + 1 .. before + h
        span = harmonic[np.minimum(before + h, k)] - harmonic[before]
        straddling = h + (hits_before - before) * span
    elif ties == "worst":  # ranks k - h + 1 .. k
        straddling = h + (hits_before - k + h) * (harmonic[k] - harmonic[k - h])
    else:
        span = harmonic[k] - harmonic[before]
        spread = (h - 1) / np.maximum(places - 1, 1) * (places - (before + 1) * span)
        straddling = h / places * ((hits_before + 1) * span + spread)
    above = (gain[:, :k] * (np.arange(k) < before)).sum(axis=1, keepdims=True)
    values = (above + straddling) / np.maximum(hits_before + h, 1)
    if ties == "best":
        return values.max(axis=1, where=possible, initial=0)
    if ties == "worst":
        return values.min(axis=1, where=possible, initial=1)
    from scipy.special import gammaln  # slow to import, and only this case needs it

    ways = np.where(possible, -gammaln(np.maximum(cells, 0) + 1).sum(axis=0), -np.inf)
    weights = np.exp(ways - ways.max(axis=1, keepdims=True))
    return (weights * values).sum(axis=1) / weights.sum(axis=1)


def _divisor(relevant, k, denominator):
    """What average precision is divided by, at least 1 so that nothing relevant scores 0."""
    return k if denominator == "k" else np.clip(relevant, 1, k)


def _checked_cutoffs(k, items):
    """The cutoffs asked for, else those of CUTOFFS that `items` can fill -> list of int."""
    if items < 1:
        raise ValueError("the database holds the query alone, and it must not find itself")
    if k is None:
        return [cutoff for cutoff in CUTOFFS if cutoff <= items] or [items]
    for cutoff in np.atleast_1d(k):
        if cutoff != int(cutoff) or not 1 <= cutoff <= items:
            raise ValueError(f"k={cutoff} must be a whole number in 1..{items}, the items to find")
    return [int(cutoff) for cutoff in np.atleast_1d(k)]


def _check_order(ties, client):
    if client is not None and ties == "stable":
        raise ValueError(
            'ties="stable" needs every query\'s whole database in one order, and a worker sees a '
            'block of it. Evaluate without client=, or with ties="expected", "best" or "worst".'
        )


def _check_choices(**chosen):
    for name, value in chosen.items():
        if value not in CHOICES[name]:
            choices = ", ".join(map(repr, CHOICES[name]))
            raise ValueError(f"{name}={value!r} must be one of {choices}")
