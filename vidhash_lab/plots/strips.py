"""Videos as film strips: what a method sees of them, guesses, finds and clusters.

T frames per video, V views, R results, K bits; pictures are (T, h, w) or (T, h, w, 3) uint8.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vidhash_lab.plots.style import BLUE, COLOURS, GREY, RED, WIDTH, finish, new_figure


def film_strip(frames: np.ndarray, title: str = "") -> Figure:
    """Draw the frames of one video (T, h, w) side by side.

    >>> len(film_strip(np.zeros((5, 8, 8)), "A film of five frames").axes)
    1
    """
    figure, (axis,) = _strips(1)
    _draw_strip(axis, frames)
    axis.set_title(title, fontsize=11, loc="left")
    return figure


def masked_views(
    frames: np.ndarray, masked: np.ndarray, names: Sequence[str] | None = None
) -> Figure:
    """Draw a video (T, h, w) above what each view sees of it; `masked` (V, T) is True = hidden.

    `names` (V,) are those of the views; None numbers them.

    >>> hidden = np.array([[True, False, True, False], [False, True, False, True]])
    >>> figure = masked_views(np.zeros((4, 8, 8)), hidden)
    """
    masked = np.asarray(masked)
    rows = [frames, *(_hide(frames, hidden) for hidden in masked)]
    names = names or [f"view {v}" for v in range(1, 1 + len(masked))]
    seen = [f"{n}\n{(~hidden).sum()} of {len(hidden)}" for n, hidden in zip(names, masked)]
    return film_strips(rows, ["the video", *seen])


def reconstruction(frames: np.ndarray, masked: np.ndarray, guesses: np.ndarray) -> Figure:
    """Draw a video (T, h, w), the frames one view sees, and its guesses for the hidden ones.

    `masked` (T,) is True = hidden; guesses (T, h, w) are training frames of nearest features.

    >>> hidden = np.array([True, False, True, False])
    >>> figure = reconstruction(np.zeros((4, 8, 8)), hidden, np.ones((4, 8, 8)))
    """
    masked = np.asarray(masked)
    rows = [frames, _hide(frames, masked), _hide(guesses, ~masked)]
    visible = f"visible\n{(~masked).sum()} of {len(masked)}"
    return film_strips(rows, ["the video", visible, "guessed\nfrom codes"])


def query_results(
    query: np.ndarray,
    results: np.ndarray,
    distances: Sequence[int],
    relevant: Sequence[bool] | None,
    bits: int,
) -> Figure:
    """Draw a query's film strip (T, h, w) above its results (R, T, h, w), nearest first.

    distances (R,) are in bits of K; relevant (R,) bool marks right and wrong ones, None nothing.

    >>> films = np.zeros((3, 5, 8, 8))
    >>> figure = query_results(films[0], films[1:], [2, 7], [True, False], bits=64)
    """
    figure, axes = _strips(1 + len(results))
    relevant = [None] * len(results) if relevant is None else relevant
    draw_results(axes, query, results, [f"{d} / {bits}" for d in distances], relevant)
    return figure


def film_strips(
    videos: Sequence[np.ndarray], labels: Sequence[str], colours: Sequence[str] | None = None
) -> Figure:
    """Draw videos (R, T, h, w) one below the other, labels, and boxes in `colours` (R,).

    >>> figure = film_strips(np.zeros((2, 5, 8, 8)), ["calm", "wild"])
    """
    figure, axes = _strips(len(videos))
    for axis, frames, label, colour in zip(axes, videos, labels, colours or ["black"] * len(axes)):
        _draw_strip(axis, frames, frame=colour if colours else None)
        _label(axis, label, colour)
    return figure


def scenes(frames: np.ndarray, rows: Mapping[str, Sequence[int]]) -> Figure:
    """Draw a video (T, h, w) above bars that colour its frames by scene, {label: (T,) numbers}.

    >>> figure = scenes(np.zeros((4, 8, 8)), {"found": [0, 0, 1, 1]})
    """
    figure = new_figure(0.6 + 0.22 * len(rows))
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.02)
    bars = _below_strip(figure, frames, [0.2] * len(rows))
    palette = np.array([to_rgb(colour) for colour in COLOURS])
    for axis, (label, numbers) in zip(bars, rows.items()):
        colours = palette[None, np.asarray(numbers) % len(palette)]
        axis.imshow(colours, extent=(0, len(frames), 0, 1), aspect="auto", interpolation="nearest")
        axis.set_axis_off()
        _label(axis, label)
    return figure


def cuts(
    frames: np.ndarray,
    frame_times: np.ndarray,
    times: np.ndarray,
    changes: np.ndarray,
    cuts: np.ndarray,
) -> Figure:
    """Draw how much a film's frames change (F,) at `times` (F,) seconds, and where it cuts.

    Above is the strip of the frames (T, h, w) that were taken of it, at `frame_times` (T,), which
    are the dots below; a dashed line is a cut.

    >>> times, changes = np.arange(6) / 2, np.array([0, 1, 1, 9, 1, 1])
    >>> figure = cuts(np.zeros((2, 8, 8)), times[[1, 4]], times, changes, times[[3]])
    """
    figure = new_figure(2.6)
    strip, axis = figure.subplots(2, height_ratios=[WIDTH / len(frames), 1.6])
    _draw_strip(strip, frames)
    axis.plot(times, changes, color=GREY, lw=1)
    for cut in cuts:
        axis.axvline(cut, color=RED, ls="--", lw=1.2)
    axis.plot(frame_times, np.zeros(len(frame_times)), "o", color=BLUE, ms=5, clip_on=False)
    axis.set_xlim(0, max(times[-1], frame_times[-1]))
    axis.set_ylim(bottom=0)
    finish(axis, "seconds", "change of a pixel, of 255")
    axis.set_title(f"{len(cuts)} cuts (dashed), {len(frames)} frames taken (dots)", fontsize=11)
    return figure


def gates(frames: np.ndarray, openings: Mapping[str, np.ndarray]) -> Figure:
    """Draw openings of gates {name: (T, H)} over time below a strip (T, h, w), channels sorted.

    >>> figure = gates(np.zeros((4, 8, 8)), {"long range": np.random.default_rng(0).random((4, 6))})
    """
    T = len(frames)
    figure = new_figure(0.5 + 1.55 * len(openings))
    maps = _below_strip(figure, frames, [1.4] * len(openings), sharex=True)
    span = np.concatenate([opening.ravel() for opening in openings.values()])
    for axis, (name, opening) in zip(maps, openings.items()):
        order = opening.mean(0).argsort(kind="stable")
        drawn = axis.imshow(
            opening.T[order], aspect="auto", extent=(0, T, 0, len(order)), cmap="cividis",
            vmin=span.min(), vmax=span.max(), interpolation="nearest", origin="lower",
        )  # fmt: skip
        axis.set_ylabel(f"{name}\nchannel, sorted")
        axis.set_yticks([])
    maps[-1].set_xlabel(f"frame, 0 to {T - 1}")
    figure.colorbar(drawn, ax=maps, label="opening", fraction=0.03, pad=0.01)
    return figure


def gate_templates(openings: Mapping[str, np.ndarray], video: int) -> Figure:
    """Draw what gates {name: (B, T, H)} open for all videos, and for one of them besides.

    On the left the template, the mean over B; on the right what this video's openings add to it
    or take away. Channels are sorted by the template. ValueError where there is no such video.

    >>> openings = {"long range": np.random.default_rng(0).random((5, 8, 6))}  # (B, T, H)
    >>> gate_templates(openings, video=2).axes[1].get_title()
    'this video minus the template'
    """
    templates = {name: each.mean(0) for name, each in openings.items()}
    if not all(0 <= video < len(each) for each in openings.values()):
        raise ValueError(f"there is no video {video} among {[len(e) for e in openings.values()]}")
    besides = {name: each[video] - templates[name] for name, each in openings.items()}
    figure = new_figure(0.6 + 1.45 * len(openings))
    axes = figure.subplots(len(openings), 2, squeeze=False, sharex=True)
    most = max(np.abs(each).max() for each in besides.values()) or 1.0
    span = np.concatenate([each.ravel() for each in templates.values()])
    looks = ((templates, "cividis", span.min(), span.max()), (besides, "RdBu", -most, most))
    titles = ("template: the mean of all videos", "this video minus the template")
    for column, (maps, colours, low, high), title in zip(axes.T, looks, titles):
        for axis, (name, values) in zip(column, maps.items()):
            order = templates[name].mean(0).argsort(kind="stable")
            T, H = values.shape
            drawn = axis.imshow(
                values.T[order], aspect="auto", extent=(0, T, 0, H), cmap=colours,
                vmin=low, vmax=high, interpolation="nearest", origin="lower",
            )  # fmt: skip
            axis.set_yticks([])
        column[0].set_title(title, fontsize=11)
        column[-1].set_xlabel(f"frame, 0 to {T - 1}")
        figure.colorbar(drawn, ax=list(column), fraction=0.05, pad=0.02)
    for axis, name in zip(axes[:, 0], openings):
        axis.set_ylabel(f"{name}\nchannel, sorted")
    return figure


def _strips(count):
    figure = new_figure(0.42 * count + 0.25)
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0.02)
    return figure, figure.subplots(count, squeeze=False)[:, 0]


def _below_strip(figure, frames, heights, **sharing):
    """Draw a strip on the width of a figure -> axes of the `heights` below it, in its time."""
    T = len(frames)
    ratios = [WIDTH / (1.2 * T), *heights]
    strip, *axes = figure.subplots(len(ratios), height_ratios=ratios, **sharing)
    _draw_strip(strip, frames, extent=(0, T, 0, 1), aspect="auto")
    return axes


def _draw_strip(axis, frames, frame=None, **placing):
    """Draw frames (T, h, w) side by side on an axis, in a box of the colour `frame`."""
    frames = np.asarray(frames)
    gap = np.full_like(frames[:, :, :1], 255)
    strip = np.hstack(np.concatenate([frames, gap], axis=2))[:, :-1]
    # Eight levels look the same at this size; sensor noise would be most of a notebook's bytes.
    strip = strip // 32 * 36
    axis.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest", **placing)
    axis.set_axis_off()
    if frame is not None:
        height, width = strip.shape[:2]
        box = Rectangle((-1.5, -1.5), width + 2, height + 2, fill=False, ec=frame, lw=2.5)
        axis.add_patch(box).set_clip_on(False)


def draw_results(axes, query, results, texts, relevant):
    """Draw a query's strip, then its results: the text behind ✓, ✗ or, for None, no sign.

    >>> films, axes = np.zeros((3, 5, 8, 8)), new_figure(2).subplots(3, 1)
    >>> draw_results(axes, films[0], films[1:], ["2 bits", "7 bits"], [True, False])
    """
    _draw_strip(axes[0], query, frame=GREY)
    _label(axes[0], "query")
    for axis, frames, text, is_right in zip(axes[1:], results, texts, relevant):
        sign, colour = {True: ("✓  ", BLUE), False: ("✗  ", RED), None: ("", GREY)}[is_right]
        _draw_strip(axis, frames, frame=colour)
        _label(axis, f"{sign}{text}", colour)


def _label(axis, text, colour="black"):
    axis.text(-0.012, 0.5, text, transform=axis.transAxes, ha="right", va="center", color=colour)


def _hide(frames, hidden):
    frames = np.array(frames)
    frames[np.asarray(hidden)] = 215
    return frames
