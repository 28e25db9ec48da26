"""The examples in docstrings run, and every public function has one."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import vidhash_lab

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "vidhash_lab").rglob("*.py"))
    if ">>> " in path.read_text()
]
# Examples that need what no test has: released weights, and films of one's own.
NOT_RUN = {"load_released", "near_duplicates"}
# What the reference lists without an example: the methods' rooms, and what only runs within a
# launched process, on a worker of a cluster, or for as long as a whole notebook does.
NO_EXAMPLES_YET = "vidhash_lab.models."
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
    """Yield the names of a module's own public classes, functions and methods that have words."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        yield f"{module.__name__}.{name}", thing.__doc__
        for part, method in vars(thing).items() if inspect.isclass(thing) else ():
            method = getattr(method, "fget", None) or getattr(method, "__func__", method)
            if inspect.isfunction(method) and not part.startswith("_") and method.__doc__:
                yield f"{module.__name__}.{name}.{part}", method.__doc__


def test_everything_that_the_reference_lists_has_an_example():
    paths = (ROOT / "vidhash_lab").rglob("*.py")
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths if "__" not in p.stem
    ]
    found = {name: words for each in names for name, words in documented(import_module(each))}
    without = {name for name, words in found.items() if "\n>>> " not in inspect.cleandoc(words)}
    assert {name for name in without if not name.startswith(NO_EXAMPLES_YET)} == NO_EXAMPLE
