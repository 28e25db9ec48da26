"""Runs of notebooks: parameters in, an executed notebook, `metrics.json` and HTML out.

    python -m vidhash_lab.runs notebooks/02_masking_ratio.ipynb --folder build/run -p epochs 30
    python -m vidhash_lab.runs notebooks/*.ipynb --refresh

The second executes notebooks in full and writes them back cleaned, with their figures. What is slow
to import is imported where a notebook is run: recording a number does not need it.
"""

import argparse
import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import re
import statistics
import time
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidhash_lab.data.files import DataError, refusing_damage, written_whole
from vidhash_lab.processes import environment
from vidhash_lab.runs.figures import FIGURES_VARIABLE
from vidhash_lab.runs.prose import changed_parameters, replace_readings

if TYPE_CHECKING:
    from nbformat import NotebookNode

METRICS_TYPE = "application/vnd.vidhash-lab.metrics+json"
WIDGET_TYPE = "application/vnd.jupyter.widget-view+json"
WIDGET_LINE = "(A widget stands here in JupyterLab: a page has no kernel to ask.)"
FOLDER_VARIABLE = "VIDHASH_LAB_RUN"  # where the notebook that runs may leave files


HELP = """Run notebooks from top to bottom, with parameters of your own.

  vidhash run notebooks/02_masking_ratio.ipynb -p bits 16 -p dataset features.h5

Each run is a folder in --folder: the executed notebook, a page to look at, and metrics.json."""
PARAMETER = "one of the names in the notebook's parameters cell, and its value; as often as needed"


def run_notebook(
    notebook: str | Path,
    folder: str | Path,
    parameters: dict | None = None,
    *,
    progress_bar: bool = True,
) -> Path:
    """Execute a copy of `notebook` in `folder`, with a `metrics.json` (see `read_run`) -> its path.

    Text that reads other results than this run will have is replaced (see `prose`). Paths among the
    parameters are relative to where the call is made. ValueError for a parameter that the notebook
    does not have or that is no plain JSON value.

    >>> from vidhash_lab.runs import ONE_RUN
    >>> run_notebook(ONE_RUN, "build/run", {"bit": 16})  # `bits` would run
    Traceback (most recent call last):
    ValueError: ... no parameter ['bit']; it has ['bits', 'dataset', ...
    """
    import nbformat
    import papermill

    notebook, folder, parameters = Path(notebook), Path(folder), parameters or {}
    check_parameters(notebook, parameters)
    to_run = nbformat.read(notebook, as_version=4)
    replace_readings(to_run, changed_parameters(default_values(notebook), parameters))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").unlink(missing_ok=True)  # a run that fails must not show old ones
    output, started = folder / notebook.name, time.perf_counter()
    with environment({FOLDER_VARIABLE: str(folder.resolve())}):
        executed = papermill.execute_notebook(
            to_run, str(output), parameters, kernel_name="python3",
            progress_bar=progress_bar, store_widget_state=False, record_timing=False,
            # Outputs that are still on their way after 4 s would be dropped with a warning.
            iopub_timeout=600, raise_on_iopub_timeout=True,
        )  # fmt: skip
    run = {"notebook": notebook.name, "code": code_hash(executed), "parameters": parameters}
    run |= {"metrics": {}, "seconds": time.perf_counter() - started}
    for shown in (each for cell in executed.cells for each in cell.get("outputs", [])):
        run["metrics"] |= shown.get("data", {}).get(METRICS_TYPE, {})
    write_run(folder, run)
    return output


def write_run(folder: Path, run: dict) -> None:
    """Write the `metrics.json` of a run with checksums of itself and of the arrays beside it.

    >>> write_run(Path("."), {"notebook": "01_data.ipynb", "metrics": {"mAP@20": 0.5}})
    >>> read_run(".")["metrics"]
    {'mAP@20': 0.5}
    """
    run = run | {"arrays": {p.name: _file_hash(p) for p in sorted(folder.glob("*.npz"))}}
    _write_text(folder / "metrics.json", json.dumps(run | {"checksum": _hash(run)}, indent=1))


