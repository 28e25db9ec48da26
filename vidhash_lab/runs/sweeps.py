"""Sweeps: a notebook run at every point of a grid, in parallel; a run that fails stops no other.

`ONE_RUN` is the notebook made for it: it trains and judges one method and leaves the codes beside
the metrics. Notebook 07 is a sweep of it.
"""

import contextlib
import hashlib
import itertools
import json
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidhash_lab.models import METHODS
from vidhash_lab.models.hasher import VideoHasher
from vidhash_lab.runs.runs import check_parameters, code_hash, environment, run_notebook

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

ONE_RUN = Path(__file__).with_name("one_run.ipynb")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def sweep(
    notebook: str | Path,
    grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]],
    folder: str | Path,
    *,
    n_jobs: int = 1,
    backend: str = "loky",
) -> "pd.DataFrame":
    """Run a notebook for every point of a grid -> pandas table, a row a run, in the grid's order.

    Args:
        grid: {parameter: list of values}, all combinations; or a list of such dicts, one grid
            after the other, where parameters hang together.
        folder: each run has a folder of its own in it.
        n_jobs: runs at a time; the kernel of each gets its share of the cores.
        backend: of joblib: "loky" for processes of this machine, "dask" (with the client that is
            connected, else one made for the sweep) and "ray" with `pip install vidhash-lab[sweep]`.

    Columns are the parameters, `status`, every recorded metric, `seconds`, `error` and `folder`. A
    run whose `metrics.json` has the same parameters and code is "kept", not run again; where a
    parameter names a class in a file, "path/to/mine.py:Mine", the file must be the same too. A run
    that raises is "failed", its executed copy shows where; the others go on, and the next sweep
    tries it anew. ValueError for a parameter that the notebook does not have, before anything runs.
    """
    import joblib
    import pandas as pd
    from tqdm.auto import tqdm

    grids = [grid] if isinstance(grid, dict) else grid
    points = [dict(zip(g, values)) for g in grids for values in itertools.product(*g.values())]
    for point in points:
        check_parameters(notebook, point)
    share = max(1, joblib.cpu_count() // n_jobs)
    notebook, folder = Path(notebook).resolve(), Path(folder).resolve()
    calls = (
        joblib.delayed(_run_point)(number, notebook, folder / _folder_name(point), point, share)
        for number, point in enumerate(points)
    )
    with _backend(backend, n_jobs):
        done = joblib.Parallel(n_jobs, return_as="generator_unordered")(calls)
        rows = dict(tqdm(done, total=len(points), desc="runs", unit="run"))
    return pd.DataFrame([rows[number] for number in range(len(points))])


def find_method(name: str) -> type[VideoHasher]:
    """Find a method by its name in `METHODS`, or as "path/to/mine.py:Mine", a class in a file.

    The file is run. ValueError for a name that is neither, or a class that the file does not have.
    """
    if name in METHODS:
        return METHODS[name]
    path, _, kind = name.rpartition(":")
    found = runpy.run_path(path) if path.endswith(".py") else {}
    if kind not in found:
        known = ", ".join(METHODS)
        raise ValueError(f"no method {name!r}; name one of {known}, or a class, path/mine.py:Mine")
    return found[kind]


def failures_in_red(table: "pd.DataFrame") -> "Styler":
    """Style a table of `sweep` for a notebook: runs that failed are red."""
    colours = {"failed": "background-color: #F6D5C6; color: #8A2E00"}
    return table.style.apply(lambda row: [colours.get(row["status"], "")] * len(row), axis=1)


def means_and_deviations(
    table: "pd.DataFrame", value: str, *, rows: str, columns: str
) -> "pd.DataFrame":
    """Write one metric of a sweep as "mean ± standard deviation" over the runs of each cell.

    `value`, `rows` and `columns` name columns of the table; a single run has no deviation.
    """
    cells = table.groupby([rows, columns], sort=False)[value]
    texts = cells.agg(lambda runs: f"{runs.mean():.3f} ± {runs.std():.3f}".replace(" ± nan", ""))
    return texts.unstack(columns)


def _folder_name(point):
    """Name the folder of a point by its plain values, and a hash of all and of files it names."""
    key = hashlib.sha256(json.dumps(point, sort_keys=True).encode())
    for value in point.values():
        source = re.fullmatch(r"(.+\.py):\w+", value) if isinstance(value, str) else None
        if source and Path(source[1]).is_file():  # one that is missing fails in its own run
            key.update(Path(source[1]).read_bytes())
    plain = [f"{name}-{v}" for name, v in point.items() if isinstance(v, (int, float, str))]
    return re.sub(r"[/\\:]", "-", "_".join([*plain, key.hexdigest()[:8]]))[-200:]


def _run_point(number, notebook, folder, point, share):
    """Run one point of a grid in its folder, or read it back -> its number and its row."""
    row = point | {"status": "kept"}
    if (run := _finished(notebook, folder, point)) is None:
        row["status"] = "done"
        try:
            with environment({name: str(share) for name in THREADS}):
                run_notebook(notebook, folder, point, progress_bar=False)
            run = _finished(notebook, folder, point)
        except Exception as error:  # of any kind: it ends this run alone
            name, text = getattr(error, "ename", type(error).__name__), str(error)
            row |= {"status": "failed", "error": f"{name}: {getattr(error, 'evalue', text)}"}
    run = run or {"metrics": {}}
    return number, row | run["metrics"] | {"seconds": run.get("seconds"), "folder": str(folder)}


def _finished(notebook, folder, point):
    """Read the run that `folder` holds, if it is one of these parameters and this code."""
    import nbformat

    try:
        run = json.loads((folder / "metrics.json").read_text())
        code = code_hash(nbformat.read(notebook, as_version=4))
        return run if (run["parameters"], run["code"]) == (point, code) else None
    except (OSError, ValueError, KeyError, TypeError):  # no run, or a damaged one: run it again
        return None


@contextlib.contextmanager
def _backend(backend, n_jobs):
    """Make joblib use a backend, started first where that is needed."""
    import joblib

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
