"""Videos as film strips: what a method sees of them, guesses, finds and clusters.

T frames per video, V views, R results, K bits; pictures are (T, h, w) or (T, h, w, 3) uint8. Right
and wrong are told apart by a sign as well as by colour.
"""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from vidhash_lab.plots.style import BLUE, COLOURS, GREY, RED, WIDTH, new_figure


def film_strip(frames, title=""):
    """Draw the frames of one video (T, h, w) side by side."""
    figure, (axis,) = _strips(1)
    draw_strip(axis, frames)
    axis.set_title(title, fontsize=11, loc="left")
    return figure


def masked_views(frames, masked):
    """Draw a video (T, h, w) above what each view sees of it; `masked` (V, T) is True = hidden."""
    figure, axes = _strips(1 + len(masked))
    draw_strip(axes[0], frames)
    label_strip(axes[0], "the video")
    for number, (axis, hidden) in enumerate(zip(axes[1:], np.asarray(masked)), 1):
        draw_strip(axis, _hide(frames, hidden))
        label_strip(axis, f"view {number}\n{(~hidden).sum()} of {len(hidden)}")
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
        draw_strip(axis, row)
        label_strip(axis, label)
    return figure


def query_results(query, results, distances, relevant, bits):
    """Draw a query's film strip above its results, nearest first, right and wrong ones marked.

    query (T, h, w), results (R, T, h, w), distances (R,) in bits of K, relevant (R,) bool.
    """
    figure, axes = _strips(1 + len(results))
    draw_strip(axes[0], query, frame=GREY)
    label_strip(axes[0], "query")
    for axis, result, distance, right in zip(axes[1:], results, distances, relevant):
        colour = BLUE if right else RED
        draw_strip(axis, result, frame=colour)
        label_strip(axis, f"{'✓' if right else '✗'}  {distance} / {bits}", colour)
    return figure


def film_strips(videos, labels, colours=None):
    """Draw several videos (R, T, h, w) one below the other, each with its label."""
    figure, axes = _strips(len(videos))
    for axis, frames, label, colour in zip(axes, videos, labels, colours or ["black"] * len(axes)):
        draw_strip(axis, frames, frame=colour if colours else None)
        label_strip(axis, label, colour)
    return figure


def scenes(frames, rows):
    """Draw a video (T, h, w) above bars that colour its frames by scene, {label: (T,) numbers}."""
    T = len(frames)
    figure = new_figure(0.6 + 0.22 * len(rows))
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.02)
    heights = [WIDTH / (1.2 * T)] + [0.2] * len(rows)
    strip, *bars = figure.subplots(1 + len(rows), height_ratios=heights)
    draw_strip(strip, frames, extent=(0, T, 0, 1), aspect="auto")
    palette = np.array([to_rgb(colour) for colour in COLOURS])
    for axis, (label, numbers) in zip(bars, rows.items()):
        colours = palette[np.asarray(numbers) % len(palette)]
        axis.imshow(colours[None], extent=(0, T, 0, 1), aspect="auto", interpolation="nearest")
        axis.set_axis_off()
        label_strip(axis, label)
    return figure


def gates(frames, openings):
    """Draw how far gates open, {name: (T, H)} from 0 to 1, over time below a film strip (T, h, w).

    Each map's channels are sorted by their mean, and share one colour scale with the others.
    """
    count, T = len(openings), len(frames)
    figure = new_figure(0.5 + 1.55 * count)
    heights = [WIDTH / (1.2 * T)] + [1.4] * count
    strip, *maps = figure.subplots(1 + count, height_ratios=heights, sharex=True)
    draw_strip(strip, frames, extent=(0, T, 0, 1), aspect="auto")
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


def _strips(count):
    """Return a figure with `count` rows for film strips, one below the other."""
    figure = new_figure(0.42 * count + 0.25)
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0.02)
    return figure, figure.subplots(count, squeeze=False)[:, 0]


def draw_strip(axis, frames, frame=None, **placing):
    """Draw frames (T, h, w) side by side on an axis, in a box of the colour `frame`."""
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


def label_strip(axis, text, colour="black"):
    """Write a label to the left of a film strip."""
    axis.text(-0.012, 0.5, text, transform=axis.transAxes, ha="right", va="center", color=colour)


def _hide(frames, hidden):
    """Paint the frames where `hidden` (T,) is True in one light grey."""
    frames = np.array(frames)
    frames[np.asarray(hidden)] = 215
    return frames
