"""Registries of named parts: spaces, searchers, evaluators, detectors, supernets; ours and those of other packages.

Another package registers a part by an entry point of the group `nasray.<what>s`:

    [project.entry-points."nasray.searchers"]
    hill-climbing = "my_package.climbing:HillClimbing"

It is then named in YAML and on the command line like ours. Nothing is imported before a part is asked for.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator, MutableMapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from nasray import searchers, spaces
from nasray.skeletons import skeleton
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import shortened

REGISTRIES: dict[str, Registry] = {}
"""All registries by the kind of part, such as "searcher"."""


class Registry(MutableMapping[str, Any]):
    """Names to parts of one kind; a process registers one of its own by assignment.

    Args:
        what: Kind of part, in the singular.
        parts: Name to class, or to "module:Class", which is imported when it is asked for.
        given: Constructor arguments that the run provides; all others are options.
        tag: Key by which a mapping names the part.
        is_slow: Whether modules of our own parts take seconds to import, so that options are read from their source.

    Attributes:
        what: Kind of part, in the singular.
        given: Constructor arguments that the run provides.
        tag: Key by which a mapping names the part.
    """

    def __init__(
        self,
        what: str,
        parts: dict[str, Any],
        *,
        given: frozenset[str] = frozenset(),
        tag: str = "name",
        is_slow: bool = False,
    ) -> None:
        self.what, self.given, self.tag, self._ours, self._is_slow = what, given, tag, parts, is_slow
        REGISTRIES[what] = self

    @cached_property
    def _others(self) -> dict[str, str]:
        """Names and targets of other packages' parts; a name of ours stays ours."""
        points = sorted(entry_points(group=f"nasray.{self.what}s"), key=lambda point: (point.name, point.value))
        return {point.name: point.value for point in points if point.name not in self._ours}

    def own_names(self) -> Iterator[str]:
        """Return the names of nasray's own parts."""
        return iter(self._ours)

    def part(self, name: Any) -> Any:
        """Return the class of a name.

        Raises:
            NasrayError: for a name that there is not, or a part of another package that cannot be imported.
        """
        self.check(name)
        return self[name]

    def signed(self, name: Any) -> Any:
        """Return a class with the signature and the docstring of a part's; the part itself where it is quick to import.

        Raises:
            NasrayError: as `part`.
        """
        self.check(name)
        target = self._ours.get(name)
        found = skeleton(target, self.given) if self._is_slow and isinstance(target, str) else None
        return self[name] if found is None else found

    def check(self, name: Any) -> None:
        """Refuse a name that there is not; nothing is imported.

        Raises:
            NasrayError: naming those that there are.
        """
        if not isinstance(name, str) or name not in self:
            hint = did_you_mean(name, self) if isinstance(name, str) else "."
            raise NasrayError(f"unknown {self.what} {shortened(name)}{hint} There are: {', '.join(self)}")

    def text(self, name: str) -> str:
        """Return the first line of a part's docstring, without importing it where it has a source file."""
        target = self._ours.get(name) or self._others[name]
        document = _document(target) if isinstance(target, str) else target.__doc__
        if document is None and isinstance(target, str):
            try:
                document = self[name].__doc__
            except NasrayError as error:  # of another package: the list has others
                return str(error)
        return (document or "").strip().partition("\n")[0].removesuffix(".")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, name: str) -> Any:
        target = self._ours[name] if name in self._ours else self._others[name]
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            if name in self._ours:
                raise
            raise NasrayError(
                f"{self.what} {name!r} cannot be imported from {target}: {error}. Reinstall the package that registers "
                "it, or choose another"
            ) from error

    def __setitem__(self, name: str, part: Any) -> None:
        self._ours[name] = part

    def __delitem__(self, name: str) -> None:
        del self._ours[name]

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._others

    def __iter__(self) -> Iterator[str]:
        yield from self._ours
        yield from self._others

    def __len__(self) -> int:
        return len(self._ours) + len(self._others)


def _document(target: str) -> str | None:
    """Return the docstring of "module:Class" from the module's source; None where there is none."""
    module, _, name = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return None
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    for node in ast.parse(source or "").body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ast.get_docstring(node)
    return None


SPACES = Registry("space", spaces.SPACES)
SEARCHERS = Registry(
    "searcher",
    searchers.SEARCHERS,
    given=frozenset(
        {"space", "budget", "cost", "objectives", "seed", "evaluations", "predictor", "oversample", "rows", "niches"}
    ),
)
