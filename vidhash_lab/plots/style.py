"""One look for all figures: page width, and Okabe and Ito's colours, for colour-blind readers too.

Figures are drawn without pyplot: none is shown twice, and no setting of the reader's is touched.
"""

import re
from collections.abc import Iterable

from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
INK = "#404040"  # where a colour would mean nothing
# A method looks alike in every figure. What hardly learns has no colour, and is dashed.
METHOD_COLOURS = {
    "conmh": BLUE, "chain": ORANGE, "mcmsh": GREEN, "bth": PURPLE, "s5vh": RED, "autossvh": SKY,
    "itq": "#000000", "pcah": GREY, "lsh": "#B8B8B8",
}  # fmt: skip
BASELINES = ("itq", "pcah", "lsh")
DASHES, MARKERS = ("-", ":", "-.", "--"), "oDsv"
WIDTH, DPI = 10, 80  # inches and dots: 800 pixels, the width of a notebook page


def new_figure(height):
    """Make a figure as wide as a notebook page and `height` inches high.

    >>> new_figure(height=2.5).get_size_inches().tolist()[1]
    2.5
    """
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def new_panels(height, count=1, note="", **sharing):
    """Make a figure with `count` axes side by side, a note below -> figure, axes (count,).

    >>> figure, axes = new_panels(2.5, count=2, note="64 bits")
    >>> axes.shape
    (2,)
    """
    figure = new_figure(height)
    if note:
        figure.supxlabel(note, fontsize=9)
    return figure, figure.subplots(1, count, squeeze=False, **sharing)[0]


def method_colour(label: str, otherwise: str = INK) -> str:
    """Return the colour of the method that `label` begins with ("CHAIN, 16 bits"), if any.

    >>> method_colour("CHAIN, 16 bits") == method_colour("CHAIN"), method_colour("mine")
    (True, '#404040')
    """
    return METHOD_COLOURS.get(_first_word(label), otherwise)


def line_looks(labels: Iterable[str]) -> dict[str, dict]:
    """Give each label a look of its own: {label: {"color", "ls", "marker"}}.

    A method has its colour; its second line in a figure has another dash and marker. Other labels
    share the colours that no method of the figure has.

    >>> sorted(line_looks(["CHAIN", "mine"])["mine"])
    ['color', 'ls', 'marker']
    """
    labels = list(labels)
    own = {method_colour(label, "") for label in labels}
    free = [colour for colour in (*COLOURS, INK) if colour not in own]
    looks, count, others = {}, {}, 0
    for label in labels:
        colour = method_colour(label, "")
        if not colour:
            colour, others = free[others % len(free)], others + 1
        turn = count[colour] = count.get(colour, -1) + 1
        dashes = DASHES[::-1] if _first_word(label) in BASELINES else DASHES
        turn %= len(DASHES)
        looks[label] = {"color": colour, "ls": dashes[turn], "marker": MARKERS[turn]}
    return looks


def _first_word(label):
    return re.split(r"\W", label.casefold(), maxsplit=1)[0]


def finish(axis, xlabel="", ylabel="", *, title="", note="", grid="both"):
    """Label an axis, the protocol `note` below, and lay a grid along `grid` behind what is data.

    >>> figure, axes = new_panels(2.5)
    >>> finish(axes[0], "bits", "mAP@20", title="ITQ")
    >>> axes[0].get_xlabel()
    'bits'
    """
    axis.set_xlabel(xlabel + (f"\n{note}" if note else ""))
    axis.set_ylabel(ylabel)
    axis.set_title(title, fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, axis=grid, color="#DDDDDD", lw=0.7)
    axis.set_axisbelow(True)


def name_rows(axis, names):
    """Write names (R,) at the left of rows 0 to R - 1, the first at the top.

    >>> figure, axes = new_panels(2.5)
    >>> name_rows(axes[0], ["calm", "wild"])
    >>> [label.get_text() for label in axes[0].get_yticklabels()]
    ['calm', 'wild']
    """
    axis.set_yticks(range(len(names)), list(names))
    axis.set_ylim(len(names) - 0.5, -0.5)