def read_run(folder: str | Path) -> dict:
    """Read `metrics.json`; FileNotFoundError, or DataError where it or its arrays were changed.

    >>> write_run(Path("."), {"notebook": "01_data.ipynb", "metrics": {"mAP@20": 0.5}})
    >>> read_run(".")["notebook"]
    '01_data.ipynb'
    """
    path = Path(folder) / "metrics.json"
    with refusing_damage(path, "not the metrics of a run"):
        run = json.loads(path.read_text())
        intact = _hash({key: run[key] for key in run if key != "checksum"}) == run["checksum"]
        arrays = run["arrays"].items() if intact else ()
        intact &= all(_file_hash(path.with_name(name)) == expected for name, expected in arrays)
    if not intact:
        raise DataError(f"{path}: the checksum of it or of its arrays is another one. Run it anew.")
    return run


def check_parameters(notebook: str | Path, parameters: dict) -> None:
    """Raise ValueError for names that the notebook does not have, values that JSON would change.

    >>> from vidhash_lab.runs import ONE_RUN
    >>> check_parameters(ONE_RUN, {"bits": 16})
    """
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    if unknown := sorted(parameters.keys() - known):
        raise ValueError(f"{notebook}: no parameter {unknown}; it has {sorted(known)}.")
    for name, value in parameters.items():
        with contextlib.suppress(TypeError):
            if json.loads(json.dumps(value)) == value:
                continue
        raise ValueError(
            f"{notebook}: parameter {name} = {value!r} is no plain JSON value. Turn arrays and "
            "tuples into lists, numpy scalars into numbers, paths into strings."
        )


def default_values(notebook: str | Path) -> dict:
    """Read the defaults of a notebook's parameters; what is no literal is left out.

    >>> from vidhash_lab.runs import ONE_RUN
    >>> default_values(ONE_RUN)["bits"]
    64
    """
    import papermill

    values = {}
    for name, parameter in papermill.inspect_notebook(str(notebook)).items():
        with contextlib.suppress(ValueError, SyntaxError):
            values[name] = ast.literal_eval(parameter["default"])
    return values


def record_metrics(**metrics: float | int | str) -> None:
    """Show numbers at the end of a notebook so that `run_notebook` finds them.

    >>> record_metrics(map_at_20=0.4321)
    {... 'text/plain': 'map_at_20 = 0.432'}
    """
    from IPython.display import display

    shown = {n: f"{v:.3f}" if isinstance(v, float) else v for n, v in metrics.items()}
    text = "\n".join(f"{name} = {value}" for name, value in shown.items())
    display({METRICS_TYPE: metrics, "text/plain": text}, raw=True)


def save_arrays(name: str, **arrays: np.ndarray) -> None:
    """Write arrays beside the run's `metrics.json` as `name`.npz; outside a run, do nothing.

    >>> save_arrays("codes", database=np.zeros((4, 8), np.uint8))  # outside a run: nothing
    """
    if folder := os.environ.get(FOLDER_VARIABLE):
        path = Path(folder) / f"{name}.npz"
        with written_whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # given a name, numpy would add an ending to it


def median_milliseconds(function: Callable, *arguments, rounds: int = 30) -> float:
    """Time `function(*arguments)` -> milliseconds, the median of `rounds` calls after two more.

    >>> median_milliseconds(sum, range(1000), rounds=3) < 1000
    True
    """
    seconds = timeit.repeat(lambda: function(*arguments), number=1, repeat=rounds + 2)
    return 1000 * statistics.median(seconds[2:])


