"""Metrics against enumeration of every order within ties, slow loops and another package."""

from itertools import permutations, product

import h5py
import numpy as np
import pytest
import torch
import trm
from hypothesis import given, settings
from hypothesis import strategies as st

from vidhash_lab.data.catalog import open_dataset
from vidhash_lab.models.baselines import LSH
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.retrieval.metrics import average_precision, evaluate, score

DENOMINATORS = ("k", "min", "relevant")


def plain_average_precision(relevance, k, denominator):
    """AP@k of one ranking, as in a textbook."""
    hits, total = 0, 0.0
    for rank, is_relevant in enumerate(relevance[:k], start=1):
        if is_relevant:
            hits += 1
            total += hits / rank
    divisor = {"k": k, "min": min(k, sum(relevance)), "relevant": hits}[denominator]
    return total / divisor if divisor else 0.0


def every_ranking(distances, relevance):
    """Every order of the relevance flags that sorts by distance; the first is database order."""
    groups = [relevance[distances == d].tolist() for d in np.unique(distances)]
    orders = product(*(permutations(group) for group in groups))
    return [[flag for group in order for flag in group] for order in orders]


def hamming(query_codes, database_codes):
    return np.bitwise_count(query_codes[:, None] ^ database_codes).sum(axis=2, dtype=int)


def random_sets(queries=40, items=300, width=2, labels=7, seed=0, per_video=1.5):
    """Codes and labels (query codes, database codes, query labels, database labels)."""
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, 256, (n, width), dtype=np.uint8) for n in (queries, items)]
    return *codes, *(rng.random((n, labels)) < per_video / labels for n in (queries, items))


def sorted_relevance(query_codes, database_codes, query_labels, database_labels):
    order = np.argsort(hamming(query_codes, database_codes), axis=1, kind="stable")
    relevant = (query_labels.astype(int) @ database_labels.astype(int).T) > 0
    return np.take_along_axis(relevant, order, axis=1)


@st.composite
def tied_cases(draw):
    """Up to six items at distances 0..2 of a zero query, their relevance, and k."""
    bits = st.sampled_from(np.array([0, 1, 3, 128], dtype=np.uint8))
    items = draw(st.lists(st.tuples(bits, st.booleans()), min_size=1, max_size=6))
    codes, relevance = (np.array(column) for column in zip(*items))
    return codes[:, None].astype(np.uint8), relevance, draw(st.integers(1, len(items)))


@pytest.mark.parametrize("denominator", DENOMINATORS)
@settings(max_examples=60)
@given(case=tied_cases())
def test_ties_agree_with_every_order(denominator, case):
    codes, relevance, k = case
    query = np.zeros((1, 1), np.uint8)
    rankings = every_ranking(hamming(query, codes)[0], relevance)
    scores = [plain_average_precision(ranking, k, denominator) for ranking in rankings]
    hits = np.cumsum(rankings, axis=1)
    expected = {"expected": np.mean, "best": np.max, "worst": np.min, "stable": lambda s, **_: s[0]}
    for ties, choose in expected.items():
        sets = query, codes, np.ones((1, 1)), relevance[:, None]
        result = evaluate(*sets, k=k, ties=ties, denominator=denominator)
        assert result.map_at[k] == pytest.approx(choose(scores), abs=1e-12)
        top = choose(hits, axis=0)
        np.testing.assert_allclose(result.precision, top / np.arange(1, len(codes) + 1))
        np.testing.assert_allclose(result.recall, top / max(relevance.sum(), 1))


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("ties", ["expected", "best", "worst"])
def test_large_ties_agree_with_sampled_orders(ties, denominator):
    # 40 items in one tie behind 3 others: too many orders to list, k cuts through the tie.
    codes = np.array([0] * 3 + [1] * 40, np.uint8)[:, None]
    first, tied = np.array([1, 0, 1]), np.array([1] * 9 + [0] * 31)
    rng = np.random.default_rng(0)
    orders = ([*rng.permutation(first), *rng.permutation(tied)] for _ in range(4000))
    scores = [plain_average_precision(order, 10, denominator) for order in orders]
    sets = codes[:1], codes, np.ones((1, 1)), np.append(first, tied)[:, None]
    result = evaluate(*sets, k=10, ties=ties, denominator=denominator).map_at[10]
    if ties == "expected":
        assert abs(result - np.mean(scores)) < 4 * np.std(scores) / np.sqrt(len(scores))
    else:
        assert result >= max(scores) if ties == "best" else result <= min(scores)


