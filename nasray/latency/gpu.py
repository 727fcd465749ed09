"""Block tables of a GPU, measured in a Ray task that holds one: the process that searches may have none."""

from __future__ import annotations

from typing import Any

from nasray.cluster.progress import say
from nasray.cluster.resources import Resources
from nasray.cluster.session import ray_session
from nasray.latency.correction import CorrectedTable, corrected_table
from nasray.latency.table import LatencyTable
from nasray.spaces import LayerTable, NasrayError
from nasray.spaces.staged import StagedSpace

PATIENCE_SECONDS = 10.0  # after which the user is told what is waited for


def table_on_gpu(
    space: StagedSpace, layers: LayerTable, resources: Resources, *, bound_ms: float | None = None, **setting: Any
) -> CorrectedTable:
    """Measure the entries that these layers need, and whole networks, on one GPU of the cluster that trials run on.

    The table is kept in the cache of the node where it was measured, and read from there the next time.

    Args:
        space: Space of the networks.
        layers: Layers of a population.
        resources: Where trials run.
        bound_ms: Bound on latency.
        setting: Arguments of `Setting.here`.

    Returns:
        The table, in memory; the setting names the GPU.

    Raises:
        NasrayError: if the cluster has no GPU, or what the task says.
    """
    import ray

    anywhere = Resources(address=resources.address, local_cpus=resources.local_cpus)
    with ray_session(anywhere) as cluster_summary:
        if ray.cluster_resources().get("GPU", 0) < 1:
            raise NasrayError(
                f"latency.device is cuda, but there is no GPU ({cluster_summary.partition(';')[0]}). Add a node "
                "that has one, or take --latency.device cpu"
            )
        task = ray.remote(num_cpus=1, num_gpus=1, max_retries=0)(_measured).remote(space, layers, bound_ms, setting)
        if not ray.wait([task], timeout=PATIENCE_SECONDS)[0]:
            say("latency_ms: waiting for a GPU, and for the blocks that are measured on it")
        try:
            found: CorrectedTable = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, NasrayError):
                raise NasrayError(f"latency_ms cannot be measured: {error.cause}") from error
            raise
    return found._replace(table=LatencyTable(found.table.setting, found.table.entries))


def _measured(
    space: StagedSpace, layers: LayerTable, bound_ms: float | None, setting: dict[str, Any]
) -> CorrectedTable:
    return corrected_table(space, layers, bound_ms=bound_ms, **setting)
