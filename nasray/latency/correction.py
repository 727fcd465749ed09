"""What whole networks say of a block table: one factor for its predictions, and how far they are off then.

The sum of blocks knows neither what a runtime fuses nor how it lays out maps, nor the caches that a neighbor has
warmed. For one device and runtime this is mostly a common factor, which some whole networks tell. They are measured
before a search begins: while it runs, its own trials keep the machine busy.

Shapes: N networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.progress import ProgressLine, say
from nasray.latency.measuring import look, prepared, timed_ms, without_drawing
from nasray.latency.setting import Setting, random_images
from nasray.latency.steadiness import judge
from nasray.latency.table import LatencyTable
from nasray.runtimes import EAGER
from nasray.spaces import Architecture, LayerTable
from nasray.spaces.staged import StagedSpace

if TYPE_CHECKING:
    from nasray.latency.steadiness import Look

NUM_NETWORKS, NUM_DRAWN = 12, 4096
MAX_ERROR_PERCENT = 10.0
NETWORK_SECONDS = 2.0  # spent on the passes of one network, unless three take longer


class Correction(NamedTuple):
    """Agreement of predictions with whole networks.

    Attributes:
        scale: Factor of predictions, the median of measured / predicted.
        error_percent: Mean absolute error with that factor, percent of the measured latency; each network with the
            factor of the others.
        spearman: Rank correlation of predicted and measured.
        num: Number of networks.
    """

    scale: float
    error_percent: float
    spearman: float
    num: int

    @property
    def text(self) -> str:
        """What a user reads of it."""
        return (
            f"sums of blocks times {self.scale:.3g}, as {self.num} whole networks have it, which are "
            f"{self.error_percent:.1f} % off then (Spearman {self.spearman:.2f})"
        )


def corrected(predicted_ms: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> Correction:
    """Return the correction of (N,) predictions by (N,) measured latencies; of one the error is not known, NaN."""
    from nasray.scores.ranking import rank_correlations

    ratios = np.log(measured_ms / predicted_ms)
    if len(ratios) < 2:
        return Correction(float(np.exp(ratios[0])), np.nan, np.nan, 1)
    others = np.array([np.median(np.delete(ratios, place)) for place in range(len(ratios))])
    error = float(np.abs(np.exp(others - ratios) - 1).mean())
    _, spearman = rank_correlations(predicted_ms, measured_ms)
    return Correction(float(np.exp(np.median(ratios))), 100 * error, spearman, len(ratios))


class CorrectedTable(NamedTuple):
    """A block table, and what whole networks say of it.

    Attributes:
        table: Table of blocks, which PyTorch runs one by one.
        setting: Where and how the networks run whose latency is predicted.
        correction: What some of them say.
    """

    table: LatencyTable
    setting: Setting
    correction: Correction

    def predict(self, layers: LayerTable) -> NDArray[np.float64]:
        """Return (N,) latency in ms of one pass of a batch; NaN where the table lacks an entry."""
        return self.table.predict(layers) * self.correction.scale


def corrected_table(
    space: StagedSpace, layers: LayerTable, *, bound_ms: float | None = None, **setting: Any
) -> CorrectedTable:
    """Return the table of a setting with the entries that layers need, and its correction; measure what is missing.

    Blocks are those of PyTorch whatever the runtime: others fuse blocks, so that none has a latency of its own.

    Args:
        space: Space of the networks.
        layers: Layers of a population.
        bound_ms: Bound on latency.
        setting: Arguments of `Setting.here`.
    """
    here = Setting.here(**setting)
    blocks = here
    if here.runtime != EAGER:
        blocks = Setting.here(
            here.image_hw, batch_size=here.batch_size, device=here.device, threads=here.threads or None
        )
    table = LatencyTable.open(blocks)
    table.ensure(layers)
    return CorrectedTable(table, here, correction_of(space, table, here, bound_ms=bound_ms))


def correction_of(
    space: StagedSpace, table: LatencyTable, setting: Setting, *, bound_ms: float | None = None
) -> Correction:
    """Measure whole networks of a space, those alone that this setting's file lacks, and return the correction.

    Args:
        space: Space to draw from.
        table: Block table, complete for the space at the setting's size.
        setting: Where and how networks run that the predictions are to be of.
        bound_ms: Bound on latency; networks are drawn from below it, as far as there are any.
    """
    genes = space.sample(NUM_DRAWN, np.random.default_rng(0))
    predicted_ms = table.predict(space.layers(genes, setting.image_hw))
    chosen = _spread(predicted_ms, bound_ms)
    networks = [space.to_architecture(row) for row in genes[chosen]]
    return corrected(predicted_ms[chosen], measured_networks(networks, setting))


def measured_networks(architectures: list[Architecture], setting: Setting) -> NDArray[np.float64]:
    """Return (N,) latency in ms of whole networks; what is measured is kept beside the setting's blocks."""
    kept = LatencyTable.open(setting)
    missing = [one for one in architectures if _key(one) not in kept.entries]
    progress = ProgressLine(f"whole networks, {setting.text}", len(missing))
    looks: list[Look] = []
    for number, architecture in enumerate(missing, start=1):
        looks.append(look(setting))
        kept.entries[_key(architecture)] = network_ms(architecture, setting)
        kept.save()
        progress.update(number, final=number == len(missing))
    if looks and (warning := judge([*looks, look(setting)]).warning):
        say(f"latency_ms: {warning}: remove {kept.path} before")
    return np.array([kept.entries[_key(one)] for one in architectures])


def network_ms(architecture: Architecture, setting: Setting) -> float:
    """Return the median latency in ms of an architecture's network over about `NETWORK_SECONDS` of passes."""
    from nasray.models import build

    program = prepared(without_drawing(build, architecture), setting)
    images = random_images(setting, (setting.batch_size, 3, *setting.image_hw))
    first_ms = timed_ms(program, (images,), setting, warmup=2, repeats=1)[0]
    repeats = int(np.clip(1e3 * NETWORK_SECONDS / first_ms, 3, 20))
    return float(np.median(timed_ms(program, (images,), setting, warmup=0, repeats=repeats)))


def _spread(predicted_ms: NDArray[np.float64], bound_ms: float | None) -> NDArray[np.int64]:
    """Return (N,) places of distinct predictions, evenly spread over those within the bound; the least if too few."""
    _, places = np.unique(predicted_ms, return_index=True)
    places = places[np.isfinite(predicted_ms[places])]
    within = int((predicted_ms[places] <= (np.inf if bound_ms is None else bound_ms)).sum())
    num = max(within, min(NUM_NETWORKS, len(places)))
    return places[np.linspace(0, num - 1, min(NUM_NETWORKS, num)).round().astype(np.int64)]


def _key(architecture: Architecture) -> str:
    return f"network {architecture.id}"
