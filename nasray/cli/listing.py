"""What comes with nasray, and the options of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nasray.cli.common import command, print_json, print_options_of, print_table
from nasray.cli.parsing import unexpected
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from nasray.registry import Registry


def add_commands(commands: Any) -> None:
    """Declare `list`."""
    text = "what comes with nasray, and the options of its parts; of a space its size and costs too"
    sub = command(commands, "list", _list, text, takes_overrides=True)
    sub.add_argument("what", choices=list(_ENTRIES), metavar="KIND", help=", ".join(_ENTRIES))
    text = f"one of them, whose options are printed ({', '.join(_REGISTRIES)})"
    sub.add_argument("name", nargs="?", metavar="NAME", help=text)
    sub.epilog = (
        "`nasray list spaces shufflenet --space.size large --budget.gmacs 1.3` prints what a budget leaves of a space; "
        "options of the space and of the budget, and `--costs detector --recipe NAME`, are keys of an experiment."
    )


def _list(known: Any) -> None:
    if known.overrides and (known.what != "spaces" or known.name is None):
        if not known.overrides[0].startswith(("--space.", "--budget.", "--counted.", "--costs", "--recipe", "--data")):
            raise unexpected(known.overrides[0], known.declared, known.parser.prog)
        raise NasrayError(
            f"{known.overrides[0]} is for `nasray list spaces NAME`, whose profile it changes. Name a space, or leave "
            "it out"
        )
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
    profile = _profile(known) if known.what == "spaces" and not any(row.is_required for row in rows) else None
    if known.json:
        options = {row.key: {"default": row.default, "required": row.is_required, "text": row.text} for row in rows}
        content = {"name": known.name, "text": registry.text(known.name), "options": options}
        print_json(content if profile is None else {**content, "profile": profile})
        return
    print(f"{known.name}: {registry.text(known.name)}")
    print_options_of(rows)
    if profile is not None:
        print()
        _print_profile(profile)


def _profile(known: Any) -> dict[str, Any]:
    """Return the figures of a space, and what a budget leaves of it."""
    from nasray.profiling import profile_named_space
    from nasray.spaces.resolutions import common_size

    space, budget, profile, scope = profile_named_space(known.name, known.overrides, declared=known.declared)
    return {
        "num_architectures": profile.num_architectures,
        "num_looked_at": profile.num_looked_at,
        "is_whole": profile.is_whole,
        "cost_scope": scope,
        "image_hw": common_size(space),
        "costs": {name: vars(values) for name, values in profile.costs.items()},
        "budget": str(budget) if budget.names else None,
        "share": profile.share,
        "interval": profile.interval,
    }


def _print_profile(profile: dict[str, Any]) -> None:
    num, looked_at = profile["num_architectures"], profile["num_looked_at"]
    count = "" if num is None else f"{num:,}" if num < 10**15 else f"{num:.4g}"
    why = "not counted: a group of genes has too many settings to be listed"
    print(f"architectures: {count + ', counted exactly' if count else why}")
    size = "" if profile["image_hw"] is None else " at {}x{}".format(*profile["image_hw"])
    of = "all of them" if profile["is_whole"] else f"{looked_at:,} random ones; least and most by descent from these"
    print(f"costs: {profile['cost_scope']}{size}, {of}")
    rows = [[name, *(f"{values[key]:.5g}" for key in _RANGE)] for name, values in profile["costs"].items()]
    if rows:
        print_table(["cost", "least", "median", "most"], rows)
    if profile["share"] is not None:
        low, high = profile["interval"]
        interval = "" if profile["is_whole"] else f" [{100 * low:.3g}, {100 * high:.3g}]"
        whose = "the architectures" if profile["is_whole"] else "random architectures (95 % interval)"
        print(f"{profile['budget']}: met by {100 * profile['share']:.3g} %{interval} of {whose}")


def _space_registry() -> Registry:
    from nasray.registry import SPACES

    return SPACES


def _searcher_registry() -> Registry:
    from nasray.registry import SEARCHERS

    return SEARCHERS


def _evaluator_registry() -> Registry:
    from nasray.evaluators import EVALUATORS

    return EVALUATORS


def _stage_registry() -> Registry:
    from nasray.experiment import STAGES

    return STAGES


def _detector_registry() -> Registry:
    from nasray.models.detectors import DETECTORS

    return DETECTORS


def _path_registry() -> Registry:
    from nasray.models.supernets import PATHS

    return PATHS


def _runtime_registry() -> Registry:
    from nasray.runtimes import RUNTIMES

    return RUNTIMES


def _callback_registry() -> Registry:
    from nasray.callbacks import CALLBACKS

    return CALLBACKS


def _parts(registry: Callable[[], Registry]) -> Callable[[], dict[str, str]]:
    """Return a function that returns the names of a registry, each with a line about it."""
    return lambda: {name: registry().text(name) for name in registry()}


def _experiments() -> dict[str, str]:
    from nasray.configuration import shipped_texts
    from nasray.experiment import PACKAGE

    return shipped_texts(PACKAGE)


def _recipes() -> dict[str, str]:
    from nasray.recipe import recipe_texts

    return recipe_texts()


def _architectures() -> dict[str, str]:
    from nasray.architectures import ARCHITECTURES, FAMILIES, has_layers, layer_table, slot_of

    texts = {}
    for name, architecture in ARCHITECTURES.items():
        if not has_layers(architecture):
            texts[name] = f"{architecture.family}, a {slot_of(architecture)}; `nasray cost` counts it in a detector"
            continue
        cost = {key: float(value[0]) for key, value in layer_table(architecture, (800, 1280)).cost().items()}
        texts[name] = (
            f"{architecture.family}, {cost['gmacs']:.1f} G at 800x1280, {cost['params_m']:.1f} M, "
            f"{cost['layers']:.0f} layers"
        )
    others = {f"{name}:MODEL": family.describe for name, family in FAMILIES.items() if family.describe}
    scaled = {"NAME@FACTOR": "a network of a stem and residual stages, its widths scaled, such as resnet18@0.5"}
    return texts | others | scaled


_RANGE = ("minimum", "median", "maximum")
_REGISTRIES: dict[str, Callable[[], Registry]] = {
    "spaces": _space_registry,
    "searchers": _searcher_registry,
    "evaluators": _evaluator_registry,
    "stages": _stage_registry,
    "detectors": _detector_registry,
    "path-samplers": _path_registry,
}
_ENTRIES: dict[str, Callable[[], dict[str, str]]] = {
    **{what: _parts(registry) for what, registry in _REGISTRIES.items()},
    "callbacks": _parts(_callback_registry),
    "runtimes": _parts(_runtime_registry),
    "experiments": _experiments,
    "recipes": _recipes,
    "architectures": _architectures,
}
