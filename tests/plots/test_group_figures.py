"""Figures of groups: who stands for whom, which anchors are shared, what is a gate's template."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba

from vidhash_lab import plots


def test_messages_lead_to_the_choice_of_each_and_colour_who_stands():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 1.0]])
    responsibilities = np.array([[-1.0, 2, 0], [0, 1, 0], [-3, 0.6, -1]])
    availabilities = np.array([[0.0, 0, 0], [0, 1, 0], [0, -4, 0.4]])  # 2 would choose itself
    figure = plots.messages(points, {"one": (responsibilities, availabilities)})
    above, *matrices = figure.axes
    ends = [line.get_xydata()[1].tolist() for line in above.lines]
    assert ends == [[1, 0], [1, 0], [5, 1]]
    (drawn,) = above.collections
    assert [tuple(c) == to_rgba(plots.ORANGE) for c in drawn.get_facecolors()] == [0, 1, 0]
    for axis, sent in zip(matrices, (responsibilities, availabilities)):
        np.testing.assert_array_equal(axis.images[0].get_array(), sent)
    assert [t.get_text() for t in matrices[0].texts] == "-1 2 0 0 1 0 -3 1 -1".split()
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.messages(points, {})


def test_messages_of_nought_are_drawn():
    figure = plots.messages(np.eye(2), {"still": (np.zeros((2, 2)), -0.1 * np.eye(2))})
    assert {text.get_text() for axis in figure.axes[1:] for text in axis.texts} == {"0"}


def test_structures_stand_at_their_places_with_the_ranks_of_their_anchors():
    anchors, videos = np.arange(8.0), np.array([2.2, 3.9, 6.1])
    nearest = abs(videos[:, None] - anchors).argsort(1)[:, :5]
    colours = [plots.BLUE, plots.BLUE, plots.ORANGE]
    figure = plots.structures(anchors, videos, nearest, ["h", "s", "d"], colours, [0, 1, 2, 1])
    cluster, similarity, quadruplet = figure.axes
    arrows = [(arrow.xyann, arrow.xy) for arrow in cluster.texts]
    assert arrows == [((2.2, 1), (2, 0)), ((3.9, 1), (4, 0)), ((6.1, 1), (6, 0))]
    ranks = [[t for t in similarity.texts if t.get_position()[1] == row] for row in range(3)]
    at = [{int(t.get_position()[0]): int(t.get_text()) for t in row} for row in ranks]
    assert at == [{place: rank for rank, place in enumerate(kept, 1)} for kept in nearest]
    boxes = [bar for bar in similarity.patches if round(bar.get_y() + 0.4) == 2]
    assert {to_rgb(bar.get_facecolor()[:3]) for bar in boxes} == {to_rgb(plots.ORANGE)}
    assert [bar.get_alpha() for bar in boxes] == [0.8, 0.8, 0.8, 0.35, 0.15]
    spans = [(round(bar.get_x(), 1), round(bar.get_width(), 1)) for bar in quadruplet.patches]
    assert spans == [(2.2, 1.7), (2.2, 3.9), (3.9, 2.2)]  # h to s, h to d1, d1 to d2


def test_a_template_and_what_a_video_adds_are_its_openings():
    openings = {n: np.random.default_rng(seed).random((6, 9, 4)) for seed, n in enumerate("ab")}
    figure = plots.gate_templates(openings, 2)
    pictures = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    for each, template, besides in zip(openings.values(), pictures[::2], pictures[1::2]):
        order = each.mean((0, 1)).argsort()
        np.testing.assert_allclose(template, each.mean(0).T[order])
        np.testing.assert_allclose(template + besides, each[2].T[order])
    low, high = figure.axes[1].images[0].get_clim()
    assert low == -high < 0
    same = {"a": np.ones((6, 9, 4))}  # a gate that looks at nothing
    assert not plots.gate_templates(same, 0).axes[1].images[0].get_array().any()
    with pytest.raises(ValueError, match=r"no video 6 among \[6, 6\]"):
        plots.gate_templates(openings, 6)
