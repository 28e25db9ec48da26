"""A share of the damaged files of tests/fuzz/fuzz_loaders.py: each opens or is refused clearly."""

import importlib.util
import os
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz_loaders.py")


@pytest.fixture(scope="module")
def fuzz():
    """Import the script."""
    spec = importlib.util.spec_from_file_location("fuzz_loaders", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_open_or_are_refused(fuzz, tmp_path):
    outcomes = {}
    for seed in range(50):
        (tmp_path / str(seed)).mkdir()
        outcomes[seed] = fuzz.case(seed, tmp_path / str(seed))
    failed = {s: said for s, said in outcomes.items() if said not in ("opened", "refused")}
    assert failed == {}
    assert set(outcomes.values()) == {"opened", "refused"}  # damage that reaches nothing opens


def test_a_process_that_dies_and_an_error_that_is_not_documented_are_failures(fuzz, monkeypatch):
    def case(seed, folder):
        if seed == 2:
            os._exit(3)
        return fuzz.reading({1: int, 3: dict}.get(seed, str), "x")

    monkeypatch.setattr(fuzz, "case", case)
    outcomes = dict(fuzz.run(range(5)))
    assert outcomes[0] == outcomes[4] == "opened"
    assert "invalid literal for int" in outcomes[1] and "process died, exit code 3" in outcomes[2]
    assert outcomes[3].startswith("Traceback")
