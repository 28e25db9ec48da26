"""Things to play with in JupyterLab: controls left, picture right; and the code map."""

from vidhash_lab.widgets.code_map import CodeMap, code_map
from vidhash_lab.widgets.panels import (
    GATE_NAMES,
    gate_browser,
    mask_slider,
    order_guesser,
    panel,
    playable,
    query_browser,
    radius_slider,
)

__all__ = [
    "GATE_NAMES",
    "CodeMap",
    "code_map",
    "gate_browser",
    "mask_slider",
    "order_guesser",
    "panel",
    "playable",
    "query_browser",
    "radius_slider",
]
