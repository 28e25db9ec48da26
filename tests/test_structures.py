"""Anchors, the three-level neighbour graph, and what is drawn from it."""

import os

import h5py
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from vidhash_lab.data import DataError, FeatureSet
from vidhash_lab.structures import (
    MIDDLE,
    OTHER,
    SIMILAR,
    NeighbourGraph,
    Structures,
    draw_pairs,
    find_anchors,
    find_structures,
    video_means,
)


def slow_tags(nearest):
    """Tag every pair by sets, as the formula says."""
    tags = np.zeros((len(nearest), len(nearest)), np.uint8)
    for i, one in enumerate(nearest):
        for j, other in enumerate(nearest):
            share3, share4, share5 = (set(one[:m]) & set(other[:m]) for m in (3, 4, 5))
            tags[i, j] = (len(share3) > 0) + 2 * ((len(share5) > 0) - (len(share4) > 0))
    return tags


def random_nearest(videos=60, anchors=30, seed=0):
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(anchors)[:5] for _ in range(videos)])


def test_tags_are_those_of_the_released_script(golden):
    expected = np.load(golden("neighbours.npz"))
    means, anchors = expected["video_means"], expected["anchors"]
    distances = ((means[:, None] - anchors[None]) ** 2).sum(2)
    nearest = distances.argsort(1, kind="stable")[:, :5]
    np.testing.assert_array_equal(nearest[:, :3], expected["nearest_anchors"])
    graph = NeighbourGraph(nearest, len(anchors))
    np.testing.assert_array_equal(graph.tags(np.arange(len(means))), expected["tags"])


@pytest.mark.parametrize("seed", range(3))
def test_tags_are_their_formula(seed):
    nearest = random_nearest(seed=seed)
    got = NeighbourGraph(nearest, 30).tags(np.arange(60))
    np.testing.assert_array_equal(got, slow_tags(nearest))


@settings(max_examples=30)
@given(st.integers(4, 40), st.integers(6, 40), st.integers(0, 1000))
def test_partners_are_drawn_evenly_from_those_of_their_tag(videos, anchors, seed):
    """Against an enumeration: similar, dissimilar, and drawn once more where like another."""
    nearest, draws = random_nearest(videos, anchors, seed), 20_000
    tags, generator = slow_tags(nearest), torch.Generator().manual_seed(seed)
    assume((tags != SIMILAR).any(1).all())
    graph, one = NeighbourGraph(nearest, anchors), torch.full((draws,), seed % videos)
    middle, other = (np.flatnonzero(tags[one[0]] == tag) for tag in (MIDDLE, OTHER))
    similar = np.flatnonzero(tags[one[0]] == SIMILAR)
    dissimilar = middle if len(middle) else other
    unlike = int(dissimilar[0])
    like = tags[unlike, dissimilar] == SIMILAR
    once_more = (~like + like.mean()) / len(dissimilar)
    check_shares(graph.similar(one, generator), similar, 1 / len(similar))
    check_shares(graph.dissimilar(one, generator), dissimilar, 1 / len(dissimilar))
    drawn = graph.dissimilar(one, generator, unlike=torch.full_like(one, unlike))
    check_shares(drawn, dissimilar, once_more)


def check_shares(drawn, choices, shares):
    """Test by chi-square that `choices` were drawn by their shares, and nothing else was."""
    counts = np.bincount(drawn.numpy(), minlength=choices.max() + 1)
    assert counts[choices].sum() == len(drawn)
    expected = np.broadcast_to(len(drawn) * shares, choices.shape)
    assert len(choices) == 1 or chisquare(counts[choices], expected).pvalue > 1e-6


def test_similarity_of_pairs_is_that_of_their_tags():
    nearest, videos = random_nearest(), torch.arange(60)
    one, other = torch.cartesian_prod(videos, videos).T
    got = NeighbourGraph(nearest, 30).are_similar(one, other).unflatten(0, (60, 60))
    np.testing.assert_array_equal(got, slow_tags(nearest) == SIMILAR)