def test_golden_average_precision(golden):
    arrays = np.load(golden("average_precision.npz"))
    relevant = (arrays["query_labels"] @ arrays["database_labels"].T) > 0
    ranked = np.take_along_axis(relevant, arrays["ranking"], axis=1)
    for k, expected in zip(arrays["k"], arrays["map_at_k"]):
        assert average_precision(ranked, k).mean() == pytest.approx(expected, abs=1e-6)


def test_agrees_with_tie_aware_retrieval_metrics():
    # That package always divides by all relevant items: the same as "min" where k is all of N.
    sets = random_sets(queries=20, items=60, width=1)
    relevant = (sets[2].astype(int) @ sets[3].astype(int).T) > 0
    distances = hamming(*sets[:2])
    theirs = trm.evaluate((-distances).tolist(), relevant.tolist(), ["map", "precision"], [60, 7])
    for ties, name in [("expected", "expected"), ("best", "maximum"), ("worst", "minimum")]:
        ours = evaluate(*sets, k=60, ties=ties, denominator="min")
        assert ours.map_at[60] == pytest.approx(getattr(theirs.metrics["map"][60], name))
        assert ours.precision[6] == pytest.approx(getattr(theirs.metrics["precision"][7], name))


@pytest.mark.parametrize("width", [1, 3, 8, 9, 16, 20])
@pytest.mark.parametrize("labels", [1, 64, 65, 239])
def test_codes_and_labels_of_any_width(width, labels):
    sets = random_sets(width=width, labels=labels)
    ranked = sorted_relevance(*sets)
    result = evaluate(*sets, k=(1, 50, 300), ties="stable")
    for k in (1, 50, 300):
        np.testing.assert_allclose(result.average_precision[k], average_precision(ranked, k))
    assert result.bits == 8 * width and len(result.radius.radius) == 8 * width + 1
    np.testing.assert_array_equal(result.relevant, ranked.sum(axis=1))


@pytest.mark.parametrize("ties", ["expected", "best", "worst", "stable"])
def test_a_query_alone_scores_as_it_does_among_thousands(ties):
    # More queries than one block of the vectorised part holds.
    sets = random_sets(queries=9000, items=120, width=1)
    options = {"k": (5, 100), "ties": ties, "denominator": "relevant"}
    together = evaluate(*sets, **options)
    for row in (0, 4095, 4096, 8999):
        alone = evaluate(sets[0][[row]], sets[1], sets[2][[row]], sets[3], **options)
        own = {k: scores[row] for k, scores in together.average_precision.items()}
        assert own == pytest.approx(alone.map_at)


@pytest.mark.parametrize("ties", ["expected", "best", "worst", "stable"])
def test_exclude_self_is_a_database_without_the_query(ties):
    _, codes, _, labels = random_sets(items=30, width=1)
    options = {"k": (5, 29), "ties": ties}
    result = evaluate(codes, codes, labels, labels, exclude_self=True, **options)
    for row in range(len(codes)):
        others = np.arange(len(codes)) != row
        alone = evaluate(codes[[row]], codes[others], labels[[row]], labels[others], **options)
        own = {k: scores[row] for k, scores in result.average_precision.items()}
        assert own == pytest.approx(alone.map_at)
    stated = f"30 queries -> 30 items, 8 bits, ties {ties}, AP / K, self excluded"
    assert result.protocol == stated and result.ranks[-1] == 29


def test_ceiling_is_reached_by_codes_that_are_the_labels():
    labels = np.eye(4, dtype=bool)[[0, 0, 0, 1, 1, 2]]
    queries = np.eye(4, dtype=bool)  # the fourth finds nothing
    codes, query_codes = (np.packbits(rows, axis=1) for rows in (labels, queries))
    for denominator, ceiling in [("k", (1 + 1 + 0.5) / 4), ("min", 0.75), ("relevant", 0.75)]:
        result = evaluate(query_codes, codes, queries, labels, k=2, denominator=denominator)
        assert result.ceiling == result.map_at == {2: pytest.approx(ceiling)}


def test_curves_by_rank_follow_the_ranking_on_a_growing_grid():
    sets = random_sets(queries=30, items=2000)
    hits = np.cumsum(sorted_relevance(*sets), axis=1)
    result = evaluate(*sets, ties="stable")
    ranks = result.ranks
    np.testing.assert_array_equal(ranks[:100], np.arange(1, 101))
    assert ranks[-1] == 2000 and len(ranks) < 250 and (np.diff(ranks) > 0).all()
    np.testing.assert_allclose(result.precision, (hits[:, ranks - 1] / ranks).mean(axis=0))
    recall = hits[:, ranks - 1] / np.maximum(hits[:, -1:], 1)
    np.testing.assert_allclose(result.recall, recall.mean(axis=0))
    heights = (result.precision[1:] + result.precision[:-1]) / 2
    by_hand = result.precision[0] * result.recall[0] + (heights * np.diff(result.recall)).sum()
    assert result.area == pytest.approx(by_hand)


