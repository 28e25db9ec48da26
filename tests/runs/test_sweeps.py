"""Sweeps: every point runs or is kept, a failure is one row, on processes and on dask for real."""

import json
import os
import re
import threading
from pathlib import Path

import h5py
import joblib
import nbformat
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_notebook

from vidhash_lab import open_dataset, score
from vidhash_lab.models import METHODS
from vidhash_lab.runs import (
    ONE_RUN,
    failures_in_red,
    find_method,
    means_and_deviations,
    sweep,
    sweeps,
)
from vidhash_lab.runs.runs import write_run

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
        np.savez(folder / "codes.npz", codes=np.arange(9))
        write_run(folder, {"parameters": parameters, "metrics": {"run": len(made)}})

    monkeypatch.setattr(sweeps.runs, "run_notebook", run_notebook)
    return made


def test_a_run_of_other_code_or_damaged_metrics_is_run_again(notebook, tmp_path, quick_runs):
    sweep(notebook, {"number": [2]}, tmp_path / "runs")
    notebook.write_text(notebook.read_text().replace("number ** 2, threads", "7, threads"))
    table = sweep(notebook, {"number": [2]}, tmp_path / "runs")
    assert (table["status"][0], table["run"][0]) == ("done", 2)
    (folder,) = table["folder"]
    for count, damaged in enumerate(["{", "[]", json.dumps({"parameters": {"number": 2}})], 3):
        Path(folder, "metrics.json").write_text(damaged)
        table = sweep(notebook, {"number": [2]}, tmp_path / "runs")
        assert (table["status"][0], table["run"][0]) == ("done", count)
    metrics, codes = Path(folder, "metrics.json"), Path(folder, "codes.npz")
    metrics.write_text(metrics.read_text().replace('"run": 5', '"run": 6'))
    assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["run"][0] == 6  # made anew
    assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == "kept"
    codes.write_bytes(bytes([codes.read_bytes()[0] ^ 1]) + codes.read_bytes()[1:])
    assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == "done"
    codes.unlink()
    assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == "done"
    assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == "kept"


def test_a_notebook_that_is_saved_while_it_runs_runs_as_it_was(notebook, tmp_path, monkeypatch):
    seen, before = [], notebook.read_text()

    def run_notebook(copy, folder, parameters, progress_bar):
        seen.append(copy.read_text())
        notebook.write_text(before.replace("number ** 2, threads", "7, threads"))
        write_run(folder, {"metrics": {"square": 1}})

    monkeypatch.setattr(sweeps.runs, "run_notebook", run_notebook)
    table = sweep(notebook, {"number": [1, 2]}, tmp_path / "runs")
    assert table["status"].tolist() == ["done", "done"] and seen == [before, before]
    assert sweep(notebook, {"number": [1, 2]}, tmp_path / "runs")["status"].tolist() == ["done"] * 2
    assert len(seen) == 4 and seen[3] != before


def test_runs_of_other_data_at_the_same_path_are_not_kept(
    notebook, tmp_path, quick_runs, random_features
):
    path = random_features("data.h5")
    folder = tmp_path / "films"
    folder.mkdir()
    grid = {"name": [str(path), str(folder)]}

    def statuses():
        return sweep(notebook, grid, tmp_path / "runs")["status"].tolist()

    assert (statuses(), statuses()) == (["done", "done"], ["kept", "kept"])
    (path.parent / "structures").mkdir()  # what a run leaves beside the data is no other data
    moved = path.rename(tmp_path / "moved.h5")
    path.write_bytes(moved.read_bytes())
    assert statuses() == ["kept", "kept"]
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with h5py.File(path, "r+") as file:
        file["feats"][:] = file["feats"][:][::-1]
    os.utime(path, ns=times)
    assert (statuses(), statuses()) == (["done", "kept"], ["kept", "kept"])
    with h5py.File(path, "r+") as file:
        file["labels"][0] = ~file["labels"][0]
    (folder / "film.mp4").write_bytes(b"0")
    assert (statuses(), statuses()) == (["done", "done"], ["kept", "kept"])