def test_half_of_the_pairs_are_similar_and_labelled_so(generator):
    nearest = random_nearest()
    videos = torch.arange(60).repeat(50)
    partners, label = draw_pairs(NeighbourGraph(nearest, 30), videos, generator)
    tags = slow_tags(nearest)[videos, partners]
    np.testing.assert_array_equal(tags == SIMILAR, label.numpy() == 1)
    assert set(label.tolist()) == {-1.0, 1.0} and abs(label.mean()) < 0.06


def test_without_videos_at_middle_distance_all_dissimilar_ones_are_drawn(generator):
    """Two groups that share no anchor: no video of one is at middle distance of the other's."""
    nearest = np.repeat([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], 4, axis=0)
    graph, videos = NeighbourGraph(nearest, 10), torch.arange(8).repeat(1000)
    drawn = graph.dissimilar(videos, generator)
    assert ((drawn < 4) == (videos >= 4)).all()
    check_shares(drawn, np.arange(8), 1 / 8)
    # All that are dissimilar to video 0 are similar to video 7: one of them is kept.
    zeros, sevens = torch.zeros(9, dtype=torch.int64), torch.full((9,), 7)
    assert (graph.dissimilar(zeros, generator, unlike=sevens) >= 4).all()


def test_a_video_that_is_similar_to_all_is_an_error():
    nearest = np.array([[0, 1, 2, 8, 9], [3, 4, 5, 6, 7], [0, 3, 9, 8, 7]])
    with pytest.raises(DataError, match="video 2 is similar to all 3 videos: with 10 anchors"):
        NeighbourGraph(nearest, 10)
    with pytest.raises(DataError, match="video 0 is similar to all 6 videos"):
        NeighbourGraph(np.tile(np.arange(5), (6, 1)), 5)


