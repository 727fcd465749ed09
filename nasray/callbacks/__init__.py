"""Callbacks of runs and trainings: by name, ours and those of other packages, or functions.

Another package registers one, a function of an event or a class of such callables, by an entry point of the group
`nasray.callbacks`; see `nasray.cluster.callbacks` for events and for what happens to one that raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from nasray.cluster.callbacks import BatchEvent, Callback, Event, LogEvent, StageEvent
from nasray.cluster.progress import say
from nasray.registry import Registry
from nasray.spaces import NasrayError

CALLBACKS = Registry("callback", {"mlflow": "nasray.callbacks.mlflow:MLflow", "wandb": "nasray.callbacks.wandb:WandB"})


def _check_name(name: str) -> str:
    CALLBACKS.check(name)
    return name


CallbackName = Annotated[str, AfterValidator(_check_name)]
"""Name of a callback in an experiment or a recipe."""


def make_callbacks(
    named: Sequence[str], given: Sequence[str | Callback] = (), *, is_begun: bool = False
) -> Mapping[str, Callback]:
    """Return callbacks by name, made; a class is called without arguments.

    Args:
        named: Names in the experiment or the recipe.
        given: Further names, and functions.
        is_begun: Whether the run was begun before: one that cannot be made then is reported and left out.

    Raises:
        NasrayError: if there is none of a name, or it cannot be made, as without the package that it needs.
    """
    found: dict[str, Callback] = {}
    for item in [*named, *given]:
        if not isinstance(item, str):
            found[_free_name(item, found)] = item
            continue
        try:
            found[item] = _made(item)
        except NasrayError as error:
            if not is_begun:
                raise
            say(f"callback {item} is left out until the next `resume`: {error}")
    return found


def _made(name: str) -> Callback:
    """Return the callback of a name.

    Raises:
        NasrayError: if it cannot be made, for whatever reason: MLflow may refuse its store.
    """
    part: Any = CALLBACKS.part(name)
    try:
        made: Callback = part() if isinstance(part, type) else part
    except NasrayError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        what = f"callback {name!r} cannot be made: {type(error).__name__}: {reason}"
        raise NasrayError(f"{what}. Fix the cause, or leave the callback out") from error
    return made


def _free_name(callback: Callback, taken: Mapping[str, Callback]) -> str:
    """Return what a function is called, with a number if another is called alike."""
    name = getattr(callback, "__name__", type(callback).__name__)
    names = [name, *(f"{name} {number}" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)


__all__ = [
    "CALLBACKS",
    "BatchEvent",
    "Callback",
    "CallbackName",
    "Event",
    "LogEvent",
    "StageEvent",
    "make_callbacks",
]
