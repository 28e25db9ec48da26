"""What is installed here, on what machine, and which extra of the package a missing part is of."""

import argparse
import os
import platform
import shutil
from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version

import torch

from vidhash_lab.data.cache import cache_contents
from vidhash_lab.data.catalog import cache_folder
from vidhash_lab.training import choose_precision

PACKAGES = {
    "core": "torch numpy h5py scipy scikit-learn faiss-cpu lightning-fabric numba kornia",
    "videos": "av pillow",
    "notebooks": "jupyterlab papermill nbconvert matplotlib ipywidgets anywidget umap-learn pandas",
    "cluster": "dask distributed",
    "ray": "ray",
    "databases": "duckdb",
}


class Table(dict):
    """Facts by name, printed a line each; a table in a notebook.

    >>> print(Table({"Python": "3.11", "threads": "2"}))
    Python   3.11
    threads  2
    """

    def __str__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:{width}}  {fact}" for name, fact in self.items())

    __repr__ = __str__

    def _repr_html_(self):
        rows = (f"<tr><th>{escape(n)}</th><td>{escape(f)}</td></tr>" for n, f in self.items())
        return f"<table>{''.join(rows)}</table>"


def about() -> Table:
    """Tell what a report of an error needs: versions, device, threads, precision and the cache.

    >>> about()["vidhash_lab"] == version("vidhash-lab")
    True
    """
    device = "mps" if torch.backends.mps.is_available() else "cpu"
    device = "cuda" if torch.cuda.is_available() else device
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "vidhash_lab": _version("vidhash-lab"),
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "device": f"{device} ({name})",
        "threads": f"{torch.get_num_threads()} of torch, {cores} processor cores",
        "precision": f'{choose_precision("auto", device)} where fit is told "auto"',
        "cache": _cache(),
    }
    for extra, packages in PACKAGES.items():
        facts[extra] = ", ".join(f"{each} {_version(each)}" for each in packages.split())
    return Table(facts)


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Print the table from the command line.

    >>> main([])
    vidhash_lab ...
    databases ...
    """
    argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0]).parse_args(arguments)
    print(about())


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _cache():
    folder = cache_folder()
    if not folder.is_dir():
        return f"{folder}, which is not there yet"
    held = cache_contents()
    size, free = sum(each.bytes for each in held), shutil.disk_usage(folder).free
    entries = f"{len(held)} entries, {size / 1e6:,.0f} MB"
    return f"{folder}: {entries}; {free / 1e9:,.0f} GB of its disk are free"