def test_draws_repeat_by_their_seed():
    graph, videos = NeighbourGraph(random_nearest(), 30), torch.arange(60)
    first, second = (graph.dissimilar(videos, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


def clustered_points(groups=6, each=20, width=8, seed=0):
    random = np.random.default_rng(seed)
    places = 10 * random.standard_normal((groups, width))
    points = places.repeat(each, 0) + 0.1 * random.standard_normal((groups * each, width))
    return points.astype(np.float32)


def test_k_means_is_as_good_as_that_of_scikit_learn():
    points = clustered_points(30, 30)

    def error(anchors):
        return ((points[:, None] - anchors[None]) ** 2).sum(2).min(1).mean()

    other = KMeans(40, n_init=1, init="random", random_state=0).fit(points).cluster_centers_
    assert error(find_anchors(points, 40)) < 1.2 * error(other)


@pytest.mark.parametrize("copies", [1, 30])
def test_no_anchor_is_without_videos(copies):
    """Also where most videos are copies of a few, so that k-means runs out of places."""
    copied = np.repeat(clustered_points(1, 2, seed=1), copies, axis=0)
    points = np.concatenate([clustered_points(2, 4), copied])
    anchors = find_anchors(points, 10)
    nearest = ((points[:, None] - anchors[None]) ** 2).sum(2).argmin(1)
    assert len(np.unique(nearest)) == 10


def test_more_anchors_than_different_videos_is_an_error():
    points = np.repeat(clustered_points(4, 2), 5, axis=0)
    with pytest.raises(DataError, match=r"9 anchors asked for.*8 of 40"):
        find_anchors(points, 9)
    with pytest.raises(DataError, match="at least 5"):
        find_anchors(points, 4)


def test_targets_keep_the_distances_of_anchors():
    points = clustered_points(12, 5, width=8)
    structures = Structures(find_anchors(points, 12), np.array([[0] * 5, [1] * 5, [2] * 5]))
    exact = torch.pdist(structures.nearest_anchors())
    assert structures.nearest_anchors(5).shape == (3, 5)
    for hidden_dim in (8, 16):  # all components, and more than there are
        got = structures.nearest_anchors(hidden_dim)
        assert got.shape == (3, hidden_dim) and got.dtype == torch.float32
        torch.testing.assert_close(torch.pdist(got), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("anchors, width", [(40, 90), (90, 40)])
def test_targets_are_the_principal_components(anchors, width):
    points = clustered_points(anchors, 1, width)
    nearest = np.repeat(np.arange(anchors)[:, None], 5, axis=1)
    expected = PCA(16, svd_solver="full").fit_transform(points.astype(np.float64))
    got = Structures(points, nearest).nearest_anchors(16)
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_means_are_those_of_the_frames(random_features):
    train = FeatureSet(random_features(shape=(600, 6, 5)))
    expected = train.rows(range(600)).mean(1).numpy()
    np.testing.assert_allclose(video_means(train), expected, atol=1e-6)


def test_structures_are_kept_and_read_again(random_features, monkeypatch):
    train = FeatureSet(random_features(shape=(80, 6, 5)))
    first = find_structures(train, 10, seed=3)
    monkeypatch.setattr("vidhash_lab.structures.find_anchors", None)  # must not be asked for
    again = find_structures(train, 10, seed=3)
    np.testing.assert_array_equal(first.nearest, again.nearest)
    np.testing.assert_array_equal(first.anchors, again.anchors)
    assert first.saved_seconds == 0 < again.saved_seconds


@pytest.mark.parametrize("change", ["anchors", "seed", "recipe", "file"])
def test_other_inputs_make_other_structures(random_features, change):
    train = FeatureSet(random_features(shape=(80, 6, 5)))
    find_structures(train, 10)
    if change == "file":
        train = FeatureSet(random_features(shape=(80, 6, 5), seed=1))
    options = {"anchors": {"num_anchors": 11}, "seed": {"seed": 1}, "recipe": {"recipe": "other"}}
    find_structures(train, **({"num_anchors": 10} | options.get(change, {})))
    assert len(list((train.paths[0].parent / "structures").iterdir())) == 2


def test_structures_go_to_the_cache_where_the_data_cannot_be_written(
    random_features, cache_folder, monkeypatch
):
    train = FeatureSet(random_features("elsewhere.h5", shape=(80, 6, 5)))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    find_structures(train, 10)
    assert not (train.paths[0].parent / "structures").exists()
    assert list((cache_folder / "structures").glob("elsewhere-*.h5"))


def test_data_of_the_same_name_and_size_do_not_share_structures(
    random_features, monkeypatch, tmp_path
):
    """Also where the folders of the data cannot be written, so that both are in the cache."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = []
    for seed in (0, 1):
        (tmp_path / f"{seed}").mkdir()
        path = random_features(f"{seed}/same.h5", shape=(80, 6, 5), seed=seed)
        os.utime(path, ns=(10**18, 10**18))
        found.append(find_structures(FeatureSet(path), 10))
    assert not np.array_equal(found[0].anchors, found[1].anchors)
    moved = path.rename(tmp_path / "same.h5")
    moved.touch()
    assert find_structures(FeatureSet(moved), 10).saved_seconds > 0


@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_damaged_structures_are_named_and_found_anew(random_features, damage):
    train = FeatureSet(random_features(shape=(80, 6, 5)))
    first = find_structures(train, 10)
    (path,) = (train.paths[0].parent / "structures").iterdir()
    intact = path.read_bytes()
    place = intact.index(first.anchors.tobytes())
    bit = intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :]
    path.write_bytes(intact[:100] if damage == "cut" else bit)
    with pytest.warns(UserWarning, match=f"{path.name}.*found anew"):
        again = find_structures(train, 10)
    np.testing.assert_array_equal(first.anchors, again.anchors)
    assert again.saved_seconds == 0 < find_structures(train, 10).saved_seconds


def test_features_with_nan_are_an_error_that_names_the_row(random_features):
    path = random_features(shape=(80, 6, 5))
    with h5py.File(path, "r+") as file:
        file["feats"][33, 2, 1] = np.nan
    with pytest.raises(DataError, match="row 33"):
        find_structures(FeatureSet(path), 10)
    assert not list(path.parent.glob("structures/*"))
