"""The space of codes: bits by their definitions, purity by brute force, maps that hold."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vidhash_lab.retrieval.code_space import (
    bit_use,
    pair_distances,
    principal_axes,
    project,
    purity,
)
from vidhash_lab.retrieval.codes import unpack

GENERATOR = np.random.default_rng(0)


def test_bit_use_is_its_definition_also_where_a_bit_is_constant():
    bits = GENERATOR.random((500, 16)) < np.linspace(0, 1, 16)  # the first and last are constant
    bits[:, 5] = bits[:, 4]
    bits[:, 6] = ~bits[:, 4]
    use = bit_use(np.packbits(bits, axis=1))
    np.testing.assert_allclose(use.balance, 2 * bits.mean(0) - 1, atol=1e-12)
    assert use.balance[0] == -1 and use.entropy[0] == use.entropy[-1] == 0
    share = bits[:, 7].mean()
    expected = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert use.entropy[7] == pytest.approx(expected) and use.entropy.max() <= 1
    np.testing.assert_allclose(use.correlation[1:-1, 1:-1], np.corrcoef(bits[:, 1:-1].T), atol=1e-9)
    assert use.correlation[4, 5] == pytest.approx(1) and use.correlation[4, 6] == pytest.approx(-1)
    assert not use.correlation[0].any()
    rows, counts = np.unique(bits, axis=0, return_counts=True)
    assert (use.distinct, use.largest) == (len(rows), counts.max())
    off = use.correlation[~np.eye(16, dtype=bool)]
    assert use.redundancy == pytest.approx(np.sqrt(np.mean(off**2)))


def test_purity_and_pair_distances_against_a_loop():
    codes = GENERATOR.integers(0, 256, (60, 1), dtype=np.uint8)
    labels = np.eye(3, dtype=bool)[GENERATOR.integers(0, 3, 60)]
    distance = np.bitwise_count(codes[:, None] ^ codes).sum(2)
    same = (labels[:, None] & labels).any(2)
    together, others = np.zeros(9, int), np.zeros(9, int)
    shares = []
    for i in range(60):
        rest = np.arange(60) != i
        for j in np.flatnonzero(rest):
            (together if same[i, j] else others)[distance[i, j]] += 1
        drawn = []  # the mean over many orders of those at the same distance
        for _ in range(400):
            order = np.lexsort((GENERATOR.random(59), distance[i, rest]))[:10]
            drawn.append(same[i, rest][order].mean())
        shares.append(np.mean(drawn))
    found = pair_distances(codes, labels)
    assert found[0].tolist() == together.tolist() and found[1].tolist() == others.tolist()
    assert purity(codes, labels, k=10) == pytest.approx(np.mean(shares), abs=0.005)


def test_a_map_keeps_groups_together_and_its_seed_makes_it():
    centres = GENERATOR.random((3, 64)) < 0.5
    groups = np.repeat(np.arange(3), 40)
    bits = centres[groups] ^ (GENERATOR.random((120, 64)) < 0.05)
    bits[:25] = bits[0]  # more copies of one code than there are neighbours
    codes = np.packbits(bits, axis=1)
    points = project(codes, n_neighbors=10, seed=1)
    assert points.shape == (120, 2) and np.isfinite(points).all()
    means = np.stack([points[groups == group].mean(0) for group in range(3)])
    nearest = np.linalg.norm(points[:, None] - means, axis=2).argmin(1)
    assert (nearest == groups).mean() > 0.95
    np.testing.assert_array_equal(points, project(codes, n_neighbors=10, seed=1))
    assert unpack(codes).shape == (120, 64)


def test_a_map_starts_from_the_principal_axes_whatever_the_order_of_videos():
    bits = GENERATOR.random((300, 24)) < GENERATOR.random(24)
    bits[:, 3] = bits[:, 2] = bits[:, 1]  # the widest axis
    bits[:, 5] = True
    places, order = principal_axes(np.packbits(bits, axis=1)), GENERATOR.permutation(300)
    shuffled = principal_axes(np.packbits(bits[order], axis=1))
    np.testing.assert_array_equal(shuffled, places[order])
    signs = np.where(bits, 1.0, -1.0)
    expected = PCA(2).fit_transform(signs)
    expected *= 10 / np.abs(expected).max()
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-3)
    same = np.zeros((9, 2), np.uint8)
    assert not principal_axes(same).any()


def test_neighbours_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"n_neighbors=5 must lie in 2\.\.4 for 5 codes"):
        project(np.zeros((5, 1), np.uint8), n_neighbors=5)
