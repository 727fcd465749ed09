"""Architectures from a list: what another search found, measured by another evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NO_PARENT, Proposal, Searcher
from nasray.spaces import InfeasibleError, NasrayError, Population, Space, row_keys
from nasray.spaces.ranges import Count, check_whole, shortened
from nasray.spaces.references import From


class Listed(Searcher):
    """Architectures of a list, in its order; those outside of the budget and repeated ones are passed over.

    Args:
        space: Space to search.
        of: Stage that searches, or folder of a run, whose architectures are the list, best first; where its searcher
            has niches, the best of each niche comes first, then the second of each, and so on.
        top: Number of rows to take from the list's beginning; all if left out.
        per_bucket: Number of rows to take of each niche, such as each bucket of `bucket-evolution`, its best ones; all
            if left out.
        rows: Genes of the architectures, (N, G). A run hands over those of `of`, once that search is done.
        niches: (N,) niche of each row; the same for all if left out. A run hands them over with the rows.
        options: Further options; see `Searcher`.

    Raises:
        NasrayError: for no list, or rows that are no architectures of the space.
    """

    max_objectives = 8

    def __init__(
        self,
        space: Space,
        *,
        of: Annotated[str, From("history")] | None = None,
        top: Count | None = None,
        per_bucket: Count | None = None,
        rows: Sequence[Sequence[int]] | Population | None = None,
        niches: Sequence[int] | NDArray[np.int64] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, **options)
        count = None if top is None else check_whole("top", top, 1)
        each = None if per_bucket is None else check_whole("per_bucket", per_bucket, 1)
        if rows is None and of is None:
            raise NasrayError(
                "searcher 'listed' has no list. Set of to a stage that searches or to the folder of a run, or hand it "
                "rows"
            )
        self.of = of
        self.rows: Population | None = None
        if rows is not None:
            checked = self._checked(rows)
            niches = np.zeros(len(checked), dtype=np.int64) if niches is None else np.asarray(niches)
            self.rows = checked[_first_of_each(niches, each)][:count]

    def _checked(self, rows: Sequence[Sequence[int]] | Population) -> Population:
        """Return the (N, G) rows, once they are known to be architectures of the space."""
        lengths = {len(row) for row in rows}
        if lengths != {self.space.num_genes}:
            raise NasrayError(
                f"rows of space {self.space.family!r} have {self.space.num_genes} genes each; got "
                f"{'rows of ' + ', '.join(map(str, sorted(lengths))) if lengths else 'no row'}"
            )
        checked: Population = np.asarray(rows, dtype=np.int64)
        bad = np.flatnonzero(~self.space.is_valid(checked))
        if len(bad):
            raise NasrayError(
                f"row {bad[0]} is no architecture of space {self.space.family!r}: {shortened(checked[bad[0]].tolist())}"
            )
        return checked

    @cached_property
    def _list(self) -> Population:
        """(K, G) what can be asked for: the rows within the budget, each once, in order."""
        if self.rows is None:
            raise NasrayError(
                f"searcher 'listed' has no rows of {self.of!r}. A run hands them over once that search is done; "
                "elsewhere set rows"
            )
        _, first = np.unique(row_keys(self.rows), return_index=True)
        rows: Population = self.rows[np.sort(first)]
        return rows[self.newcomers.is_admissible(rows)]

    def check_feasible(self) -> None:
        """Raise `InfeasibleError` if no architecture of the list, or of the space before there is one, is admitted."""
        if self.rows is None:
            super().check_feasible()
        elif not len(self._list):
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


def _first_of_each(niches: NDArray[np.int64], num: int | None) -> NDArray[np.bool_]:
    """Return (N,) which rows are among the first `num` of their niche; all if it is None."""
    place = np.zeros(len(niches), dtype=np.int64)
    for niche in np.unique(niches):
        members = niches == niche
        place[members] = np.arange(members.sum())
    return place < (len(niches) if num is None else num)
