"""The checker finds each fault of a result sheet, and nothing in a clean one."""

from dataclasses import replace

import numpy as np
import pytest

from vidhash_lab import open_dataset
from vidhash_lab.data.features import VideoDataset
from vidhash_lab.retrieval.sheets import ResultSheet, check_protocol, video_digests


@pytest.fixture
def data(random_features):
    parts = [random_features(f"{n}.h5", shape=(40, 4, 6), seed=n) for n in range(3)]
    return VideoDataset("made-up", *(open_dataset(path).train for path in parts))


@pytest.fixture
def clean(data):
    """A sheet of random codes whose numbers, recipes and prose are in order."""
    generator, codes = np.random.default_rng(0), {}
    for name in ("one", "two"):
        codes[name] = tuple(generator.integers(0, 256, (40, 2), dtype=np.uint8) for _ in range(2))
    blank = ResultSheet(claim="", dataset=data, reported={}, codes=codes, k=5)
    reported = {name: round(blank.measure(name).map_at[5], 3) for name in codes}
    return replace(
        blank,
        claim=f"One reaches {reported['one']:.3f}.",
        reported=reported,
        recipes={name: {"epochs": 3} for name in codes},
        runs={"one": (reported["one"], reported["one"])},
    )


def faults(sheet):
    return [finding.fault for finding in check_protocol(sheet)]


def test_a_clean_sheet_passes_and_prints_all_that_it_holds(clean):
    assert check_protocol(clean) == []
    text = str(clean)
    assert clean.claim in text and "40 queries -> 40 items, 16 bits, ties expected" in text
    assert text.count("epochs 3") == 2 and "runs of one" in text


def test_a_query_that_finds_itself(clean, data):
    itself = replace(clean, dataset=replace(data, query=data.database))
    (finding,) = [f for f in check_protocol(itself) if f.fault == "self-match"]
    alone = itself.measure("one", exclude_self=True).map_at[5]
    assert "40 of 40 queries lie in the database" in finding.evidence
    assert f"without itself {alone:.3f}" in finding.evidence
    assert "self-match" not in faults(replace(itself, exclude_self=True))
    some = replace(clean, dataset=replace(data, query=data.database[:7]))
    codes = {name: (query[:7], base) for name, (query, base) in clean.codes.items()}
    (finding, *_) = check_protocol(replace(some, codes=codes))
    assert "7 of 7 queries" in finding.evidence and "without" not in finding.evidence


def test_queries_that_were_learned_from(clean, data):
    seen = replace(data, query=data.train)
    sheet = replace(clean, dataset=seen)
    sheet = replace(sheet, reported={n: sheet.measure(n).map_at[5] for n in sheet.codes}, claim="")
    assert faults(replace(sheet, runs={})) == ["training films as queries"]


def test_a_lucky_order_within_ties(clean):
    best = clean.measure("one", ties="best").map_at[5]
    assert best > clean.reported["one"] + 0.01
    lucky = replace(clean, reported=clean.reported | {"one": best}, claim="", runs={})
    (finding,) = check_protocol(lucky)
    assert finding.fault == "lucky ties" and f"one {best:.3f}" in finding.evidence
    assert f"give {clean.measure('one').map_at[5]:.3f} on average" in finding.evidence
    assert check_protocol(replace(lucky, reported={"one": best}, ties="best")) == []
    assert faults(replace(lucky, reported={"one": best + 0.01})) == ["not its numbers"]


def test_one_side_that_was_given_more(clean):
    unequal = replace(clean, recipes={"one": {"epochs": 3, "views": 4}, "two": {"epochs": 3}})
    (finding,) = check_protocol(unequal)
    assert str(finding) == "unequal conditions: views: one 4, two None"


def test_the_best_of_many_runs(clean):
    value = clean.reported["one"]
    runs = {"one": (value - 0.02, value, value - 0.04)}
    (finding,) = check_protocol(replace(clean, runs=runs))
    assert finding.fault == "best of many runs"
    assert f"the best of 3, whose mean is {value - 0.02:.3f} ± 0.020" in finding.evidence
    assert check_protocol(replace(clean, runs={"one": (value,)})) == []


def test_prose_whose_numbers_are_of_another_run(clean):
    ours, other = clean.reported["one"], clean.reported["one"] + 0.1
    stale = replace(clean, claim=f"One reaches {other:.3f}, once {ours:.2f}.")
    (finding,) = check_protocol(stale)
    assert finding.fault == "prose of another run"
    assert f"says {other:.3f}, which" in finding.evidence
    lead = abs(clean.reported["one"] - clean.reported["two"])
    assert check_protocol(replace(clean, claim=f"It leads by {lead:.3f}, at {ours:.1f}.")) == []


def test_digests_are_equal_for_equal_videos_alone(data):
    first = video_digests(data.train)
    assert len(set(first)) == 40 and np.array_equal(first[3:5], video_digests(data.train[3:5]))
    assert not np.isin(first, video_digests(data.query)).any()
