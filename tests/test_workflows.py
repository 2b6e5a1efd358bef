"""Workflows, issue forms and pre-commit keep what they promise, as far as their files can tell."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = {
    path.stem: yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # "on" stays a word
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
JOBS = [pytest.param(job, id=f"{name}-{key}") for name, flow in WORKFLOWS.items() for key, job in flow["jobs"].items()]


def test_the_tests_run_on_every_python_that_is_supported_and_on_three_systems():
    everything, unit = WORKFLOWS["tests"]["jobs"].values()
    supported = ["3.11", "3.12", "3.13"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert everything["strategy"]["matrix"]["python"] == unit["strategy"]["matrix"]["python"] == supported == classified
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in supported)
    systems = [everything["runs-on"], *unit["strategy"]["matrix"]["system"]]
    assert systems == ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert "make test" in [step.get("run") for step in everything["steps"]]
    assert WORKFLOWS["tests"]["concurrency"]["cancel-in-progress"] == "true"


@pytest.mark.parametrize("job", JOBS)
def test_actions_have_a_version_and_make_targets_exist(job):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for step in job["steps"]:
        assert "uses" not in step or re.search(r"@(v\d+|release/v\d+)$", step["uses"])
        for target in re.findall(r"^make (\w+)", step.get("run", ""), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        python = step.get("with", {}).get("python-version", "")
        assert not python or "matrix" in python or python in SpecifierSet(PROJECT["requires-python"])


def test_a_release_is_published_by_trust_alone_and_only_from_a_tag():
    assert WORKFLOWS["release"]["on"] == {"push": {"tags": ["v*"]}}
    publish = WORKFLOWS["release"]["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["environment"] == "pypi"
    assert "gh-action-pypi-publish" in publish["steps"][-1]["uses"] and "with" not in publish["steps"][-1]
    for flow in WORKFLOWS.values():
        assert flow["permissions"] == {"contents": "read"}
        assert not re.search("password|secrets", str(flow))


def test_the_site_that_is_published_is_the_one_that_make_site_writes():
    build, deploy = WORKFLOWS["site"]["jobs"].values()
    assert build["steps"][-1]["with"]["path"] == "build/site" and build["steps"][-2]["run"] == "make site"
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_an_issue_form_asks_for_something(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_pre_commit_s_ruff_is_one_that_pyproject_allows():
    (ruff,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (asked,) = [line for line in PROJECT["optional-dependencies"]["dev"] if line.startswith("ruff")]
    assert Version(ruff["rev"]) in SpecifierSet(asked.removeprefix("ruff"))
