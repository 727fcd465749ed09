"""Shell completion: what the shells offer, and that making their scripts needs neither Ray nor PyTorch."""

import json
import os
import pty
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
OFFERED = {
    "nasray sea": {"search"},
    "nasray data s": {"shapes", "show"},
    "nasray completion ": {"bash", "zsh"},
    "nasray list sp": {"spaces"},
    "nasray job st": {"status", "stop"},
    "nasray search maedet-t": {"maedet-tiny"},
    "nasray search maedet-m --budget.gm": {"--budget.gmacs"},
    "nasray search maedet-m --searcher.mutations": {"--searcher.mutations-per-child"},
    "nasray train resnet50 --recipe cpu-s": {"cpu-scratch", "cpu-scratch-tiny"},
    "nasray train resnet50 --optimizer.le": {"--optimizer.learning-rate"},
    "nasray train resnet10": {"resnet101"},
    "nasray cost resnet50 --detector ret": {"retinanet"},
    "nasray export ru": {"runs"},
}
"""What a shell offers for the last word of a line, in a folder that holds a folder `runs`."""
ZSHRC = """
fpath=($ZDOTDIR $fpath)
autoload -Uz compinit; compinit -u -D
zle -C ask complete-word _main_complete
compadd() {
  local -a hits
  (( ${@[(I)-[OAD]]} )) || { builtin compadd -O hits "$@"; offered+=($hits) }
  builtin compadd "$@"
}
zle-line-init() {
  local line; local -a offered
  while IFS= read -r line; do
    offered=() BUFFER=$line CURSOR=${#line}
    zle ask
    print -r -- $offered >> $ZDOTDIR/offered
  done < $ZDOTDIR/lines
  exit
}
zle -N zle-line-init
"""
"""Makes zsh complete lines of a file instead of reading one from the terminal, and note what it offers for each."""


@pytest.fixture(scope="module")
def made():
    done = subprocess.run([sys.executable, "-c", MAKE], capture_output=True, text=True, check=True, timeout=240)
    return json.loads(done.stdout)


def test_making_it_imports_neither_ray_nor_torch(made):
    assert made["modules"] == []
    assert set(made["scripts"]) == set(SHELLS)


@pytest.mark.parametrize("line", OFFERED)
def test_what_bash_offers(made, tmp_path, line):
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
    assert {word.rstrip("/") for word in done.stdout.split()} == OFFERED[line]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_offers_the_same(made, tmp_path):
    (tmp_path / "runs").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / ".zshrc").write_text(ZSHRC)
    (home / "_nasray").write_text(made["scripts"]["zsh"])
    (home / "lines").write_text("".join(f"{line}\n" for line in OFFERED))
    ours, theirs = pty.openpty()  # it completes on a terminal alone
    with open(ours, "rb"), open(theirs, "rb"):
        terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
        environment = {**os.environ, "ZDOTDIR": str(home), "TERM": "dumb"}
        subprocess.run(["zsh", "-d", "-i"], check=True, timeout=240, cwd=tmp_path, env=environment, **terminal)
    offered = [set(line.split()) for line in (home / "offered").read_text().splitlines()]
    assert dict(zip(OFFERED, offered, strict=True)) == OFFERED


def test_the_script_for_zsh_has_all_commands(made):
    script = made["scripts"]["zsh"]
    assert script.startswith("#compdef nasray")
    for name, _ in subcommands(make_parser()):
        assert re.search(rf"^ +{name.split()[-1]}:'", script, re.MULTILINE), name
