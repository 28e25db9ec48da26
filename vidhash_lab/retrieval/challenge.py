"""A challenge: a frozen protocol, labels that are not shown, and a count of the attempts.

Each attempt is a draw from the noise of the queries, and the best of many draws is lucky. So the
board keeps all attempts, and says how much of a lead luck alone would give.

Q hidden queries, N items of the database, K bits.
"""

from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from vidhash_lab.data.features import VideoDataset
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.retrieval.comparison import compare
from vidhash_lab.retrieval.metrics import Evaluation, evaluate


@dataclass(frozen=True)
class Attempt:
    """What one attempt scored, and by how much it leads the line to beat.

    >>> Attempt("mine", score=0.5, difference=0.1, interval=(0.02, 0.18)).difference
    0.1
    """

    name: str
    score: float
    difference: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        lead = f"{self.difference:+.3f} to the line ({low:+.3f} to {high:+.3f})"
        return f"{self.name}: {self.score:.3f}, {lead}"


class Challenge:
    """Beat `line` by codes of as many bits: mAP@k of queries whose labels are not shown.

    `labels` or "fine_labels" decide what is relevant. The first half of the queries is `practice`,
    a data set whose labels are there; the second half is judged. ValueError where a set has none of
    the labels, or where the queries are the database.

    >>> from vidhash_lab import ITQ, LSH, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> line, mine = (m.for_dataset(data, bits=16).prepare(data.train, seed=0) for m in (LSH, ITQ))
    >>> challenge = Challenge(data, line)
    >>> challenge.attempt(mine, "ITQ").difference > 0
    True
    """

    def __init__(
        self, dataset: VideoDataset, line: nn.Module, *, labels: str = "labels", k: int = 20
    ):
        known = [getattr(part, labels) for part in (dataset.query, dataset.database)]
        if any(each is None for each in known) or dataset.self_query:
            problem = "its queries are its database" if dataset.self_query else f"no `{labels}`"
            raise ValueError(
                f"{dataset.name}: {problem}; a challenge needs labelled queries of their own."
            )
        half = len(dataset.query) // 2
        self.practice = replace(dataset, query=dataset.query[:half])
        self._hidden, self._labels = dataset.query[half:], (known[0][half:], known[1])
        self._database, self.k, self.bits = dataset.database, k, line.config.bits
        self.attempts: list[Attempt] = []
        self._line = self._judged(line)

    @property
    def line(self) -> float:
        """The score of the line to beat.

        >>> from vidhash_lab import LSH, open_dataset
        >>> data = open_dataset("digit-stories-mini")
        >>> 0 < Challenge(data, LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)).line < 1
        True
        """
        return self._line.map_at[self.k]

    def attempt(self, model: nn.Module, name: str) -> Attempt:
        """Judge a model, once more for the count; ValueError for codes of other lengths.

        >>> from vidhash_lab import LSH, open_dataset
        >>> data = open_dataset("digit-stories-mini")
        >>> line = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
        >>> Challenge(data, line).attempt(line, "the line itself").difference
        0.0
        """
        if model.config.bits != self.bits:
            raise ValueError(f"{name} has {model.config.bits} bits, the line to beat {self.bits}")
        judged = self._judged(model)
        found = compare(judged, self._line, k=self.k)
        self.attempts.append(Attempt(name, judged.map_at[self.k], found.difference, found.interval))
        return self.attempts[-1]

    def luck(self, seed: int = 0) -> float:
        """The lead that the best of as many attempts has by luck, were all as good as the line.

        The mean of the largest of so many normal draws, of the attempts' mean standard error.

        >>> from vidhash_lab import LSH, open_dataset
        >>> data = open_dataset("digit-stories-mini")
        >>> line, other = (LSH.for_dataset(data, bits=16).prepare(data.train, s) for s in (0, 1))
        >>> challenge = Challenge(data, line)
        >>> attempts = [challenge.attempt(other, f"try {number}") for number in range(3)]
        >>> challenge.luck() > 0
        True
        """
        if not self.attempts:
            return 0.0
        # A 95% interval is 3.92 standard errors wide.
        error = np.mean([(high - low) / 3.92 for low, high in (a.interval for a in self.attempts)])
        draws = np.random.default_rng(seed).standard_normal((20_000, len(self.attempts)))
        return float(max(0.0, error * draws.max(axis=1).mean()))

    def _judged(self, model) -> Evaluation:
        codes = encode(model, self._hidden), encode(model, self._database)
        return evaluate(*codes, *self._labels, k=self.k)
