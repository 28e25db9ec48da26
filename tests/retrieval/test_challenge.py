"""A challenge: labels of half of the queries stay out of sight, every attempt counts."""

import numpy as np
import pytest

from vidhash_lab import LSH, compare, encode, evaluate, open_dataset
from vidhash_lab.data.features import VideoDataset
from vidhash_lab.retrieval.challenge import Challenge


@pytest.fixture
def data(random_features):
    parts = [random_features(f"{n}.h5", shape=(40, 4, 6), seed=n) for n in range(3)]
    return VideoDataset("made-up", *(open_dataset(path).train for path in parts))


def hashed(data, seed, bits=16):
    return LSH.for_dataset(data, bits=bits).prepare(data.train, seed)


def test_the_second_half_of_the_queries_is_judged(data):
    line, other = hashed(data, 0), hashed(data, 1)
    challenge = Challenge(data, line, k=5)
    hidden = data.query[20:]
    results = [
        evaluate(
            encode(model, hidden), encode(model, data.database), hidden.labels,
            data.database.labels, k=5,
        )
        for model in (other, line)
    ]  # fmt: skip
    attempt = challenge.attempt(other, "other planes")
    assert challenge.line == results[1].map_at[5] and attempt.score == results[0].map_at[5]
    assert attempt.interval == compare(*results, k=5).interval
    assert len(challenge.practice.query) == 20 and challenge.attempts == [attempt]
    assert str(attempt).startswith(f"other planes: {attempt.score:.3f}, ")


def test_luck_grows_with_the_attempts_and_is_that_of_normal_draws(data):
    challenge = Challenge(data, hashed(data, 0), k=5)
    assert challenge.luck() == 0
    lucky = []
    for seed in (1, 2, 3, 4):
        challenge.attempt(hashed(data, seed), str(seed))
        lucky.append(challenge.luck())
    widths = [high - low for low, high in (a.interval for a in challenge.attempts)]
    assert lucky[0] < lucky[1] < lucky[2] < lucky[3]
    expected = 1.0294 * np.mean(widths) / 3.92  # the mean of the largest of four normal draws
    assert lucky[3] == pytest.approx(expected, rel=0.02)


def test_other_lengths_and_sets_that_cannot_be_judged_are_refused(data, random_features):
    challenge = Challenge(data, hashed(data, 0), k=5)
    with pytest.raises(ValueError, match="long has 24 bits, the line to beat 16"):
        challenge.attempt(hashed(data, 0, bits=24), "long")
    assert challenge.attempts == []
    with pytest.raises(ValueError, match="made-up: no `fine_labels`; a challenge needs"):
        Challenge(data, hashed(data, 0), labels="fine_labels")
    itself = open_dataset(random_features())
    with pytest.raises(ValueError, match="its queries are its database"):
        Challenge(itself, hashed(itself, 0))
