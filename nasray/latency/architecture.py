"""Architectures measured as whole networks, and what the table says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.latency.correction import corrected
from nasray.latency.measuring import measure, measure_program, prepared, without_drawing
from nasray.latency.setting import Setting
from nasray.latency.steadiness import Look, judge
from nasray.latency.table import LatencyTable
from nasray.runtimes import EAGER
from nasray.spaces import Architecture, Budget, NasrayError
from nasray.spaces.staged import StagedSpace

if TYPE_CHECKING:
    from torch import nn


def table_error(
    space: StagedSpace,
    table: LatencyTable,
    num: int = 20,
    seed: int = 0,
    *,
    budget: Budget | None = None,
    repeats: int = 10,
    runtime: str = EAGER,
) -> dict[str, Any]:
    """Hold a table's predictions against whole networks, measured: random architectures of a space.

    Args:
        space: Space to draw from.
        table: Table that predicts; entries that it lacks are measured.
        num: How many architectures, at least 2.
        seed: Seed of the architectures.
        budget: Bounds on the space's costs, for architectures like those of a search.
        repeats: Passes of each network.
        runtime: What runs the whole networks, a name of `RUNTIMES`.

    Returns:
        A JSON-serializable dictionary: `mape_percent` (mean absolute error, percent of the measured latency),
        `bias_percent` (the mean error; positive where the table says too much), `kendall` and `spearman` between
        predicted and measured, `predicted_ms`, `measured_ms` (medians), `spread_ms`, `min_ms`, `gmacs`; `scale` and
        `scaled_mape_percent` of the `Correction`; what looks at a reference say of the machine (`Steadiness`); and the
        setting of the networks. `mape_min_percent` and `bias_min_percent` are against `min_ms`, which a busy machine
        disturbs less.
    """
    from nasray.models import build
    from nasray.scores.ranking import rank_correlations
    from nasray.searchers import RandomSearch

    blocks = table.setting
    setting = Setting.here(
        blocks.image_hw,
        batch_size=blocks.batch_size,
        device=blocks.device,
        dtype=blocks.dtype,
        channels_last=blocks.channels_last,
        runtime=runtime,
        threads=blocks.threads or None,
    )
    genes = RandomSearch(space, budget=budget, seed=seed).ask(num).genes
    layers = space.layers(genes, setting.image_hw)
    table.ensure(layers)
    predicted_ms = table.predict(layers)
    results = [
        measure_program(prepared(without_drawing(build, space.to_architecture(row)), setting), setting, repeats=repeats)
        for row in genes
    ]
    looks = [Look(*one) for result in results for one in result["reference_ms"]]
    measured_ms = np.array([result["median_ms"] for result in results])
    error = 100 * (predicted_ms / measured_ms - 1)
    min_ms = np.array([result["min_ms"] for result in results])
    error_min = 100 * (predicted_ms / min_ms - 1)
    kendall, spearman = rank_correlations(predicted_ms, measured_ms)
    correction = corrected(predicted_ms, measured_ms)
    return {
        "num": len(genes),
        "mape_percent": float(np.abs(error).mean()),
        "bias_percent": float(error.mean()),
        "mape_min_percent": float(np.abs(error_min).mean()),
        "bias_min_percent": float(error_min.mean()),
        "scale": correction.scale,
        "scaled_mape_percent": correction.error_percent,
        "kendall": kendall,
        "spearman": spearman,
        "measured_ms": measured_ms.tolist(),
        "predicted_ms": predicted_ms.tolist(),
        "spread_ms": [result["spread_ms"] for result in results],
        "min_ms": min_ms.tolist(),
        "gmacs": layers.cost()["gmacs"].tolist(),
        "seed": seed,
        **judge(looks).figures(),
        **setting.description(),
    }


def measure_architecture(
    architecture: Architecture,
    *,
    image_hw: tuple[int, int],
    with_table: bool = False,
    **setting: Any,
) -> dict[str, Any]:
    """Measure an architecture's backbone and return a flat JSON-serializable dictionary; see `measure`.

    `with_table` adds `predicted_ms` from the device's block table (whose missing entries for this architecture are
    measured first) and `error_percent`, positive where the table says too much.

    Raises:
        NasrayError: for what the device or the runtime cannot do, or an architecture of which no network can be built.
    """
    from nasray.architectures import layer_table
    from nasray.models import build

    here = Setting.here(image_hw, **setting)
    if with_table and here.runtime != EAGER:
        raise NasrayError(f"the block table is of runtime {EAGER}, got {here.runtime}: leave one of both out")
    layers = layer_table(architecture, here.image_hw) if with_table else None
    result = measure_program(prepared(without_drawing(build, architecture), here), here)
    if layers is not None:
        table = LatencyTable.open(here)
        table.ensure(layers)
        result["predicted_ms"] = float(table.predict(layers)[0])
        result["error_percent"] = 100 * (result["predicted_ms"] / result["median_ms"] - 1)
    return result


def measure_detector(detector: nn.Module, image_hw: tuple[int, int], **setting: Any) -> dict[str, Any]:
    """Measure a whole detector, the choice of detections included; arguments and result as of `measure`.

    Raises:
        NasrayError: for what the device cannot do.
    """
    return {"scope": "detector", **measure(detector, image_hw, **setting)}
