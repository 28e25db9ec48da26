"""The README's code runs on one's own file, and judges it rightly."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
(EXAMPLE,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "score(" in code]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_example_runs_on_a_file_of_ones_own(tmp_path, monkeypatch, labelled):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    with h5py.File("own.h5", "w") as file:
        file["feats"] = generator.standard_normal((71, 6, 24)).astype("f4")
        if labelled:
            file["labels"] = np.eye(10, dtype=bool)[generator.integers(10, size=71)]
    code = EXAMPLE.replace('"digit-stories"', '"own.h5"').replace("epochs=15", "epochs=1")
    assert code.count("own.h5") == 1 and code.count("epochs=1,") == 1
    if not labelled:
        with pytest.raises(ValueError, match="labels"):
            exec(code, {})
        return
    found = {}
    exec(code, found)
    result = found["result"]
    assert result.exclude_self and max(result.map_at) == 60  # of 71 videos, 70 can be found
    assert found["found"].shape == (71, 10)
