"""What comes with nasray, and the options of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nasray.cli.common import command, print_json, print_options_of, print_table
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from nasray.registry import Registry


def add_commands(commands: Any) -> None:
    """Declare `list`."""
    sub = command(commands, "list", _list, "what comes with nasray, and the options of its parts")
    sub.add_argument("what", choices=list(_ENTRIES), metavar="KIND", help=", ".join(_ENTRIES))
    text = f"one of them, whose options are printed ({', '.join(_REGISTRIES)})"
    sub.add_argument("name", nargs="?", metavar="NAME", help=text)


def _list(known: Any) -> None:
    if known.name is not None:
        _list_options(known)
        return
    entries = _ENTRIES[known.what]()
    if known.json:
        print_json(entries)
    else:
        rows = [[name, text.removesuffix(".")] for name, text in entries.items()]
        print_table([known.what.removesuffix("s"), "what it is"], rows)


def _list_options(known: Any) -> None:
    """Print a part's options, their defaults and texts."""
    if known.what not in _REGISTRIES:
        raise NasrayError(
            f"NAME is for {', '.join(_REGISTRIES)}; got {known.what} {known.name}. Leave {known.name!r} out"
        )
    from nasray.overrides import part_rows

    registry = _REGISTRIES[known.what]()
    registry.check(known.name)
    rows = part_rows(registry, known.name)
    if known.json:
        options = {row.key: {"default": row.default, "required": row.is_required, "text": row.text} for row in rows}
        print_json({"name": known.name, "text": registry.text(known.name), "options": options})
        return
    print(f"{known.name}: {registry.text(known.name)}")
    print_options_of(rows)


def _space_registry() -> Registry:
    from nasray.registry import SPACES

    return SPACES


def _searcher_registry() -> Registry:
    from nasray.registry import SEARCHERS

    return SEARCHERS


def _evaluator_registry() -> Registry:
    from nasray.evaluators import EVALUATORS

    return EVALUATORS


def _detector_registry() -> Registry:
    from nasray.models.detectors import DETECTORS

    return DETECTORS


def _path_registry() -> Registry:
    from nasray.models.supernets import PATHS

    return PATHS


def _parts(registry: Callable[[], Registry]) -> Callable[[], dict[str, str]]:
    """What gives the names of a registry, each with a line about it."""
    return lambda: {name: registry().text(name) for name in registry()}


def _experiments() -> dict[str, str]:
    from nasray.configuration import shipped_texts
    from nasray.experiment import PACKAGE

    return shipped_texts(PACKAGE)


def _recipes() -> dict[str, str]:
    from nasray.recipe import recipe_texts

    return recipe_texts()


def _architectures() -> dict[str, str]:
    from nasray.architectures import ARCHITECTURES, FAMILIES, layer_table

    texts = {}
    for name, architecture in ARCHITECTURES.items():
        cost = {key: float(value[0]) for key, value in layer_table(architecture, (800, 1280)).cost().items()}
        texts[name] = (
            f"{architecture.family}, {cost['gmacs']:.1f} G at 800x1280, {cost['params_m']:.1f} M, "
            f"{cost['layers']:.0f} layers"
        )
    others = {f"{name}:MODEL": family.describe for name, family in FAMILIES.items() if family.describe}
    return texts | others


_REGISTRIES: dict[str, Callable[[], Registry]] = {
    "spaces": _space_registry,
    "searchers": _searcher_registry,
    "evaluators": _evaluator_registry,
    "detectors": _detector_registry,
    "path-samplers": _path_registry,
}
_ENTRIES: dict[str, Callable[[], dict[str, str]]] = {
    **{what: _parts(registry) for what, registry in _REGISTRIES.items()},
    "experiments": _experiments,
    "recipes": _recipes,
    "architectures": _architectures,
}
