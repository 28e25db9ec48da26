"""Scores and losses: curves over a parameter, ablations, training curves, bars."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from vidhash_lab.checkpoints import History
from vidhash_lab.plots.style import (
    INK,
    finish,
    line_looks,
    method_colour,
    name_rows,
    new_panels,
)

Runs = Mapping[str, Sequence[float]]  # {variant: (seeds,) scores}


def variants(*panels: tuple[str, Runs], note: str = "", share_x: bool = False) -> Figure:
    """Draw panels (xlabel, {variant: (seeds,)}) side by side: mean, deviation and every seed.

    >>> len(variants(("mAP@20", {"ConMH": [0.4, 0.5], "ITQ": [0.3, 0.3]})).axes)
    1
    """
    height = 1.3 + 0.4 * len(panels[0][1])
    figure, axes = new_panels(height, len(panels), note, sharex=share_x, sharey=True)
    for axis, (xlabel, scores) in zip(axes, panels):
        _draw_variants(axis, scores, xlabel)
        axis.tick_params(labelleft=axis is axes[0])
    return figure


def spreads(*panels: tuple[str, Runs], note: str = "", share_x: bool = False) -> Figure:
    """Draw panels (xlabel, {name: (n,)}) side by side: median, middle half, and every value.

    For what varies from video to video; over seeds, `variants` shows mean and deviation.

    >>> len(spreads(("bits that differ", {"copies": [1, 2, 2, 5], "others": [30, 31, 33]})).axes)
    1
    """
    figure, axes = new_panels(1.3 + 0.4 * len(panels[0][1]), len(panels), note, sharex=share_x)
    for axis, (xlabel, values) in zip(axes, panels):
        for row, (name, each) in enumerate(values.items()):
            low, middle, high = np.quantile(each, (0.25, 0.5, 0.75))
            colour, ends = method_colour(name), [[middle - low], [high - middle]]
            axis.errorbar(middle, row, xerr=ends, marker="o", color=colour, capsize=4)
            below = [row + 0.2] * len(each)
            axis.scatter(each, below, s=18, facecolors="none", edgecolors=colour)
        name_rows(axis, values)
        _few_ticks(axis)
        finish(axis, xlabel)
        axis.tick_params(labelleft=axis is axes[0])
    return figure


def ablation(
    scores: Runs, published: Mapping[str, float], *, xlabel: str, note: str = "", source: str = ""
) -> Figure:
    """Draw scores {variant: (seeds,)} beside published ones {variant: score}.

    The two axes begin elsewhere, but the same difference is as long on both.

    >>> ours, theirs = {"all": [0.4, 0.5], "one": [0.3]}, {"all": 0.6, "one": 0.5}
    >>> len(ablation(ours, theirs, xlabel="mAP@20").axes)
    2
    """
    height = 1.3 + 0.4 * len(scores)
    figure, (ours, theirs) = new_panels(height, 2, note, sharey=True)
    _draw_variants(ours, scores, xlabel)
    for row, name in enumerate(scores):
        if (value := published.get(name)) is not None:
            theirs.plot(value, row, "D", color=method_colour(name))
            theirs.annotate(f"{value:.3f}", (value, row), (7, -4), textcoords="offset points")
    _few_ticks(theirs)
    _equal_spans(ours, theirs)
    finish(theirs, f"published: {source}")
    theirs.tick_params(labelleft=False)
    return figure


def training_curves(histories: Mapping[str, History]) -> Figure:
    """Draw every loss term by epoch; `histories` is {label: History}.

    >>> from vidhash_lab.checkpoints import History
    >>> rows = [{"epoch": e, "contrastive": 1 / e, "loss": 1 / e, "seconds": 1.0} for e in (1, 2)]
    >>> len(training_curves({"ConMH": History(rows)}).axes)
    2
    """
    first, *_ = histories.values()
    no_terms = ("epoch", "seconds", "threads", "videos_per_second")
    terms = [name for name in first[0] if name not in no_terms]
    figure, axes = new_panels(2.8, len(terms))
    looks = line_looks(histories)
    for axis, term in zip(axes, terms):
        for label, history in histories.items():
            look = looks[label] | {"marker": "", "label": label}
            axis.plot(history.column("epoch"), history.column(term), **look)
        finish(axis, "epoch", "loss" if axis is axes[0] else "", title=term)
    if len(histories) > 1:
        axes[-1].legend(frameon=False)
    return figure


def mean_curves(
    values: ArrayLike,
    scores: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float] | None = None,
    note: str = "",
) -> Figure:
    """Draw a score against a parameter: mean and standard deviation over seeds, and each seed.

    values (P,); scores {label: (P, seeds)}; references {label: score} become level lines.

    >>> scores = {"ITQ": [[0.3, 0.4], [0.5, 0.5]]}  # of two seeds at each length
    >>> mean_curves([16, 32], scores, xlabel="bits", ylabel="mAP@20").axes[0].get_xlabel()
    'bits'
    """
    figure, (axis,) = new_panels(4)
    looks = line_looks([*scores, *(references or {})])
    for label, runs in scores.items():
        runs = np.asarray(runs)
        beside = np.repeat(values, runs.shape[1]) + 0.012 * np.ptp(values)
        axis.scatter(beside, runs, s=20, facecolors="none", edgecolors=looks[label]["color"])
        axis.errorbar(
            values, runs.mean(1), _deviation(runs), capsize=4, label=label, **looks[label]
        )
    for label, score in (references or {}).items():
        colour, name = looks[label]["color"], f"{label} ({score:.3f})"
        axis.axhline(score, color=colour, ls="--", lw=1.5, label=name)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(axis, xlabel, ylabel, note=note)
    return figure


def bars(
    values: Mapping[str, float], *, xlabel: str, logarithmic: bool = False, note: str = ""
) -> Figure:
    """Draw {label: value} as level bars with their numbers.

    A logarithmic axis has no zero for a bar to begin at: there a dot stands where it would end.

    >>> [text.get_text() for text in bars({"ITQ": 0.39}, xlabel="mAP@20").axes[0].texts]
    ['0.39']
    """
    figure, (axis,) = new_panels(0.9 + 0.42 * len(values))
    colours, rows = [method_colour(name) for name in values], range(len(values))
    if logarithmic:
        axis.set_xscale("log")
        axis.scatter(list(values.values()), rows, c=colours, s=60, zorder=2)
    else:
        axis.barh(rows, list(values.values()), color=colours, height=0.6)
    for row, value in enumerate(values.values()):
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        beside = {"textcoords": "offset points", "va": "center"}
        axis.annotate(text, (value, row), (8, 0), **beside)
    name_rows(axis, values)
    axis.margins(x=0.12)
    finish(axis, xlabel, note=note, grid="x")
    return figure


def bands(rows: Mapping[str, tuple], *, xlabel: str, note: str = "") -> Figure:
    """Draw {label: (lowest, expected, highest[, values of real orders as ticks])} as bars.

    >>> len(bands({"16 bits": (0.2, 0.3, 0.5), "64 bits": (0.4, 0.41, 0.42)}, xlabel="mAP").axes)
    1
    """
    figure, (axis,) = new_panels(1.0 + 0.3 * len(rows))
    for row, (name, (lowest, expected, highest, *values)) in enumerate(rows.items()):
        colour = method_colour(name)
        axis.barh(row, highest - lowest, left=lowest, height=0.55, color=colour, alpha=0.25)
        axis.plot(expected, row, "o", color=colour)
        for value in values[0] if values else []:
            axis.plot(value, row, "|", color=INK, ms=13)
        text, beside = f"{lowest:.3f} to {highest:.3f}", {"textcoords": "offset points"}
        axis.annotate(text, (highest, row), (6, -4), fontsize=9, **beside)
    name_rows(axis, rows)
    axis.margins(x=0.12)
    finish(axis, xlabel, note=note, grid="x")
    return figure


def _draw_variants(axis, scores, xlabel):
    for row, (name, runs) in enumerate(scores.items()):
        runs, colour = np.asarray(runs), method_colour(name)
        axis.errorbar(runs.mean(), row, xerr=_deviation(runs), marker="o", color=colour, capsize=4)
        axis.scatter(runs, [row + 0.2] * len(runs), s=18, facecolors="none", edgecolors=colour)
    name_rows(axis, scores)
    _few_ticks(axis)
    finish(axis, xlabel)


def _deviation(runs):
    """Return the standard deviation over the last axis; of a single seed it is 0."""
    return runs.std(axis=-1, ddof=min(1, runs.shape[-1] - 1))


def _equal_spans(*axes):
    """Widen axes that are as long as each other, around their middles, to one span of values."""
    limits = [axis.get_xlim() for axis in axes]
    half = max(high - low for low, high in limits) / 2
    for axis, (low, high) in zip(axes, limits):
        axis.set_xlim((low + high) / 2 - half, (low + high) / 2 + half)


def _few_ticks(axis):
    """Choose four or five ticks, and leave room for what stands beside the outermost scores."""
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.margins(x=0.15)
