"""The Hamming index against a sort of all distances."""

import numpy as np
import pytest

from vidhash_lab.data import FeatureSet, open_dataset
from vidhash_lab.retrieval.search import HammingIndex, nearest_frames, retrieve


def random_codes(count, width, seed, distinct=256):
    return np.random.default_rng(seed).integers(0, distinct, (count, width), dtype=np.uint8)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 12, 33])
@pytest.mark.parametrize("k", [1, 7, 100, 700])
def test_finds_the_nearest_and_keeps_database_order_in_ties(width, k):
    database, queries = random_codes(700, width, 0, distinct=4), random_codes(9, width, 1)
    expected = np.bitwise_count(queries[:, None] ^ database).sum(axis=2, dtype=int)
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]

    distances, indices = HammingIndex(database).search(queries, k)

    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(expected, order, axis=1))
    assert distances.dtype == np.int32 and indices.dtype == np.int64


def test_takes_codes_that_do_not_lie_in_one_piece():
    database = random_codes(50, 4, 0)
    index = HammingIndex(database[::2])
    distances, indices = index.search(database[1::2][:, ::-1][:, ::-1], 1)
    assert len(index) == 25
    chosen = database[::2][indices[:, 0]] ^ database[1::2]
    np.testing.assert_array_equal(np.bitwise_count(chosen).sum(axis=1), distances[:, 0])


@pytest.mark.parametrize(
    "codes",
    [np.zeros((3, 2)), np.zeros(3, np.uint8), np.zeros((0, 2), np.uint8)],
    ids=["float", "flat", "empty"],
)
def test_says_what_codes_should_be(codes):
    with pytest.raises(ValueError, match=r"packed bits, a non-empty \(N, K/8\) uint8 array"):
        HammingIndex(codes)


def test_says_what_is_wrong_with_a_query():
    index = HammingIndex(random_codes(10, 2, 0))
    with pytest.raises(ValueError, match="query codes have 3 bytes, the index 2"):
        index.search(random_codes(4, 3, 1), 5)
    with pytest.raises(ValueError, match=r"k=11 must lie in 1\.\.10"):
        index.search(random_codes(4, 2, 1), 11)
    with pytest.raises(ValueError, match="k=0"):
        index.search(random_codes(4, 2, 1), 0)


def test_retrieve_says_which_results_share_a_label(random_features, tmp_path):
    for part, count in (("train", 5), ("database", 40), ("query", 6)):
        random_features(f"{part}.h5", (count, 4, 8), seed=count)
    dataset = open_dataset(tmp_path)
    database, queries = random_codes(40, 2, 0), random_codes(6, 2, 1)
    distances, found, relevant = retrieve(dataset, HammingIndex(database), queries, 4, 7)
    every = np.bitwise_count(queries[4] ^ database).sum(axis=1)
    assert distances.tolist() == sorted(every.tolist())[:7] == every[found].tolist()
    shared = [(dataset.database.labels[row] & dataset.query.labels[4]).any() for row in found]
    assert relevant.tolist() == shared


def test_nearest_frames_of_frames_are_themselves(random_features):
    feature_set = FeatureSet(random_features(shape=(30, 4, 8)))
    wanted = feature_set.rows([7, 21])[[0, 1], [2, 3]]
    pictures = nearest_frames(wanted, feature_set)
    assert np.array_equal(pictures, feature_set.pictures([7, 21])[[0, 1], [2, 3]])
    assert not np.array_equal(nearest_frames(wanted, feature_set, videos=7), pictures)