def test_radius_curve_against_a_slow_loop():
    sets = random_sets(queries=25, items=60)
    distances = hamming(*sets[:2])
    relevant = (sets[2].astype(int) @ sets[3].astype(int).T) > 0
    assert not relevant.any(axis=1).all()  # some query has nothing to find
    curve = evaluate(*sets, k=5).radius
    for radius in range(17):
        within, precisions, recalls = distances <= radius, [], []
        for near, right in zip(within, relevant):
            precisions.append(right[near].mean() if near.any() else 0)
            recalls.append(right[near].sum() / right.sum() if right.any() else 0)
        hits = (within & relevant).sum()
        assert curve.precision_micro[radius] == pytest.approx(hits / max(within.sum(), 1))
        assert curve.recall_micro[radius] == pytest.approx(hits / relevant.sum())
        assert curve.precision_macro[radius] == pytest.approx(np.mean(precisions))
        assert curve.recall_macro[radius] == pytest.approx(np.mean(recalls))
        assert curve.empty[radius] == pytest.approx(np.mean([not near.any() for near in within]))
    assert 0 < curve.empty[2] < 1


def test_nothing_relevant_scores_zero():
    query, codes, labels, _ = random_sets(queries=8, items=20)
    none = np.zeros((20, labels.shape[1]))
    for ties, denominator in product(["expected", "best", "worst", "stable"], DENOMINATORS):
        result = evaluate(query, codes, labels, none, k=5, ties=ties, denominator=denominator)
        assert result.map_at == {5: 0} and result.ceiling == {5: 0} and result.area == 0
        assert not result.radius.recall_micro.any() and not result.recall.any()


def test_average_precision_by_hand():
    relevance = [[1, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(average_precision(relevance, 3), [5 / 9, 0])
    np.testing.assert_allclose(average_precision(relevance, 3, "min"), [5 / 6, 0])
    np.testing.assert_allclose(average_precision(relevance, 2, "relevant"), [1, 0])
    cut_off = average_precision(relevance, 4, "min", total_relevant=np.array([2, 9]))
    np.testing.assert_allclose(cut_off, [5 / 6, 1 / 16])
    with pytest.raises(ValueError, match="denominator='K'"):
        average_precision(relevance, 2, "K")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({0: np.zeros((40, 2))}, "query codes must be packed bits"),
        ({1: np.zeros(300, np.uint8)}, "database codes must be packed bits"),
        ({0: np.zeros((0, 2), np.uint8)}, "non-empty"),
        ({0: np.zeros((40, 3), np.uint8)}, "query codes have 3 bytes, database codes 2"),
        ({2: np.zeros((39, 7))}, r"query labels must be multi-hot, \(40, C\)"),
        ({3: np.zeros(300)}, r"database labels must be multi-hot, \(300, C\)"),
        ({3: np.full((300, 7), 4)}, "not class numbers"),
        ({3: np.zeros((300, 8))}, "query labels have 7 columns, database labels 8"),
        ({"k": (5, 301)}, r"k=301 must be a whole number in 1\.\.300"),
        ({"k": 0}, "k=0"),
        ({"k": 2.5}, "k=2.5"),
        ({"ties": "mean"}, "ties='mean' must be one of 'expected', 'best', 'worst', 'stable'"),
        ({"denominator": "K"}, "denominator='K' must be one of 'k', 'min', 'relevant'"),
        ({"exclude_self": True}, r"as many queries \(40\) as items \(300\)"),
    ],
)
def test_errors_say_what_to_change(changes, message):
    sets = [changes.get(place, good) for place, good in enumerate(random_sets())]
    options = {name: value for name, value in changes.items() if isinstance(name, str)}
    with pytest.raises(ValueError, match=message):
        evaluate(*sets, **options)


def test_videos_without_labels_cannot_be_judged():
    codes = np.zeros((5, 2), np.uint8)
    with pytest.raises(ValueError, match="have no labels"):
        evaluate(codes, codes, None, None, k=1)


