"""The Hamming index, exact and approximate, against a sort of all distances."""

import pickle

import h5py
import numpy as np
import pytest

from vidhash_lab.data.catalog import open_dataset
from vidhash_lab.data.features import FeatureSet
from vidhash_lab.data.files import DataError, seal, written_whole
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


def clustered_codes(count, width=8, seed=0):
    """Codes around 30 places, with at most 8 bits more or fewer: many are equal, many tie."""
    rng = np.random.default_rng(seed)
    codes = random_codes(30, width, 99)[rng.integers(0, 30, count)]
    for bit in rng.integers(0, 8 * width, (8, count)):
        flipped = rng.random(count) < 0.3
        codes[np.arange(count), bit // 8] ^= np.where(flipped, 1 << bit % 8, 0).astype(np.uint8)
    return codes


KINDS = {"exact": {}, "all lists": {"lists": 12, "probes": 12}, "some": {"lists": 12, "probes": 2}}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def every_distance(queries, codes):
    return np.bitwise_count(queries[:, None] ^ codes).sum(axis=2, dtype=int)


def is_by_distance_then_id(distances, ids):
    pairs = list(zip(distances.tolist(), ids.tolist()))
    return pairs == sorted(set(pairs))


@kinds
@pytest.mark.parametrize("width", [1, 2, 8, 33])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_what_is_found_lies_as_far_as_it_is_said_to(kind, width, k):
    codes, queries = clustered_codes(500, width), clustered_codes(40, width, seed=1)
    every = every_distance(queries, codes)
    distances, ids = HammingIndex(codes, **kind).search(queries, k)
    assert (distances.shape, distances.dtype) == ((40, k), np.int32)
    assert (ids.shape, ids.dtype) == ((40, k), np.int64)
    assert np.array_equal(np.take_along_axis(every, ids, axis=1), distances)
    assert all(map(is_by_distance_then_id, distances, ids))
    true = np.sort(every, axis=1)[:, :k]
    if kind != KINDS["some"] or k == 500:  # no two lists hold 500, so that all are looked into
        assert np.array_equal(distances, true)
    else:
        assert (distances >= true).all()


@kinds
@pytest.mark.parametrize("radius", [0, 3, 64])
def test_all_within_a_radius(kind, radius):
    codes, queries = clustered_codes(500), clustered_codes(40, seed=1)
    every, index = every_distance(queries, codes), HammingIndex(codes, **kind)
    found = index.within(queries, radius)
    assert [len(arrays) for arrays in found] == [40, 40]
    for distances, ids, true in zip(*found, every):
        assert (distances.dtype, ids.dtype) == (np.int32, np.int64)
        assert np.array_equal(true[ids], distances) and is_by_distance_then_id(distances, ids)
        inside = set(np.flatnonzero(true <= radius).tolist())
        few = kind == KINDS["some"]
        assert set(ids.tolist()) <= inside if few else set(ids.tolist()) == inside


@kinds
def test_an_index_pickles(kind):
    codes, queries = clustered_codes(500), clustered_codes(40, seed=1)
    index = HammingIndex(codes, **kind)
    index.remove([3, 77])
    found = pickle.loads(pickle.dumps(index))
    for k in (1, 50, 498):
        for ours, theirs in zip(found.search(queries, k), index.search(queries, k)):
            assert np.array_equal(ours, theirs)
    assert found.add(codes[:2]).tolist() == index.add(codes[:2]).tolist() == [500, 501]
    assert (len(found), found.lists, found.probes) == (500, index.lists, index.probes)


def test_a_radius_may_hold_nothing():
    index = HammingIndex(np.zeros((3, 8), np.uint8))
    (distances, none), (ids, _) = index.within(np.uint8([[0] * 8, [255] * 8]), 10)
    assert (distances.tolist(), ids.tolist(), none.tolist()) == ([0, 0, 0], [0, 1, 2], [])


def test_recall_is_by_distance_and_grows_with_the_probes():
    codes, queries, k = clustered_codes(2000), clustered_codes(200, seed=1), 20
    index = HammingIndex(codes, lists=40, probes=1)
    farthest = np.sort(every_distance(queries, codes), axis=1)[:, [k - 1]]
    measured = []
    for probes in (1, 2, 5, 40):
        index.probes = probes
        measured.append(index.recall(queries, k))
        assert measured[-1] == (index.search(queries, k)[0] <= farthest).mean()
    assert measured == sorted(measured) and measured[0] < measured[-1] == 1
    assert HammingIndex(codes).recall(queries, k) == 1


def test_recall_does_not_mind_which_of_equals_is_found():
    codes = np.repeat(random_codes(4, 8, 0), 100, axis=0)
    index = HammingIndex(codes, lists=4, probes=1)
    assert index.recall(codes[::100], 30) == 1


@kinds
def test_ids_stay_when_videos_come_and_go(kind):
    codes, queries = clustered_codes(900), clustered_codes(30, seed=1)
    index = HammingIndex(codes[:600], **kind)
    assert index.add(codes[600:700]).tolist() == list(range(600, 700))
    gone = [699, 0, 13, 13, 601]
    index.remove(gone)
    assert index.add(codes[700:]).tolist() == list(range(700, 900))  # 699 is not given again
    there = np.setdiff1d(np.arange(900), gone)
    assert len(index) == len(there) == 896
    every = every_distance(queries, codes)
    distances, ids = index.search(queries, 50)
    assert np.isin(ids, there).all()
    assert np.array_equal(np.take_along_axis(every, ids, axis=1), distances)
    if kind == KINDS["exact"]:
        order = there[np.argsort(every[:, there], axis=1, kind="stable")[:, :50]]
        assert np.array_equal(ids, order)
    if kind != KINDS["some"]:
        assert np.array_equal(distances, np.sort(every[:, there], axis=1)[:, :50])
        assert [set(i.tolist()) for i in index.within(queries, 64)[1]] == [set(there.tolist())] * 30


@kinds
def test_an_index_may_be_emptied_and_filled_again(kind, tmp_path):
    index = HammingIndex(clustered_codes(500), **kind)
    index.remove([])
    index.remove(range(500))
    with pytest.raises(ValueError, match=r"k=1 must lie in 1\.\.0"):
        index.search(clustered_codes(1), 1)
    index.save(tmp_path / "index.h5")
    for emptied in (index, HammingIndex.load(tmp_path / "index.h5")):
        assert [len(found[0]) for found in emptied.within(clustered_codes(1), 64)] == [0, 0]
        assert emptied.add(clustered_codes(3)).tolist() == [500, 501, 502] and len(emptied) == 3
        assert emptied.search(clustered_codes(3)[[1]], 1)[1].tolist() == [[501]]


def test_ids_that_are_not_there_remove_nothing():
    index = HammingIndex(random_codes(10, 2, 0))
    index.remove(np.uint64([4]))
    with pytest.raises(ValueError, match=r"ids \[ 4 10\] are not in the index"):
        index.remove([3, 4, 10])
    with pytest.raises(ValueError, match="ids are whole numbers, not float64"):
        index.remove([3.0])
    assert len(index) == 9


@kinds
def test_a_saved_index_gives_the_same_answers(kind, tmp_path):
    codes, queries = clustered_codes(900), clustered_codes(60, seed=1)
    index = HammingIndex(codes[:800], **kind)
    index.remove(np.arange(0, 700, 3))
    index.save(tmp_path / "index.h5")
    loaded = HammingIndex.load(tmp_path / "index.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["index.h5"]
    assert (len(loaded), loaded.lists, loaded.probes) == (len(index), index.lists, index.probes)
    for step in range(2):
        for k in (1, 20, len(index)):
            for ours, theirs in zip(index.search(queries, k), loaded.search(queries, k)):
                assert np.array_equal(ours, theirs)
        if step == 0:
            assert np.array_equal(index.add(codes[800:]), loaded.add(codes[800:]))
            index.remove([2, 850]), loaded.remove([2, 850])


@kinds
def test_a_damaged_index_is_refused(kind, tmp_path):
    path = tmp_path / "index.h5"
    HammingIndex(clustered_codes(500), **kind).save(path)
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 40).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"index\.h5: (damaged|has no checksum)"):
            HammingIndex.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="has no checksum"):
        HammingIndex.load(path)
    with pytest.raises(FileNotFoundError):
        HammingIndex.load(tmp_path / "none.h5")


