"""Sweeps: a notebook run at every point of a grid, in parallel; a run that fails stops no other.

`ONE_RUN` is the notebook made for it: it trains and judges one method and leaves the codes beside
the metrics. Notebook 07 is a sweep of it.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import runpy
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from vidhash_lab.data.catalog import open_dataset
from vidhash_lab.data.files import DataError, written_whole
from vidhash_lab.models import METHODS
from vidhash_lab.models.hasher import VideoHasher
from vidhash_lab.runs import runs

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

ONE_RUN = Path(__file__).with_name("one_run.ipynb")
PACKAGE = Path(__file__).parents[1]
BUILT_IN = "digit-stories", "digit-stories-mini"  # made by the package's code, checked when opened
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

DASK = {  # of a cluster made here
    "distributed.scheduler.allowed-failures": 0,  # a run that kills its worker is not tried again
    # A killed worker is started anew, which may take long: it must not be given up meanwhile.
    "distributed.deploy.lost-worker-timeout": "1 hour",
}


def sweep(
    notebook: str | Path,
    grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]] | Mapping[str, Mapping],
    folder: str | Path,
    *,
    n_jobs: int = 1,
    backend: str = "loky",
) -> "pd.DataFrame":
    """Run a notebook for every point of a grid -> pandas table, a row a run, in the grid's order.

    Args:
        grid: {parameter: list of values}, all combinations; or a list of such dicts; or a dict of
            such dicts by name, whose names are the table's first column, `row`.
        folder: each run has a folder of its own in it; two sweeps of one folder share their runs.
        n_jobs: runs at a time; the kernel of each gets its share of the cores.
        backend: "loky" for processes of this machine, "dask" (with the client that is connected,
            else one made for the sweep) and "ray" need the extras `cluster` and `ray`.

    Columns are the parameters, `status`, every recorded metric, `seconds`, `error` and `folder`. A
    run is "kept", not run again, where nothing has changed: parameters, the notebook's and the
    package's code, and the data sets, files such as "path/to/mine.py:Mine" and folders (by sizes
    and times of their files, but `root` only by the data set in it) that parameters name. A run
    that raises, or whose worker is killed, is "failed", and tried anew next time. ValueError,
    before anything runs, for a parameter that the notebook does not have and values in no list.

    >>> sweep(ONE_RUN, {"bits": [16], "layers": [1]}, "build/grid")  # a grid of `bits` would run
    Traceback (most recent call last):
    ValueError: ... no parameter ['layers']; it has ['bits', 'dataset', ...
    """
    import joblib
    import pandas as pd
    from tqdm.auto import tqdm

    names, points = _points(grid)
    for point in points:
        runs.check_parameters(notebook, point)
    # Read once: a notebook that is saved meanwhile must not run under the name of this one.
    source, package = Path(notebook).read_text("utf-8"), _package_hash()
    kept = _folder_names(notebook, source, points, package)
    folders = [Path(folder).resolve() / name for name in kept]
    copy, token = Path(notebook).name, uuid.uuid4().hex
    same = max(1, joblib.cpu_count() // n_jobs), package, token  # for all points
    rows, bar = {}, tqdm(total=len(points), desc="runs", unit="run")
    run = joblib.delayed(_run_point)
    with _backend(backend, n_jobs), bar:
        while left := [number for number in range(len(points)) if number not in rows]:
            calls = (run(n, folders[n] / copy, source, points[n], *same) for n in left)
            try:
                for number, row in _results(calls, n_jobs, backend):
                    rows[number] = row
                    bar.update()
            except Exception as error:  # of the backend: a worker was killed, others with it
                begun = [n for n in left if n not in rows and _has_begun(folders[n], token)]
                if not begun:
                    raise
                for n in begun:
                    with FileLock(folders[n] / ".lock"):  # until it runs no more
                        rows[n] = _row(points[n], folders[n], "done", error)
                    bar.update()
    return pd.DataFrame([name | rows[number] for number, name in enumerate(names)])


def _results(calls, n_jobs, backend):
    """Make calls in parallel, yield what they return as they end, raise where a worker is lost."""
    import joblib

    if backend == "dask":  # by itself: in joblib's hands, the call of a killed worker never ends
        from distributed import as_completed, default_client

        submit = default_client().submit
        futures = [submit(function, *given, pure=False) for function, given, _ in calls]
        errors = []
        for future in as_completed(futures):  # what others returned comes first
            if error := future.exception():
                errors.append(error)
            else:
                yield future.result()
        if errors:
            raise errors[0]
    else:
        yield from joblib.Parallel(n_jobs, return_as="generator_unordered")(calls)


def _points(grid):
    """List the points of a grid, and for each {"row": its name}, {} where grids have no names."""
    if isinstance(grid, Mapping):
        named = all(isinstance(values, Mapping) for values in grid.values())
        grids = [({"row": row}, each) for row, each in grid.items()] if named else [({}, grid)]
    else:
        grids = [({}, each) for each in grid]
    for name, values in itertools.chain(*(each.items() for _, each in grids)):
        if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
            raise ValueError(f"grid: {name} = {values!r} is no list of values. Write [{values!r}].")
    pairs = [
        (row, dict(zip(each, values)))
        for row, each in grids
        for values in itertools.product(*each.values())
    ]
    return [row for row, _ in pairs], [point for _, point in pairs]


def find_method(name: str) -> type[VideoHasher]:
    """Find a method of `METHODS`, or the class "path/to/mine.py:Mine"; ValueError for neither.

    >>> find_method("itq").__name__
    'ITQ'
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
    """Style a table of `sweep` for a notebook: runs that failed are red, all text is escaped.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"bits": [16, 32], "status": ["done", "failed"]})
    >>> "#8A2E00" in failures_in_red(table).to_html()
    True
    """
    colours = {"failed": "background-color: #F6D5C6; color: #8A2E00"}
    style = table.style.format(escape="html")
    for axis in (0, 1):
        style = style.format_index(escape="html", axis=axis)
    return style.apply(lambda row: [colours.get(row["status"], "")] * len(row), axis=1)


def means_and_deviations(
    table: "pd.DataFrame", value: str, *, rows: str, columns: str
) -> "pd.DataFrame":
    """Write a metric of a sweep as "mean ± standard deviation" over the runs of each cell.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"method": ["itq"] * 2, "bits": [16] * 2, "mAP": [0.25, 0.75]})
    >>> means_and_deviations(table, "mAP", rows="method", columns="bits").loc["itq", 16]
    '0.500 ± 0.354'
    """
    cells = table.groupby([rows, columns], sort=False)[value]
    texts = cells.agg(lambda runs: f"{runs.mean():.3f} ± {runs.std():.3f}".replace(" ± nan", ""))
    return texts.unstack(columns)


def _folder_names(notebook, source, points, package):
    """Name the folder of each point by its plain values, and a hash of all that its run is of."""
    import nbformat

    code = runs.code_hash(nbformat.reads(source, as_version=4))
    defaults = runs.default_values(notebook)
    digest = functools.cache(_digest)  # of this sweep alone: the next one looks anew
    for point in points:
        parameters = defaults | point
        root = parameters.pop("root", None)
        contents = [digest(text, root) for text in _texts(parameters)]
        key = json.dumps([point, code, package, contents], sort_keys=True).encode()
        plain = [f"{name}-{v}" for name, v in point.items() if isinstance(v, (int, float, str))]
        name = "_".join([*plain, hashlib.sha256(key).hexdigest()[:16]])
        name = re.sub(r"[\x00-\x1f/\\:{}]", "-", name)  # papermill would fill in braces
        yield name.encode(errors="replace")[-200:].decode(errors="ignore")


def _texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _digest(text, root):
    """Digest the data set, file or folder that a parameter names; None where it is only a word."""
    if not text or text in BUILT_IN:
        return None
    with contextlib.suppress(Exception):
        data = open_dataset(text, root)
        fine = (part.fine_labels for part in (data.train, data.database, data.query))
        hashes = [hashlib.sha256(b"" if f is None else f.tobytes()).hexdigest() for f in fine]
        return [data.fingerprint(), *hashes]
    path = re.sub(r"(?<=\.py):\w+$", "", text)
    with contextlib.suppress(OSError):
        if os.path.isfile(path):
            return _sample_hash(path)
        if os.path.isdir(path):
            files = [(str(p), p.stat()) for p in sorted(Path(path).rglob("*")) if p.is_file()]
            return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
    return None


def _sample_hash(path):
    """Hash the size of a file and 1,024 blocks of 16 kB spread over it, all of it up to 16 MB."""
    size, block = os.path.getsize(path), 1 << 14
    found = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for start in range(0, size, max(block, size // 1024)):
            file.seek(start)
            found.update(file.read(block))
    return found.hexdigest()


def _package_hash():
    """Hash the code of vidhash_lab, and the weights that its own data set is made with."""
    found = hashlib.sha256()
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.safetensors")]):
        found.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def _run_point(number, copy, source, point, share, package, token):
    """Run one point of a grid as `copy`, a file in its folder, or read it -> number and row."""
    folder, status, problem = copy.parent, "kept", None
    try:
        if not _is_finished(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # another sweep may be at this very point
                if not _is_finished(folder):
                    status = "done"
                    (folder / ".begun").write_text(token)
                    with written_whole(copy) as temporary:
                        temporary.write_text(source, "utf-8")
                    with runs.environment({name: str(share) for name in THREADS}):
                        runs.run_notebook(copy, folder, point, progress_bar=False)
                    if _package_hash() != package:
                        (folder / "metrics.json").unlink()
                        raise RuntimeError("the code of vidhash_lab was changed while it ran")
    except Exception as error:  # of any kind: it ends this run alone
        problem = error
    return number, _row(point, folder, status, problem)


def _row(point, folder, status, problem=None):
    """Make the row of a point from what its folder holds: it has failed where that is no run."""
    try:
        run = runs.read_run(folder)
        row = {"status": status}
    except (DataError, OSError) as error:
        problem, run = problem or error, {"metrics": {}}
        name, text = getattr(problem, "ename", type(problem).__name__), str(problem)
        row = {"status": "failed", "error": f"{name}: {getattr(problem, 'evalue', text)}"}
    return point | row | run["metrics"] | {"seconds": run.get("seconds"), "folder": str(folder)}


def _is_finished(folder):
    with contextlib.suppress(DataError, FileNotFoundError):
        return bool(runs.read_run(folder))
    return False


def _has_begun(folder, token):
    with contextlib.suppress(OSError):
        return (folder / ".begun").read_text() == token
    return False


@contextlib.contextmanager
def _backend(backend, n_jobs):
    import joblib

    with contextlib.ExitStack() as stack:
        try:
            if backend == "dask":
                import dask
                from distributed import Client, LocalCluster, default_client

                try:
                    default_client()
                except ValueError:  # no client is connected
                    stack.enter_context(runs.environment({}))  # dask would leave one thread in it
                    stack.enter_context(dask.config.set(DASK))
                    cluster = stack.enter_context(LocalCluster(n_jobs, threads_per_worker=1))
                    stack.enter_context(Client(cluster))
            elif backend == "ray":
                from ray.util.joblib import register_ray

                register_ray()
        except ImportError as error:
            extra = {"dask": "cluster"}.get(backend, backend)
            message = f"backend {backend!r} needs more: pip install 'vidhash-lab[{extra}]'"
            raise ImportError(message) from error
        if backend != "dask":
            stack.enter_context(joblib.parallel_config(backend))
        yield