def test_the_data_of_a_default_count_too(notebook, tmp_path, quick_runs, random_features):
    path = random_features("data.h5")
    notebook.write_text(notebook.read_text().replace('\\"a\\"', f'\\"{path}\\"'))
    for seed in (0, 1):
        random_features("data.h5", seed=seed)
        assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == "done"
    assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == "kept"


def test_runs_of_another_version_of_the_package_are_not_kept(
    notebook, tmp_path, quick_runs, monkeypatch
):
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(sweeps, "PACKAGE", package)
    for source, status in (("a = 1", "done"), ("a = 2", "done"), ("a = 1", "kept")):
        (package / "a.py").write_text(source)
        assert sweep(notebook, {"number": [2]}, tmp_path / "runs")["status"][0] == status

    def run_notebook(notebook, folder, parameters, progress_bar):
        (package / "a.py").write_text("a = 3")
        write_run(folder, {"metrics": {}})

    monkeypatch.setattr(sweeps.runs, "run_notebook", run_notebook)
    table = sweep(notebook, {"number": [3]}, tmp_path / "runs")
    assert table["status"][0] == "failed" and "changed while it ran" in table["error"][0]


def test_a_full_disk_is_a_row(notebook, tmp_path, quick_runs, monkeypatch):
    def written_whole(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweeps, "written_whole", written_whole)
    table = sweep(notebook, {"number": [2, 3]}, tmp_path / "runs")
    assert table["status"].tolist() == ["failed", "failed"]
    assert "No space left" in table["error"][0] and not quick_runs


def test_a_run_that_leaves_nothing_has_failed(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps.runs, "run_notebook", lambda *args, **options: None)
    table = sweep(notebook, {"number": [2]}, tmp_path / "runs")
    assert table["status"][0] == "failed" and "metrics.json" in table["error"][0]


def test_two_sweeps_of_one_folder_share_their_runs(notebook, tmp_path, monkeypatch):
    """The second waits for the point that the first is at, and keeps what it made."""
    made, second = [], []
    at_work = threading.Event()

    def run_notebook(notebook, folder, parameters, progress_bar):
        made.append(parameters)
        thread = threading.Thread(target=lambda: second.append(sweep(*arguments)), daemon=True)
        if len(made) == 1:
            threads.append(thread)
            thread.start()
            at_work.wait(60)
        write_run(folder, {"metrics": {"run": len(made)}})

    def acquire(*arguments, **options):
        if made:
            at_work.set()
        return FileLock(*arguments, **options)

    threads, arguments = [], (notebook, {"number": [1]}, tmp_path / "runs")
    monkeypatch.setattr(sweeps.runs, "run_notebook", run_notebook)
    monkeypatch.setattr(sweeps, "FileLock", acquire)
    first = sweep(*arguments)
    threads[0].join()
    assert (first["status"][0], second[0]["status"][0]) == ("done", "kept")
    assert len(made) == 1 and second[0]["run"][0] == 1


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_a_killed_worker_is_a_row_and_the_others_go_on(notebook, tmp_path, backend):
    if backend == "dask":
        pytest.importorskip("distributed")
    # The worker is who started the kernel; its parent may be the process that it was forked from.
    kill = "os.kill(int(os.environ['JPY_PARENT_PID']), signal.SIGKILL)"
    killing = f"import os, signal\nif number == 13: {kill}\n"
    toy = nbformat.read(notebook, as_version=4)
    toy.cells[1].source = killing + CODE
    nbformat.write(toy, notebook)
    grid = {"number": [13, 1, 2, 3]}
    table = sweep(notebook, grid, tmp_path / "runs", n_jobs=2, backend=backend)
    assert table["status"][0] == "failed" and re.search("Worker", table["error"][0])
    assert table["status"][3] == "done" and table["square"][3] == 9
    for status, square in zip(table["status"][1:], table["square"][1:]):
        assert (status == "failed") == np.isnan(square)


