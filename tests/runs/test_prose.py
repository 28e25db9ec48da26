"""Text that reads one run's results stands beside no other run's figures."""

import json

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from vidhash_lab.runs.prose import WITHOUT_EFFECT, changed_parameters, replace_readings
from vidhash_lab.runs.runs import run_notebook

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def reading(source, about="which ratio is best"):
    return new_markdown_cell(
        source, metadata={"tags": ["reads-built-in"], "vidhash_lab": {"about": about}}
    )


def test_a_run_of_other_data_says_what_is_left_out_and_why(tmp_path):
    parameters = (
        'dataset = "digit-stories"  # a name\nroot = None  # a folder\nepochs = 15  # passes'
    )
    notebook = new_notebook(
        cells=[
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            new_markdown_cell("Frames are hidden."),
            reading("## Summary\n\n- At 0.5 it is best."),
            reading("Half is best, with 0.64."),
        ],
        metadata={"kernelspec": KERNEL},
    )
    nbformat.write(notebook, path := tmp_path / "page.ipynb")

    def texts(**changes):
        output = run_notebook(path, tmp_path / "run", changes, progress_bar=False)
        return [c.source for c in nbformat.read(output, 4).cells if c.cell_type == "markdown"]

    as_it_is = [
        "Frames are hidden.",
        "## Summary\n\n- At 0.5 it is best.",
        "Half is best, with 0.64.",
    ]
    assert texts(root=str(tmp_path), epochs=15, dataset="digit-stories") == as_it_is
    line = (
        "*This page has a paragraph on which ratio is best. It reads a run with another `dataset` "
        "and `epochs`, so it is left out here: the figures of this run stand for themselves.*"
    )
    other = texts(dataset="mine.h5", epochs=2)
    assert other == ["Frames are hidden.", f"## Summary\n\n{line}", line]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["parameters"]["epochs"] == 2
    assert nbformat.read(path, 4).cells[3].source == "Half is best, with 0.64."


@given(st.dictionaries(st.sampled_from(["dataset", "epochs", *WITHOUT_EFFECT]), st.integers(0, 2)))
def test_a_parameter_counts_when_it_differs_and_is_no_place(parameters):
    defaults = {"dataset": 1, "epochs": 1, "root": 1}
    changed = changed_parameters(defaults, parameters)
    assert set(changed) == {n for n in ("dataset", "epochs") if parameters.get(n, 1) != 1}


def test_a_default_that_is_no_literal_counts_as_changed():
    assert changed_parameters({}, {"sizes": {"hidden_dim": 32}, "n_jobs": 2}) == ["sizes"]


@pytest.mark.parametrize(
    "cell",
    [reading("Half is best.", " "), new_code_cell("1", metadata={"tags": ["reads-built-in"]})],
)
@pytest.mark.parametrize("changed", [[], ["dataset"]])
def test_a_text_that_does_not_say_what_it_is_about_is_refused_before_it_is_needed(cell, changed):
    with pytest.raises(ValueError, match=r'cell 1: .*"about": "which'):
        replace_readings(new_notebook(cells=[new_markdown_cell("#"), cell]), changed)
