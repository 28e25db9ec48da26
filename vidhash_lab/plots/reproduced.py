"""Published numbers against measured ones: a point a number, on the diagonal where they agree."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vidhash_lab.plots.style import COLOURS, GREY, finish, new_panels


def agreement(
    published: ArrayLike,
    ours: ArrayLike,
    bounds: ArrayLike,
    groups: Sequence[str],
    *,
    metric: str,
    note: str = "",
) -> Figure:
    """Draw ours (P,) over published (P,), bars of what ties could make (P, 2), coloured by group.

    ValueError where there is no number.

    >>> bounds = [(0.3, 0.4), (0.5, 0.6)]
    >>> figure = agreement([0.4, 0.5], [0.35, 0.55], bounds, ["ConMH", "BTH"], metric="mAP@20")
    >>> len(figure.axes)
    1
    """
    published, ours, bounds = map(np.asarray, (published, ours, bounds))
    if not len(ours):
        raise ValueError("no number was measured: there is nothing to draw")
    figure, (axis,) = new_panels(4.4, 1, note)
    for colour, group in zip(COLOURS, dict.fromkeys(groups)):
        its = np.array([each == group for each in groups])
        away = np.abs(bounds[its] - ours[its, None]).T
        axis.errorbar(
            published[its], ours[its], yerr=away, fmt="o", color=colour, lw=1, label=group
        )
    most = 1.05 * max(published.max(), bounds.max())
    axis.plot([0, most], [0, most], color=GREY, lw=1, ls=":")
    axis.set_xlim(0, 1.05 * published.max())
    axis.set_ylim(0, most)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(axis, f"{metric}, published", f"{metric}, ours, and what ties could make")
    return figure
