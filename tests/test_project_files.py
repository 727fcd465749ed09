"""Files for GitHub and for citations: valid, and in step with the README, CONTRIBUTING and the code."""

import re
import tomllib
from pathlib import Path

import pytest

import nasray
from nasray.cluster.reading import read_yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def commands_of(text: str) -> set[str]:
    """The commands of a text, each by itself where several are joined by `&&`; comments are left out."""
    lines = (re.sub(r"\s+#.*", "", line) for line in text.splitlines())
    return {part.strip() for line in lines for part in line.split("&&") if part.strip()}


def documented_commands() -> set[str]:
    pages = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")]
    blocks = [block for page in pages for block in re.findall(r"^```bash\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)]
    return commands_of("\n".join(blocks))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_the_pages_say(path):
    jobs = read_yaml(path)["jobs"]
    for name, job in jobs.items():
        first, *steps = job["steps"]
        assert first["uses"].startswith("actions/checkout@"), name
        assert job["timeout-minutes"] <= 90
        for step in steps:
            assert step.keys() in ({"run"}, {"uses", "with"}), f"{name}: {step}"
            unknown = commands_of(step.get("run", "")) - documented_commands()
            assert not unknown, f"{path.name}, {name}: README.md and CONTRIBUTING.md have no {unknown}"


def test_all_checks_are_run():
    (path,) = (path for path in WORKFLOWS if path.name == "checks.yml")
    jobs = read_yaml(path)["jobs"]
    run = {command for job in jobs.values() for step in job["steps"] for command in commands_of(step.get("run", ""))}
    assert run >= {"ruff check .", "ruff format --check .", ".ci/types", ".venv/bin/pytest -n 2"}
    assert any("--resolution lowest-direct" in command for command in run)
    assert any(command.endswith("uv build --wheel") for command in run)
    pythons = jobs["tests"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={pythons[0]}"
    prefix = "Programming Language :: Python :: "
    assert [line.removeprefix(prefix) for line in project["classifiers"] if line.startswith(prefix)] == pythons


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_of_issues_are_whole(path):
    content = read_yaml(path)
    if path.name == "config.yml":
        assert content == {"blank_issues_enabled": True}
        return
    assert content["name"]
    assert content["description"]
    ids = [field["id"] for field in content["body"]]
    assert len(ids) == len(set(ids)) >= 3
    assert all(field["type"] == "textarea" and field["attributes"]["label"] for field in content["body"])
    assert any(field.get("validations", {}).get("required") for field in content["body"])


def test_the_citation_is_of_this_version():
    content = read_yaml(ROOT / "CITATION.cff")
    assert content["cff-version"] == "1.2.0"
    assert str(content["version"]) == nasray.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert content["license"] == project["license"]
    assert content["title"].startswith(f"{project['name']}: ")
    assert content["authors"]


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, *TEMPLATES, ROOT / "CITATION.cff", ROOT / "SECURITY.md"], ids=lambda path: path.name
)
def test_no_addresses_are_made_up(path):
    assert not re.findall(r"https?://", path.read_text()), "the project has no address of its own yet"
