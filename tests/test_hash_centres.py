"""Hash centres: far apart, in step with the clusters, for any number of them and of bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import comb

from vidhash_lab.hash_centres import (
    both_ends,
    flip_bits,
    hadamard_codes,
    margin,
    semantic_centres,
    similarities,
)


def clusters(count, seed=0, groups=6):
    random = np.random.default_rng(seed)
    places = 1.5 * random.standard_normal((groups, 12))
    return places[random.integers(0, groups, count)] + random.standard_normal((count, 12))


@pytest.mark.parametrize("bits", [8, 16, 64])
def test_rows_of_a_hadamard_matrix_are_half_or_all_of_their_bits_apart(bits):
    codes = hadamard_codes(2 * bits, bits)
    products = codes @ codes.T
    assert set(np.unique(products)) == {-bits, 0, bits}
    assert (products == bits).sum() == 2 * bits  # with itself alone


@settings(max_examples=25)
@given(bits=st.integers(1, 16).map(lambda eighth: 8 * eighth), count=st.integers(1, 300))
def test_codes_to_start_from_for_any_number(bits, count):
    codes = hadamard_codes(count, bits, seed=1)
    assert codes.shape == (count, bits) and set(np.unique(codes)) <= {-1, 1}
    np.testing.assert_array_equal(codes, hadamard_codes(count, bits, seed=1))


@pytest.mark.parametrize("bits, count", [(8, 5), (16, 450), (32, 450), (64, 450), (64, 2)])
def test_the_margin_is_the_bound_of_gilbert_and_varshamov(bits, count):
    def nearer_than(distance):
        return sum(comb(bits, i, exact=True) for i in range(distance))

    found = margin(count, bits)
    assert count * nearer_than(found) <= 2**bits < count * nearer_than(found + 1)


def objective(codes, similarity, least_distance):
    """As the module's docstring has it, pair by pair."""
    products, similar, nearer = [], [], 0
    for i in range(len(codes)):
        for j in range(i):
            products.append(codes[i] @ codes[j])
            similar.append(similarity[i, j])
            nearer += max(0, least_distance - (codes[i] != codes[j]).sum())
    return np.corrcoef(products, similar)[0, 1] - nearer


@pytest.mark.parametrize("count, bits", [(12, 8), (20, 16), (40, 8)])
def test_no_single_flip_is_better_than_what_is_found(count, bits):
    similarity, least = similarities(clusters(count)), margin(count, bits)
    start = hadamard_codes(count, bits).astype(float)
    found = flip_bits(start, similarity, least)
    best = objective(found, similarity, least)
    assert best > objective(start, similarity, least)
    for place in np.ndindex(count, bits):
        other = found.copy()
        other[place] *= -1
        assert objective(other, similarity, least) < best + 2e-6


@pytest.mark.parametrize("bits, count", [(16, 100), (24, 60), (40, 150), (64, 200)])
def test_both_ends_are_better_than_those_of_random_codes(bits, count):
    features = clusters(count)
    similarity = similarities(features)
    codes = semantic_centres(features, bits)
    random = np.random.default_rng(0).choice([-1.0, 1.0], (count, bits))
    (least, correlation), (their_least, theirs) = (
        both_ends(each, similarity) for each in (codes, random)
    )
    assert codes.dtype == np.float32 and set(np.unique(codes)) == {-1, 1}
    assert least >= margin(count, bits) >= their_least
    assert correlation > 0.45 > theirs + 0.3


def test_both_ends_of_three_codes():
    codes = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]])
    similarity = np.array([[1, 0.5, -0.9], [0.5, 1, -0.4], [-0.9, -0.4, 1]])
    least, correlation = both_ends(codes, similarity)
    assert least == 1
    assert correlation == pytest.approx(np.corrcoef([2, -4, -2], [0.5, -0.9, -0.4])[0, 1])


def test_the_seed_decides():
    features = clusters(90)
    first, again, other = (semantic_centres(features, 16, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_clusters(count):
    codes = semantic_centres(clusters(count), 16)
    assert codes.shape == (count, 16) and len(np.unique(codes, axis=0)) == count


def test_clusters_that_are_all_alike_and_more_than_there_are_codes():
    assert np.isfinite(semantic_centres(np.ones((10, 3)), 8)).all()
    assert semantic_centres(clusters(300), 8).shape == (300, 8)