def code_hash(notebook: "NotebookNode") -> str:
    """Hash the code cells of a notebook: what a committed run must have been made from.

    >>> from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
    >>> cells = [new_markdown_cell("Words."), new_code_cell("1 + 1")]
    >>> code_hash(new_notebook(cells=cells)) == code_hash(new_notebook(cells=cells[1:]))
    True
    """
    cells, injected = notebook.cells, "injected-parameters"
    own = (c for c in cells if injected not in c.metadata.get("tags", []))
    return _hash([cell.source for cell in own if cell.cell_type == "code"])


def _hash(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _file_hash(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def clean(notebook: "NotebookNode") -> "NotebookNode":
    """Strip timings and progress bars; a widget leaves a line, a picture keeps 256 colours.

    >>> from nbformat.v4 import new_code_cell, new_notebook, new_output
    >>> bar = new_output("stream", name="stderr", text="3/9 [00:01<00:02]")
    >>> clean(new_notebook(cells=[new_code_cell("fit()", outputs=[bar])])).cells[0].outputs
    []
    """
    for place in (notebook, *notebook.cells):
        for key in ("papermill", "widgets", "execution"):
            place.metadata.pop(key, None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
            for output in cell.outputs:
                if WIDGET_TYPE in output.get("data", {}):
                    output.data = {"text/plain": WIDGET_LINE}
                if png := output.get("data", {}).get("image/png"):
                    output.data["image/png"] = _in_256_colours(png)
    return notebook


def _is_progress(output):
    """Tell whether an output is a progress bar, as text or as a widget: "3/9 [00:01<00:02, …"."""
    shown = output.get("data", {})
    times = re.search(r"\[\d+:\d+<", shown.get("text/plain", ""))
    return output.get("name") == "stderr" or (WIDGET_TYPE in shown and times is not None)


def _in_256_colours(png):
    """Encode a base64 PNG anew; a picture that has no more colours comes back as it was."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "P":
        return png
    # Maximum coverage keeps the colour of a thin line, which the median cut would lose.
    few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(encoded := io.BytesIO(), "png", optimize=True)
    return base64.b64encode(encoded.getvalue()).decode()


def refresh(notebook: str | Path, figures: str | Path) -> None:
    """Execute a notebook in full and write it back cleaned, with figures and its code's hash."""
    import nbformat

    with environment({FIGURES_VARIABLE: str(Path(figures).resolve())}):
        output = run_notebook(notebook, Path("build") / "refresh" / Path(notebook).stem)
    executed = clean(nbformat.read(output, as_version=4))
    executed.metadata["vidhash_lab"] = {"code_hash": code_hash(executed)}
    _write_text(notebook, nbformat.writes(executed) + "\n")


def write_html(notebook: str | Path) -> Path:
    """Convert an executed notebook to HTML beside it, cleaned as it would be committed -> path.

    The page is one file and makes no request (`vidhash_lab.runs.pages`).

    >>> import nbformat
    >>> nbformat.write(nbformat.v4.new_notebook(), "page.ipynb")
    >>> write_html("page.ipynb").name
    'page.html'
    """
    import nbformat

    from vidhash_lab.runs.pages import page_of

    path = Path(notebook).with_suffix(".html")
    _write_text(path, page_of(clean(nbformat.read(notebook, as_version=4))))
    return path


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run notebooks from the command line.

    >>> main(["--refresh", "a.ipynb", "-p", "bits", "16"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    import yaml

    examples = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=HELP, formatter_class=examples)
    add = parser.add_argument
    add("notebooks", nargs="+", type=Path, help="paths of notebooks")
    add("--folder", type=Path, default=Path("build/runs"), help="where runs go (build/runs)")
    add("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=PARAMETER)
    add("--refresh", action="store_true", help="write it back cleaned, with its figures")
    options = parser.parse_args(arguments)
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    if options.refresh and parameters:
        parser.error("--refresh runs notebooks as they are committed: without parameters")
    for notebook in options.notebooks:
        if options.refresh:
            refresh(notebook, Path("figures"))
        else:
            print(write_html(run_notebook(notebook, options.folder / notebook.stem, parameters)))


def _write_text(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text)
