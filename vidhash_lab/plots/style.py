"""One look for all figures: page width, colours that colour-blind readers can tell apart.

Colours are Okabe and Ito's. Figures are drawn without pyplot, so that none is shown twice or kept
alive, and no setting of the reader's own figures is touched.
"""

from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
WIDTH, DPI = 10, 80  # inches and dots: 800 pixels, the width of a notebook page


def new_figure(height):
    """Make a figure as wide as a notebook page and `height` inches high."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def tidy(axis):
    """Take away what is not data, lay a light grid behind what is."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, color="#DDDDDD", lw=0.7)
    axis.set_axisbelow(True)
