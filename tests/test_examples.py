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
