"""Retrieval metrics for binary codes, exact under ties, without an N x N matrix.

Hamming distances are integers, so many items share one, and a sort leaves them in any order. All
that matters of a query is two histograms over the distances 0..K, of all items and of the
relevant ones: expected, best and worst values follow in closed form (McSherry and Najork,
"Computing information retrieval performance measures efficiently in the presence of tied
scores", ECIR 2008, https://doi.org/10.1007/978-3-540-78646-7_38).

Q queries, N items that a query can find, K bits, C labels, G ranks, B queries of a block. Codes
are packed (N, K/8) uint8 in the order of numpy.packbits; smaller distance is closer. Two videos
are relevant to each other when they share at least one label. A query with nothing relevant
scores 0 everywhere.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from vidhash_lab.retrieval.hamming import (
    RadiusCurve,
    checked_words,
    distance_histograms,
    radius_curve,
    ranked_relevance,
    row_blocks,
)

TIES = ("expected", "best", "worst", "stable")
DENOMINATORS = {"k": "K", "min": "min(K, relevant)", "relevant": "relevant in top K"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found, with the protocol that makes it comparable.

    `average_precision[k]` is (Q,); `relevant` (Q,) counts what each query could find. `ranks`
    (G,) holds every rank to 100 (or to the largest k), then a geometric grid up to N; `precision`
    and `recall` (G,) are means over queries of the top `ranks`, ties broken as in the average
    precision ("best" and "worst" are bounds). `radius` is the same whatever the ties.
    """

    average_precision: dict[int, np.ndarray]
    relevant: np.ndarray
    ranks: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    radius: RadiusCurve
    num_queries: int
    database_size: int
    bits: int
    ties: str
    denominator: str
    exclude_self: bool

    @property
    def map_at(self):
        """Mean average precision {k: float}."""
        return {k: float(scores.mean()) for k, scores in self.average_precision.items()}

    @property
    def ceiling(self):
        """The most that `map_at` could be {k: float}: below 1 where k > relevant items."""
        best = {k: np.minimum(self.relevant, k) for k in self.average_precision}
        return {k: float((n / _divisor(n, k, self.denominator)).mean()) for k, n in best.items()}

    @property
    def area(self):
        """Area under `precision` over `recall`; from recall 0 on, the first precision holds."""
        return float(np.trapezoid([self.precision[0], *self.precision], [0.0, *self.recall]))

    def precision_at(self, recall):
        """Precision where the curve by rank reaches a recall, read off between its points."""
        known = [0.0, *self.recall], [self.precision[0], *self.precision]
        return np.interp(recall, *known)

    @property
    def protocol(self):
        """One line for figures: curves are comparable only where it is the same."""
        return (
            f"{self.num_queries:,} queries -> {self.database_size:,} items, {self.bits} bits, "
            f"ties {self.ties}, AP / {DENOMINATORS[self.denominator]}, "
            f"self {'excluded' if self.exclude_self else 'not excluded'}"
        )


def evaluate(
    query_codes,
    database_codes,
    query_labels,
    database_labels,
    *,
    k=(5, 20, 40, 60, 80, 100),
    ties="expected",
    denominator="k",
    exclude_self=False,
):
    """Score (Q, K/8) and (N, K/8) codes with (Q, C) and (N, C) multi-hot labels -> Evaluation.

    AP@k = sum over ranks r <= k of rel(r) * precision(r), divided by k ("k", as the released
    repositories do), by min(k, relevant) ("min") or by the relevant ones of the top k
    ("relevant"). Within a distance, `ties` takes the mean over all orders ("expected"), the
    bounds ("best", "worst") or database order ("stable"). `exclude_self`: query i is database
    item i and must not find itself. ValueError for unknown names, wrong shapes, and k above N.
    """
    _check_choice("ties", ties, TIES)
    _check_choice("denominator", denominator, DENOMINATORS)
    sets, bits = checked_words(query_codes, database_codes, query_labels, database_labels)
    num_queries, database_size = len(sets[0]), len(sets[1])
    if exclude_self and num_queries != database_size:
        raise ValueError(
            f"exclude_self needs as many queries ({num_queries}) as items ({database_size})"
        )
    exclude_self = bool(exclude_self)
    cutoffs = [_checked_cutoff(cutoff, database_size - exclude_self) for cutoff in np.atleast_1d(k)]
    own_item = np.arange(num_queries) if exclude_self else np.full(num_queries, -1)
    counts = distance_histograms(*sets, own_item, bits)
    by_rank = _score_by_rank(sets, own_item, counts, cutoffs, ties, denominator)
    protocol = num_queries, database_size, bits, ties, denominator, exclude_self
    return Evaluation(*by_rank, radius_curve(*counts), *protocol)


def average_precision(relevance, k, denominator="k", total_relevant=None):
    """Average precision at k of (Q, N) bool relevance in ranked order -> (Q,).

    For rankings that are given, hence without ties; `denominator` as in `evaluate`. For "min",
    `total_relevant` (Q,) counts the relevant items where the rankings were cut off.
    """
    _check_choice("denominator", denominator, DENOMINATORS)
    relevance = np.asarray(relevance, dtype=bool)
    k = _checked_cutoff(k, relevance.shape[1])
    hits = np.cumsum(relevance[:, :k], axis=1)
    gain = relevance[:, :k] * hits / np.arange(1, k + 1)
    if denominator == "relevant":
        return gain.sum(axis=1) / _divisor(hits[:, -1], k, denominator)
    found = relevance.sum(axis=1) if total_relevant is None else total_relevant
    return gain.sum(axis=1) / _divisor(found, k, denominator)


