"""How good a search is: precision and recall, ties, and what one query gets.

K bits, R results, T frames per video; pictures are (T, h, w) or (T, h, w, 3) uint8.
"""

import numpy as np
from matplotlib.ticker import MaxNLocator

from vidhash_lab.plots.strips import draw_strip, label_strip
from vidhash_lab.plots.style import BLUE, COLOURS, GREY, ORANGE, RED, new_figure, tidy

RECALL = np.linspace(0, 1, 200)
LINES = (*COLOURS, GREY)


def precision_recall(panels, *, dashed=(), bands=None):
    """Draw precision over recall by rank, {panel: {label: Evaluation}}, panels side by side.

    `dashed` names lines (baselines) to tell apart by more than colour; `bands` {panel: {label:
    (worst, best)}}, two Evaluations each, shades what the order within ties could make of a line.
    """
    figure = new_figure(3.9)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title, curves) in zip(axes, panels.items()):
        for number, (label, result) in enumerate(curves.items()):
            colour = LINES[number % 7]
            axis.plot(
                result.recall, result.precision, "--" if label in dashed else "-",
                color=colour, lw=1.8, label=label,
            )  # fmt: skip
            if label in (bands or {}).get(title, {}):
                low, high = (bound.precision_at(RECALL) for bound in bands[title][label])
                axis.fill_between(RECALL, low, high, color=colour, alpha=0.2, lw=0)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("recall")
        axis.set_ylim(0, 1.02)
        tidy(axis)
    axes[0].set_ylabel("precision")
    axes[-1].legend(frameon=False, loc="upper right", fontsize=9)
    figure.supxlabel(_protocol(panels), fontsize=9)
    return figure


def radius_curves(curves, *, dashed=()):
    """Draw precision, recall and the share of queries that find nothing by Hamming radius.

    `curves` {label: Evaluation} of codes of one length; the mean is over queries (macro).
    """
    figure = new_figure(3.3)
    panels = zip(
        figure.subplots(1, 3, sharex=True, sharey=True),
        ("precision_macro", "recall_macro", "empty"),
        ("precision", "recall", "queries that find nothing"),
    )
    for axis, name, title in panels:
        for number, (label, result) in enumerate(curves.items()):
            axis.plot(
                result.radius.radius, getattr(result.radius, name), color=LINES[number % 7],
                ls="--" if label in dashed else "-", lw=1.8, label=label,
            )  # fmt: skip
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("Hamming radius")
        axis.axvline(2, color=GREY, lw=1, ls=":")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axis)
    axis.legend(frameon=False, fontsize=9)
    figure.supxlabel(f"{_protocol({'': curves})}; dotted: radius 2", fontsize=9)
    return figure


def bands(rows, *, xlabel, note=""):
    """Draw {label: (lowest, expected, highest)} or (…, values) as bars: what an order could make.

    `values`, where given, are what some real orders made, as ticks.
    """
    figure = new_figure(1.0 + 0.3 * len(rows))
    axis = figure.subplots()
    for row, (lowest, expected, highest, *values) in enumerate(rows.values()):
        axis.barh(row, highest - lowest, left=lowest, height=0.55, color=BLUE, alpha=0.25)
        axis.plot(expected, row, "o", color=BLUE)
        for value in values[0] if values else []:
            axis.plot(value, row, "|", color=RED, ms=13)
        axis.annotate(
            f"{lowest:.3f} to {highest:.3f}", (highest, row), (6, -4), textcoords="offset points",
            fontsize=9,
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(xlabel + (f"\n{note}" if note else ""))
    axis.margins(x=0.12)
    tidy(axis)
    axis.grid(visible=False, axis="y")
    return figure


def within_radius(curve, radius, query, results, distances, relevant):
    """Draw a point of a `RadiusCurve` beside what one query finds there, up to eight film strips.

    query (T, h, w), results (R, T, h, w), distances (R,), relevant (R,) bool: the nearest first.
    """
    shown = min(8, len(results))
    figure = new_figure(4.6)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.75])
    axis = left.subplots()
    axis.plot(curve.recall_macro, curve.precision_macro, color=BLUE)
    axis.plot(curve.recall_macro[radius], curve.precision_macro[radius], "o", color=ORANGE, ms=9)
    axis.set_xlabel("recall, all queries")
    axis.set_ylabel("precision, all queries")
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_title(f"radius {radius}", fontsize=11)
    tidy(axis)
    strips = right.subplots(9, 1)
    draw_strip(strips[0], query, frame=GREY)
    label_strip(strips[0], "query")
    for strip in strips[1 + shown :]:
        strip.set_axis_off()
    for strip, frames, distance, right_one in zip(strips[1:], results, distances, relevant):
        colour = BLUE if right_one else RED
        draw_strip(strip, frames, frame=colour)
        label_strip(strip, f"{'✓' if right_one else '✗'}  {distance}", colour)
    if not shown:
        strips[1].text(0.02, 0.5, "nothing lies within this radius", transform=strips[1].transAxes)
    return figure


def _protocol(panels):
    """State the protocol that all curves share; how many bits, only where that is the same."""
    results = [result for curves in panels.values() for result in curves.values()]
    lines = {result.protocol for result in results}
    if len({result.bits for result in results}) > 1:
        lines = {result.protocol.replace(f" {result.bits} bits,", "") for result in results}
    if len(lines) > 1:
        raise ValueError(f"curves of different protocols cannot share a figure: {sorted(lines)}")
    return lines.pop()
