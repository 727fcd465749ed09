"""What the README and the docs say is so: their commands parse, their example runs, their tables match the code."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nasray import experiment as experiments
from nasray import recipe as recipes
from nasray.cli import make_parser
from nasray.cli.detectors import train_recipe
from nasray.cli.parsing import parse_arguments, read_budget, split_bounds
from nasray.evaluators import EVALUATORS
from nasray.loading import load_plan
from nasray.models.detectors import DETECTORS
from nasray.searchers import SEARCHERS
from nasray.spaces import SPACES, NasrayError
from nasray.spaces.testing import check_space
from tests import option_tables

from .own_space import registered

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXAMPLE = ROOT / "examples" / "custom_space.py"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def command_lines() -> list[tuple[str, str]]:
    """(page, command) for every nasray command line of the fenced blocks, also behind `&&`."""
    lines = [(page, line) for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    parts = [(page.name, part.strip()) for page, line in lines for part in line.split("&&")]
    return [(page, part) for page, part in parts if re.match(r"(\S*/)?nasray ", part)]


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_line_parses(page, line):
    del page
    check_arguments(shlex.split(line, comments=True)[1:])


def check_arguments(arguments):
    known = parse_arguments(make_parser(), arguments)
    name = known.run.__name__
    if name == "_submit":
        assert known.command[0] == "--"
        check_arguments(known.command[1:])
    elif name == "_search":
        with registered():
            load_plan(known.experiment, known.overrides)
    elif name in ("_resume", "_rank"):
        experiments.override_resources(experiments.ResourceOptions(), known.overrides)
    elif name in ("_front", "_export", "_evaluate", "_predict", "_latency"):
        read_budget(known.overrides)
    elif name == "_train":
        if Path(known.what).parent == Path("runs"):
            known.what = "resnet50"  # a run that the reader has
        bounds, others = split_bounds(known.overrides)
        read_budget(bounds)
        recipes.override_recipe(train_recipe(known), others)


def test_pages_have_commands():
    assert {page for page, _ in command_lines()} >= {"README.md", "running.md", "benchmarks.md"}


def test_command_is_refused():
    with pytest.raises(NasrayError):
        check_arguments(["search", "maedet-m", "--budgt.gmacs", "60"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_inline_commands_exist(page):
    for command in re.findall(r"`nasray ([a-z]+)[^`]*`", page.read_text()):
        with pytest.raises(SystemExit) as end:
            make_parser().parse_args([command, "--help"])
        assert end.value.code == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).is_file(), target


@pytest.mark.parametrize(
    "script", sorted(set(re.findall(r"benchmarks/\w+\.(?:py|sh)", (ROOT / "docs/benchmarks.md").read_text())))
)
def test_benchmarks_exist(script):
    assert (ROOT / script).is_file()


def test_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text()
    for mark, last in (("main job", "nasray search maedet-m"), ("tests", "pytest -n 2")):
        (command,) = re.findall(rf"^<!-- {mark} -->\n```bash\n(.*)\n```$", text, re.MULTILINE)
        assert command.split("&& ")[-1] == f".venv/bin/{last}"


def test_readme_embeds_the_example():
    code = EXAMPLE.read_text()
    assert code in blocks(ROOT / "README.md", "python")
    assert len(code.splitlines()) < 40


def test_example_space_keeps_the_contract():
    spec = importlib.util.spec_from_file_location("custom_space", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check_space(module.AnchorSpace())


def test_example_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLE, tmp_path / "run", "600"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'score'" in done.stdout
    assert len(list((tmp_path / "run" / "history").glob("*.parquet"))) == 67  # 600 evaluations in batches of 9


@pytest.mark.parametrize("page", option_tables.pages(), ids=lambda page: page.name)
def test_tables_of_options_are_those_of_the_code(page):
    text = page.read_text()
    assert text == option_tables.with_tables(text), "`python -m tests.option_tables` writes them anew"


def test_every_table_of_options_has_its_page():
    found = [name for page in option_tables.pages() for _, name in option_tables.MARK.findall(page.read_text())]
    assert sorted(found) == sorted(option_tables.TABLES)
    (row,) = re.findall(r"^\| `searcher.keep` .*$", (ROOT / "docs/running.md").read_text(), re.MULTILINE)
    assert row == "| `searcher.keep` | coarse-to-fine | `10` | Survivors of half time. |"


def test_pages_name_every_part():
    spaces, scores, running = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("spaces", "scores", "running"))
    assert all(f"| `{name}` |" in spaces for name in SPACES)
    assert all(f"| `{name}` |" in running for name in SEARCHERS)
    assert all(f"`{name}`" in scores for name in EVALUATORS)
    detectors, training = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("detectors", "training"))
    assert all(f"| `{name}` |" in detectors for name in DETECTORS)
    assert all(f"| `{name}` |" in training for name in recipes.SCHEDULES)


def test_constraints_hold_no_addresses():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)


TINY = {
    "search": {"--evaluations": "64", "--batch-size": "32"},
    "train": {"--schedule.epochs": "1", "--augmentation.short-side": "64", "--augmentation.long-side": "96"},
}
"""Options that make a command of the pages small."""


def walk(text, folder, **environment):
    """Run the commands of a text's lines in their order, in small."""
    for line in re.findall(r"^(?:nasray|pytest) .*", text, re.MULTILINE):
        module, *arguments = shlex.split(line, comments=True)
        for option, value in TINY.get(arguments[0], {}).items():
            arguments += [] if option in arguments else [option, value]
        if arguments[:2] == ["data", "shapes"]:
            arguments[arguments.index("--images") + 1] = "8"
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True, timeout=280,
            check=False, env=os.environ | environment,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)


@pytest.mark.slow
def test_the_readme_s_way_from_a_backbone_to_a_detector_can_be_walked(tmp_path):
    """On nothing but what its commands make themselves."""
    text = (ROOT / "README.md").read_text()
    walk(text[text.index("## From a backbone to a detector") : text.index("## Searching in a supernet")], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "backbone.py",
        "backbone.weights.pt",
        "model.onnx",
        "drawn",
        "runs",
    }
