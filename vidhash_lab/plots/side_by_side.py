"""One query under several methods, side by side.

R results, T frames per video; pictures are (T, h, w) or (T, h, w, 3) uint8.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vidhash_lab.plots.strips import draw_results
from vidhash_lab.plots.style import new_figure


def rankings(
    query: np.ndarray,
    columns: Mapping[str, tuple[np.ndarray, Sequence[int], Sequence[bool | None]]],
) -> Figure:
    """Draw a query's strip and, below, what each method finds.

    `columns` {method: (results (R, T, h, w), distances (R,), relevant (R,))}.

    >>> films = np.zeros((2, 5, 8, 8))
    >>> figure = rankings(films[0], {"ITQ": (films, [0, 3], [True, False])})
    """
    rows = 1 + max(len(results) for results, _, _ in columns.values())
    figure = new_figure(0.9 + 0.42 * rows)
    parts = np.atleast_1d(figure.subfigures(1, len(columns)))
    for part, (method, (results, distances, relevant)) in zip(parts, columns.items()):
        right = sum(bool(each) for each in relevant)
        judged = f": {right} of {len(results)} right" if None not in relevant else ""
        part.suptitle(f"{method}{judged}", fontsize=11)
        strips = part.subplots(rows, 1)
        for strip in strips:
            strip.set_axis_off()
        draw_results(strips, query, results, distances, relevant)
    return figure
