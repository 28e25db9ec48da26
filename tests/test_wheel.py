"""The wheel holds all that the package needs, and its core imports nothing of the extras.

It is built and installed outside of the checkout, into an environment that has nothing else. What
it depends on is lent from the environment that runs the tests, without a download; of the extras'
libraries nothing is lent, so that the README's code meets what a user of the core alone has.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path

import h5py
import numpy as np
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
(EXAMPLE,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "score(" in code]


def closure(lines):
    """Name the installed distributions that requirements bring, with all that these require."""
    found, left = set(), [Requirement(line).name for line in lines]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name not in found:
            found.add(name)
            for each in map(Requirement, requires(name) or []):
                if each.marker is None or each.marker.evaluate({"extra": ""}):
                    left.append(each.name)
    return found


def lend(names, folder):
    """Link what the distributions `names` installed into the site-packages `folder`."""
    home = Path(sysconfig.get_path("purelib"))
    tops = {file.parts[0] for name in names for file in distribution(name).files or []}
    for top in tops - {"..", "__pycache__", "bin"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(home / top)


def output_of(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel of the files that git would give, outside of the checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "vidhash_lab"):
        output_of("cp", "-r", str(ROOT / name), str(source))
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    output_of(sys.executable, "-c", build, str(folder), cwd=source)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """Install the wheel with the core's libraries alone -> the environment's folder of programs."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    output_of(sys.executable, "-m", "venv", "--without-pip", str(place))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = place / "lib" / version / "site-packages"
    lend(closure(PROJECT["dependencies"]), site)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install"]
    output_of(*pip, "-q", "--no-deps", "--no-index", str(wheel))
    return place / "bin"


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    tracked = output_of("git", "ls-files", "vidhash_lab", cwd=ROOT).split()
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert there == {name for name in tracked if (ROOT / name).is_file()}


def test_the_readmes_code_runs_on_the_core_alone(bare, tmp_path):
    generator = np.random.default_rng(0)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["feats"] = generator.standard_normal((71, 6, 24)).astype("f4")
        file["labels"] = np.eye(10, dtype=bool)[generator.integers(10, size=71)]
    code = EXAMPLE.replace('"digit-stories"', '"own.h5"').replace("epochs=15", "epochs=1")
    missing = "av", "jupyterlab", "papermill", "matplotlib", "ipywidgets", "umap", "dask", "pandas"
    told = "import vidhash_lab, importlib.util as u; print(vidhash_lab.__file__)\n"
    (tmp_path / "core.py").write_text(
        f"{told}assert not [n for n in {missing} if u.find_spec(n)]\n{code}"
        "assert found.shape == (71, 10)\n"
    )
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    shown = output_of(str(bare / "python"), "core.py", cwd=tmp_path, env=alone)
    assert shown.startswith(str(bare.parent))


def test_what_needs_an_extra_says_which(bare, tmp_path):
    needed = {
        "from vidhash_lab import extract": "videos",
        "import vidhash_lab.plots": "notebooks",
        "import vidhash_lab.widgets": "notebooks",
        "import vidhash_lab.runs": "notebooks",
    }
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    lines = [f"try:\n    {code}\nexcept ImportError as e:\n    print(e)" for code in needed]
    shown = output_of(str(bare / "python"), "-c", "\n".join(lines), cwd=tmp_path, env=alone)
    for line, extra in zip(shown.splitlines(), needed.values(), strict=True):
        assert f"pip install 'vidhash-lab[{extra}]'" in line
    command = [str(bare / "vidhash"), "extract", "films", "films.h5"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=alone)
    assert done.returncode == 1 and "vidhash-lab[videos]" in done.stderr
    assert "Traceback" not in done.stderr
    assert "core" in output_of(str(bare / "vidhash"), "about", cwd=tmp_path, env=alone)
