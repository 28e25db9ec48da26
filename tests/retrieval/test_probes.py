"""Probes against their definitions over all orders of ties."""

import numpy as np
import pytest

from vidhash_lab.retrieval.probes import twin_probe


def test_the_twin_probe_is_its_definition_over_all_orders():
    """Ranks are expectations: average over many random orders within each distance."""
    random = np.random.default_rng(0)
    queries, items = (
        random.integers(0, 16, (6, 1), np.uint8),
        random.integers(0, 16, (40, 1), np.uint8),
    )
    query_labels = np.eye(4, dtype=bool)[random.integers(0, 4, 6)]
    labels = np.eye(4, dtype=bool)[random.integers(0, 4, 40)]
    twins = [1, 0, 3, 2]
    probe = twin_probe(queries, items, query_labels, labels, twins)
    distances = np.bitwise_count(queries ^ items.T)
    for q in range(6):
        own = labels[:, query_labels[q].argmax()]
        twin = labels[:, twins[query_labels[q].argmax()]]
        ranks = [np.lexsort((random.random(40), distances[q])).argsort() + 1 for _ in range(4000)]
        mean_rank = np.mean(ranks, axis=0)
        assert probe.own_rank[q] == pytest.approx(mean_rank[own].mean(), abs=0.4)
        assert probe.twin_rank[q] == pytest.approx(mean_rank[twin].mean(), abs=0.4)
        ours, theirs = distances[q][own][:, None], distances[q][twin][None]
        assert probe.preference[q] == pytest.approx(((ours < theirs) + (ours == theirs) / 2).mean())


def test_the_twin_probe_refuses_what_are_no_pairs():
    codes, labels = np.zeros((3, 1), np.uint8), np.eye(3, dtype=bool)
    for odd in ([0, 1, 2], [1, 2, 0], [1, 0], [1, 0, 7]):
        with pytest.raises(ValueError, match="twins"):
            twin_probe(codes, codes, labels, labels, odd)
    lonely = np.eye(4, dtype=bool)[[0, 2]]  # nobody has label 1 or 3
    probe = twin_probe(codes[:2], codes[:2], lonely, lonely, [1, 0, 3, 2])
    assert np.isnan(probe.preference).all() and (probe.own_rank == 1.5).all()
