"""Notebooks as programs: runs with parameters, what they record, and sweeps over grids."""

from vidhash_lab.extras import needs

needs("notebooks", "papermill", "nbconvert", "joblib", "filelock", "yaml", "pandas")

from vidhash_lab.runs.figures import save_figure, show_figure
from vidhash_lab.runs.parallel import on_all_cores
from vidhash_lab.runs.runs import (
    median_milliseconds,
    record_metrics,
    run_notebook,
    save_arrays,
)
from vidhash_lab.runs.sweeps import (
    ONE_RUN,
    failures_in_red,
    find_method,
    means_and_deviations,
    sweep,
)
