"""Sweeps: every point runs or is kept, a failure is one row, on processes and on dask for real."""

import json
import os
from pathlib import Path

import joblib
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from vidhash_lab.models import METHODS
from vidhash_lab.runs import (
    ONE_RUN,
    failures_in_red,
    find_method,
    means_and_deviations,
    sweep,
    sweeps,
)
from vidhash_lab.runs.runs import code_hash

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
CODE = """import os
from vidhash_lab.runs import record_metrics, save_arrays
assert number != 13, "an unlucky number"
save_arrays("numbers", square=[number ** 2])
record_metrics(square=number ** 2, threads=os.environ["OMP_NUM_THREADS"])"""


@pytest.fixture
def notebook(tmp_path):
    parameters = new_code_cell(
        'number = 3  # a number\nname = "a"  # a name', metadata={"tags": ["parameters"]}
    )
    path = tmp_path / "toy.ipynb"
    cells, metadata = [parameters, new_code_cell(CODE)], {"kernelspec": KERNEL}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def test_a_failure_is_one_row_and_the_next_sweep_tries_it_alone(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 6)
    grid = {"number": [3, 13, 4], "name": ["a/b"]}
    table = sweep(notebook, grid, tmp_path / "runs", n_jobs=2)
    assert table["number"].tolist() == [3, 13, 4] and set(table["name"]) == {"a/b"}
    assert table["status"].tolist() == ["done", "failed", "done"]
    assert table["square"].tolist()[::2] == [9, 16] and np.isnan(table["square"][1])
    assert set(table["threads"].dropna()) == {"3"}  # of six cores, two runs at a time
    assert table["error"][1] == "AssertionError: an unlucky number"
    assert "unlucky" in (Path(table["folder"][1]) / "toy.ipynb").read_text()  # where it broke
    assert np.load(Path(table["folder"][2]) / "numbers.npz")["square"] == [16]
    page = failures_in_red(table).to_html()
    assert page.count("unlucky") == 1 and "#F6D5C6" in page

    before = Path(table["folder"][0], "metrics.json").stat().st_mtime_ns
    again = sweep(notebook, grid, tmp_path / "runs")
    assert again["status"].tolist() == ["kept", "failed", "kept"]
    assert again["square"][0] == 9
    assert Path(table["folder"][0], "metrics.json").stat().st_mtime_ns == before


@pytest.fixture
def quick_runs(monkeypatch):
    """Runs without a kernel, which takes seconds to start."""
    made = []

    def run_notebook(notebook, folder, parameters, progress_bar):
        made.append(parameters)
        folder.mkdir(parents=True, exist_ok=True)
        code = code_hash(nbformat.read(notebook, as_version=4))
        run = {"parameters": parameters, "code": code, "metrics": {"run": len(made)}}
        (folder / "metrics.json").write_text(json.dumps(run))

    monkeypatch.setattr(sweeps, "run_notebook", run_notebook)
    return made


def test_a_run_of_other_code_or_damaged_metrics_is_run_again(notebook, tmp_path, quick_runs):
    (folder,) = sweep(notebook, {"number": [2]}, tmp_path / "runs")["folder"]
    notebook.write_text(notebook.read_text().replace("number ** 2, threads", "7, threads"))
    table = sweep(notebook, {"number": [2]}, tmp_path / "runs")
    assert (table["status"][0], table["run"][0]) == ("done", 2)
    for count, damaged in enumerate(["{", "[]", json.dumps({"parameters": {"number": 2}})], 3):
        Path(folder, "metrics.json").write_text(damaged)
        table = sweep(notebook, {"number": [2]}, tmp_path / "runs")
        assert (table["status"][0], table["run"][0]) == ("done", count)
    assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == "kept"


