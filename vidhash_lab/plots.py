"""Every figure of the notebooks: takes arrays, returns a matplotlib Figure, shows nothing itself.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; right and wrong are also
told apart by a sign. Figures are drawn without pyplot, so that none is shown twice or kept alive.

T frames per video, V views, K bits; pictures are (T, h, w) or (T, h, w, 3) uint8.
"""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
WIDTH, DPI = 10, 80  # inches and dots: 800 pixels, the width of a notebook page


def film_strip(frames, title=""):
    """Draw the frames of one video (T, h, w) side by side."""
    figure, (axis,) = _strips(1)
    _draw_strip(axis, frames)
    axis.set_title(title, fontsize=11, loc="left")
    return figure


def masked_views(frames, masked):
    """Draw a video (T, h, w) above what each view sees of it; `masked` (V, T) is True = hidden."""
    figure, axes = _strips(1 + len(masked))
    _draw_strip(axes[0], frames)
    _label(axes[0], "the video")
    for number, (axis, hidden) in enumerate(zip(axes[1:], np.asarray(masked)), 1):
        _draw_strip(axis, _hide(frames, hidden))
        _label(axis, f"view {number}\n{(~hidden).sum()} of {len(hidden)}")
    return figure


def reconstruction(frames, masked, guesses):
    """Draw a video, the frames one view sees, and its guesses for the hidden ones.

    frames and guesses are (T, h, w), masked (T,) True = hidden. A guess is a feature vector, not a
    picture: pass the training frame whose features are nearest to it.
    """
    masked = np.asarray(masked)
    figure, axes = _strips(3)
    rows = (frames, _hide(frames, masked), _hide(guesses, ~masked))
    labels = ("the video", f"visible\n{(~masked).sum()} of {len(masked)}", "guessed\nfrom codes")
    for axis, row, label in zip(axes, rows, labels):
        _draw_strip(axis, row)
        _label(axis, label)
    return figure


def query_results(query, results, distances, relevant, bits):
    """Draw a query's film strip above its results, nearest first, right and wrong ones marked.

    query (T, h, w), results (R, T, h, w), distances (R,) in bits of K, relevant (R,) bool.
    """
    figure, axes = _strips(1 + len(results))
    _draw_strip(axes[0], query, frame=GREY)
    _label(axes[0], "query")
    for axis, result, distance, right in zip(axes[1:], results, distances, relevant):
        colour = BLUE if right else RED
        _draw_strip(axis, result, frame=colour)
        _label(axis, f"{'✓' if right else '✗'}  {distance} / {bits}", colour)
    return figure


def film_strips(videos, labels, colours=None):
    """Draw several videos (R, T, h, w) one below the other, each with its label."""
    figure, axes = _strips(len(videos))
    for axis, frames, label, colour in zip(axes, videos, labels, colours or ["black"] * len(axes)):
        _draw_strip(axis, frames, frame=colour if colours else None)
        _label(axis, label, colour)
    return figure


def scenes(frames, rows):
    """Draw a video (T, h, w) above bars that colour its frames by scene, {label: (T,) numbers}."""
    T = len(frames)
    figure = Figure(figsize=(WIDTH, 0.6 + 0.22 * len(rows)), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.02)
    heights = [WIDTH / (1.2 * T)] + [0.2] * len(rows)
    strip, *bars = figure.subplots(1 + len(rows), height_ratios=heights)
    _draw_strip(strip, frames, extent=(0, T, 0, 1), aspect="auto")
    palette = np.array([to_rgb(colour) for colour in COLOURS])
    for axis, (label, numbers) in zip(bars, rows.items()):
        colours = palette[np.asarray(numbers) % len(palette)]
        axis.imshow(colours[None], extent=(0, T, 0, 1), aspect="auto", interpolation="nearest")
        axis.set_axis_off()
        _label(axis, label)
    return figure


def gates(frames, openings):
    """Draw how far gates open, {name: (T, H)} from 0 to 1, over time below a film strip (T, h, w).

    Each map's channels are sorted by their mean, and share one colour scale with the others.
    """
    count, T = len(openings), len(frames)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.55 * count), dpi=DPI, layout="constrained")
    heights = [WIDTH / (1.2 * T)] + [1.4] * count
    strip, *maps = figure.subplots(1 + count, height_ratios=heights, sharex=True)
    _draw_strip(strip, frames, extent=(0, T, 0, 1), aspect="auto")
    lowest = min(each.min() for each in openings.values())
    highest = max(each.max() for each in openings.values())
    for axis, (name, opening) in zip(maps, openings.items()):
        opening = np.asarray(opening)
        order = opening.mean(0).argsort(kind="stable")
        drawn = axis.imshow(
            opening.T[order], aspect="auto", extent=(0, T, 0, len(order)), cmap="cividis",
            vmin=lowest, vmax=highest, interpolation="nearest", origin="lower",
        )  # fmt: skip
        axis.set_ylabel(f"{name}\nchannel, sorted")
        axis.set_yticks([])
    maps[-1].set_xlabel(f"frame, 0 to {T - 1}")
    figure.colorbar(drawn, ax=maps, label="opening", fraction=0.03, pad=0.01)
    return figure


