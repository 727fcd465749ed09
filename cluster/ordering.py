"""The order of asking and telling, which makes a parallel search repeatable.

A batch is asked for as soon as another one is told, so that c batches are in flight. In the order "asked", batches are
told in the order in which they were asked for: batch k is asked for once batch k - c is told. So every batch is a
function of the seed and the batches told before it: neither the order in which workers finish nor a crash changes the
search. The price is that a batch which takes long holds up all that follow by more than c.

In the order "finished", batches are told as they finish, and nothing is held up. A search that goes on after a crash
is exactly where its history ends, but what it finds from there depends on which worker is the quickest.

A searcher that has too little to propose while batches are in flight is asked again once the next of them is told. A
search ends early only when it has nothing new to propose although everything that was asked for is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nasray.searchers import Metrics, Proposal, Searcher
from nasray.spaces import NasrayError, Population

Order = Literal["asked", "finished"]


@dataclass(frozen=True)
class ToldBatch:
    """A batch at the moment at which it is told.

    Attributes:
        index: Number of batches that were told before.
        proposal: Its architectures.
        metrics: What they are worth.
        asked: Number of batches that were asked for before, where that may be another; None where it is `index`.
    """

    index: int
    proposal: Proposal
    metrics: Metrics
    asked: int | None = None

    @property
    def number(self) -> int:
        """Number of batches that were asked for before."""
        return self.index if self.asked is None else self.asked


class OrderedSearch:
    """A searcher, its batches in flight, and the results that wait for their turn.

    Args:
        searcher: Fresh; asked and told by this object alone.
        evaluations: Number of architectures to evaluate in all.
        batch_size: Architectures in a batch; the last one can be smaller.
        in_flight: Batches asked for and not yet told, c.
        order: Order in which batches are told: "asked", or "finished".

    Raises:
        NasrayError: for a number below 1, or a searcher that was asked before.
    """

    def __init__(
        self, searcher: Searcher, *, evaluations: int, batch_size: int, in_flight: int, order: Order = "asked"
    ) -> None:
        for name, value in (("evaluations", evaluations), ("batch_size", batch_size), ("in_flight", in_flight)):
            if value < 1:
                raise NasrayError(f"{name} must be at least 1, got {value}")
        if searcher.seen:
            raise NasrayError(
                f"the searcher was asked for {len(searcher.seen):,} architectures already. Make a fresh one: a search "
                "depends on all that its searcher was asked and told"
            )
        self.searcher = searcher
        if searcher.evaluations is None:
            searcher.evaluations = evaluations
        self.evaluations, self.batch_size, self.in_flight, self.order = evaluations, batch_size, in_flight, order
        self.pending: dict[int, Proposal] = {}
        self.waiting: dict[int, Metrics] = {}
        self.num_batches_asked = 0
        self.num_asked = 0
        self.asked_in_vain_at: int | None = None  # batches told when the searcher last had too little to propose
        self.shortfall: str | None = None  # why fewer than `evaluations` are evaluated, once that is certain

    @property
    def num_batches_told(self) -> int:
        """Batches told; in the order "asked" they are the batches 0 to this number."""
        return self.num_batches_asked - len(self.pending)

    @property
    def num_told(self) -> int:
        """Architectures told."""
        return self.searcher.num_told

    @property
    def is_finished(self) -> bool:
        """Whether everything that will ever be asked for is told."""
        return not self.pending and (self.shortfall is not None or self.num_asked >= self.evaluations)

    @property
    def ended_early(self) -> str | None:
        """A sentence that says where and why the search ended before all its evaluations; None if it did not."""
        if self.shortfall is None or self.pending:
            return None
        return f"ended early at {self.num_told:,} of {self.evaluations:,} evaluations: {self.shortfall}"

    @property
    def _may_ask(self) -> bool:
        """Whether another batch is due. What was asked in vain is asked again once more is told, and not before."""
        return (
            len(self.pending) < self.in_flight
            and self.num_asked < self.evaluations
            and self.shortfall is None
            and self.asked_in_vain_at != self.num_batches_told
        )

    def fill(self) -> None:
        """Ask for batches until `in_flight` are pending, or nothing more can be asked for at present."""
        while self._may_ask:
            wanted = min(self.batch_size, self.evaluations - self.num_asked)
            proposal = self.searcher.ask(wanted)
            if len(proposal) < wanted:
                self.asked_in_vain_at = self.num_batches_told
            if len(proposal):
                self.pending[self.num_batches_asked] = proposal
                self.num_batches_asked += 1
                self.num_asked += len(proposal)
            elif not self.pending:
                self.shortfall = self.searcher.shortfall

    def receive(self, index: int, metrics: Metrics) -> list[ToldBatch]:
        """Take the results of batch `index`; give the batches whose turn has come, in order, without telling them.

        Results of a batch that was told already, or received before, change nothing.
        """
        if self.order == "finished":
            proposal = self.pending.get(index)
            return [] if proposal is None else [ToldBatch(self.num_batches_told, proposal, metrics, index)]
        if index in self.pending:
            self.waiting.setdefault(index, metrics)
        due = []
        for turn in range(self.num_batches_told, self.num_batches_asked):
            if turn not in self.waiting:
                break
            due.append(ToldBatch(turn, self.pending[turn], self.waiting[turn]))
        return due

    def tell(self, batch: ToldBatch) -> None:
        """Tell the searcher the next batch in order, and ask for the one that becomes due with it."""
        assert batch.index == self.num_batches_told
        self.searcher.tell(batch.proposal.genes, batch.metrics)
        del self.pending[batch.number]
        self.waiting.pop(batch.number, None)
        self.fill()

    def run(
        self, evaluate: Callable[[Population], Metrics], before_telling: Callable[[ToldBatch], None] | None = None
    ) -> None:
        """Search to the end in this process, one batch at a time, with the same outcome as on any cluster."""
        self.fill()
        while not self.is_finished:
            index, proposal = next(iter(self.pending.items()))
            for batch in self.receive(index, evaluate(proposal.genes)):
                if before_telling is not None:
                    before_telling(batch)
                self.tell(batch)

    def replay(self, index: int, genes: Population, metrics: Metrics, asked: int | None = None) -> None:
        """Tell batch `index` from a history; `asked` as of `ToldBatch`.

        Raises:
            NasrayError: if it is not the batch that this search would have asked for.
        """
        self.fill()
        proposal = self.pending.get(index if asked is None else asked)
        is_due = index == self.num_batches_told and (asked is None) == (self.order == "asked")
        if not is_due or proposal is None or not np.array_equal(proposal.genes, genes):
            raise NasrayError(
                f"batch {index} of the history is not what this search asks for: the history was written with another "
                "experiment (seed, space, searcher, batch size, order) or another version of nasray. "
                "Resume with the experiment and version that began the run"
            )
        self.tell(ToldBatch(index, proposal, metrics, asked))
