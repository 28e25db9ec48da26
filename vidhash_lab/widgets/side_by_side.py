"""A widget: one query under several methods."""

from collections.abc import Mapping

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from vidhash_lab.data.features import VideoDataset
from vidhash_lab.plots.side_by_side import rankings
from vidhash_lab.retrieval.search import HammingIndex, retrieve
from vidhash_lab.widgets.panels import SLIDER, panel

Codes = Mapping[str, tuple[np.ndarray, np.ndarray]]  # {method: (query, database) codes, packed}


def rankings_of(dataset: VideoDataset, codes: Codes, query: int, k: int = 8) -> tuple[Figure, str]:
    """Search one query's k nearest by each method's codes -> the figure, and a line about it.

    Where the queries are the database, a query does not find itself.

    >>> from vidhash_lab import LSH, encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
    >>> codes = {"LSH": (encode(model, data.query), encode(model, data.database))}
    >>> figure, line = rankings_of(data, codes, query=0, k=3)
    """
    columns, texts = {}, []
    for method, (query_codes, database_codes) in codes.items():
        index = HammingIndex(database_codes)
        most = min(k, len(index) - dataset.self_query)
        distances, found, relevant = retrieve(dataset, index, query_codes, query, most)
        marks = [None] * len(found) if relevant is None else relevant.tolist()
        columns[method] = dataset.database.pictures(found), distances, marks
        right = f"{sum(marks)} of {len(found)} right" if relevant is not None else "no labels"
        texts.append(f"{method} {right}")
    return rankings(dataset.query.pictures(query)[0], columns), f"query {query}: {', '.join(texts)}"


def rival_browser(dataset: VideoDataset, codes: Codes, k: int = 8) -> ipywidgets.VBox:
    """Choose a query, see what each method's codes find for it.

    >>> from vidhash_lab import LSH, encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
    >>> codes = {"LSH": (encode(model, data.query), encode(model, data.database))}
    >>> box = rival_browser(data, codes)
    """
    last = len(dataset.query) - 1
    query = ipywidgets.IntSlider(0, 0, last, description="query", **SLIDER)
    return panel(lambda query: rankings_of(dataset, codes, query, k), query=query)
