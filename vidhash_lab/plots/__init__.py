"""Every figure of the notebooks: arrays in, a matplotlib Figure out, nothing shown by itself."""

from vidhash_lab.extras import needs

needs("notebooks", "matplotlib")

from vidhash_lab.plots.architecture import architectures, traced
from vidhash_lab.plots.charts import (
    ablation,
    bands,
    bars,
    mean_curves,
    spreads,
    training_curves,
    variants,
)
from vidhash_lab.plots.code_space import (
    bit_balance,
    code_maps,
    code_rows,
    distance_histograms,
    hash_centres,
)
from vidhash_lab.plots.groups import messages, structures
from vidhash_lab.plots.losses import curves, pulled_points
from vidhash_lab.plots.reproduced import agreement
from vidhash_lab.plots.retrieval import precision_recall, radius_curves, within_radius
from vidhash_lab.plots.scale import (
    growth,
    memory_over_time,
    needs,
    recall_for_time,
    tasks_over_time,
)
from vidhash_lab.plots.side_by_side import rankings
from vidhash_lab.plots.strips import (
    cuts,
    film_strip,
    film_strips,
    gate_templates,
    gates,
    masked_views,
    query_results,
    reconstruction,
    scenes,
)
from vidhash_lab.plots.style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    method_colour,
)
