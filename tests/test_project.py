"""The project's own files agree with each other."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_conda_environment_installs_this_package_with_the_tested_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python, pip, packages = environment["dependencies"]
    assert python == "python=3.11" and pip == "pip"
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.11")
    assert packages == {"pip": ["-c constraints.txt", "-e ."]}


def test_every_dependency_is_pinned_within_its_bounds():
    pins = {canonical(name): pin for name, pin in PINS.items()}
    for line in [*PROJECT["dependencies"], *(d for extra in EXTRAS.values() for d in extra)]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[canonical(requirement.name)]), line


def test_the_pins_are_what_is_tested_here():
    direct = [Requirement(line).name for line in [*PROJECT["dependencies"], *EXTRAS["dev"]]]
    pins = {canonical(name): pin for name, pin in PINS.items()}
    odd = {
        name: version(name)
        for name in direct
        if version(name).split("+")[0] != pins[canonical(name)]
    }
    assert odd == {}, "these differ from constraints.txt; `make constraints` renews it"


def test_the_citation_names_the_package_and_the_three_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert [reference["year"] for reference in citation["references"]] == [2023, 2023, 2022]


def test_the_readme_names_both_commands_and_every_notebook():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert notebook.name in readme
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / target).exists(), target


def test_no_module_imports_upward():
    layers = ["data", "losses", "structures", "affinity", "models", "checkpoints", "training",
              "recipes", "retrieval", "videos", "published", "plots", "widgets", "runs"]  # fmt: skip
    for path in (ROOT / "vidhash_lab").rglob("*.py"):
        layer = path.relative_to(ROOT / "vidhash_lab").parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        for imported in re.findall(r"^(?:from|import) vidhash_lab\.?(\w*)", path.read_text(), re.M):
            if imported and imported != layer:
                assert layers.index(imported) < layers.index(layer), (path, imported)
