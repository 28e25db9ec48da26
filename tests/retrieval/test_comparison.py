"""Comparisons find what differs by a known error, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from vidhash_lab.retrieval.comparison import compare
from vidhash_lab.retrieval.metrics import evaluate


def with_scores(scores):
    """An evaluation whose average precision at 20 is given."""
    rng = np.random.default_rng(0)
    codes, items = (rng.integers(0, 256, (n, 2), dtype=np.uint8) for n in (len(scores), 300))
    labels, item_labels = (rng.random((n, 7)) < 0.2 for n in (len(scores), 300))
    result = evaluate(codes, items, labels, item_labels, k=20)
    return replace(result, average_precision={20: scores})


def test_compare_finds_a_difference_of_known_error():
    rng = np.random.default_rng(0)
    base, gain = rng.random(400), rng.normal(0.02, 0.1, 400)
    a, b = with_scores(base + gain), with_scores(base)
    result = compare(a, b)
    error = gain.std() / np.sqrt(400)
    assert result.difference == pytest.approx(gain.mean())
    normal = gain.mean() - 1.96 * error, gain.mean() + 1.96 * error
    assert result.interval == pytest.approx(normal, abs=0.1 * error)
    assert 0 < result.p_value < 0.05 and result.interval[0] > 0
    assert result.mean == pytest.approx(((base + gain).mean(), base.mean()))
    assert compare(b, a).difference == -result.difference
    assert compare(b, a).p_value == pytest.approx(result.p_value)
    assert compare(a, b).interval == result.interval != compare(a, b, seed=1).interval


def test_compare_does_not_see_what_is_not_there():
    rng = np.random.default_rng(1)
    scores = rng.random(300)
    same = compare(with_scores(scores), with_scores(scores))
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)
    noise = rng.normal(0, 0.1, 300)
    found = compare(with_scores(scores + noise - noise.mean()), with_scores(scores))
    assert found.p_value > 0.9 and found.interval[0] < 0 < found.interval[1]


def test_compare_averages_seeds_and_reports_their_spread():
    rng = np.random.default_rng(2)
    scores = rng.random((3, 200))
    result = compare([with_scores(row) for row in scores], with_scores(scores[0]), resamples=500)
    assert result.seeds == (3, 1)
    assert result.mean[0] == pytest.approx(scores.mean())
    assert result.deviation[0] == pytest.approx(np.std(scores.mean(axis=1), ddof=1))
    assert np.isnan(result.deviation[1])
    assert result.difference == pytest.approx((scores.mean(axis=0) - scores[0]).mean())


def test_the_interval_over_seeds_is_welchs():
    rng = np.random.default_rng(3)
    one, other = rng.random((3, 50)), rng.random((5, 50)) + 0.2
    a, b = ([with_scores(row) for row in side] for side in (one, other))
    welch = ttest_ind(one.mean(1), other.mean(1), equal_var=False).confidence_interval()
    assert compare(a, b, resamples=9).seed_interval == pytest.approx(tuple(welch))
    alone = ttest_1samp(one.mean(1), other[0].mean()).confidence_interval()
    difference = other[0].mean()  # of a baseline that has no seeds
    assert np.add(compare(a, b[0], resamples=9).seed_interval, difference) == pytest.approx(alone)
    assert np.isnan(compare(a[0], b[0], resamples=9).seed_interval).all()
    assert "seeds" not in str(compare(a[0], b[0], resamples=9))
    same = compare([a[0], a[0]], [b[0], b[0]], resamples=9)
    assert same.seed_interval == pytest.approx((same.difference, same.difference))


def test_compare_refuses_what_cannot_be_compared():
    a = with_scores(np.ones(50))
    for changes in [{"ties": "best"}, {"denominator": "min"}, {"exclude_self": True}]:
        with pytest.raises(ValueError, match="protocols differ"):
            compare(a, replace(a, **changes))
    for other in [replace(a, relevant=a.relevant + 1), with_scores(np.ones(51))]:
        with pytest.raises(ValueError, match="queries differ"):
            compare(a, other)
    with pytest.raises(ValueError, match=r"k=5 was not evaluated, only \[20\]"):
        compare(a, a, k=5)
    with pytest.raises(ValueError, match="at least one"):
        compare(a, [])
    assert compare(a, replace(a, bits=32)).difference == 0
