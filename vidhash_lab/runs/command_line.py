"""`python -m vidhash_lab.runs` and `vidhash run`: notebooks with parameters from the command line.

    vidhash run notebooks/02_masking_ratio.ipynb --folder build/run -p epochs 30
    vidhash run notebooks/*.ipynb --refresh

The second executes notebooks in full and writes them back cleaned, with their figures. What does
not fit is told before anything runs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vidhash_lab.runs.runs import (
    check_parameters,
    default_values,
    refresh,
    run_notebook,
    write_html,
)

HELP = """Run notebooks from top to bottom, with parameters of your own.

  vidhash run notebooks/02_masking_ratio.ipynb -p bits 16 -p dataset features.h5

Each run is a folder in --folder: the executed notebook, a page to look at, and metrics.json."""
PARAMETER = "one of the names in the notebook's parameters cell, and its value; as often as needed"
KINDS = {bool: "truth value", int: "number", float: "number", str: "text"}
HINTS = {
    ("text", "number"): "Write 0.003, not 3e-3.",
    ("text", "list"): "Write it as -p NAME '[1, 2]'.",
    ("number", "list"): "Write it as -p NAME '[1, 2]'.",
    ("text", "dict"): "Write it as -p NAME '{hidden_dim: 64}'.",
    ("number", "text"): """Write it as -p NAME "'12'".""",
}


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run notebooks from the command line; ValueError, before any runs, for what does not fit.

    >>> main(["--refresh", "a.ipynb", "-p", "bits", "16"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    examples = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=HELP, formatter_class=examples)
    add = parser.add_argument
    add("notebooks", nargs="+", type=Path, help="paths of notebooks")
    add("--folder", type=Path, default=Path("build/runs"), help="where runs go (build/runs)")
    add("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=PARAMETER)
    add("--refresh", action="store_true", help="write it back cleaned, with its figures")
    options = parser.parse_args(arguments)
    parameters = {name: _value(name, text) for name, text in options.p}
    if options.refresh and parameters:
        parser.error("--refresh runs notebooks as they are committed: without parameters")
    for notebook in options.notebooks:
        _check(notebook, parameters)
    for notebook in options.notebooks:
        if options.refresh:
            refresh(notebook, Path("figures"))
        else:
            print(write_html(run_notebook(notebook, options.folder / notebook.stem, parameters)))


def _value(name, text):
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        example = "-p sizes '{hidden_dim: 64}'"
        raise ValueError(f"-p {name} {text}: no value can be read; see {example}") from error


def _check(notebook, parameters):
    """Raise ValueError for what is no notebook, or where it has a number, say, and gets a text."""
    if notebook.is_dir():
        raise ValueError(f"{notebook} is a folder; for all notebooks in it: {notebook}/*.ipynb")
    if notebook.suffix != ".ipynb" and notebook.exists():
        raise ValueError(f"{notebook} is no notebook: their names end in .ipynb")
    if not parameters or not notebook.exists():
        return  # the run says what is missing
    check_parameters(notebook, parameters)
    for name, own in default_values(notebook).items():
        value = parameters.get(name)
        kind, wanted = _kind(value), _kind(own)
        if kind != wanted and value is not None and own is not None:
            told = f"{name} is {value!r}, a {kind}; it has {own!r}, a {wanted}"
            raise ValueError(f"{notebook}: {told}. {HINTS.get((kind, wanted), '')}".strip())


def _kind(value):
    return KINDS.get(type(value), type(value).__name__)
