"""Every figure of the notebooks: arrays in, a matplotlib Figure out, nothing shown by itself."""

from vidhash_lab.plots.charts import ablation, bars, sweep, training_curves, variants
from vidhash_lab.plots.codes import bit_use, code_maps, codes, pair_distances
from vidhash_lab.plots.retrieval import bands, precision_recall, radius_curves, within_radius
from vidhash_lab.plots.strips import (
    film_strip,
    film_strips,
    gates,
    masked_views,
    query_results,
    reconstruction,
    scenes,
)
from vidhash_lab.plots.style import BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, RED, SKY

__all__ = [
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "ablation",
    "bands",
    "bars",
    "bit_use",
    "code_maps",
    "codes",
    "film_strip",
    "film_strips",
    "gates",
    "masked_views",
    "pair_distances",
    "precision_recall",
    "query_results",
    "radius_curves",
    "reconstruction",
    "scenes",
    "sweep",
    "training_curves",
    "variants",
    "within_radius",
]
