"""Figures of losses and networks: points with arrows, curves, shapes that the layers gave."""

import numpy as np
import pytest
import torch

from vidhash_lab import ConMH, plots

SIZES = {"bits": 16, "num_frames": 6, "feature_dim": 8, "hidden_dim": 12, "depth": 1, "heads": 2}


def test_a_label_has_one_colour_in_all_panels():
    x = np.arange(5)
    panels = {"one": {"a": (x, x), "b": (x, -x)}, "two": {"b": (x, x**2)}}
    first, second = plots.curves(panels, xlabel="x").axes
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
    assert second.get_title() == "two"


def test_panels_share_their_scale_where_asked():
    x = np.arange(5)
    panels = {"one": {"a": (x, x)}, "two": {"a": (x, 10 * x)}}
    for share_y in (False, True):
        one, two = plots.curves(panels, xlabel="x", share_y=share_y).axes
        assert (one.get_ylim() == two.get_ylim()) == share_y


def test_arrows_point_where_they_are_told():
    points, arrows = np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[0.0, 2.0], [-1.0, 0.0]])
    (axis,) = plots.pulled_points({"t": (points, arrows)}, [0, 1], names=["p", "q"]).axes
    quiver = next(c for c in axis.collections if hasattr(c, "U"))
    assert np.allclose(quiver.U, [0, -0.5]) and np.allclose(quiver.V, [1, 0])
    assert [text.get_text() for text in axis.texts] == ["p", "q"]
    still = plots.pulled_points({"t": (points, 0 * arrows)}, [0, 1], circle=True)
    assert len(still.axes[0].lines) == 1  # no division by zero, and a circle


def test_shapes_are_those_that_the_layers_gave_in_the_order_of_their_calls():
    model = ConMH(ConMH.Config(**SIZES, decoder_dim=12))
    video = torch.randn(5, 6, 8)
    parts = {"ln": "norm", "encoder.patch_embed": "embed", "binary": "hash"}
    steps = plots.traced(model, lambda: model.encode(video), parts)
    assert steps == [("embed", "(5, 6, 12)"), ("hash", "(5, 6, 16)"), ("norm", "(5, 6, 16)")]
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match=r"ConMH did not call decoder\.head in this run"):
        plots.traced(model, lambda: model.encode(video), {"decoder.head": "guess"})
    figure = plots.architectures(
        {"ConMH": steps, "other": steps[:1]}, {"ConMH": ["a"], "other": []}
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "embed\n(5, 6, 12)" in texts and "losses: a" in texts


def test_every_number_has_its_point_and_its_bar():
    published, ours = [0.2, 0.4, 0.3], [0.25, 0.1, 0.3]
    bounds = [[0.2, 0.5], [0.0, 0.2], [0.3, 0.3]]
    figure = plots.agreement(published, ours, bounds, ["a", "b", "a"], metric="mAP")
    first, second, *_ = figure.axes[0].containers
    assert first[0].get_xydata().tolist() == [[0.2, 0.25], [0.3, 0.3]]
    (bar, still) = first[2][0].get_segments()
    assert np.allclose(bar, [[0.2, 0.2], [0.2, 0.5]]) and np.allclose(still[:, 1], 0.3)
    assert second.get_label() == "b" and second[0].get_color() != first[0].get_color()
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.agreement([], [], [], [], metric="mAP")


def test_a_label_that_the_last_panel_lacks_is_in_the_legend_too():
    x = np.arange(3)
    figure = plots.curves({"one": {"a": (x, x), "b": (x, -x)}, "two": {"b": (x, x)}}, xlabel="x")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    many = {str(n): (x, n * x) for n in range(9)}
    (axis,) = plots.curves({"": many}, xlabel="x").axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 9
