"""Widgets without a browser: a control moves, the picture and the status line follow."""

import base64
import re

import numpy as np
import pytest
import torch

from vidhash_lab import widgets
from vidhash_lab.data import open_dataset
from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.models.baselines import ITQ
from vidhash_lab.models.chain import CHAIN
from vidhash_lab.models.mcmsh import MCMSH
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.retrieval.metrics import evaluate
from vidhash_lab.retrieval.search import HammingIndex


def parts(widget):
    controls, picture = widget.children[0].children
    return controls.children, picture, widget.children[1]


@pytest.fixture(scope="module")
def searched():
    dataset = open_dataset("digit-stories-mini")
    model = ITQ.for_dataset(dataset, 32).prepare(dataset.train)
    index = HammingIndex(encode(model, dataset.database))
    return dataset, index, encode(model, dataset.query)


def test_query_browser_draws_the_chosen_query(searched):
    dataset, index, codes = searched
    (query, k), picture, status = parts(widgets.query_browser(dataset, index, codes))
    before = picture.value
    png = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', before)[1])
    assert png.startswith(b"\x89PNG") and status.value.startswith("query 0:")
    assert f'alt="{status.value}"' in before  # a picture without a text is lost to who cannot see
    query.value = 7
    assert picture.value != before
    k.value = 5
    _, found = index.search(codes[7:8], 5)
    right = (dataset.database.labels[found[0]] & dataset.query.labels[7]).any(1).sum()
    assert status.value == f"query 7: {right} of 5 results share its category"
    assert not query.continuous_update


def test_query_browser_searches_no_more_than_there_is_and_needs_no_labels(random_features):
    videos = FeatureSet(random_features(shape=(5, 6, 8), labels=0))
    dataset = VideoDataset("five", videos, videos, videos)
    codes = np.arange(5, dtype=np.uint8)[:, None]
    (_, k), _, status = parts(widgets.query_browser(dataset, HammingIndex(codes), codes))
    assert (k.value, k.max) == (4, 4) and status.value == "query 0: 4 results, distances 1 to 2"


def test_radius_slider_counts_what_lies_within(searched):
    dataset, _, query_codes = searched
    codes = encode(ITQ.for_dataset(dataset, 32).prepare(dataset.train), dataset.database)
    labels = dataset.query.labels, dataset.database.labels
    result = evaluate(query_codes, codes, *labels, k=(5,))
    (radius, query), picture, status = parts(
        widgets.radius_slider(dataset, result, query_codes, codes)
    )
    drawn = picture.value
    radius.value, query.value = 9, 7
    near = np.unpackbits(codes ^ query_codes[7], axis=1).sum(1) <= 9
    relevant = (labels[1] & labels[0][7]).any(1)
    assert picture.value != drawn and status.value == (
        f"query 7, radius 9: {near.sum()} found, {(near & relevant).sum()} relevant; "
        f"{(~near & relevant).sum()} of {relevant.sum()} relevant are missed"
    )
    radius.value = 0  # and where nothing lies within
    assert "radius 0: 0 found, 0 relevant" in status.value


def test_mask_slider_says_what_the_views_share():
    frames = np.random.default_rng(0).integers(0, 255, (25, 8, 8), dtype=np.uint8)
    (hidden, order), picture, status = parts(widgets.mask_slider(frames))
    hidden.value = 18
    assert status.value == "mask ratio 0.72: each view sees 7 of 25 frames, 0 frames are in both"
    drawn = picture.value
    order.value = 1
    assert picture.value != drawn
    hidden.value = 5
    assert "each view sees 20 of 25 frames, 15 frames are in both" in status.value


def test_every_number_of_hidden_frames_can_be_chosen():
    frames = np.zeros((25, 8, 8), np.uint8)
    (hidden, _), _, status = parts(widgets.mask_slider(frames))
    for count in range(hidden.min, hidden.max + 1):
        hidden.value = count
        assert f"sees {25 - count} of 25" in status.value


def test_gate_browser_draws_the_chosen_video_and_place(searched):
    dataset, _, _ = searched
    model = MCMSH.for_dataset(dataset, 16, hidden_dim=32)
    (video, place), picture, status = parts(widgets.gate_browser(model, dataset.query))
    assert status.value.startswith("video 0, token mixer: gates open from 0.")
    drawn = {picture.value}
    video.value = 5
    drawn.add(picture.value)
    place.value = "at the end"
    drawn.add(picture.value)
    assert len(drawn) == 3 and status.value.startswith("video 5, at the end: gates open from 0.")


def test_order_guesser_shuffles_and_counts(searched):
    dataset, _, _ = searched
    model = CHAIN.for_dataset(dataset, 16, hidden_dim=32)
    (video, shuffle), picture, status = parts(widgets.order_guesser(model, dataset.query))
    drawn = {picture.value}
    video.value = 5
    drawn.add(picture.value)
    shuffle.value = 3
    drawn.add(picture.value)
    assert len(drawn) == 3
    assert (
        status.value.startswith("video 5: ") and "of 12 frames back in their place" in status.value
    )
    assert 0 <= int(status.value.split()[2]) <= 12


def test_a_perfect_guess_puts_every_frame_back(searched):
    """Frames whose first feature tells their place, and a model that reads it off."""
    dataset, _, _ = searched
    model = CHAIN.for_dataset(dataset, 16, hidden_dim=32)
    truth = dataset.query.rows(0)[:, (torch.arange(12) * 25 + 12) // 12]

    def order_logits(frames):
        return -torch.cdist(frames, truth) * 100

    model.order_logits = order_logits
    _, _, status = parts(widgets.order_guesser(model, dataset.query))
    assert status.value.startswith("video 0: 12 of 12 frames")


def test_what_a_picture_tells_cannot_end_its_markup():
    import ipywidgets
    from matplotlib.figure import Figure

    text = 'a "quoted" <b> & more'
    _, picture, status = parts(widgets.panel(lambda n: (Figure(), text), n=ipywidgets.IntSlider(3)))
    assert 'alt="a &quot;quoted&quot; &lt;b&gt; &amp; more"' in picture.value
    assert status.value == text


def test_a_widget_says_what_went_wrong():
    import ipywidgets

    def draw(number):
        raise ValueError(f"no picture of {number}")

    _, _, status = parts(widgets.panel(draw, number=ipywidgets.IntSlider(3)))
    assert status.value == "ValueError: no picture of 3"
