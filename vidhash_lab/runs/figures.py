"""Figures of a notebook: shown with a text for readers who cannot see them, written in a full run.

The text is the output's `alt` metadata, where the notebook format keeps it, and its plain text.
JupyterLab 4 and GitHub show pictures without either; the HTML of `write_html` has it.
"""

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES_VARIABLE = "VIDHASH_LAB_FIGURES"  # set by a refresh alone: only full runs write figures


def show_figure(figure: "Figure", alt: str) -> None:
    """Show `figure`; `alt` says what is to be seen: its axes and what stands out.

    ValueError where `alt` is empty.

    >>> from vidhash_lab.plots import bars
    >>> show_figure(bars({"ITQ": 0.39}, xlabel="mAP@20"), alt="")
    Traceback (most recent call last):
    ValueError: A figure needs a text: say in `alt` what its axes are and what is seen.
    """
    from IPython.display import display

    if not alt.strip():
        raise ValueError("A figure needs a text: say in `alt` what its axes are and what is seen.")
    alt = " ".join(alt.split())
    figure.savefig(png := io.BytesIO(), format="png", bbox_inches="tight")
    encoded = base64.b64encode(png.getvalue()).decode()
    shown = {"image/png": encoded, "text/plain": alt}
    display(shown, metadata={"image/png": {"alt": alt}}, raw=True)


def save_figure(figure: "Figure", name: str, *, alt: str) -> None:
    """Show `figure` as `show_figure` does; a full run writes it into figures/ as `name`.png too.

    >>> from vidhash_lab.plots import bars
    >>> save_figure(bars({"ITQ": 0.39}, xlabel="mAP@20"), "scores", alt="mAP@20 of ITQ, as a bar.")
    {'image/png': ..., 'text/plain': 'mAP@20 of ITQ, as a bar.'}
    """
    show_figure(figure, alt)
    if folder := os.environ.get(FIGURES_VARIABLE):
        figure.savefig(Path(folder) / f"{name}.png", bbox_inches="tight", dpi=100)
