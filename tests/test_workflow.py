"""The workflow and the issue templates are what GitHub reads, by its published schemas."""

import json
import tomllib
from importlib import resources
from pathlib import Path

import pytest
import yaml
from jsonschema.validators import validator_for

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
SCHEMAS = {
    "workflows/tests.yml": "github-workflows.json",
    "ISSUE_TEMPLATE/bug.yml": "github-issue-forms.json",
    "ISSUE_TEMPLATE/number.yml": "github-issue-forms.json",
    "ISSUE_TEMPLATE/config.yml": "github-issue-config.json",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_is_valid_by_its_schema(name):
    kept = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / SCHEMAS[name]
    schema = json.loads(kept.read_text(encoding="utf-8"))
    told = yaml.safe_load((GITHUB / name).read_text())
    told = {"on" if key is True else key: value for key, value in told.items()}  # YAML's `on`
    errors = [error.message for error in validator_for(schema)(schema).iter_errors(told)]
    assert errors == []


def test_every_file_is_checked():
    there = {str(path.relative_to(GITHUB)) for path in GITHUB.rglob("*.y*ml")}
    assert there == set(SCHEMAS)


def test_the_workflow_runs_ci_and_each_python_that_the_package_is_for():
    jobs = yaml.safe_load((GITHUB / "workflows" / "tests.yml").read_text())["jobs"]
    steps = [step.get("run", "") for step in jobs["everything"]["steps"]]
    assert "bash .ci/run" in steps and "make book" in steps
    pythons = jobs["quick"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: 3." in line]
    noxfile = (ROOT / "noxfile.py").read_text()
    assert pythons == named and all(f'"{each}"' in noxfile for each in pythons)


def test_templates_ask_for_versions_and_of_a_number_for_its_protocol():
    for name in ("bug", "number"):
        form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
        required = {e["id"] for e in form["body"] if e.get("validations", {}).get("required")}
        assert "about" in required and (name == "bug" or "protocol" in required)
