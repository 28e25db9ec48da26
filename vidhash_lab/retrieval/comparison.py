"""Is A better than B? A paired bootstrap over queries, and Student's t over seeds.

A difference in mAP means something when it is larger than what other queries, and other seeds,
would make of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidhash_lab.retrieval.hamming import row_blocks
from vidhash_lab.retrieval.metrics import Evaluation


@dataclass(frozen=True)
class Comparison:
    """Mean average precision at k of two sides, a and b, over the same queries.

    `difference` is a - b, `interval` its 95% bootstrap interval over queries, `p_value` two-sided.
    `mean` and `deviation` (NaN for one) over `seeds` are pairs (a, b). `seed_interval` is the 95%
    interval of the difference over seeds by Welch's t (NaN where neither side has several; a side
    with one run is taken as it is).

    >>> from vidhash_lab import evaluate
    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
    >>> found = evaluate(codes, codes, labels, labels, k=1)
    >>> compare(found, found, k=1).difference
    0.0
    """

    k: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    mean: tuple[float, float]
    deviation: tuple[float, float]
    seeds: tuple[int, int]
    seed_interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        text = f"difference in mAP@{self.k} {self.difference:+.3f}, 95% intervals: "
        text += f"queries {low:+.3f} to {high:+.3f} (p {self.p_value:.4f})"
        if max(self.seeds) > 1:
            low, high = self.seed_interval
            text += f", seeds {low:+.3f} to {high:+.3f}"
        return text


def compare(
    evaluation_a: Evaluation | Sequence[Evaluation],
    evaluation_b: Evaluation | Sequence[Evaluation],
    k: int = 20,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Ask whether a is better than b at k by a paired bootstrap over queries.

    Evaluations of several seeds are averaged for it, and compared by a t test of their own.
    ValueError unless queries and protocol agree.

    >>> from vidhash_lab import ITQ, LSH, open_dataset, score
    >>> data = open_dataset("digit-stories-mini")
    >>> itq, lsh = (m.for_dataset(data, bits=16).prepare(data.train, seed=0) for m in (ITQ, LSH))
    >>> compare(score(itq, data), score(lsh, data), k=20).difference > 0
    True
    """
    sides = [[s] if isinstance(s, Evaluation) else list(s) for s in (evaluation_a, evaluation_b)]
    _check_comparable(sides, k)
    scores = [np.array([run.average_precision[k] for run in side]) for side in sides]
    difference = scores[0].mean(axis=0) - scores[1].mean(axis=0)  # (Q,)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for rows in row_blocks(resamples, 8 * len(difference)):
        drawn = generator.integers(len(difference), size=(len(means[rows]), len(difference)))
        means[rows] = difference[drawn].mean(axis=1)
    # The draw that was observed counts as one of the resamples, so that p is never 0.
    tail = (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + resamples)
    runs = [side.mean(axis=1) for side in scores]  # (seeds,) each
    return Comparison(
        k=k,
        difference=float(difference.mean()),
        interval=tuple(np.quantile(means, [0.025, 0.975]).tolist()),
        p_value=float(min(1.0, 2 * tail)),
        mean=tuple(float(run.mean()) for run in runs),
        deviation=tuple(float(run.std(ddof=1)) if len(run) > 1 else np.nan for run in runs),
        seeds=tuple(len(run) for run in runs),
        seed_interval=_seed_interval(runs),
    )


def _seed_interval(sides):
    """Welch's 95% interval of the difference of the means of two sides, (runs,) each."""
    from scipy import stats  # takes a second to import

    several = [runs for runs in sides if len(runs) > 1]
    if not several:
        return np.nan, np.nan
    freedom = np.array([len(runs) - 1 for runs in several])
    squares = np.array([runs.var(ddof=1) / len(runs) for runs in several])  # of the errors
    total, difference = squares.sum(), sides[0].mean() - sides[1].mean()
    if total == 0:
        return float(difference), float(difference)
    half = stats.t.ppf(0.975, total**2 / (squares**2 / freedom).sum()) * np.sqrt(total)
    return float(difference - half), float(difference + half)


def _check_comparable(sides, k):
    runs = [run for side in sides for run in side]
    if not all(sides):
        raise ValueError("compare needs at least one evaluation on each side")
    for run in runs:
        if k not in run.average_precision:
            raise ValueError(f"k={k} was not evaluated, only {sorted(run.average_precision)}")
        same = ("database_size", "ties", "denominator", "exclude_self")
        if any(getattr(run, name) != getattr(runs[0], name) for name in same):
            raise ValueError(f"protocols differ: {run.protocol} against {runs[0].protocol}")
        if not np.array_equal(run.relevant, runs[0].relevant):
            raise ValueError("queries differ: they have other numbers of relevant items")