def test_values_that_are_no_list_are_refused(notebook, tmp_path):
    for values in ("itq", 3, {"a": 1}, None):
        with pytest.raises(ValueError, match=r"(name|a) = .* is no list of values"):
            sweep(notebook, {"name": values}, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_long_and_odd_values_make_folders(notebook, tmp_path, quick_runs):
    names = ["ß" * 300, "…" * 99, "{number}", "a\0b\n", "\ud800", "C:\\x"]
    table = sweep(notebook, {"name": names}, tmp_path / "runs")
    assert table["status"].tolist() == ["done"] * 6 and table["folder"].nunique() == 6
    assert max(len(os.fsencode(Path(folder).name)) for folder in table["folder"]) <= 200
    assert sweep(notebook, {"name": names}, tmp_path / "runs")["status"].tolist() == ["kept"] * 6


def test_a_table_shows_text_as_text():
    odd = "<img src=x onerror=alert(1)>"
    table = pd.DataFrame({"status": ["failed"], odd: [odd], "score": [0.5]}, index=[odd])
    page = failures_in_red(table).to_html()
    assert "<img" not in page and page.count("&lt;img") == 3 and "0.500000" in page


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


def test_named_grids_are_rows_of_a_table_and_share_runs(notebook, tmp_path):
    grids = {"small": {"number": [3, 4]}, "again": {"number": [4], "name": ["a"]}}
    table = sweep(notebook, grids | {"same": {"number": [3]}}, tmp_path / "runs")
    assert table["row"].tolist() == ["small", "small", "again", "same"]
    assert table["square"].tolist() == [9, 16, 16, 9] and table.columns[0] == "row"
    assert table["status"].tolist() == ["done", "done", "done", "kept"]
    with pytest.raises(ValueError, match=r"name = \{'b': 1\} is no list of values"):
        sweep(notebook, {"number": [3], "name": {"b": 1}}, tmp_path / "runs")


def test_dask_runs_the_points(notebook, tmp_path):
    pytest.importorskip("distributed")
    grid, before = {"number": [5, 13]}, dict(os.environ)
    table = sweep(notebook, grid, tmp_path / "runs", n_jobs=2, backend="dask")
    assert table["status"].tolist() == ["done", "failed"] and table["square"][0] == 25
    assert dict(os.environ) == before  # what starts later has all its cores


def test_a_backend_that_is_not_installed_is_named(notebook, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray.util.joblib", None)
    with pytest.raises(ImportError, match=r"'ray' needs more: pip install 'vidhash-lab\[ray\]'"):
        sweep(notebook, {"number": [1]}, tmp_path / "runs", backend="ray")


def test_the_run_that_sweeps_are_made_of_leaves_codes_and_scores(tmp_path):
    common = {"dataset": ["digit-stories-mini"], "bits": [16], "recipe": [{"epochs": 1}]}
    small = {"hidden_dim": 32, "depth": 1, "heads": 2, "decoder_dim": 32}
    grid = common | {"method": ["conmh"], "sizes": [small]}
    table = sweep(ONE_RUN, [common | {"method": ["itq"]}, grid], tmp_path)
    assert table["status"].tolist() == ["done", "done"], table.get("error")
    codes = np.load(Path(table["folder"][1]) / "codes.npz")
    assert codes["query"].shape == (60, 2) and codes["database"].dtype == np.uint8
    found = score((codes["query"], codes["database"]), open_dataset("digit-stories-mini"))
    assert table["mAP@20"][1] == pytest.approx(found.map_at[20]) and 0 < found.map_at[20] < 1
    assert table["mAP@20"][0] > 0.1 and "16 bits" in table["protocol"][0]  # ITQ: 0.144; chance 0.03


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