def test_labels_may_lie_column_by_column():
    random = np.random.default_rng(0)
    codes, labels = random.integers(0, 256, (20, 2), np.uint8), random.random((20, 30)) < 0.1
    expected = evaluate(codes, codes, labels, labels, k=5).map_at
    columns = np.asfortranarray(labels)
    assert evaluate(np.asfortranarray(codes), codes, columns, columns, k=5).map_at == expected


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_other_ties_of_the_same_histograms_are_those_of_an_evaluation(denominator, exclude_self):
    codes, _, labels, _ = random_sets(queries=150, width=1)
    sets, options = (codes, codes, labels, labels), {"denominator": denominator}
    first, best, worst = (
        evaluate(*sets, ties=ties, exclude_self=exclude_self, **options)
        for ties in ("stable", "best", "worst")
    )
    for expected in (best, worst):
        found = first.with_ties(expected.ties)
        assert found.protocol == expected.protocol and found.map_at == expected.map_at
        assert found.ceiling == expected.ceiling
        for name in ("relevant", "ranks", "precision", "recall"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert worst.area <= best.with_ties("expected").area <= best.area
    assert first.with_ties("stable") is first
    with pytest.raises(ValueError, match="needs the order of the database"):
        best.with_ties("stable")
    with pytest.raises(ValueError, match="ties='mean' must be one of"):
        best.with_ties("mean")


@pytest.mark.parametrize("items, expected", [(3, [3]), (5, [5]), (71, [5, 20, 40, 60])])
def test_without_k_those_are_evaluated_that_the_database_can_fill(items, expected):
    _, codes, _, labels = random_sets(items=items)
    result = evaluate(codes, codes, labels, labels)
    assert list(result.map_at) == expected
    alone = evaluate(codes, codes, labels, labels, exclude_self=True)
    assert max(alone.map_at) <= items - 1 and alone.map_at
    with pytest.raises(ValueError, match="holds the query alone"):
        evaluate(codes[:1], codes[:1], labels[:1], labels[:1], exclude_self=True)


def test_a_video_of_a_file_of_ones_own_does_not_find_itself(random_features):
    dataset = open_dataset(random_features(shape=(71, 10, 12)))
    codes = np.random.default_rng(3).integers(0, 256, (71, 4), dtype=np.uint8)
    distances, labels = hamming(codes, codes), dataset.query.labels
    precisions = []
    for query in range(71):
        others = np.delete(np.arange(71), query)
        order = others[np.argsort(distances[query, others], kind="stable")]
        relevance = (labels[order] & labels[query]).any(1)
        precisions.append(plain_average_precision(relevance, 20, "k"))
    result = score((codes, codes), dataset, ties="stable")
    assert result.map_at[20] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert list(result.map_at) == [5, 20, 40, 60] and result.exclude_self
    assert evaluate(codes, codes, labels, labels, ties="stable").map_at[20] > result.map_at[20]


def test_a_model_scores_as_its_codes_do_and_encodes_each_set_once(random_features, tmp_path):
    for part, count in (("train", 20), ("database", 40), ("query", 6)):
        random_features(f"{part}.h5", (count, 4, 8), seed=count)
    for dataset in (open_dataset(tmp_path), open_dataset(tmp_path / "database.h5")):
        model = LSH.for_dataset(dataset, 16).prepare(dataset.train)
        codes = encode(model, dataset.query), encode(model, dataset.database)
        encoded = []
        counted = model.encode
        model.encode = lambda frames: encoded.append(len(frames)) or counted(frames)  # noqa: B023
        options = {"k": 7, "ties": "worst", "denominator": "min"}
        result = score(model, dataset, **options)
        assert encoded == ([40] if dataset.self_query else [6, 40])
        assert result.map_at == score(codes, dataset, **options).map_at
        assert (result.ties, result.denominator) == ("worst", "min")
        assert result.exclude_self == dataset.self_query


def test_labels_to_score_by_are_chosen_and_missing_ones_named(random_features):
    path = random_features(shape=(30, 4, 8))
    fine = np.eye(30, dtype=bool) | np.eye(30, dtype=bool)[::-1]  # each video has one match
    codes = (np.zeros((30, 2), np.uint8),) * 2
    with pytest.raises(ValueError, match=r"features: the query set has no `fine_labels`.*\.h5"):
        score(codes, open_dataset(path), labels="fine_labels")
    with h5py.File(path, "a") as file:
        file["fine_labels"] = fine
    result = score(codes, open_dataset(path), labels="fine_labels")
    assert (result.relevant == 1).all()
    with pytest.raises(ValueError, match="labels='views' must be one of"):
        score(codes, open_dataset(path), labels="views")


def test_what_cannot_be_scored_is_refused_before_a_video_is_encoded(random_features):
    dataset = open_dataset(random_features(shape=(30, 4, 8)))
    model = LSH.for_dataset(dataset, 16)
    model.encode = None  # would fail otherwise
    for options in ({"k": 30}, {"ties": "mean"}, {"denominator": "K"}, {"labels": "fine_labels"}):
        with pytest.raises(ValueError):
            score(model, dataset, **options)


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_keeps_its_number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        evaluate(*random_sets(), k=5)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
