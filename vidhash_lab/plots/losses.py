"""What losses want: curves of values and gradients, and points with the way that each would go."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vidhash_lab.plots.style import COLOURS, GREY, finish, line_looks, new_panels

Lines = Mapping[str, tuple[ArrayLike, ArrayLike]]  # {label: (x, y)}


def curves(
    panels: Mapping[str, Lines], *, xlabel: str, ylabel: str = "", share_y: bool = False
) -> Figure:
    """Draw panels {title: {label: (x, y)}} side by side; a label looks the same in all of them.

    >>> figure = curves({"sign": {"tanh": ([-1, 0, 1], [-0.8, 0, 0.8])}}, xlabel="x")
    >>> figure.axes[0].get_xlabel()
    'x'
    """
    figure, axes = new_panels(3.4, len(panels), sharey=share_y)
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    looks = line_looks(labels)
    for axis, (title, lines) in zip(axes, panels.items()):
        for label, (x, y) in lines.items():
            look = {"color": looks[label]["color"], "ls": looks[label]["ls"]}
            axis.plot(x, y, lw=2, label=label, **look)
        finish(axis, xlabel, ylabel if axis is axes[0] else "", title=title)
    drawn = {line.get_label(): line for axis in axes for line in axis.lines}
    if len(axes[-1].lines) == len(labels) <= 4:
        axes[-1].legend(frameon=False, fontsize=9)
    else:
        named = [drawn[label] for label in labels]
        figure.legend(handles=named, frameon=False, fontsize=8, loc="outside right center")
    return figure


def pulled_points(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike]],
    groups: Sequence[int],
    *,
    names: Sequence[str] = (),
    circle: bool = False,
    note: str = "",
) -> Figure:
    """Draw points (P, 2) of `groups` (P,) with arrows (P, 2), {title: (points, arrows)}.

    Arrows are scaled alike within a panel, the longest to a third of its width. `names` (P,) stand
    beside the points; `circle` draws the unit circle, on which normalised codes lie.

    >>> points, arrows = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 0.5], [0.5, 0.0]])
    >>> len(pulled_points({"contrastive": (points, arrows)}, [0, 1], circle=True).axes)
    1
    """
    figure, axes = new_panels(4.0, len(panels), note)
    for axis, (title, (points, arrows)) in zip(axes, panels.items()):
        points, arrows = np.asarray(points), np.asarray(arrows)
        if circle:
            turn = np.linspace(0, 2 * np.pi, 200)
            axis.plot(np.cos(turn), np.sin(turn), color=GREY, lw=0.8)
        span = max(np.ptp(points, axis=0).max(), 1e-9)
        longest = max(np.linalg.norm(arrows, axis=1).max(), 1e-9)
        colours = [COLOURS[group % len(COLOURS)] for group in groups]
        axis.quiver(
            *points.T, *(arrows * span / 3 / longest).T, color=colours, angles="xy",
            scale_units="xy", scale=1, width=0.007,
        )  # fmt: skip
        axis.scatter(*points.T, s=60, color=colours, zorder=3)
        for name, point in zip(names, points):
            axis.annotate(name, point, (6, 6), textcoords="offset points", fontsize=9)
        axis.set_aspect("equal")
        axis.margins(0.35)
        finish(axis, title=title)
    return figure
