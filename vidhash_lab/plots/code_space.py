"""The space of codes: bits, maps, distances.

N videos, K bits; the panels of several methods stand side by side.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.spatial import KDTree

from vidhash_lab.plots.style import (
    COLOURS,
    GREY,
    INK,
    finish,
    method_colour,
    new_figure,
    new_panels,
)
from vidhash_lab.retrieval.code_space import BitUse

MARKERS = "osD^vP"  # groups are told apart by shape as well as by colour


def code_rows(packed: np.ndarray, labels: Sequence[str] | None = None) -> Figure:
    """Draw packed codes (N, K/8) as rows of bits, dark = +1; `labels` (N,) name the rows.

    >>> len(code_rows(np.array([[240], [15]], np.uint8), ["calm", "wild"]).axes)
    1
    """
    bits = np.unpackbits(packed, axis=1)
    figure, (axis,) = new_panels(0.6 + 0.24 * len(bits))
    axis.imshow(1 - bits, cmap="gray", aspect="auto", interpolation="nearest", vmin=-0.2, vmax=1)
    axis.set_xlabel(f"bit (dark = +1), K = {bits.shape[1]}")
    axis.set_yticks(range(len(bits)), labels if labels is not None else range(len(bits)))
    axis.set_xticks(np.arange(0, bits.shape[1], 8))
    axis.tick_params(length=0)
    for edge in np.arange(0.5, len(bits) - 1):
        axis.axhline(edge, color="white", lw=1.5)
    return figure


def code_maps(
    maps: Mapping[str, np.ndarray],
    groups: Mapping[str, np.ndarray],
    notes: Mapping[str, str] | None = None,
    columns: int = 2,
) -> Figure:
    """Draw maps of the same videos side by side, {title: (N, 2)}, some groups in colour.

    `groups` {name: (N,) bool} have a colour, a shape and a name each; others are grey. `notes`
    {title: text} stands under a title. ValueError for more groups than can be told apart.

    >>> places = np.random.default_rng(0).random((20, 2))
    >>> len(code_maps({"ITQ": places, "LSH": places}, {"first": np.arange(20) < 5}).axes)
    2
    """
    if len(groups) > len(MARKERS):
        raise ValueError(f"{len(groups)} groups; {len(MARKERS)} can be told apart, choose some")
    rows = -(-len(maps) // columns)
    figure = new_figure(0.3 + 4.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(maps) :]:
        axis.set_axis_off()
    coloured = np.any(list(groups.values()), axis=0)
    for axis, (title, points) in zip(axes, maps.items()):
        axis.scatter(*points[~coloured].T, s=3, color="#C8C8C8", lw=0)
        names = []
        for (name, members), colour, marker in zip(groups.items(), COLOURS, MARKERS):
            own, look = points[members], {"color": colour, "marker": marker, "label": name}
            axis.scatter(*own.T, s=13, lw=0.3, edgecolors="white", **look)
            if len(own):
                names.append((name, _densest(own), colour))
        _name_groups(axis, names, np.ptp(points, axis=0))
        axis.set_title(f"{title}\n{notes[title]}" if notes else title, fontsize=11)
        axis.set(xticks=[], yticks=[])
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(groups), frameon=False)
    return figure


def _densest(points):
    """Return the point (2,) whose tenth nearest (or last) among (n, 2) is nearest."""
    distances, _ = KDTree(points).query(points, k=[min(10, len(points))])
    return points[distances[:, 0].argmin()]


def _name_groups(axis, names, extent):
    """Write (name, place, colour) at their places, but none over another; `extent` (2,) of all."""
    taken = []
    for name, place, colour in names:
        if not any((np.abs(place - other) < extent * (0.13, 0.06)).all() for other in taken):
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": colour, "alpha": 0.9}
            above = {"xytext": (0, 9), "textcoords": "offset points"}  # the crowd stays in view
            axis.annotate(name, place, ha="center", fontsize=9, bbox=box, **above)
            taken.append(place)


def bit_balance(uses: Mapping[str, BitUse]) -> Figure:
    """Draw balance and correlation of the bits of several methods, {title: BitUse}, in columns.

    >>> from vidhash_lab.retrieval.code_space import bit_use
    >>> codes = np.random.default_rng(0).integers(0, 256, (50, 2), np.uint8)
    >>> figure = bit_balance({"random": bit_use(codes)})
    """
    figure = new_figure(5.2)
    above, below = figure.subplots(2, len(uses), squeeze=False, height_ratios=[1, 1.7])
    for column, (title, use) in enumerate(uses.items()):
        K = len(use.balance)
        bars, image = above[column], below[column]
        bars.bar(range(K), np.sort(use.balance), width=1.0, color=method_colour(title))
        bars.set_ylim(-1, 1)
        finish(bars, title=title)
        drawn = image.imshow(  # eight steps: they can be read off, and the picture stays small
            np.abs(use.correlation), vmin=0, vmax=1, cmap=colormaps["cividis"].resampled(8),
            aspect="auto", interpolation="nearest",
        )  # fmt: skip
        image.set_xlabel(f"bit, K = {K}")
        for axis in (bars, image):
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.tick_params(labelleft=column == 0)
    above[0].set_ylabel("mean of the bit,\nsorted")
    below[0].set_ylabel("bit")
    figure.colorbar(drawn, ax=below, label="|correlation|", fraction=0.03, pad=0.01)
    return figure


def distance_histograms(
    counts: Mapping[str, tuple[np.ndarray, np.ndarray]], note: str = ""
) -> Figure:
    """Draw {title: (together (K+1,), others (K+1,))} as shares of the pairs of each, in columns.

    A kind without a single pair is left out; the lines are the means.

    >>> figure = distance_histograms({"ITQ": (np.array([4, 2, 0]), np.array([1, 2, 5]))})
    >>> figure.axes[0].get_title()
    'ITQ'
    """
    figure, axes = new_panels(3.4, len(counts), sharex=True, sharey=True)
    for axis, (title, kinds) in zip(axes, counts.items()):
        looks = (method_colour(title), "", "share a category"), (GREY, "///", "all others")
        for kind, (colour, hatch, label) in zip(kinds, looks):
            if not kind.sum():
                continue
            share, look = kind / kind.sum(), {"color": colour, "hatch": hatch, "label": label}
            axis.stairs(share, np.arange(len(kind) + 1) - 0.5, fill=True, alpha=0.5, **look)
            mean = (kind * np.arange(len(kind))).sum() / kind.sum()
            axis.axvline(mean, color=colour, lw=1.5, ls="--" if hatch else "-")
        ylabel = "share of the pairs" if axis is axes[0] else ""
        finish(axis, "Hamming distance", ylabel, title=title)
    named = axes[0].get_legend_handles_labels()
    figure.legend(*named, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    figure.supxlabel(note, fontsize=9, color=GREY)
    return figure


def hash_centres(
    centres: Mapping[str, np.ndarray],
    similarity: np.ndarray,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Draw kinds of hash centres {title: (C, K) of -1 and +1} side by side, in two rows.

    Above how far any two of them lie apart, below their inner product over the similarity (C, C)
    of their clusters. `notes` {title: text} stands under a title.

    >>> centres = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [-1, -1, 1, 1]])
    >>> len(hash_centres({"Hadamard": centres}, np.eye(3)).axes)
    2
    """
    pairs = np.triu_indices(len(similarity), 1)
    figure = new_figure(5.4)
    above, below = figure.subplots(2, len(centres), squeeze=False, sharex="row", sharey="row")
    for column, (title, codes) in enumerate(centres.items()):
        K = codes.shape[1]
        products = (codes.astype(np.float64) @ codes.T)[pairs]
        counts = np.bincount(((K - products) / 2).astype(int), minlength=K + 1)
        bars, cloud = above[column], below[column]
        bars.stairs(counts / counts.sum(), np.arange(K + 2) - 0.5, fill=True, color=INK)
        cloud.scatter(similarity[pairs], products, s=3, lw=0, alpha=0.3, color=INK)
        first = column == 0
        finish(
            bars, "Hamming distance", "share of the pairs" if first else "",
            title=f"{title}\n{notes[title]}" if notes else title,
        )  # fmt: skip
        finish(cloud, "similarity of the clusters", "inner product" if first else "")
    return figure
