"""Codes, bit by bit."""

import numpy as np

from vidhash_lab.plots.style import new_figure


def codes(packed, labels=None):
    """Draw packed codes (N, K/8) as rows of bits, dark = +1; `labels` (N,) name the rows."""
    bits = np.unpackbits(packed, axis=1)
    height = 0.6 + 0.24 * len(bits)
    figure = new_figure(height)
    axis = figure.subplots()
    axis.imshow(1 - bits, cmap="gray", aspect="auto", interpolation="nearest", vmin=-0.2, vmax=1)
    axis.set_xlabel(f"bit (dark = +1), K = {bits.shape[1]}")
    axis.set_yticks(range(len(bits)), labels if labels is not None else range(len(bits)))
    axis.set_xticks(np.arange(0, bits.shape[1], 8))
    axis.tick_params(length=0)
    for edge in np.arange(0.5, len(bits) - 1):
        axis.axhline(edge, color="white", lw=1.5)
    return figure
