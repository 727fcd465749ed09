"""Shell completion: a script for bash or zsh that holds every command, option, key and name.

It is made once, so that pressing TAB runs no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nasray.cli.common import command, print_json
from nasray.cli.parsing import Parser

SHELLS = ("bash", "zsh")
NAMED = {
    "experiment": ("experiments",),
    "recipe": ("recipes",),
    "detector": ("detectors",),
    "head": ("architectures",),
    "architecture": ("architectures",),
    "baselines": ("architectures",),
    "what": ("recipes", "architectures"),
    "folder": (),
    "checkpoint": (),
    "source": (),
    "data": (),
    "to": (),
}
"""Kinds of names that an argument takes, beside paths."""


def add_commands(commands: Any, parser: Parser) -> None:
    """Declare `completion` of all commands of a parser."""
    text = "print a script by which a shell completes nasray's commands, options, keys and names"
    sub = command(commands, "completion", _completion, text)
    sub.add_argument("shell", choices=SHELLS, metavar="SHELL", help=" or ".join(SHELLS))
    sub.set_defaults(whole=parser)
    sub.epilog = (
        'bash: eval "$(nasray completion bash)" in ~/.bashrc. zsh: nasray completion zsh > DIR/_nasray, DIR being in '
        "$fpath. Names of another package's parts are those of when it is made."
    )


def _completion(known: Any) -> None:
    script = completion_script(known.whole, known.shell)
    if known.json:
        print_json({"shell": known.shell, "script": script})
    else:
        print(script)


def completion_script(parser: Parser, shell: str) -> str:
    """Return the script that makes a shell complete nasray's command line.

    Args:
        parser: Parser of all commands, which gets keys of configurations as options.
        shell: One of `SHELLS`.
    """
    import shtab

    kinds: set[tuple[str, ...]] = set()
    for name, sub in subcommands(parser):
        if name in _KEYS:
            _add_keys(sub, _KEYS[name]())
        for action in sub._actions:
            if action.choices is None and action.dest in NAMED:
                kinds.add(NAMED[action.dest])
                function = _function(NAMED[action.dest])
                action.complete = dict.fromkeys(SHELLS, function)  # type: ignore[attr-defined]  # shtab's own
    functions = {"bash": _bash_function, "zsh": _zsh_function}[shell]
    preamble = "\n".join(functions(_function(each), _names(each)) for each in sorted(kinds))
    script: str = shtab.complete(parser, shell=shell, preamble=preamble)
    return script


def subcommands(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, Parser]]:
    """Yield the parsers of all commands with their names, such as `data check`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield prefix + name, sub
                yield from subcommands(sub, f"{prefix}{name} ")


# ---- keys of configurations --------------------------------------------------------------------------------------


def _experiment_keys() -> dict[str, str]:
    from nasray.experiment import Experiment
    from nasray.overrides import option_texts

    return {option: text for option, (_, text) in option_texts(Experiment(name="any")).items()}


def _recipe_keys() -> dict[str, str]:
    from nasray.overrides import option_texts
    from nasray.recipe import Recipe

    return {option: text for option, (_, text) in option_texts(Recipe(name="any")).items()}


def _resource_keys() -> dict[str, str]:
    from nasray.experiment import ResourceOptions
    from nasray.overrides import option_texts

    return {option: text for option, (_, text) in option_texts(ResourceOptions()).items()}


_KEYS = {"search": _experiment_keys, "train": _recipe_keys, "resume": _resource_keys, "rank": _resource_keys}
"""Commands that take keys of a configuration as options, those of its default parts."""


def _add_keys(sub: Parser, keys: dict[str, str]) -> None:
    for option, text in keys.items():
        if option not in sub.known_options:
            sub.add_argument(option, help=text.replace("%", "%%"))


# ---- names and paths ---------------------------------------------------------------------------------------------


def _names(kinds: Iterable[str]) -> list[str]:
    from nasray.architectures import ARCHITECTURES
    from nasray.experiment import experiment_names
    from nasray.models.detectors import DETECTORS
    from nasray.recipe import recipe_texts

    listed: dict[str, Callable[[], Iterable[str]]] = {
        "experiments": experiment_names,
        "recipes": recipe_texts,
        "detectors": lambda: DETECTORS,
        "architectures": lambda: ARCHITECTURES,
    }
    return sorted({name for kind in kinds for name in listed[kind]()})


def _function(kinds: tuple[str, ...]) -> str:
    return "_nasray_" + ("_and_".join(kinds) or "paths")


def _bash_function(name: str, names: list[str]) -> str:
    return (
        f'{name}() {{\n  compgen -W "{" ".join(names)}" -- "$1"\n  compgen -d -S / -- "$1"\n  compgen -f -- "$1"\n}}\n'
    )


def _zsh_function(name: str, names: list[str]) -> str:
    return f'{name}() {{\n  _alternative "names:name:({" ".join(names)})" "files:file:_files"\n}}\n'
