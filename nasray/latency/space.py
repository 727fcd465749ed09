"""The latencies of a space's architectures, as a search asks for them.

Shapes: N architectures.
"""

from __future__ import annotations

import numpy as np

from nasray.latency.setting import Setting
from nasray.latency.table import LatencyTable
from nasray.spaces import Costs, NasrayError, Population
from nasray.spaces.staged import StagedSpace


def space_table(space: StagedSpace, setting: Setting) -> LatencyTable:
    """The table of a setting with all entries that a space can need, measured where they are missing."""
    table = LatencyTable.open(setting)
    table.ensure(space.layers(_corners(space), setting.image_hw))
    return table


def _corners(space: StagedSpace) -> Population:
    """Rows that have every kind of block with the fewest and the most channels: the widths are the `log` genes."""
    sample = space.sample(512, np.random.default_rng(0))
    narrow, wide = sample.copy(), sample.copy()
    for column, gene in enumerate(space.genes):
        if gene.log:
            present = sample[:, column] > 0
            narrow[present, column], wide[present, column] = gene.values[0], gene.values[-1]
    return space.repair(np.concatenate([sample, narrow, wide]))


class LatencyCost:
    """The costs of a space, and `latency_ms` from the device's block table: a searcher's `cost`.

    The table is opened, and its missing entries measured, when a population is first asked about, not before. A copy
    by pickle takes the table along and predicts the same wherever it is.

    Args:
        space: what the genes mean; latency is that of the backbone at the space's image size.
        batch_size: images in one pass; `latency_ms` is that of the pass.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        NasrayError: for a space that does not describe its layers.
    """

    def __init__(
        self, space: StagedSpace, *, batch_size: int = 1, device: str = "auto", dtype: str = "float32"
    ) -> None:
        if not hasattr(space, "layers"):
            raise NasrayError(
                f"latency_ms needs a space with a method `layers`; {type(space).__name__} has none. "
                "Write one (see nasray.spaces.layers), or leave latency_ms out"
            )
        self.space, self.batch_size, self.device, self.dtype = space, batch_size, device, dtype
        self.table: LatencyTable | None = None

    def __call__(self, population: Population) -> Costs:
        """The space's costs and `latency_ms`, each (N,)."""
        costs = self.space.cost(population)
        if not len(population):
            return {**costs, "latency_ms": np.empty(0)}
        if self.table is None:
            setting = Setting.here(
                self.space.image_hw, batch_size=self.batch_size, device=self.device, dtype=self.dtype
            )  # fmt: skip
            self.table = space_table(self.space, setting)
        layers = self.space.layers(population)
        latency_ms = self.table.predict(layers)
        if np.isnan(latency_ms).any():  # a space of its own kind, whose corners were not all found
            self.table.ensure(layers)
            latency_ms = self.table.predict(layers)
        return {**costs, "latency_ms": latency_ms}
