"""Text of a notebook that reads its own results, and what becomes of it where the results differ.

A markdown cell with the tag `reads-built-in` tells of the run that is committed. It says what it is
about in its metadata, `{"vidhash_lab": {"about": "which ratio is best"}}`, words that go on
"This page has a paragraph on …". A run of other data or parameters has one line in its place, so
that no finding of one data set stands beside the figures of another.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

TAG = "reads-built-in"
# Where files lie and how many work on them changes no result; every other parameter may.
WITHOUT_EFFECT = frozenset({"root", "folder", "place", "n_jobs", "processes"})


def changed_parameters(defaults: dict, parameters: dict) -> list[str]:
    """List the `parameters` that change a notebook's results: neither as in `defaults` nor places.

    A default that is no literal is not in `defaults`: what is given in its stead counts as changed.

    >>> changed_parameters({"bits": 64, "epochs": 5}, {"bits": 16, "epochs": 5})
    ['bits']
    """
    counted = {name: value for name, value in parameters.items() if name not in WITHOUT_EFFECT}
    return [n for n, value in counted.items() if n not in defaults or value != defaults[n]]


def replace_readings(notebook: "NotebookNode", changed: Collection[str]) -> None:
    """Put one line for every text that reads the results, if parameters `changed`; in place.

    A heading with which the text begins stays. ValueError where a text does not say what it is
    about, whether it is replaced or not.

    >>> from nbformat.v4 import new_markdown_cell, new_notebook
    >>> about = {"tags": ["reads-built-in"], "vidhash_lab": {"about": "the scores"}}
    >>> page = new_notebook(cells=[new_markdown_cell("ConMH reaches 0.4.", metadata=about)])
    >>> replace_readings(page, ["bits"])
    >>> page.cells[0].source.split(".")[0]
    '*This page has a paragraph on the scores'
    """
    for number, cell in enumerate(notebook.cells):
        if TAG not in cell.metadata.get("tags", []):
            continue
        about = cell.metadata.get("vidhash_lab", {}).get("about", "").strip()
        if cell.cell_type != "markdown" or not about:
            raise ValueError(
                f'cell {number}: a cell with the tag "{TAG}" must be text, and its metadata must '
                'say what it is about: {"vidhash_lab": {"about": "which ratio is best"}}.'
            )
        if changed:
            heading, _, rest = cell.source.partition("\n")
            kept = f"{heading}\n\n" if heading.startswith("#") and rest.strip() else ""
            names = " and ".join(f"`{name}`" for name in changed)
            cell.source = (
                f"{kept}*This page has a paragraph on {about}. It reads a run with another "
                f"{names}, so it is left out here: the figures of this run stand for themselves.*"
            )
