"""How good a search is: precision and recall, and what one query gets.

K bits, R results, T frames per video; pictures are (T, h, w) or (T, h, w, 3) uint8.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidhash_lab.plots.strips import draw_results
from vidhash_lab.plots.style import GREY, INK, finish, line_looks, new_figure, new_panels
from vidhash_lab.retrieval.metrics import Evaluation, RadiusCurve

RECALL = np.linspace(0, 1, 200)


def precision_recall(
    panels: Mapping[str, Mapping[str, Evaluation]], *, shaded: Collection[str] = ()
) -> Figure:
    """Draw precision over recall by rank, {panel: {label: Evaluation}}, panels side by side.

    What `shaded` names gets a band from worst to best ties. ValueError for results of different
    protocols, and for a band of "stable" ties.

    >>> from vidhash_lab import evaluate
    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
    >>> found = evaluate(codes, codes, labels, labels, k=1)
    >>> len(precision_recall({"8 bits": {"mine": found}}, shaded=["mine"]).axes)
    1
    """
    figure, axes = new_panels(3.9, len(panels), sharex=True, sharey=True)
    looks = line_looks(dict.fromkeys(label for results in panels.values() for label in results))
    for axis, (title, results) in zip(axes, panels.items()):
        _draw_lines(axis, {n: (r.recall, r.precision) for n, r in results.items()}, looks)
        for label in results.keys() & set(shaded):
            bounds = (results[label].with_ties(t).precision_at(RECALL) for t in ("worst", "best"))
            axis.fill_between(RECALL, *bounds, color=looks[label]["color"], alpha=0.2, lw=0)
        axis.set_ylim(0, 1.02)
        finish(axis, "recall", "precision" if axis is axes[0] else "", title=title)
    axes[-1].legend(frameon=False, loc="upper right", fontsize=9)
    figure.supxlabel(_protocol(panels.values()), fontsize=9)
    return figure


def radius_curves(curves: Mapping[str, Evaluation]) -> Figure:
    """Draw mean precision, recall, empty queries by radius; ValueError for different protocols.

    >>> from vidhash_lab import evaluate
    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
    >>> len(radius_curves({"mine": evaluate(codes, codes, labels, labels, k=1)}).axes)
    3
    """
    figure, axes = new_panels(3.3, 3, sharex=True, sharey=True)
    names = ("precision_macro", "recall_macro", "empty")
    radii, looks = {label: result.radius for label, result in curves.items()}, line_looks(curves)
    for axis, name, title in zip(axes, names, ("precision", "recall", "queries that find nothing")):
        _draw_lines(axis, {n: (r.radius, getattr(r, name)) for n, r in radii.items()}, looks)
        axis.axvline(2, color=GREY, lw=1, ls=":")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        finish(axis, "Hamming radius", title=title)
    axes[-1].legend(frameon=False, fontsize=9)
    figure.supxlabel(f"{_protocol([curves])}; dotted: radius 2", fontsize=9)
    return figure


def within_radius(
    curve: RadiusCurve,
    radius: int,
    query: np.ndarray,
    results: np.ndarray,
    distances: Sequence[int],
    relevant: Sequence[bool],
) -> Figure:
    """Draw a point of a `RadiusCurve` beside a query's results (R, T, h, w), up to eight strips.

    >>> from vidhash_lab import evaluate
    >>> codes, labels = np.array([[0], [1], [255]], np.uint8), np.eye(2, dtype=bool)[[0, 0, 1]]
    >>> curve, films = evaluate(codes, codes, labels, labels, k=1).radius, np.zeros((2, 5, 8, 8))
    >>> figure = within_radius(curve, 1, films[0], films, [0, 1], [True, True])
    """
    figure = new_figure(4.6)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.75])
    axis = left.subplots()
    axis.plot(curve.recall_macro, curve.precision_macro, color=INK)
    axis.plot(curve.recall_macro[radius], curve.precision_macro[radius], "o", color=INK, ms=9)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    finish(axis, "recall, all queries", "precision, all queries", title=f"radius {radius}")
    strips = right.subplots(9, 1)
    for strip in strips:
        strip.set_axis_off()
    draw_results(strips, query, results, distances, relevant)
    if not len(results):
        strips[1].text(0.02, 0.5, "nothing lies within this radius", transform=strips[1].transAxes)
    return figure


def _draw_lines(axis, lines, looks):
    for label, (x, y) in lines.items():
        axis.plot(x, y, **looks[label] | {"marker": "", "lw": 1.8, "label": label})


def _protocol(panels):
    """State the protocol that all curves share; how many bits, only where that is the same."""
    results = [result for curves in panels for result in curves.values()]
    lines = {result.protocol for result in results}
    if len({result.bits for result in results}) > 1:
        lines = {result.protocol.replace(f" {result.bits} bits,", "") for result in results}
    if len(lines) > 1:
        raise ValueError(f"curves of different protocols cannot share a figure: {sorted(lines)}")
    return lines.pop()
