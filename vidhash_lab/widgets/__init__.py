"""Widgets for JupyterLab: controls beside a picture, and the map of codes."""

from vidhash_lab.extras import needs

needs("notebooks", "anywidget", "ipywidgets", "matplotlib", "PIL")

from vidhash_lab.widgets.code_map import CodeMap
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
from vidhash_lab.widgets.side_by_side import rankings_of, rival_browser
