"""One query under several methods: what each finds, and what is said of it."""

import numpy as np
import pytest

from vidhash_lab import ITQ, LSH, encode, open_dataset, plots, widgets
from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.retrieval.search import HammingIndex


@pytest.fixture(scope="module")
def rivals():
    data = open_dataset("digit-stories-mini")
    models = {kind.__name__: kind.for_dataset(data, 16).prepare(data.train) for kind in (ITQ, LSH)}
    return data, {n: (encode(m, data.query), encode(m, data.database)) for n, m in models.items()}


def test_each_method_has_its_own_results_and_count(rivals):
    data, codes = rivals
    widget = widgets.rival_browser(data, codes, k=5)
    (query,), picture = (part for part in _parts(widget))
    before = picture.value
    query.value = 7
    assert picture.value != before
    right = {}
    for name, (asked, base) in codes.items():
        _, found = HammingIndex(base).search(asked[7:8], 5)
        right[name] = (data.database.labels[found[0]] & data.query.labels[7]).any(1).sum()
    expected = ", ".join(f"{name} {count} of 5 right" for name, count in right.items())
    assert widget.children[1].value == f"query 7: {expected}"


def _parts(widget):
    controls, picture = widget.children[0].children
    return controls.children, picture


def test_a_few_videos_without_labels(random_features):
    videos = FeatureSet(random_features(shape=(3, 6, 8), labels=0))
    data = VideoDataset("three", videos, videos, videos)
    codes = np.arange(3, dtype=np.uint8)[:, None]
    figure, text = widgets.rankings_of(data, {"one": (codes, codes)}, query=1)
    assert text == "query 1: one no labels" and len(figure.axes) == 3


def test_the_title_counts_what_is_right():
    frames = np.zeros((2, 5, 8, 8), np.uint8)
    columns = {"a": (frames, [0, 1], [True, False]), "b": (frames[:1], [2], [None])}
    figure = plots.rankings(frames[0], columns)
    assert [part.get_suptitle() for part in figure.subfigs] == ["a: 1 of 2 right", "b"]
