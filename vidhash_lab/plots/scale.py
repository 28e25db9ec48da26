"""Figures of growth: time and memory over sizes, recall for time, tasks of workers, needs."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from vidhash_lab.plots.style import BLUE, COLOURS, GREY, RED, finish, name_rows, new_panels

Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]  # {label: (P,) of x and of y}


def growth(
    *panels: tuple[str, str, Curves], dashed: Sequence[str] = (), linear: Sequence[str] = ()
) -> Figure:
    """Draw panels (xlabel, ylabel, curves) side by side, on logarithmic axes.

    `dashed` labels are computed, not measured, and have no points; `linear` are the ylabels whose
    axis is none of the logarithmic ones.

    >>> figure = growth(("videos", "seconds", {"exact": ([10, 100], [0.1, 1.0])}))
    >>> figure.axes[0].get_xscale()
    'log'
    """
    figure, axes = new_panels(3.6, len(panels))
    for axis, (xlabel, ylabel, curves) in zip(axes, panels):
        looks = product("oDs^", COLOURS)
        for (label, (x, y)), (marker, colour) in zip(curves.items(), looks):
            look = {"marker": marker, "color": colour}
            if label in dashed:
                look = {"ls": ("--", ":", "-.")[list(dashed).index(label) % 3], "color": GREY}
            axis.plot(x, y, label=label, **look)
        axis.set_xscale("log")
        if ylabel not in linear:
            axis.set_yscale("log")
        if curves:
            axis.legend(frameon=False, fontsize=9)
        finish(axis, xlabel, ylabel)
    return figure


def recall_for_time(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    exact: float,
    *,
    xlabel: str,
    note: str = "",
) -> Figure:
    """Draw recall over time, {label: (milliseconds, recalls, probes)}, (P,) each.

    A level line at 1 and an upright one at `exact`, in milliseconds, are the exact search.

    >>> measured = {"1,024 lists": ([0.1, 0.2], [0.8, 0.9], [1, 2])}
    >>> figure = recall_for_time(measured, exact=1.5, xlabel="milliseconds a query")
    """
    figure, (axis,) = new_panels(4)
    for (label, (times, recalls, probes)), colour in zip(curves.items(), COLOURS):
        axis.plot(times, recalls, "o-", color=colour, label=label)
        for time, recall, count in zip(times, recalls, probes):
            beside = {"textcoords": "offset points", "fontsize": 9, "color": colour}
            axis.annotate(str(count), (time, recall), (4, -12), **beside)
    axis.axhline(1, color=GREY, lw=1)
    axis.axvline(exact, color=GREY, ls="--", label=f"exact search, {exact:,.3g} ms")
    axis.set_xscale("log")
    axis.margins(y=0.1)
    axis.legend(frameon=False, loc="center", bbox_to_anchor=(0.75, 0.35))
    finish(axis, xlabel, "recall", note=note)
    return figure


def memory_over_time(
    curves: Curves, *, ylabel: str, levels: Mapping[str, float] | None = None, note: str = ""
) -> Figure:
    """Draw memory over seconds, {label: (seconds, megabytes)}; `levels` become level lines.

    >>> run = {"training": ([0, 1], [200, 210])}
    >>> figure = memory_over_time(run, ylabel="MB", levels={"all features": 900})
    """
    figure, (axis,) = new_panels(3.4)
    for (label, (seconds, memory)), colour in zip(curves.items(), COLOURS):
        axis.plot(seconds, memory, color=colour, lw=1.5, label=label)
    for (label, memory), colour in zip((levels or {}).items(), COLOURS[::-1]):
        axis.axhline(memory, color=colour, ls="--", lw=1.5, label=label)
    axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(axis, "seconds", ylabel, note=note)
    return figure


def tasks_over_time(
    runs: Mapping[str, Sequence[tuple[str, float, float]]],
    *,
    killed: Mapping[str, tuple[str, float]] | None = None,
) -> Figure:
    """Draw runs {title: tasks (worker, start, stop)} side by side: a bar a task, a row a worker.

    Seconds count from the start of a run. `killed` {title: (worker, when)} gets a red cross.

    >>> figure = tasks_over_time({"two workers": [("a", 0.0, 1.0), ("b", 0.2, 0.9)]})
    """
    killed = killed or {}
    most = max(len({worker for worker, *_ in tasks}) for tasks in runs.values())
    figure, axes = new_panels(1.2 + 0.35 * most, len(runs), sharex=True)
    for axis, (title, tasks) in zip(axes, runs.items()):
        workers = sorted({worker for worker, *_ in tasks})
        for worker, start, stop in tasks:
            bar = {"height": 0.55, "color": BLUE, "alpha": 0.55, "edgecolor": BLUE}
            axis.barh(workers.index(worker), stop - start, left=start, **bar)
        if title in killed:
            worker, when = killed[title]
            if worker in workers:
                axis.plot(when, workers.index(worker), "x", color=RED, ms=11, mew=3)
            axis.axvline(when, color=RED, lw=1, ls=":")
        name_rows(axis, [f"worker {number}" for number in range(1, len(workers) + 1)])
        finish(axis, "seconds", title=title, grid="x")
    return figure


def needs(panels: Mapping[str, Mapping[str, float]], *, note: str = "") -> Figure:
    """Draw {title: {label: value}} side by side: level bars on logarithmic axes, with numbers.

    >>> len(needs({"memory, GB": {"codes": 0.8, "features": 1600}}).axes)
    1
    """
    rows = list(next(iter(panels.values())))
    figure, axes = new_panels(1.1 + 0.4 * len(rows), len(panels), note, sharey=True)
    for axis, (title, values) in zip(axes, panels.items()):
        numbers = np.array([values[row] for row in rows], float)
        least, most = numbers[numbers > 0].min(), numbers.max()
        drawn = axis.barh(range(len(rows)), numbers, color=COLOURS[: len(rows)], height=0.6)
        axis.bar_label(drawn, [f"{n:,.0f}" if n >= 10 else f"{n:.2g}" for n in numbers], padding=3)
        axis.set_xscale("log")
        # Room for the numbers: half of the axis, which is logarithmic.
        span = max(np.log10(most / least), 1)
        axis.set_xlim(least / 10, most * 10 ** (0.6 * (span + 1)))
        axis.xaxis.set_minor_locator(NullLocator())
        finish(axis, "", title=title, grid="x")
        axis.tick_params(labelbottom=False)
    name_rows(axes[0], rows)
    return figure
