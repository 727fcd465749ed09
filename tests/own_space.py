"""The space of docs/own-space.md, named as where its package is installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from nasray.architectures import FAMILIES
from nasray.registry import SPACES

FOLDER = Path(__file__).parents[1] / "examples/own_space"


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Have the space and its family in the registries of this process."""
    sys.path.insert(0, str(FOLDER))
    try:
        from pair_space import FAMILY, PairSpace

        SPACES["pair"], FAMILIES["pair"] = PairSpace, FAMILY
        yield
    finally:
        for registry in (SPACES, FAMILIES):
            registry.pop("pair", None)
        sys.path.remove(str(FOLDER))
