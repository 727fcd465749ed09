"""nasray: neural architecture search for object detectors, on Ray Tune.

The usual entry points, imported when they are first used so that `import nasray` stays quick:

    nasray.search      run a search of your own space, evaluator and searcher
    nasray.spaces      what can be built
    nasray.searchers   what to try next
    nasray.cluster     where it runs
"""

from typing import Any

from nasray._version import __version__

__all__ = ["Architecture", "Budget", "Gene", "NasrayError", "Space", "__version__", "search"]


def __getattr__(name: str) -> Any:
    if name == "search":
        from nasray.searching import search

        return search
    if name in __all__:
        import nasray.spaces

        return getattr(nasray.spaces, name)
    raise AttributeError(f"module 'nasray' has no attribute {name!r}")
