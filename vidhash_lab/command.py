"""The console command `vidhash`: what there is to run without writing Python.

Each subcommand takes `--help`. An error is one line that says what to do; its traceback is for
those who ask (`VIDHASH_LAB_TRACEBACK=1`).
"""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

USAGE = """usage: vidhash COMMAND …

Search videos by short binary codes. Commands:

  extract  describe a folder of films by features, in one HDF5 file to train and search on
  data     examine a file or folder of features: what is there, and what is wrong with it
  run      run notebooks with parameters; each leaves its numbers and a page
  cache    show what the kit keeps on this disk, and free it
  about    versions, device, threads and cache, for a report of an error

`vidhash COMMAND --help` tells more. A first try, on data that the kit makes itself (two minutes):

  vidhash run notebooks/00_start_here.ipynb

With films of your own, or with features of them (FEATURES.h5 is then there already):

  vidhash extract FILMS FEATURES.h5 --labels folders
  vidhash data FEATURES.h5
  vidhash run notebooks/00_start_here.ipynb -p dataset FEATURES.h5
"""
COMMANDS = {
    "extract": "vidhash_lab.videos.__main__",
    "data": "vidhash_lab.data.__main__",
    "run": "vidhash_lab.runs.runs",
    "cache": "vidhash_lab.data.cache",
    "about": "vidhash_lab.installation",
}
KINDS = {bool: "truth value", int: "number", float: "number", str: "text"}
HINTS = {
    ("text", "number"): "Write 0.003, not 3e-3.",
    ("text", "list"): "Write it as -p NAME '[1, 2]'.",
    ("number", "list"): "Write it as -p NAME '[1, 2]'.",
    ("text", "dict"): "Write it as -p NAME '{hidden_dim: 64}'.",
    ("number", "text"): """Write it as -p NAME "'12'".""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code: 0, 1 for an error, 2 for words it does not know.

    >>> main(["cache"])
    /...: ... MB...
    0
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        meant = f" Did you mean `{close[0]}`?" if close else ""
        known = ", ".join(COMMANDS)
        print(f"vidhash: no command `{name}`; there are {known}.{meant}", file=sys.stderr)
        return 2
    try:
        if name == "run":
            _check_run(rest)
        return import_module(COMMANDS[name]).main(rest, prog=f"vidhash {name}") or 0
    except KeyboardInterrupt:
        print(f"vidhash {name}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("VIDHASH_LAB_TRACEBACK"):
            raise
        print(f"vidhash {name}: {_told(error)}", file=sys.stderr)
        return 1


def _check_run(words):
    """Raise ValueError for what cannot be run as it is asked for, before anything runs.

    Names that a notebook does not have are left to the run, which lists those that there are.
    """
    from vidhash_lab.runs import runs  # first: it says which extra is missing

    import yaml  # isort: skip

    notebooks, given = _words_of_run(words)
    values = {}
    for name, text in given.items():
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            example = "-p sizes '{hidden_dim: 64}'"
            raise ValueError(f"-p {name} {text}: no value can be read; see {example}") from error
    for notebook in notebooks:
        if os.path.isdir(notebook):
            raise ValueError(f"{notebook} is a folder; for all notebooks in it: {notebook}/*.ipynb")
        if os.path.isfile(notebook) and not notebook.endswith(".ipynb"):
            raise ValueError(f"{notebook} is no notebook: their names end in .ipynb")
        if values and os.path.isfile(notebook):
            _check_kinds(notebook, runs.default_values(notebook), values)


def _words_of_run(words):
    """Split the command line of `vidhash run` -> notebooks, {name: text} of its parameters."""
    words, notebooks, given = list(words), [], {}
    while words:
        word = words.pop(0)
        if word == "-p" and len(words) > 1:
            name, text, *words = words
            given[name] = text
        elif word == "--folder":
            words = words[1:]
        elif not word.startswith("-"):
            notebooks.append(word)
    return notebooks, given


def _check_kinds(notebook, defaults, values):
    """Raise ValueError where a notebook has a number, say, and was given a text."""
    for name, own in defaults.items():
        if name in values and values[name] is not None and own is not None:
            kind, wanted = _kind(values[name]), _kind(own)
            if kind != wanted:
                told = f"{name} is {values[name]!r}, a {kind}; it has {own!r}, a {wanted}"
                raise ValueError(f"{notebook}: {told}. {HINTS.get((kind, wanted), '')}".strip())


def _kind(value):
    return KINDS.get(type(value), type(value).__name__)


def _told(error):
    """Say an error in a line; of a notebook's cell, which one and what it raised."""
    if hasattr(error, "exec_count"):  # papermill's, whose text holds the cell's whole traceback
        return f"cell {error.exec_count} raised {error.ename}: {error.evalue}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    kind = "" if isinstance(error, (ValueError, OSError, ImportError)) else type(error).__name__
    return f"{kind}: {error}" if kind and str(error) else str(error) or kind