def test_a_run_of_a_method_in_a_file_is_kept_while_the_file_stays_as_it_is(
    notebook, tmp_path, quick_runs
):
    mine = tmp_path / "mine.py"
    grid = {"name": [f"{mine}:Mine", f"{mine}:Other"]}
    seen = []
    for source in ("class Mine: bits = 8", "class Mine: bits = 16", "class Mine: bits = 8"):
        mine.write_text(source)
        seen.append(sweep(notebook, grid, tmp_path / "runs"))
    assert [set(table["status"]) for table in seen] == [{"done"}, {"done"}, {"kept"}]
    assert seen[0]["folder"].tolist() == seen[2]["folder"].tolist() != seen[1]["folder"].tolist()
    mine.unlink()  # the run itself says what is wrong
    assert sweep(notebook, grid, tmp_path / "runs")["status"].tolist() == ["done"] * 2


def test_grids_follow_each_other_where_parameters_hang_together(notebook, tmp_path, quick_runs):
    grids = [{"number": [1, 2], "name": ["a"]}, {"number": [3], "name": ["b"]}]
    table = sweep(notebook, grids, tmp_path / "runs")
    assert table[["number", "name"]].values.tolist() == [[1, "a"], [2, "a"], [3, "b"]]
    assert table["folder"].nunique() == 3
    with pytest.raises(ValueError, match="no parameter"):
        sweep(notebook, [*grids, {"nmber": [1]}], tmp_path / "other")
    assert not (tmp_path / "other").exists() and len(quick_runs) == 3


def test_dask_runs_the_points(notebook, tmp_path):
    pytest.importorskip("distributed")
    grid, before = {"number": [5, 13]}, dict(os.environ)
    table = sweep(notebook, grid, tmp_path / "runs", n_jobs=2, backend="dask")
    assert table["status"].tolist() == ["done", "failed"] and table["square"][0] == 25
    assert dict(os.environ) == before  # what starts later has all its cores


def test_a_backend_that_is_not_installed_is_named(notebook, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray.util.joblib", None)
    with pytest.raises(ImportError, match=r"'ray' needs more: pip install 'vidhash-lab\[sweep\]'"):
        sweep(notebook, {"number": [1]}, tmp_path / "runs", backend="ray")


def test_the_run_that_sweeps_are_made_of_leaves_codes_and_scores(tmp_path):
    grid = {"dataset": ["digit-stories-mini"], "method": ["itq", "conmh"], "bits": [16]}
    grid |= {"recipe": [{"epochs": 1}]}
    table = sweep(ONE_RUN, grid, tmp_path)
    assert table["status"].tolist() == ["done", "done"], table.get("error")
    codes = np.load(Path(table["folder"][1]) / "codes.npz")
    assert codes["query"].shape == (60, 2) and codes["database"].dtype == np.uint8
    assert (table["mAP@20"] > 0.05).all() and "16 bits" in table["protocol"][0]


MINE = """from dataclasses import dataclass
from vidhash_lab import LSH


@dataclass(frozen=True)
class Config:
    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 128
    pooling: "str" = "mean"
    pooled_dim: "int" = 128


class Mine(LSH):
    Config = Config
"""


def test_a_sweep_trains_a_method_from_a_file_of_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    grid = {"dataset": ["digit-stories-mini"], "method": ["lsh", f"{tmp_path}/mine.py:Mine"]}
    table = sweep(ONE_RUN, grid | {"bits": [16]}, tmp_path / "runs")
    assert table["status"].tolist() == ["done", "done"], table.get("error")
    assert table["mAP@20"].nunique() == 1 and (table["prepare_seconds"] > 0).all()


def test_a_method_is_found_by_its_name_or_in_its_file(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("class Mine: pass")
    assert find_method("itq") is METHODS["itq"]
    assert find_method(f"{mine}:Mine").__name__ == "Mine"
    for name in ("itqq", f"{mine}:Other", "mine:Mine"):
        with pytest.raises(ValueError, match="no method"):
            find_method(name)


def test_means_and_deviations_are_over_the_runs_of_a_cell():
    table = pd.DataFrame({"m": ["b", "b", "a"], "bits": [16, 16, 16], "score": [0.5, 0.7, 0.25]})
    shown = means_and_deviations(table, "score", rows="m", columns="bits")
    assert shown[16].to_dict() == {"b": "0.600 ± 0.141", "a": "0.250"}
    assert list(shown.index) == ["b", "a"]  # in the grid's order
