"""Scores and losses: sweeps, ablations, training curves, bars."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from vidhash_lab.plots.style import BLUE, COLOURS, ORANGE, new_figure, tidy


def variants(*panels, note="", share_x=False):
    """Draw scores of the same variants in panels (xlabel, {variant: (seeds,)}) side by side.

    Each shows mean, deviation and every seed; on one scale if `share_x`, else on its own.
    """
    names = list(panels[0][1])
    figure = new_figure(1.3 + 0.4 * len(names))
    axes = figure.subplots(1, len(panels), sharex=share_x, sharey=True, squeeze=False)[0]
    for axis, (xlabel, scores) in zip(axes, panels):
        _draw_variants(axis, scores, xlabel)
        axis.tick_params(labelleft=axis is axes[0])
    figure.supxlabel(note, fontsize=9)
    return figure


def ablation(scores, published, *, xlabel, note="", source=""):
    """Draw variants' scores {variant: (seeds,)} beside published ones {variant: score}.

    Two panels, since two data sets have two scales: ours with mean, deviation and every seed.
    """
    figure = new_figure(1.3 + 0.4 * len(scores))
    ours, theirs = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    rows = np.arange(len(scores))
    _draw_variants(ours, scores, xlabel)
    known = [(row, published[name]) for row, name in zip(rows, scores) if name in published]
    for row, value in known:
        theirs.plot(value, row, "D", color=ORANGE)
        theirs.annotate(f"{value:.3f}", (value, row), (7, -4), textcoords="offset points")
    theirs.set_xlabel(f"published: {source}")
    figure.supxlabel(note, fontsize=9)
    theirs.xaxis.set_major_locator(MaxNLocator(4))
    theirs.margins(x=0.15)
    tidy(theirs)
    theirs.tick_params(labelleft=False)
    return figure


def training_curves(histories):
    """Draw every loss term by epoch; `histories` is {label: History}."""
    terms = [
        name
        for name in next(iter(histories.values()))[0]
        if name not in ("epoch", "seconds", "videos_per_second")
    ]
    figure = new_figure(2.8)
    axes = figure.subplots(1, len(terms), squeeze=False)[0]
    for axis, term in zip(axes, terms):
        for colour, (label, history) in zip(COLOURS, histories.items()):
            axis.plot(history.column("epoch"), history.column(term), color=colour, label=label)
        axis.set_title(term, fontsize=11)
        axis.set_xlabel("epoch")
        tidy(axis)
    axes[0].set_ylabel("loss")
    if len(histories) > 1:
        axes[-1].legend(frameon=False)
    return figure


def sweep(values, scores, *, xlabel, ylabel, references=None, note=""):
    """Draw a score against a parameter: mean and standard deviation over seeds, and each seed.

    values (P,); scores {label: (P, seeds)}; references {label: score} become level lines;
    `note` states the protocol under the figure.
    """
    figure = new_figure(4)
    axis = figure.subplots()
    for colour, (label, runs) in zip(COLOURS, scores.items()):
        runs = np.asarray(runs)
        beside = np.repeat(values, runs.shape[1]) + 0.012 * np.ptp(values)
        axis.scatter(beside, runs, s=20, facecolors="none", edgecolors=colour)
        axis.errorbar(
            values, runs.mean(1), runs.std(1, ddof=min(1, runs.shape[1] - 1)), color=colour,
            marker="o", capsize=4, label=label,
        )  # fmt: skip
    for colour, (label, score) in zip(COLOURS[len(scores) :], (references or {}).items()):
        axis.axhline(score, color=colour, ls="--", lw=1.5, label=f"{label} ({score:.3f})")
    axis.set_xlabel(xlabel + (f"\n{note}" if note else ""))
    axis.set_ylabel(ylabel)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    tidy(axis)
    return figure


def bars(values, *, xlabel, logarithmic=False, note=""):
    """Draw {label: value} as level bars with their numbers."""
    figure = new_figure(0.9 + 0.42 * len(values))
    axis = figure.subplots()
    labels, numbers = list(values), list(values.values())
    drawn = axis.barh(labels, numbers, color=COLOURS[: len(values)], height=0.6)
    texts = [f"{n:,.0f}" if n >= 100 else f"{n:.3g}" for n in numbers]
    axis.bar_label(drawn, texts, padding=4)
    axis.set_xlabel(xlabel + (f"\n{note}" if note else ""))
    if logarithmic:
        axis.set_xscale("log")
    axis.invert_yaxis()
    axis.margins(x=0.12)
    tidy(axis)
    axis.grid(visible=False, axis="y")
    return figure


def _draw_variants(axis, scores, xlabel):
    """Draw one row a variant: mean, deviation, and a ring for every seed."""
    for row, runs in enumerate(scores.values()):
        runs = np.asarray(runs)
        spread = runs.std(ddof=min(1, len(runs) - 1))
        axis.errorbar(runs.mean(), row, xerr=spread, marker="o", color=BLUE, capsize=4)
        axis.scatter(runs, [row + 0.2] * len(runs), s=18, facecolors="none", edgecolors=BLUE)
    axis.set_yticks(range(len(scores)), list(scores))
    axis.set_ylim(len(scores) - 0.5, -0.5)
    axis.set_xlabel(xlabel)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.margins(x=0.15)
    tidy(axis)