@dataclass(frozen=True, eq=False)
class TwinProbe:
    """How codes rank videos of a query's own fine label and of its twin, each (Q,).

    `own_rank` and `twin_rank` are mean ranks, 1 = nearest, expected under ties; `preference` is the
    share of (own, twin) pairs in which the own one is nearer, ties by half: 0.5 cannot tell them
    apart. Queries without videos of both in the database are NaN.
    """

    own_rank: np.ndarray
    twin_rank: np.ndarray
    preference: np.ndarray

    def __str__(self):
        own, twin, share = (np.nanmean(x) for x in (self.own_rank, self.twin_rank, self.preference))
        return f"mean rank {own:.0f} of its own, {twin:.0f} of its twin; own nearer in {share:.1%}"


def twin_probe(query_codes, database_codes, query_labels, database_labels, twins):
    """Ask whether codes tell fine labels from their twins -> TwinProbe.

    `twins` (C,) names the twin of each fine label, for example the story told backwards: the same
    pictures in another order, which only codes that know about time can tell apart. ValueError
    unless twins are pairs, c = twins[twins[c]] and not c itself.
    """
    twins = np.asarray(twins)
    places = np.arange(len(twins))
    paired = twins.shape == places.shape and set(twins.tolist()) == set(places.tolist())
    if not paired or (twins[twins] != places).any() or (twins == places).any():
        raise ValueError(f"twins must be pairs of the {len(twins)} fine labels, not {twins}")
    if np.asarray(query_labels).shape[1:] != twins.shape:
        raise ValueError(f"{len(twins)} twins for labels of shape {np.shape(query_labels)}")
    nobody = np.full(len(query_codes), -1, np.int64)
    counts = []
    for wanted in (np.asarray(query_labels), np.asarray(query_labels)[:, twins]):
        sets, bits = checked_words(query_codes, database_codes, wanted, database_labels)
        total, relevant = distance_histograms(*sets, nobody, bits)
        counts.append(relevant)
    own, twin = counts
    rank = np.cumsum(total, axis=1) - (total - 1) / 2  # mean rank within each distance
    farther = twin.sum(axis=1, keepdims=True) - np.cumsum(twin, axis=1) + twin / 2
    with np.errstate(invalid="ignore"):
        return TwinProbe(
            own_rank=(own * rank).sum(axis=1) / own.sum(axis=1),
            twin_rank=(twin * rank).sum(axis=1) / twin.sum(axis=1),
            preference=(own * farther).sum(axis=1) / (own.sum(axis=1) * twin.sum(axis=1)),
        )


def _score_by_rank(sets, own_item, counts, cutoffs, ties, denominator):
    """Average precision {k: (Q,)}, relevant (Q,), ranks (G,), mean precision and recall (G,)."""
    items, found = counts[0][0].sum(), counts[1].sum(axis=1)
    ranks = np.arange(1, min(max([100, *cutoffs]), items) + 1)
    ranks = np.union1d(ranks, np.geomspace(len(ranks), items, 100).round().astype(int))
    scores, precision, recall = [], 0, 0
    for rows in row_blocks(len(found), items if ties == "stable" else 8 * len(ranks)):
        block = counts[0][rows], counts[1][rows]
        if ties == "stable":
            queries = sets[0][rows], sets[1], sets[2][rows], sets[3], own_item[rows]
            ranked = ranked_relevance(*queries, block[0])
            hits = np.add.reduceat(ranked, [0, *ranks[:-1]], axis=1, dtype=np.int64).cumsum(axis=1)
            scores.append([average_precision(ranked, k, denominator, found[rows]) for k in cutoffs])
        else:
            hits, gain = _hits_and_gain(*block, ranks, ties)
            scores.append([_tied_precision(*block, gain, k, ties, denominator) for k in cutoffs])
        precision = precision + (hits / ranks).sum(axis=0) / len(found)
        recall = recall + (hits / np.maximum(found[rows, None], 1)).sum(axis=0) / len(found)
    return dict(zip(cutoffs, np.hstack(scores))), found, ranks, precision, recall


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
    if ties == "best":
        hits = hits_before + np.minimum(place, inside)
        return hits, (place <= inside) * hits / ranks
    hits = hits_before + np.maximum(place - (size - inside), 0)
    return hits, (place > size - inside) * hits / ranks


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
    ways = np.where(possible, -gammaln(np.maximum(cells, 0) + 1).sum(axis=0), -np.inf)
    weights = np.exp(ways - ways.max(axis=1, keepdims=True))
    return (weights * values).sum(axis=1) / weights.sum(axis=1)


def _divisor(relevant, k, denominator):
    """What average precision is divided by, at least 1 so that nothing relevant scores 0."""
    return k if denominator == "k" else np.clip(relevant, 1, k)


def _checked_cutoff(k, items):
    if k != int(k) or not 1 <= k <= items:
        raise ValueError(f"k={k} must be a whole number in 1..{items}, the items to be found")
    return int(k)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")
