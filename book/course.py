"""The course as pages: the committed notebooks, each with its solutions at its end.

Nothing is run. A notebook's page is its cells, then those of notebooks/solutions of the same name
below the heading "Solutions", which the page shows folded. The order, and the questions that the
list of the course shows, are those of the README's table.
"""

import ast
import re
from pathlib import Path

import nbformat

from vidhash_lab.runs.runs import METRICS_TYPE, WIDGET_LINE

ROW = re.compile(r"^\| \[(\w+)\.ipynb\]\(notebooks/\w+\.ipynb\) \| (.+?) \| (.+?) \|$", re.M)
HEADING = re.compile(r"^(#+ )", re.M)
LINK = re.compile(r"\]\((?:\.\./|solutions/)?(\w+\.ipynb)\)")


def pages(root: Path) -> dict[str, bytes]:
    """Make the pages of the course -> {path in the book's source: content}."""
    rows = ROW.findall((root / "README.md").read_text())
    folder = root / "notebooks"
    there = {path.stem for path in folder.glob("*.ipynb")}
    if {name for name, *_ in rows} != there:
        odd = sorted(there ^ {name for name, *_ in rows})
        raise ValueError(f"the README's table and {folder} differ in {odd}")
    found = {"course.md": _list(rows).encode()}
    for name, *_ in rows:
        found[f"notebooks/{name}.ipynb"] = nbformat.writes(_page(folder, name)).encode()
    return found


def section(text: str, heading: str) -> str:
    """Return what stands between a heading of a Markdown text and the next of its kind."""
    _, _, after = text.partition(f"\n{heading}")
    return re.split(r"\n## ", after.partition("\n")[2])[0]


def _list(rows):
    lines = [
        "# The course",
        "",
        "One question a notebook, in an order that a reader new to the field can follow. Each runs "
        "alone, on two processor cores and without network, and takes parameters, so that it also "
        "runs on your data. Exercises stand at the end of each, with their solutions folded away.",
        "",
        "| notebook | question | two cores |",
        "|---|---|---|",
        *(f"| [{_title(name)}](notebooks/{name}.ipynb) | {q} | {t} |" for name, q, t in rows),
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *(f"notebooks/{name}" for name, *_ in rows),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _title(name):
    number, _, words = name.partition("_")
    return f"{number} {words.replace('_', ' ')}" if number.isdecimal() else name.replace("_", " ")


def _page(folder, name):
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    widgets = _widgets_of(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _show_widget(cell, widgets)
            for output in cell.outputs:
                output.get("data", {}).pop(METRICS_TYPE, None)  # its text stands beside it
    solutions = folder / "solutions" / f"{name}.ipynb"
    if solutions.is_file():
        notebook.cells += _solutions(nbformat.read(solutions, as_version=4))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"](\1)", cell.source).replace(
                f"]({name}.ipynb)", "](#solutions)"
            )
    notebook.metadata["alts"] = "\n".join(_alts(notebook))
    return notebook


def _solutions(notebook):
    """Return the cells of a notebook of solutions, one heading deeper, under "Solutions"."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"solution-{number}"
        if cell.cell_type == "markdown":
            cell.source = HEADING.sub(r"#\1", cell.source)
    first = notebook.cells[0]
    first.source = "## Solutions\n" + first.source.partition("\n")[2]
    return notebook.cells


def _widgets_of(notebook):
    """Name what a notebook imports from the kit's widgets."""
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found = re.findall(r"^from vidhash_lab\.widgets import (.+)$", source, re.M)
    return {name.strip() for line in found for name in line.split(",")}


def _show_widget(cell, widgets):
    """Let a cell that ends in a widget, which a page cannot show, say so in a line."""
    try:
        last = ast.parse(cell.source).body[-1].value
    except (SyntaxError, IndexError, AttributeError):
        return
    if not cell.outputs and isinstance(last, ast.Call) and getattr(last.func, "id", "") in widgets:
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/plain": WIDGET_LINE})]


def _alts(notebook):
    """List the alt texts of a notebook's figures; one without is named after its heading."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.M) or [heading])[-1]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                known = output.metadata.get("image/png", {}).get("alt")
                alt = known or f"Figure of the section “{heading}”; the text beside it reads it."
                yield " ".join(alt.split())
