"""The project's own files agree with each other."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement

import vidhash_lab

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
    assert packages == {"pip": ["-c constraints.txt", "-e .[videos,notebooks,cluster,databases]"]}


def test_every_dependency_is_pinned_within_its_bounds():
    pins = {canonical(name): pin for name, pin in PINS.items()}
    for line in [*PROJECT["dependencies"], *(d for extra in EXTRAS.values() for d in extra)]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:  # an extra made of the others
            assert requirement.specifier.contains(pins[canonical(requirement.name)]), line


def test_the_pins_are_what_is_tested_here():
    lines = [PROJECT["dependencies"], *(EXTRAS[name] for name in EXTRAS if name != "ray")]
    direct = {Requirement(line).name for each in lines for line in each} - {PROJECT["name"]}
    pins = {canonical(name): pin for name, pin in PINS.items()}
    odd = {
        name: version(name)
        for name in direct
        if version(name).split("+")[0] != pins[canonical(name)]
    }
    assert odd == {}, "these differ from constraints.txt; `make constraints` renews it"


def test_the_citation_names_the_package_and_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    titles = [reference["title"] for reference in citation["references"]]
    named = ["Masked Autoencoders", "CHAIN", "Multi-granularity", "State Spaces", "AutoSSVH"]
    assert len(titles) == len(named) and all(word in t for word, t in zip(named, titles)), titles


def test_the_readme_names_both_commands_and_every_notebook():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert notebook.name in readme
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / target).exists(), target


LAYERS = ["extras", "data", "literature", "processes", "losses", "structures", "hash_centres",
          "affinity", "retrieval", "videos", "models", "checkpoints", "training", "recipes",
          "installation", "plots", "widgets", "runs", "command"]  # fmt: skip
PACKAGE = ROOT / "vidhash_lab"


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path):
    """List every module of ours that a file imports, wherever in it and in whatever form."""
    modules = {module_of(p): p for p in PACKAGE.rglob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in named:  # of `a.b.c`, the longest part that is a module
            while name.startswith("vidhash_lab"):
                if name in modules or f"{name}.__init__" in modules:
                    yield name
                    break
                name = name.rpartition(".")[0]


def test_the_imports_are_seen(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        "from vidhash_lab import plots\nfrom vidhash_lab import fit\n"
        "def inside():\n    import vidhash_lab.runs.sweeps as s\n"
        "    from vidhash_lab.models.chain import CHAIN\n"
    )
    assert list(imports_of(path)) == [
        "vidhash_lab.plots",
        "vidhash_lab",
        "vidhash_lab.runs.sweeps",
        "vidhash_lab.models.chain",
    ]


def files_of_the_package():
    return [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]


def test_no_module_imports_upward():
    for path in files_of_the_package():
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports_of(path):
            parts = name.split(".")
            assert len(parts) > 1, f"{path} imports from the package's own front door"
            assert LAYERS.index(parts[1]) <= LAYERS.index(layer), (path, name)


def test_there_is_no_circle_of_imports():
    graph = {module_of(path): set(imports_of(path)) for path in files_of_the_package()}
    order = list(TopologicalSorter(graph).static_order())  # CycleError names a circle
    assert set(graph) <= set(order)


def test_no_function_hides_a_module():
    """A name that is a function and a module is one or the other, depending on who came first."""
    for path in [PACKAGE, *(p.parent for p in PACKAGE.rglob("*/__init__.py"))]:
        name = ".".join(path.relative_to(ROOT).parts)
        package = importlib.import_module(name)
        for child in {p.stem for p in path.glob("*.py")} | {p.name for p in path.iterdir()}:
            if child in vars(package):
                assert isinstance(vars(package)[child], ModuleType), f"{name}.{child}"


def test_what_users_call_is_there_typed_and_documented():
    assert vidhash_lab.__all__ == sorted(vidhash_lab.__all__, key=lambda n: (not n.isupper(), n))
    for name in vidhash_lab.__all__:
        thing = getattr(vidhash_lab, name)
        if callable(thing):
            assert (thing.__doc__ or "").strip(), name
        if inspect.isfunction(thing):
            signature, known = inspect.signature(thing), thing.__annotations__
            named = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
            assert {*named, "return"} <= set(known), name


def test_functions_are_at_most_40_lines_without_their_docstring():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[0]
                is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                doc = first.end_lineno - first.lineno + 1 if is_doc else 0
                assert node.end_lineno - node.lineno + 1 - doc <= 40, (path, node.name)


OPENING = "from vidhash_lab import open_dataset\nopen_dataset({path!r}).train.rows([0])"
HEAVY = """av kornia faiss duckdb sklearn lightning_fabric scipy.io scipy.special pandas
    matplotlib""".split()


@pytest.mark.parametrize("code", ["import vidhash_lab", OPENING])
def test_importing_and_opening_a_feature_file_bring_no_heavy_library(code, random_features):
    code = code.format(path=str(random_features()))
    look = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
