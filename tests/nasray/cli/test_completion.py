"""Shell completion: what a shell offers, and that making the script needs neither Ray nor PyTorch."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from nasray.cli import make_parser
from nasray.cli.completion import SHELLS, subcommands

MAKE = """
import json, sys
from nasray.cli import make_parser
from nasray.cli.completion import completion_script
scripts = {shell: completion_script(make_parser(), shell) for shell in ("bash", "zsh")}
slow = [name for name in ("torch", "ray", "torchvision") if name in sys.modules]
print(json.dumps({"scripts": scripts, "modules": slow}))
"""


@pytest.fixture(scope="module")
def made():
    done = subprocess.run([sys.executable, "-c", MAKE], capture_output=True, text=True, check=True, timeout=240)
    return json.loads(done.stdout)


def test_making_it_imports_neither_ray_nor_torch(made):
    assert made["modules"] == []
    assert set(made["scripts"]) == set(SHELLS)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nasray sea", {"search"}),
        ("nasray data s", {"shapes", "show"}),
        ("nasray completion ", {"bash", "zsh"}),
        ("nasray list sp", {"spaces"}),
        ("nasray job st", {"status", "stop"}),
        ("nasray search maedet-t", {"maedet-tiny"}),
        ("nasray search maedet-m --budget.gm", {"--budget.gmacs"}),
        ("nasray search maedet-m --searcher.mutations", {"--searcher.mutations-per-child"}),
        (
            "nasray train resnet50 --recipe cpu-s",
            {"cpu-scratch", "cpu-scratch-tiny"},
        ),
        ("nasray train resnet50 --optimizer.le", {"--optimizer.learning-rate"}),
        ("nasray train resnet10", {"resnet101"}),
        ("nasray cost resnet50 --detector ret", {"retinanet"}),
        ("nasray export ru", {"runs", "runs/"}),
    ],
)
def test_what_bash_offers(made, tmp_path, line, offered):
    (tmp_path / "runs").mkdir()
    words = line.split(" ")
    ask = "\n".join(
        [
            made["scripts"]["bash"],
            f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1} COMP_LINE={shlex.quote(line)}",
            "_shtab_nasray",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


def test_zsh_is_offered_the_same(made, tmp_path):
    script = made["scripts"]["zsh"]
    assert script.startswith("#compdef nasray")
    for text in ("maedet-tiny", "--budget.gmacs", "cpu-scratch", "_nasray_paths()"):
        assert text in script
    for name, _ in subcommands(make_parser()):
        assert re.search(rf"^ +{name.split()[-1]}:'", script, re.MULTILINE), name
    if shutil.which("zsh"):
        (tmp_path / "_nasray").write_text(script)
        done = subprocess.run(["zsh", "-n", tmp_path / "_nasray"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