def test_files_of_another_kind_are_refused(random_features):
    path = random_features()
    with pytest.raises(DataError, match="has no checksum"):
        HammingIndex.load(path)
    seal(path)
    with pytest.raises(DataError, match="holds no index"):
        HammingIndex.load(path)


def widened(file):
    file.attrs["bits"] = 72


def longer(file):
    del file["ids"]
    file["ids"] = np.arange(501)


def given_twice(file):
    file["ids"][1] = file["ids"][0]


def not_yet_given(file):
    file.attrs["next_id"] = 499


def other_sizes(file):
    file["sizes"][0] += 1


def below_zero(file):
    file["sizes"][:2] = -1, file["sizes"][:2].sum() + 1


def without_centres(file):
    del file["centres"]


def other_centres(file):
    del file["centres"]
    file["centres"] = np.zeros((12, 9), np.uint8)


def too_many_probes(file):
    file.attrs["probes"] = 13


CHANGES = [widened, longer, given_twice, not_yet_given, other_sizes, below_zero, without_centres]


@pytest.mark.parametrize("change", [*CHANGES, other_centres, too_many_probes])
def test_parts_that_do_not_fit_each_other_are_refused(change, tmp_path):
    path, changed = tmp_path / "index.h5", tmp_path / "changed.h5"
    HammingIndex(clustered_codes(500), lists=12, probes=2).save(path)
    with written_whole(changed, sealed=True) as new:
        new.write_bytes(path.read_bytes()[:-32])
        with h5py.File(new, "r+") as file:
            change(file)
    with pytest.raises(DataError, match=r"changed\.h5: (its|`codes`|not an HDF5 file)"):
        HammingIndex.load(changed)


