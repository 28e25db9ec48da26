"""Result sheets: a claim with all that it was made from, and a checker of its protocol.

`check_protocol` measures every reported number again from the codes, and asks what a referee would:
did a query find itself, were queries learned from, was the order within ties lucky, was one side
given more, was the best of many runs reported, does the prose say what was measured? It can find
only what a sheet shows: runs that nobody kept, and recipes that say other than what was done, it
cannot see.

Q queries, N items of the database, K bits; codes are packed (Q, K/8) and (N, K/8) uint8.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.retrieval.metrics import evaluate

ROUNDED = 0.00051  # numbers are reported with three digits


@dataclass(frozen=True, eq=False, kw_only=True)
class ResultSheet:
    """What a reader should get of a result.

    `claim` is the prose; `reported` {method: mAP@k}; `codes` {method: (query, database)} are those
    that the numbers were measured on; `recipes` {method: {name: value}} say what each method was
    given, and `runs` {method: (mAP@k, …)} hold every run that was made, the reported among them.

    >>> from vidhash_lab import LSH, encode, open_dataset, score
    >>> data = open_dataset("digit-stories-mini")
    >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
    >>> codes = {"LSH": (encode(model, data.query), encode(model, data.database))}
    >>> reported = {"LSH": score(codes["LSH"], data, k=20).map_at[20]}
    >>> check_protocol(ResultSheet(claim="LSH.", dataset=data, reported=reported, codes=codes))
    []
    """

    claim: str
    dataset: VideoDataset
    reported: Mapping[str, float]
    codes: Mapping[str, tuple[np.ndarray, np.ndarray]]
    recipes: Mapping[str, Mapping] = field(default_factory=dict)
    runs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    k: int = 20
    ties: str = "expected"
    denominator: str = "k"
    exclude_self: bool = False

    def measure(self, method: str, **changes):
        """Measure a method's codes by the sheet's protocol, or by a changed one -> Evaluation.

        >>> from vidhash_lab import LSH, encode, open_dataset
        >>> data = open_dataset("digit-stories-mini")
        >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
        >>> codes = {"LSH": (encode(model, data.query), encode(model, data.database))}
        >>> ResultSheet(claim="", dataset=data, reported={}, codes=codes).measure("LSH").ties
        'expected'
        """
        labels = self.dataset.query.labels, self.dataset.database.labels
        protocol = {"ties": self.ties, "denominator": self.denominator}
        protocol |= {"exclude_self": self.exclude_self}
        return evaluate(*self.codes[method], *labels, k=self.k, **protocol | changes)

    def __str__(self) -> str:
        lines = [self.claim, "", self.measure(next(iter(self.codes))).protocol]
        for method, value in self.reported.items():
            recipe = ", ".join(f"{k} {v}" for k, v in self.recipes.get(method, {}).items())
            lines.append(f"  {method:12} mAP@{self.k} {value:.3f}   {recipe}")
        for method, values in self.runs.items():
            lines.append(f"  runs of {method}: " + " ".join(f"{value:.3f}" for value in values))
        return "\n".join(lines)


@dataclass(frozen=True)
class Finding:
    """A fault, by name, and what shows it.

    >>> Finding("self-match", "every query finds itself").fault
    'self-match'
    """

    fault: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.evidence}"


def check_protocol(sheet: ResultSheet) -> list[Finding]:
    """Look for six faults in a result sheet -> what was found, nothing for a clean sheet.

    Names: "self-match", "training films as queries", "lucky ties", "unequal conditions", "best of
    many runs", "prose of another run"; and "not its numbers" where the codes do not give what is
    reported under any order within ties. Videos are compared bit by bit: a copy that was encoded
    anew is not found. Reads all features of the three sets once.

    >>> from vidhash_lab import LSH, encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
    >>> codes = {"LSH": (encode(model, data.query), encode(model, data.database))}
    >>> sheet = ResultSheet(claim="LSH.", dataset=data, reported={"LSH": 0.9}, codes=codes)
    >>> [found.fault for found in check_protocol(sheet)]
    ['not its numbers']
    """
    checks = (_self_match, _trained_on, _ties, _conditions, _best_of_many, _prose)
    return [finding for check in checks for finding in check(sheet)]


def _self_match(sheet):
    data = sheet.dataset
    if sheet.exclude_self:
        return
    shared = np.isin(video_digests(data.query), video_digests(data.database))
    if not shared.any():
        return
    evidence = f"{shared.sum()} of {len(shared)} queries lie in the database that they search"
    if len(data.query) == len(data.database) and shared.all():
        for method, value in sheet.reported.items():
            alone = sheet.measure(method, exclude_self=True).map_at[sheet.k]
            evidence += f"; {method} {value:.3f}, without itself {alone:.3f}"
    yield Finding("self-match", evidence)


def _trained_on(sheet):
    shared = np.isin(video_digests(sheet.dataset.query), video_digests(sheet.dataset.train))
    if shared.any():
        evidence = f"{shared.sum()} of {len(shared)} queries are among the training videos"
        yield Finding("training films as queries", evidence)


def _ties(sheet):
    for method, value in sheet.reported.items():
        honest = sheet.measure(method, ties="expected")
        orders = {ties: honest.with_ties(ties).map_at[sheet.k] for ties in ("worst", "best")}
        expected = honest.map_at[sheet.k]
        if abs(value - sheet.measure(method).map_at[sheet.k]) > ROUNDED:
            inside = orders["worst"] - ROUNDED <= value <= orders["best"] + ROUNDED
            yield Finding(
                "lucky ties" if inside else "not its numbers",
                f"{method} {value:.3f}; its codes give {expected:.3f} on average over the orders "
                f"within ties, {orders['worst']:.3f} at worst, {orders['best']:.3f} at best",
            )


def _conditions(sheet):
    names = dict.fromkeys(name for recipe in sheet.recipes.values() for name in recipe)
    for name in names:
        given = {method: recipe.get(name) for method, recipe in sheet.recipes.items()}
        if len(set(map(repr, given.values()))) > 1:
            each = ", ".join(f"{method} {value}" for method, value in given.items())
            yield Finding("unequal conditions", f"{name}: {each}")


def _best_of_many(sheet):
    for method, values in sheet.runs.items():
        best, mean = max(values), float(np.mean(values))
        value = sheet.reported.get(method)
        if value is None or len(values) < 2 or abs(value - mean) <= ROUNDED:
            continue
        if abs(value - best) <= ROUNDED:
            spread = np.std(values, ddof=1)
            yield Finding(
                "best of many runs",
                f"{method} {value:.3f} is the best of {len(values)}, whose mean is {mean:.3f} "
                f"± {spread:.3f}",
            )


def _prose(sheet):
    """Compare every decimal number of the claim with what the sheet reports."""
    known = [*sheet.reported.values(), *(v for runs in sheet.runs.values() for v in runs)]
    known += [abs(a - b) for a in sheet.reported.values() for b in sheet.reported.values()]
    for runs in sheet.runs.values():
        known += [float(np.mean(runs)), float(np.std(runs))]
        known += [float(np.std(runs, ddof=1))] if len(runs) > 1 else []
    said = re.findall(r"\d+\.\d+", sheet.claim)
    strange = [
        text
        for text in said
        if all(abs(float(text) - v) > 0.51 * 10.0 ** -len(text.split(".")[1]) for v in known)
    ]
    if strange:
        evidence = f"the text says {', '.join(strange)}, which no number of the sheet rounds to"
        yield Finding("prose of another run", evidence)


def video_digests(feature_set: FeatureSet) -> np.ndarray:
    """Digest the float32 features of every video -> (N,) text; equal for equal videos.

    >>> from vidhash_lab import open_dataset
    >>> video_digests(open_dataset("digit-stories-mini").query).shape
    (60,)
    """
    videos = (video for _, frames in feature_set.batches() for video in frames.numpy())
    return np.array([hashlib.blake2b(v.tobytes(), digest_size=16).hexdigest() for v in videos])
