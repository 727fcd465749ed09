"""What comes with nasray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nasray.cli.common import command, print_json, print_table


def add_commands(commands: Any) -> None:
    """Declare `list`."""
    sub = command(commands, "list", _list, "what comes with nasray")
    sub.add_argument("what", choices=list(_ENTRIES), metavar="KIND", help=", ".join(_ENTRIES))


def _list(known: Any) -> None:
    entries = _ENTRIES[known.what]()
    if known.json:
        print_json(entries)
    else:
        rows = [[name, text.removesuffix(".")] for name, text in entries.items()]
        print_table([known.what.removesuffix("s"), "what it is"], rows)


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _spaces() -> dict[str, str]:
    from nasray.spaces import SPACES

    return {name: _first_line(space) for name, space in SPACES.items()}


def _searchers() -> dict[str, str]:
    from nasray.searchers import SEARCHERS

    return {name: _first_line(searcher) for name, searcher in SEARCHERS.items()}


def _evaluators() -> dict[str, str]:
    from nasray.experiment import EVALUATORS

    return dict(EVALUATORS)


def _experiments() -> dict[str, str]:
    from nasray.configuration import shipped_texts
    from nasray.experiment import PACKAGE

    return shipped_texts(PACKAGE)


def _recipes() -> dict[str, str]:
    from nasray.recipe import recipe_texts

    return recipe_texts()


def _detectors() -> dict[str, str]:
    from nasray.models.detectors import DETECTORS

    return {name: text for name, (_, _, text) in DETECTORS.items()}


def _architectures() -> dict[str, str]:
    from nasray.architectures import ARCHITECTURES, layer_table

    texts = {}
    for name, architecture in ARCHITECTURES.items():
        cost = {key: float(value[0]) for key, value in layer_table(architecture, (800, 1280)).cost().items()}
        texts[name] = (
            f"{architecture.family}, {cost['gmacs']:.1f} G at 800x1280, {cost['params_m']:.1f} M, "
            f"{cost['layers']:.0f} layers"
        )
    return texts


_ENTRIES: dict[str, Callable[[], dict[str, str]]] = {
    "spaces": _spaces,
    "searchers": _searchers,
    "evaluators": _evaluators,
    "experiments": _experiments,
    "recipes": _recipes,
    "detectors": _detectors,
    "architectures": _architectures,
}