def test_says_what_lists_and_probes_should_be():
    codes = clustered_codes(78)
    with pytest.raises(ValueError, match="both lists and probes"):
        HammingIndex(codes, lists=2)
    with pytest.raises(ValueError, match="both lists and probes"):
        HammingIndex(codes, probes=2)
    with pytest.raises(ValueError, match="lists=0 must be 1 or more"):
        HammingIndex(codes, lists=0, probes=1)
    with pytest.raises(ValueError, match=r"probes=3 must lie in 1\.\.2"):
        HammingIndex(codes, lists=2, probes=3)
    with pytest.raises(ValueError, match="lists=3 needs 117 codes or more, 39 a list, and has 78"):
        HammingIndex(codes, lists=3, probes=1)
    index = HammingIndex(codes, lists=2, probes=1)
    with pytest.raises(ValueError, match=r"probes=0 must lie in 1\.\.2"):
        index.probes = 0
    with pytest.raises(ValueError, match="an exact index has no lists"):
        HammingIndex(codes).probes = 1


def test_says_what_is_wrong_with_a_radius_and_with_added_codes():
    index = HammingIndex(random_codes(10, 2, 0))
    for radius in (-1, 17):
        with pytest.raises(ValueError, match=rf"radius={radius} must lie in 0\.\.16"):
            index.within(random_codes(1, 2, 0), radius)
    with pytest.raises(ValueError, match="added codes have 3 bytes, the index 2"):
        index.add(random_codes(1, 3, 0))
    assert len(index) == 10


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


def test_retrieve_without_labels_judges_nothing(random_features):
    dataset = open_dataset(random_features(shape=(30, 4, 8), labels=0))
    codes = random_codes(30, 2, 0)
    distances, found, relevant = retrieve(dataset, HammingIndex(codes), codes, 3, 5)
    assert (distances.shape, found.shape, relevant) == ((5,), (5,), None)


@pytest.mark.parametrize("query", [0, 3, 29])
def test_a_video_of_a_set_that_queries_itself_is_not_among_its_results(random_features, query):
    dataset = open_dataset(random_features(shape=(30, 4, 8)))
    for codes in (random_codes(30, 2, 0), np.zeros((30, 2), np.uint8)):
        distances, found, relevant = retrieve(dataset, HammingIndex(codes), codes, query, 5)
        every = np.delete(np.bitwise_count(codes[query] ^ codes).sum(axis=1), query)
        assert query not in found and distances.tolist() == sorted(every.tolist())[:5]
        assert len(found) == len(relevant) == len(set(found.tolist())) == 5


def test_nearest_frames_of_frames_are_themselves(random_features):
    feature_set = FeatureSet(random_features(shape=(30, 4, 8)))
    wanted = feature_set.rows([7, 21])[[0, 1], [2, 3]]
    pictures = nearest_frames(wanted, feature_set)
    assert np.array_equal(pictures, feature_set.pictures([7, 21])[[0, 1], [2, 3]])
    assert not np.array_equal(nearest_frames(wanted, feature_set, videos=7), pictures)
