"""The examples in docstrings run, and every public function has one."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import vidhash_lab
from vidhash_lab import METHODS

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "vidhash_lab").rglob("*.py"))
    if ">>> " in path.read_text()
]
# Examples that need what no test has: released weights, and films of one's own.
NOT_RUN = {"load_released", "near_duplicates"}
# What only runs within a launched process, on a worker of a cluster, or as long as a notebook does.
NO_EXAMPLE = {
    "vidhash_lab.processes.follow",
    "vidhash_lab.retrieval.cluster.whole_worker",
    "vidhash_lab.runs.runs.refresh",
    "vidhash_lab.videos.shards.on_cluster",
}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(import_module(name), optionflags=flags)
    assert not failed


def test_every_public_function_has_an_example():
    functions = {n for n in vidhash_lab.__all__ if inspect.isfunction(getattr(vidhash_lab, n))}
    for name in functions:
        assert "\n>>> " in inspect.getdoc(getattr(vidhash_lab, name)), name
        skipped = "+SKIP" in inspect.getdoc(getattr(vidhash_lab, name))
        assert skipped == (name in NOT_RUN), name


def documented(module):
    """Yield names and docstrings of a module's own public functions and classes; no exceptions.

    Of the methods' files, the methods alone: their parts are shown at work by the file itself.
    """
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        is_class = inspect.isclass(thing) and not issubclass(thing, Exception)
        if ".models." in module.__name__ and not (is_class and thing in METHODS.values()):
            continue
        if (is_class or inspect.isfunction(thing)) and thing.__doc__:
            yield f"{module.__name__}.{name}", thing.__doc__


def test_every_function_and_class_of_the_reference_has_an_example():
    paths = (ROOT / "vidhash_lab").rglob("*.py")
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths if "__" not in p.stem
    ]
    found = {name: words for each in names for name, words in documented(import_module(each))}
    without = {name for name, words in found.items() if "\n>>> " not in inspect.cleandoc(words)}
    assert without == NO_EXAMPLE
