"""Architectures from a list: what another search found, measured by another evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NO_PARENT, Proposal, Searcher
from nasray.spaces import InfeasibleError, NasrayError, Population, Space, row_keys
from nasray.spaces.ranges import Count, check_whole, shortened


class Listed(Searcher):
    """Architectures of a list, in its order; those outside of the budget and repeated ones are passed over.

    Args:
        space: Space to search.
        rows: Genes of the architectures, (N, G); a run hands over those that another search found.
        top: Number of rows to take from the list's beginning; all if left out.
        options: Further options; see `Searcher`.

    Raises:
        NasrayError: for no list, or rows that are no architectures of the space.
    """

    max_objectives = 8

    def __init__(
        self,
        space: Space,
        *,
        rows: Sequence[Sequence[int]] | Population | None = None,
        top: Count | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, **options)
        if rows is None or not len(rows):
            raise NasrayError("searcher 'listed' needs rows: the genes of at least one architecture")
        lengths = {len(row) for row in rows}
        if lengths != {space.num_genes}:
            raise NasrayError(
                f"rows of space {space.family!r} have {space.num_genes} genes each; got rows of "
                f"{', '.join(map(str, sorted(lengths)))}"
            )
        count = len(rows) if top is None else check_whole("top", top, 1)
        self.rows = np.asarray(rows, dtype=np.int64)[:count]
        bad = np.flatnonzero(~space.is_valid(self.rows))
        if len(bad):
            raise NasrayError(
                f"row {bad[0]} is no architecture of space {space.family!r}: {shortened(self.rows[bad[0]].tolist())}"
            )

    @cached_property
    def _list(self) -> Population:
        """(K, G) what can be asked for: the rows within the budget, each once, in order."""
        _, first = np.unique(row_keys(self.rows), return_index=True)
        rows: Population = self.rows[np.sort(first)]
        return rows[self.newcomers.is_admissible(rows)]

    def check_feasible(self) -> None:
        """Raise `InfeasibleError` if no architecture of the list is within the budget."""
        if not len(self._list):
            raise InfeasibleError(
                f"none of the {len(self.rows):,} architectures of the list is within the budget ({self.budget}). "
                "Loosen the budget, or list others"
            )

    def ask(self, num: int) -> Proposal:
        """See `Searcher.ask`; fewer than `num` once the list is at its end."""
        self.check_feasible()
        return super().ask(num)

    def _propose(self, num: int, kind: int) -> tuple[Population, NDArray[np.int64]]:
        del kind
        left = ~np.isin(row_keys(self._list), np.fromiter(self.seen, dtype=np.uint64, count=len(self.seen)))
        rows = self._list[left][:num]
        return rows, np.full((len(rows), 2), NO_PARENT)

    def _state(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def _load_state(self, state: dict[str, Any]) -> None:
        super()._load_state(state)
        self.__dict__.pop("_list", None)
