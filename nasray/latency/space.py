"""The latencies of a space's architectures, as a search asks for them.

Shapes: N architectures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.progress import say
from nasray.cluster.resources import Resources
from nasray.latency.correction import MAX_ERROR_PERCENT, CorrectedTable, corrected_table
from nasray.latency.setting import Setting
from nasray.latency.table import LatencyTable
from nasray.runtimes import EAGER
from nasray.spaces import CostFunction, Costs, LayerTable, NasrayError, Population
from nasray.spaces.budget import cost_scope
from nasray.spaces.resolutions import by_size
from nasray.spaces.staged import StagedSpace


def space_table(space: StagedSpace, setting: Setting) -> LatencyTable:
    """Return the table of a setting with all entries that a space can need, measured where they are missing."""
    table = LatencyTable.open(setting)
    table.ensure(space.layers(_corners(space), setting.image_hw))
    return table


def _corners(space: StagedSpace) -> Population:
    """Return rows with every kind of block at the fewest and the most channels; the widths are the `log` genes."""
    sample = space.sample(512, np.random.default_rng(0))
    narrow, wide = sample.copy(), sample.copy()
    for column, gene in enumerate(space.genes):
        if gene.log:
            present = sample[:, column] > 0
            narrow[present, column], wide[present, column] = gene.values[0], gene.values[-1]
    return space.repair(np.concatenate([sample, narrow, wide]))


class LatencyCost:
    """The costs of a space, and `latency_ms` from a device's block table: a searcher's `cost`.

    The table is opened, and its missing entries measured, when a population is first asked about, not before: on this
    machine's CPU, or on a GPU in a Ray task that holds one. Whole networks correct it, and a line says how far it is
    off. A copy by pickle takes the table along and predicts the same wherever it is.

    Args:
        space: What the genes mean; latency is that of the backbone at the space's image size, or at each
            row's own resolution.
        cost: Function that returns all other costs; the space's own if left out.
        batch_size: Images in one pass; `latency_ms` is that of the pass.
        device: "cpu" or "cuda".
        dtype: Data type of the networks.
        runtime: What runs the networks, a name of `RUNTIMES`.
        threads: Threads that compute on a CPU; as many as PyTorch takes if left out.
        bound_ms: Bound on latency, below which whole networks are drawn that correct the table.
        resources: Resources to find a GPU with; Ray is started for it if it does not run.

    Raises:
        NasrayError: for a space that does not describe its layers, or another device.
    """

    def __init__(
        self,
        space: StagedSpace,
        *,
        cost: CostFunction | None = None,
        batch_size: int = 1,
        device: str = "cpu",
        dtype: str = "float32",
        runtime: str = EAGER,
        threads: int | None = None,
        bound_ms: float | None = None,
        resources: Resources | None = None,
    ) -> None:
        if device not in ("cpu", "cuda"):
            raise NasrayError(f"the device of latency_ms is cpu or cuda, got {device!r}")
        if not hasattr(space, "layers"):
            raise NasrayError(
                f"latency_ms needs a space with a method `layers`; {type(space).__name__} has none. "
                "Write one (see nasray.spaces.layers), or leave latency_ms out"
            )
        self.space, self.bound_ms, self.device = space, bound_ms, device
        self.setting: dict[str, Any] = {
            "batch_size": batch_size,
            "device": device,
            "dtype": dtype,
            "runtime": runtime,
            "threads": threads,
        }
        self.cost: CostFunction = cost or space.cost
        self.resources = resources or Resources()
        self.tables: dict[tuple[int, int], CorrectedTable] = {}

    @property
    def scope(self) -> str:
        """Return what all costs but `latency_ms` are of."""
        return cost_scope(self.cost, self.space)

    def __call__(self, population: Population) -> Costs:
        """Return the other costs and `latency_ms`, each (N,)."""
        costs = self.cost(population)
        if not len(population):
            return {**costs, "latency_ms": np.empty(0)}
        latency_ms = np.empty(len(population))
        for size, chosen in by_size(self.space, population):
            latency_ms[chosen] = self._predicted(population[chosen], size)
        return {**costs, "latency_ms": latency_ms}

    def _predicted(self, population: Population, image_hw: tuple[int, int]) -> NDArray[np.float64]:
        """Return (N,) latencies of backbones on images of one size, whose table is measured first if need be."""
        if image_hw not in self.tables:
            self.tables[image_hw] = self._measured(self.space.layers(_corners(self.space), image_hw), image_hw)
            self._say(self.tables[image_hw])
        layers = self.space.layers(population, image_hw)
        latency_ms = self.tables[image_hw].predict(layers)
        if np.isnan(latency_ms).any():  # a space of its own kind, whose corners were not all found
            correction = self.tables[image_hw].correction  # what was said once holds
            self.tables[image_hw] = self._measured(layers, image_hw)._replace(correction=correction)
            latency_ms = self.tables[image_hw].predict(layers)
        return latency_ms

    def _measured(self, layers: LayerTable, image_hw: tuple[int, int]) -> CorrectedTable:
        """Return the table with all entries that these layers need, beside those that it has."""
        if self.device == "cuda":
            from nasray.latency.gpu import table_on_gpu

            return table_on_gpu(
                self.space, layers, self.resources, bound_ms=self.bound_ms, image_hw=image_hw, **self.setting
            )
        return corrected_table(self.space, layers, bound_ms=self.bound_ms, image_hw=image_hw, **self.setting)

    @staticmethod
    def _say(found: CorrectedTable) -> None:
        correction = found.correction
        say(f"latency_ms: backbone, {found.setting.text}: {correction.text}")
        if not correction.error_percent <= MAX_ERROR_PERCENT:
            say(
                f"latency_ms is off by more than {MAX_ERROR_PERCENT:.0f} %, and a bound on it holds no better. `nasray "
                "front RUN --latency` measures what the search keeps"
            )
