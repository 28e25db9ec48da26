"""Distances and shared labels against their definitions, bit by bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidhash_lab.retrieval.codes import unpack
from vidhash_lab.retrieval.hamming import distances, is_relevant


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 40), st.integers(0, 2**32))
def test_distances_count_the_bits_that_differ(queries, items, width, seed):
    random = np.random.default_rng(seed)
    codes = [random.integers(0, 256, (n, width), dtype=np.uint8) for n in (queries, items)]
    found = distances(*codes)
    bits = [unpack(rows) for rows in codes]
    expected = (bits[0][:, None] != bits[1]).sum(axis=2)
    assert found.dtype == np.int32 and np.array_equal(found, expected)


def test_distances_of_more_than_255_bits_do_not_wrap_around():
    codes = np.array([[0] * 64, [255] * 64], np.uint8)
    assert distances(codes, codes).tolist() == [[0, 512], [512, 0]]


def test_distances_of_codes_of_two_widths_are_refused():
    codes = np.zeros((3, 2), np.uint8)
    with pytest.raises(ValueError, match="query codes have 2 bytes, database codes 1"):
        distances(codes, codes[:, :1])
    with pytest.raises(ValueError, match="database codes must be packed bits"):
        distances(codes, codes[0])


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 70), st.integers(0, 2**32))
def test_relevant_is_what_shares_a_label(queries, items, columns, seed):
    random = np.random.default_rng(seed)
    labels = [random.random((n, columns)) < 1.5 / columns for n in (queries, items)]
    expected = (labels[0][:, None] & labels[1]).any(axis=2)
    found = is_relevant(*labels)
    assert found.dtype == bool and np.array_equal(found, expected)
    assert np.array_equal(is_relevant(labels[0][0], labels[1]), expected[0])
    assert np.array_equal(is_relevant(labels[0].astype(int), labels[1].astype("f8")), expected)


def test_relevance_without_labels_is_refused():
    with pytest.raises(ValueError, match="have no labels"):
        is_relevant(np.ones((2, 3)), None)
    with pytest.raises(ValueError):
        is_relevant(np.ones((2, 3)), np.ones((2, 4)))
