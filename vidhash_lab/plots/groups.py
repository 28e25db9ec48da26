"""How videos and frames are grouped: messages that choose exemplars, anchors that are shared.

P points; N videos, A anchors, R ranks: the nearest anchors of a video that are kept.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vidhash_lab.plots.style import BLUE, GREY, INK, ORANGE, finish, name_rows, new_figure

Messages = tuple[ArrayLike, ArrayLike]  # responsibilities and availabilities, (P, P) each


def messages(points: ArrayLike, rounds: Mapping[str, Messages]) -> Figure:
    """Draw points (P, 2) and what they tell each other in some rounds of affinity propagation.

    `rounds` are {title: (responsibilities, availabilities)}, row i the point, column k who would
    stand for it. Above, a line leads from each point to the k of its greatest sum of both; an
    exemplar, whose own sum is above 0, is orange. ValueError where there is no round.

    >>> sent = np.array([[1.0, -2.0], [-2.0, 1.0]]), np.zeros((2, 2))
    >>> len(messages([[0, 0], [1, 0]], {"round 1": sent, "round 2": sent}).axes)
    6
    """
    if not rounds:
        raise ValueError("no round of messages: there is nothing to draw")
    figure = new_figure(5.9)
    axes = figure.subplots(3, len(rounds), squeeze=False, height_ratios=[1, 1.35, 1.35])
    span = max(np.abs(each).max() for pair in rounds.values() for each in pair)
    for (title, pair), column in zip(rounds.items(), axes.T):
        responsibilities, availabilities = (np.asarray(each, float) for each in pair)
        _choices(column[0], np.asarray(points), responsibilities + availabilities)
        column[0].set_title(title, fontsize=11)
        for axis, sent in zip(column[1:], (responsibilities, availabilities)):
            _numbers(axis, sent, max(span, 1e-9))
    for axis, name in zip(axes[:, 0], ("", "responsibility", "availability")):
        axis.set_ylabel(name and f"{name}\npoint")
    axes[-1, 0].set_xlabel("candidate")
    return figure


def _choices(axis, points, sums):
    """Draw points (P, 2), numbered, each with a line to the one it prefers by sums (P, P)."""
    for point, candidate in zip(points, points[sums.argmax(1)]):
        axis.plot(*np.transpose([point, candidate]), color=GREY, lw=1.2, zorder=1)
    colours = np.where(sums.diagonal() > 0, ORANGE, "white")
    axis.scatter(*points.T, s=150, c=colours, edgecolors=INK, zorder=2)
    for number, point in enumerate(points):
        axis.text(*point, number, fontsize=8, ha="center", va="center", zorder=3)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.margins(0.15, 0.3)


def _numbers(axis, values, span):
    """Draw a matrix as colours from -span to span, its numbers written in the cells."""
    axis.imshow(values, cmap="RdBu", vmin=-span, vmax=span)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 * span else "black"
        text = f"{value:.0f}".replace("-0", "0")
        axis.text(column, row, text, fontsize=7, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(values)))
    axis.set_yticks(range(len(values)))
    axis.tick_params(length=0, labelsize=8)


def structures(
    anchors: ArrayLike,
    videos: ArrayLike,
    nearest: ArrayLike,
    labels: Sequence[str],
    colours: Sequence[str],
    four: Sequence[int],
) -> Figure:
    """Draw what MCMSH preserves of videos (N,) among anchors (A,), both places on one line.

    From above: *cluster*, each video's way to its nearest anchor; *similarity*, the anchors of
    `nearest` (N, R), nearest first, that each keeps, with the video's label and colour (N,);
    *quadruplet*, the three distances among the videos `four`: h, s, d1 and d2.

    >>> nearest = [[0, 1], [2, 1]]
    >>> figure = structures([0, 1, 2], [0.2, 1.9], nearest, ["h", "d"], ["blue"] * 2, [0, 0, 1, 1])
    """
    anchors, videos, nearest = (np.asarray(each) for each in (anchors, videos, nearest))
    figure = new_figure(1.9 + 0.3 * len(videos) + 1.2)
    heights = [1, 0.2 + 0.3 * len(videos), 1.2]
    cluster, similarity, quadruplet = figure.subplots(3, sharex=True, height_ratios=heights)
    for video, goal, colour in zip(videos, anchors[nearest[:, 0]], colours):
        arrow = {"arrowstyle": "->", "color": colour, "lw": 2}
        cluster.annotate("", (goal, 0), (video, 1), arrowprops=arrow)
    cluster.scatter(videos, np.ones(len(videos)), color=colours, zorder=3)
    cluster.plot(anchors, np.zeros(len(anchors)), "|", color=INK, ms=12)
    finish(cluster, title="cluster: to the nearest anchor", grid="x")
    cluster.set_ylim(-0.4, 1.4)
    cluster.set_yticks([0, 1], ["anchors", "videos"])
    _ranks(similarity, anchors[nearest], videos, labels, colours)
    _distances(quadruplet, *videos[list(four)])
    quadruplet.set_xlabel("place on the line")
    quadruplet.set_xticks(anchors)
    return figure


def _ranks(axis, places, videos, labels, colours):
    """Draw a row a video: its anchors' places (N, R) as boxes with their ranks, paler from 4 on."""
    for row, (kept, video, colour) in enumerate(zip(places, videos, colours)):
        for rank, place in enumerate(kept, 1):
            alpha = {4: 0.35, 5: 0.15}.get(rank, 0.8)
            axis.barh(row, 0.9, left=place - 0.45, height=0.8, color=colour, alpha=alpha)
            axis.text(place, row, rank, fontsize=8, ha="center", va="center")
        axis.plot(video, row, "|", color=INK, ms=12)
    finish(axis, title="similarity: who shares an anchor of which rank with the first", grid="x")
    name_rows(axis, labels)


def _distances(axis, h, s, d1, d2):
    """Draw the distances that a quadruplet compares as bars from place to place."""
    names = ("h to s", "h to d1", "d1 to d2")
    for row, (one, other) in enumerate(((h, s), (h, d1), (d1, d2))):
        colour = BLUE if row == 0 else ORANGE
        axis.barh(row, abs(one - other), left=min(one, other), height=0.5, color=colour)
        axis.text(max(one, other) + 0.1, row, f"{abs(one - other):.1f}", va="center", fontsize=9)
    finish(axis, title="quadruplet: the first is to be the shortest, by a margin", grid="x")
    name_rows(axis, names)
