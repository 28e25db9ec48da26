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
    "run": "vidhash_lab.runs.command_line",
    "cache": "vidhash_lab.data.cache",
    "about": "vidhash_lab.installation",
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
        return import_module(COMMANDS[name]).main(rest, prog=f"vidhash {name}") or 0
    except KeyboardInterrupt:
        print(f"vidhash {name}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("VIDHASH_LAB_TRACEBACK"):
            raise
        print(f"vidhash {name}: {_told(error)}", file=sys.stderr)
        return 1


def _told(error):
    """Say an error in a line; of a notebook's cell, which one and what it raised."""
    if hasattr(error, "exec_count"):  # papermill's, whose text holds the cell's whole traceback
        return f"cell {error.exec_count} raised {error.ename}: {error.evalue}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    kind = "" if isinstance(error, (ValueError, OSError, ImportError)) else type(error).__name__
    return f"{kind}: {error}" if kind and str(error) else str(error) or kind