def variants(*panels, note=""):
    """Draw scores of the same variants in panels (xlabel, {variant: (seeds,)}) side by side.

    Each has a scale of its own, and shows mean, deviation and every seed.
    """
    names = list(panels[0][1])
    figure = Figure(figsize=(WIDTH, 1.3 + 0.4 * len(names)), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (xlabel, scores) in zip(axes, panels):
        _draw_variants(axis, scores, xlabel)
        axis.tick_params(labelleft=axis is axes[0])
    figure.supxlabel(note, fontsize=9)
    return figure


def ablation(scores, published, *, xlabel, note="", source=""):
    """Draw variants' scores {variant: (seeds,)} beside published ones {variant: score}.

    Two panels, since two data sets have two scales: ours with mean, deviation and every seed.
    """
    figure = Figure(figsize=(WIDTH, 1.3 + 0.4 * len(scores)), dpi=DPI, layout="constrained")
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
    _tidy(theirs)
    theirs.tick_params(labelleft=False)
    return figure


def training_curves(histories):
    """Draw every loss term by epoch; `histories` is {label: History}."""
    terms = [
        name
        for name in next(iter(histories.values()))[0]
        if name not in ("epoch", "seconds", "videos_per_second")
    ]
    figure = Figure(figsize=(WIDTH, 2.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(terms), squeeze=False)[0]
    for axis, term in zip(axes, terms):
        for colour, (label, history) in zip(COLOURS, histories.items()):
            axis.plot(history.column("epoch"), history.column(term), color=colour, label=label)
        axis.set_title(term, fontsize=11)
        axis.set_xlabel("epoch")
        _tidy(axis)
    axes[0].set_ylabel("loss")
    if len(histories) > 1:
        axes[-1].legend(frameon=False)
    return figure


def sweep(values, scores, *, xlabel, ylabel, references=None, note=""):
    """Draw a score against a parameter: mean and standard deviation over seeds, and each seed.

    values (P,); scores {label: (P, seeds)}; references {label: score} become level lines;
    `note` states the protocol under the figure.
    """
    figure = Figure(figsize=(WIDTH, 4), dpi=DPI, layout="constrained")
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
    _tidy(axis)
    return figure


def codes(packed, labels=None):
    """Draw packed codes (N, K/8) as rows of bits, dark = +1; `labels` (N,) name the rows."""
    bits = np.unpackbits(packed, axis=1)
    height = 0.6 + 0.24 * len(bits)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    axis.imshow(1 - bits, cmap="gray", aspect="auto", interpolation="nearest", vmin=-0.2, vmax=1)
    axis.set_xlabel(f"bit (dark = +1), K = {bits.shape[1]}")
    axis.set_yticks(range(len(bits)), labels if labels is not None else range(len(bits)))
    axis.set_xticks(np.arange(0, bits.shape[1], 8))
    axis.tick_params(length=0)
    for edge in np.arange(0.5, len(bits) - 1):
        axis.axhline(edge, color="white", lw=1.5)
    return figure


def bars(values, *, xlabel, logarithmic=False, note=""):
    """Draw {label: value} as level bars with their numbers."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(values)), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    labels, numbers = list(values), list(values.values())
    drawn = axis.barh(labels, numbers, color=COLOURS[: len(values)], height=0.6)
    axis.bar_label(drawn, [f"{number:.3g}" for number in numbers], padding=4)
    axis.set_xlabel(xlabel + (f"\n{note}" if note else ""))
    if logarithmic:
        axis.set_xscale("log")
    axis.invert_yaxis()
    axis.margins(x=0.12)
    _tidy(axis)
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
    _tidy(axis)


def _strips(count):
    """Return a figure with `count` rows for film strips, one below the other."""
    figure = Figure(figsize=(WIDTH, 0.42 * count + 0.25), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0.02)
    return figure, figure.subplots(count, squeeze=False)[:, 0]


def _draw_strip(axis, frames, frame=None, **placing):
    frames = np.asarray(frames)
    gap = np.full_like(frames[:, :, :1], 255)
    strip = np.concatenate(list(np.concatenate([frames, gap], axis=2)), axis=1)[:, :-1]
    # Eight levels look the same at this size; sensor noise would be most of a notebook's bytes.
    strip = strip // 32 * 36
    placing = {"aspect": "equal"} | placing
    axis.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest", **placing)
    axis.set_axis_off()
    if frame is not None:
        height, width = strip.shape[:2]
        box = Rectangle((-1.5, -1.5), width + 2, height + 2, fill=False, ec=frame, lw=2.5)
        axis.add_patch(box).set_clip_on(False)


def _label(axis, text, colour="black"):
    axis.text(-0.012, 0.5, text, transform=axis.transAxes, ha="right", va="center", color=colour)


def _hide(frames, hidden):
    """Paint the frames where `hidden` (T,) is True in one light grey."""
    frames = np.array(frames)
    frames[np.asarray(hidden)] = 215
    return frames


def _tidy(axis):
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, color="#DDDDDD", lw=0.7)
    axis.set_axisbelow(True)
