"""Runs: parameters are checked before anything runs, metrics come back, full runs are cleaned."""

import base64
import io
import json
import os

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook, new_output
from papermill import PapermillExecutionError
from PIL import Image

from vidhash_lab.runs import runs
from vidhash_lab.runs.command_line import main
from vidhash_lab.runs.figures import FIGURES_VARIABLE, show_figure

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
CODE = """from vidhash_lab.runs import record_metrics, save_figure
from matplotlib.figure import Figure
import sys
print("progress", file=sys.stderr)
save_figure(Figure(), "square", alt="an empty square")
record_metrics(square=number ** 2, half=number / 2)"""


@pytest.fixture
def notebook(tmp_path):
    parameters = new_code_cell(
        "number = 3  # a number\nnames = []", metadata={"tags": ["parameters"]}
    )
    path = tmp_path / "toy.ipynb"
    cells, metadata = [parameters, new_code_cell(CODE)], {"kernelspec": KERNEL}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def test_a_run_leaves_the_notebook_its_metrics_and_no_figure(notebook, tmp_path, monkeypatch):
    monkeypatch.delenv("JUPYTER_PATH", raising=False)  # no fork of a warm kernel: as users have it
    before = notebook.read_text()
    output = runs.run_notebook(notebook, tmp_path / "run", {"number": 8})
    run = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert run["metrics"] == {"square": 64, "half": 4.0}
    assert run["parameters"] == {"number": 8} and run["seconds"] > 0
    assert "half = 4.000" in output.read_text() and notebook.read_text() == before
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == [
        "metrics.json",
        "toy.ipynb",
        "toy.ipynb",
    ]
    page = runs.write_html(output).read_text()
    assert '<img alt="an empty square"' in page and "No description" not in page
    assert page.count("half = 4.000") == 1 and "progress\n" not in page  # of stderr: a dead bar


@pytest.mark.parametrize("parameters", [{"nmber": 3}, {"number": 3, "other": 1}])
def test_an_unknown_parameter_is_refused_with_the_known_ones(notebook, tmp_path, parameters):
    with pytest.raises(ValueError, match=r"no parameter .* it has \['names', 'number'\]"):
        runs.run_notebook(notebook, tmp_path / "run", parameters)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [np.float32(1), np.arange(2), (1, 2), {1: 2}, runs.Path("a")])
def test_a_value_that_json_would_change_is_refused(notebook, tmp_path, value):
    with pytest.raises(ValueError, match=r"number = .* is no plain JSON value"):
        runs.run_notebook(notebook, tmp_path / "run", {"number": value})


def test_relative_paths_start_where_the_call_is_made(notebook, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "number.txt").write_text("6")
    monkeypatch.chdir(elsewhere)
    toy = nbformat.read(notebook, as_version=4)
    toy.cells.insert(1, new_code_cell("number = int(open(names[0]).read())"))
    nbformat.write(toy, notebook)
    runs.run_notebook(notebook, tmp_path / "run", {"names": ["number.txt"]})
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]["square"] == 36


def test_a_run_that_fails_leaves_no_metrics_of_an_earlier_one(notebook, tmp_path):
    runs.run_notebook(notebook, tmp_path / "run")
    with pytest.raises(PapermillExecutionError, match="TypeError"):
        runs.run_notebook(notebook, tmp_path / "run", {"number": "three"})
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_refresh_writes_back_cleaned_with_figures_and_hash(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figures").mkdir()
    runs.refresh(notebook, tmp_path / "figures")
    assert FIGURES_VARIABLE not in os.environ  # a later smoke run must write no figures
    written = nbformat.read(notebook, as_version=4)
    assert (tmp_path / "figures" / "square.png").exists()
    assert written.metadata["vidhash_lab"]["code_hash"] == runs.code_hash(written)
    assert "papermill" not in str(written.metadata) and "stderr" not in str(
        written.cells[1].outputs
    )
    assert written.cells[1].outputs[-1]["data"]["text/plain"] == "square = 9\nhalf = 1.500"
    written.cells[1].source += "\n# edited"
    assert written.metadata["vidhash_lab"]["code_hash"] != runs.code_hash(written)


def test_clean_leaves_a_line_for_a_widget_and_nothing_of_a_progress_bar():
    widget = new_output("display_data", {runs.WIDGET_TYPE: {}, "text/plain": "HBox()"})
    words = "  0%|          | 0/3 [00:00<?, ?video/s]"
    bar = new_output("display_data", {runs.WIDGET_TYPE: {}, "text/plain": words})
    table = new_output("display_data", {"text/html": "<table>"})
    cell = new_code_cell(
        "x", outputs=[bar, widget, table], metadata={"papermill": {}, "tags": ["a"]}
    )
    cleaned = runs.clean(new_notebook(cells=[cell])).cells[0]
    assert cleaned.outputs == [
        new_output("display_data", {"text/plain": runs.WIDGET_LINE}),
        table,
    ]
    assert cleaned.metadata == {"tags": ["a"]}


def test_clean_keeps_pictures_small_and_as_they_look():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    pixels[:, :, 1:] = pixels[:, :, :1] // 2  # one colour in 256 shades
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "png")
    png = base64.b64encode(buffer.getvalue()).decode()
    cell = new_code_cell("x", outputs=[new_output("display_data", {"image/png": png})])
    notebook = runs.clean(new_notebook(cells=[cell]))
    small = notebook.cells[0].outputs[0]["data"]["image/png"]
    assert len(small) < 0.7 * len(png)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB"))
    assert np.abs(shown.astype(int) - pixels).max() <= 2
    assert runs.clean(notebook).cells[0].outputs[0]["data"]["image/png"] == small


def test_the_command_line(notebook, tmp_path, capsys):
    main([str(notebook), "--folder", str(tmp_path / "out"), "-p", "number", "5"])
    html = runs.Path(capsys.readouterr().out.strip())
    assert html == tmp_path / "out" / "toy" / "toy.html" and html.exists()
    assert json.loads((html.parent / "metrics.json").read_text())["metrics"]["square"] == 25
    with pytest.raises(SystemExit):
        main([str(notebook), "--refresh", "-p", "number", "5"])


@pytest.mark.parametrize("alt", ["", " \n"])
def test_a_figure_without_a_text_is_refused(alt):
    with pytest.raises(ValueError, match="needs a text"):
        show_figure(Figure(), alt)
