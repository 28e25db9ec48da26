"""Notebooks as programs: runs with parameters, what they record, and sweeps over grids."""

from vidhash_lab.runs.runs import (
    median_milliseconds,
    record_metrics,
    run_notebook,
    save_arrays,
    save_figure,
)

__all__ = [
    "median_milliseconds",
    "record_metrics",
    "run_notebook",
    "save_arrays",
    "save_figure",
]
