"""Sweeps: a notebook run at every point of a grid, in parallel, whatever some of the runs do.

`ONE_RUN` is the notebook made for it: one method trained and judged, its codes left beside its
metrics. Notebook 07 is a sweep of it.
"""

import contextlib
import hashlib
import itertools
import json
import os
from pathlib import Path

import joblib
import nbformat
import pandas as pd
from tqdm.auto import tqdm

from vidhash_lab.runs.runs import check_parameters, code_hash, environment, run_notebook

ONE_RUN = Path(__file__).with_name("one_run.ipynb")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def sweep(notebook, grid, folder, *, n_jobs=1, backend="loky"):
    """Run a notebook for every point of a grid -> pandas table, a row a run, in the grid's order.

    Args:
        grid: {parameter: list of values}, all combinations; or a list of such dicts, one grid
            after the other, where parameters hang together.
        folder: each run has a folder of its own in it.
        n_jobs: runs at a time; the kernel of each gets its share of the cores.
        backend: of joblib: "loky" for processes of this machine, "dask" (with the client that is
            connected, else one made for the sweep) and "ray" with `pip install vidhash-lab[sweep]`.

    Columns are the parameters, `status`, every recorded metric, `seconds`, `error` and `folder`. A
    run whose `metrics.json` has the same parameters and code is "kept", not run again. One that
    raises is "failed", its executed copy shows where; the others go on, and the next sweep tries it
    anew. ValueError for a parameter that the notebook does not have, before anything runs.
    """
    grids = [grid] if isinstance(grid, dict) else grid
    points = [dict(zip(g, values)) for g in grids for values in itertools.product(*g.values())]
    for point in points:
        check_parameters(notebook, point)
    share = max(1, joblib.cpu_count() // n_jobs)
    calls = (
        joblib.delayed(_run_point)(number, Path(notebook).resolve(), Path(folder).resolve(), *rest)
        for number, rest in enumerate((point, share) for point in points)
    )
    with _backend(backend, n_jobs), tqdm(total=len(points), desc="runs", unit="run") as bar:
        rows = {}
        for number, row in joblib.Parallel(n_jobs, return_as="generator_unordered")(calls):
            rows[number] = row
            bar.update()
    return pd.DataFrame([rows[number] for number in range(len(points))])


def failures_in_red(table):
    """Style a table of `sweep` for a notebook: runs that failed are red."""
    red = "background-color: #F6D5C6; color: #8A2E00"
    return table.style.apply(lambda row: [red * (row["status"] == "failed")] * len(row), axis=1)


def means_and_deviations(table, value, *, rows, columns):
    """Write one metric of a sweep as "mean ± standard deviation" over the runs of each cell."""
    cells = table.groupby([rows, columns], sort=False)[value]
    texts = cells.agg(lambda runs: f"{runs.mean():.3f} ± {runs.std():.3f}".replace(" ± nan", ""))
    return texts.unstack(columns)


def _run_point(number, notebook, folder, point, share):
    """Run one point of a grid, or read it back -> its number and its row."""
    key = hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:8]
    plain = [f"{k}-{v}" for k, v in point.items() if isinstance(v, (int, float, str))]
    folder = folder / "_".join([*plain, key]).replace(os.sep, "-")[-200:]
    row = point | {"status": "kept"}
    if (run := _finished(notebook, folder, point)) is None:
        row["status"] = "done"
        try:
            with environment({name: str(share) for name in THREADS}):
                run_notebook(notebook, folder, point, progress_bar=False)
            run = _finished(notebook, folder, point)
        except Exception as error:  # of whatever kind: it is this run's alone
            name, text = getattr(error, "ename", type(error).__name__), str(error)
            row |= {"status": "failed", "error": f"{name}: {getattr(error, 'evalue', text)}"}
    run = run or {"metrics": {}}
    return number, row | run["metrics"] | {"seconds": run.get("seconds"), "folder": str(folder)}


def _finished(notebook, folder, point):
    """Read the run that `folder` holds, if it is one of these parameters and this code."""
    try:
        run = json.loads((folder / "metrics.json").read_text())
        code = code_hash(nbformat.read(notebook, as_version=4))
        return run if (run["parameters"], run["code"]) == (point, code) else None
    except (OSError, ValueError, KeyError, TypeError):  # none, or not ours: it will be written
        return None


@contextlib.contextmanager
def _backend(backend, n_jobs):
    """Make joblib use a backend, started first where that is needed."""
    with contextlib.ExitStack() as stack:
        try:
            if backend == "dask":
                from distributed import Client, LocalCluster, default_client

                try:
                    default_client()
                except ValueError:  # no client is connected
                    stack.enter_context(environment({}))  # dask would leave one thread in it
                    cluster = stack.enter_context(LocalCluster(n_jobs, threads_per_worker=1))
                    stack.enter_context(Client(cluster))
            elif backend == "ray":
                from ray.util.joblib import register_ray

                register_ray()
        except ImportError as error:
            message = f"backend {backend!r} needs more: pip install 'vidhash-lab[sweep]'"
            raise ImportError(message) from error
        with joblib.parallel_config(backend):
            yield
