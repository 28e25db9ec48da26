"""A network as boxes, with the shapes that its own layers gave, in the order of their calls."""

from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import nn

from vidhash_lab.plots.style import GREY, method_colour, new_figure

Step = tuple[str, str]  # what a box says: its words, and a shape or a line below


def traced(model: nn.Module, run: Callable[[], object], parts: Mapping[str, str]) -> list[Step]:
    """Call `run` and note what parts of the model give -> (words, shape) in the order of calls.

    `parts` {module name: words}. A part that is called again in the same run is noted once.
    ValueError for a part that `run` does not call.

    >>> layers = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> import torch
    >>> traced(layers, lambda: layers(torch.zeros(5, 4)), {"0": "embed", "1": "to bits"})
    [('embed', '(5, 3)'), ('to bits', '(5, 2)')]
    """
    steps, hooks = {}, []

    def note(name):
        def hook(module, inputs, output):
            steps.setdefault(name, f"{tuple(output.shape)}")

        return hook

    try:
        hooks = [model.get_submodule(n).register_forward_hook(note(n)) for n in parts]
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [name for name in parts if name not in steps]:
        raise ValueError(f"{type(model).__name__} did not call {', '.join(missing)} in this run")
    return [(parts[name], shape) for name, shape in steps.items()]


def architectures(
    columns: Mapping[str, Sequence[Step]], losses: Mapping[str, Sequence[str]]
) -> Figure:
    """Draw {method: steps from top to bottom} side by side, the losses below each.

    >>> steps = [("embed", "(5, 3)"), ("to bits", "(5, 2)")]
    >>> figure = architectures({"Mine": steps}, losses={"Mine": ["contrastive"]})
    >>> len(figure.axes)
    1
    """
    tallest = max(map(len, columns.values()))
    figure = new_figure(0.62 * (tallest + 1) + 0.6)
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, (method, steps) in zip(axes, columns.items()):
        colour = method_colour(method)
        axis.set_axis_off()
        axis.set(xlim=(0, 1), ylim=(-tallest - 0.6, 0.5))
        axis.set_title(method, fontsize=12, color=colour)
        for place, (words, shape) in enumerate(steps):
            _box(axis, -place, f"{words}\n{shape}", colour)
            if place:
                arrow = {"arrowstyle": "->", "color": GREY}
                axis.annotate("", (0.5, -place + 0.36), (0.5, -place + 0.64), arrowprops=arrow)
        axis.text(
            0.5, -len(steps) + 0.15, "losses: " + ",\n".join(losses[method]), ha="center",
            va="top", fontsize=9,
        )  # fmt: skip
    return figure


def _box(axis, y, text, colour):
    look = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour}
    axis.text(0.5, y, text, ha="center", va="center", fontsize=9, bbox=look, linespacing=1.3)
