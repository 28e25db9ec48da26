"""The quick part of the tests on every Python that the package supports: `nox`, or `nox -p 3.12`.

A Python that is not on this machine is named and left out. So is one for which pip would find only
a torch with CUDA, gigabytes of it, on a machine without a GPU: set PIP_EXTRA_INDEX_URL to PyTorch's
CPU wheels, or VIDHASH_LAB_ANY_TORCH=1 to take what there is.
"""

import json
import os
import shutil
import subprocess

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
QUICK = [
    "tests/data", "tests/models", "tests/retrieval", "tests/test_affinity.py",
    "tests/test_losses.py", "tests/test_literature.py", "tests/test_recipes.py",
    "tests/test_checkpoints.py", "tests/test_structures.py", "tests/test_readme.py",
    "tests/test_own_method.py",
]  # fmt: skip

if shutil.which("pyenv"):  # its python3.12 answers only while that version is chosen
    installed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True)
    chosen = [each for each in installed.stdout.split() if each.startswith(tuple(PYTHONS))]
    os.environ.setdefault("PYENV_VERSION", ":".join(chosen))

nox.needs_version = ">=2025.2.9"
nox.options.envdir = "build/nox"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS)
def quick(session):
    """Install the package with its pins and run the tests that need no browser and no kernel."""
    if wanted := cuda_alone(session):
        session.skip(f"Python {session.python}: {wanted}")
    extras = "videos,notebooks,databases"
    tools = "pytest", "pytest-xdist", "hypothesis", "tie-aware-retrieval-metrics"
    session.install("-c", "constraints.txt", f".[{extras}]", *tools)
    session.run("pytest", "-n", "auto", "-p", "no:cacheprovider", *(session.posargs or QUICK))


def cuda_alone(session):
    """Say what is wrong where pip would bring CUDA to a machine without a GPU, else nothing."""
    if os.environ.get("VIDHASH_LAB_ANY_TORCH") or shutil.which("nvidia-smi"):
        return ""
    look = "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"
    told = session.run(
        *look, "--report", "-", "-c", "constraints.txt", "torch", silent=True, stderr=None
    )
    (torch,) = json.loads(told[told.index("{") :])["install"]
    needs = " ".join(torch["metadata"].get("requires_dist", []))
    version = torch["metadata"]["version"]
    if "nvidia" in needs or "cuda" in needs:
        return f"torch {version} comes with CUDA alone here; set PIP_EXTRA_INDEX_URL"
    return ""
