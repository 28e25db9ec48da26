"""Every notebook runs with its smoke parameters, keeps the course's form, and is up to date.

`make test` then has nbval execute the smoke runs once more and compare their checked cells.
"""

import ast
import json
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill import inspect_notebook

from vidhash_lab.runs.runs import code_hash, run_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMOKE = yaml.safe_load((ROOT / "notebooks" / "smoke.yaml").read_text())

SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))

FEWER = {"08_your_own_videos": {"films": 60}}  # other parameters of solutions in their smoke runs
OLDER = "These outputs are of version"

every_page = pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda path: path.parent.name[:3] + path.stem
)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def test_there_are_notebooks_and_each_has_smoke_parameters():
    assert NOTEBOOKS and [path.stem for path in NOTEBOOKS] == list(SMOKE)


@every_notebook
def test_runs_with_smoke_parameters(path):
    output = run_notebook(path, ROOT / "build" / "smoke" / path.stem, SMOKE[path.stem])
    run = json.loads((output.parent / "metrics.json").read_text())
    assert run["parameters"] == SMOKE[path.stem] and run["metrics"]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_run_with_smoke_parameters(path):
    smoke = {"dataset": "digit-stories-mini", "epochs": 1} | FEWER.get(path.stem, {})
    cells = code_cells(run_notebook(path, ROOT / "build" / "solutions" / path.stem, smoke))
    assert all(cell.execution_count for cell in cells)
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]


@every_page
def test_every_committed_figure_tells_what_is_seen(path):
    """A committed picture without a text is lost to who cannot see it."""
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    pictures = [each for each in outputs if "image/png" in each.get("data", {})]
    silent = [each for each in pictures if not each.metadata.get("image/png", {}).get("alt")]
    assert not silent, f"{len(silent)} of {len(pictures)} have no `alt`"


@every_page
def test_outputs_are_of_this_code_or_the_page_says_of_which(path):
    """A page that was edited after its last full run tells its readers; no other page does."""
    notebook = nbformat.read(path, as_version=4)
    is_current = notebook.metadata.get("vidhash_lab", {}).get("code_hash") == code_hash(notebook)
    says_older = any(OLDER in cell.source for cell in notebook.cells)
    assert is_current != says_older, (
        f"{path.name} was edited after its last full run: `make notebooks` runs it again"
        if says_older is is_current is False
        else f"{path.name} was run again: its line «{OLDER} …» must go"
    )


@every_notebook
def test_committed_outputs_are_whole(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert path.stat().st_size <= 400_000


@every_page
def test_cells_are_few_and_short(path):
    lengths = [cell.source.count("\n") + 1 for cell in code_cells(path)]
    assert len(lengths) <= 25 and max(lengths) <= 20


@every_notebook
def test_keeps_the_form_of_the_course(path):
    notebook = nbformat.read(path, as_version=4)
    cells, prose = code_cells(path), [c.source for c in notebook.cells if c.cell_type == "markdown"]
    assert prose[0].startswith(f"# {path.stem[:2]} ")
    assert 600 <= sum(len(text.split()) for text in prose) <= 1500
    assert all(
        f"## {title}" in "\n".join(prose) for title in ("Summary", "Exercises", "References")
    )
    assert any("nbval-check-output" in tags(cell) for cell in cells)


@every_notebook
def test_parameters_are_literals(path):
    (cell,) = [cell for cell in code_cells(path) if "parameters" in tags(cell)]
    names = []
    for statement in ast.parse(cell.source).body:
        ast.literal_eval(statement.value)
        names += [target.id for target in statement.targets]
    assert {"dataset", "root", "seed", "bits"} <= set(names)
    assert all("  # " in line for line in cell.source.splitlines())
    assert names == list(inspect_notebook(str(path))), "papermill does not see all of them"
