"""nasray: neural architecture search for object detectors, on Ray Tune.

The usual entry points, imported when they are first used so that `import nasray` stays quick:

    nasray.run         run an experiment, all its stages
    nasray.search      search a space of your own, with an evaluator of your own
    nasray.train       train a detector on an architecture
    nasray.load        load a trained detector: predict, evaluate, export
    nasray.build       build the network of an architecture
    nasray.Run         look at a run on disk

The packages: `nasray.spaces` (what can be built), `nasray.searchers` (what to try next), `nasray.cluster` (where it
runs).
"""

import importlib
from typing import TYPE_CHECKING, Any

from nasray._version import __version__

if TYPE_CHECKING:
    from nasray.api import Detector, Run, load, run, train
    from nasray.models import build
    from nasray.searching import search
    from nasray.spaces import Architecture, Budget, Gene, NasrayError, Space

_HOMES = {
    "nasray.api": ("Detector", "Run", "load", "run", "train"),
    "nasray.models": ("build",),
    "nasray.searching": ("search",),
    "nasray.spaces": ("Architecture", "Budget", "Gene", "NasrayError", "Space"),
}

__all__ = [
    "Architecture",
    "Budget",
    "Detector",
    "Gene",
    "NasrayError",
    "Run",
    "Space",
    "__version__",
    "build",
    "load",
    "run",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'nasray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
