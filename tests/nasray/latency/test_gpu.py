import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.cluster import Resources
from nasray.latency import (
    LatencyCost,
    LatencyTable,
    Setting,
    gpu,
)
from nasray.latency.correction import CorrectedTable, Correction
from nasray.spaces import NasrayError
from tests.nasray.latency.common import HW, small_space


@pytest.fixture(scope="module")
def ray_with_a_gpu():
    """A Ray that believes in one GPU, so that a task can hold it."""
    import ray

    folder = tempfile.mkdtemp(prefix="nr-", dir="/tmp")
    ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_table_of_a_gpu_is_measured_in_a_task_that_holds_one(ray_with_a_gpu, monkeypatch):
    def holding(space, layers, bound_ms, setting):
        """Stands for the measurement, which needs a real GPU."""
        import ray

        here = Setting("cuda", "a GPU", setting["dtype"], setting["batch_size"], 0, "2", setting["image_hw"])
        table = LatencyTable(here, {"gpus": float(len(ray.get_gpu_ids())), "layers": len(layers.role)}, Path("there"))
        return CorrectedTable(table, here, Correction(bound_ms, 0.0, 1.0, 12))

    monkeypatch.setattr(gpu, "_measured", holding)
    layers = layer_table(ARCHITECTURES["resnet18"], (32, 32))
    options = {"image_hw": HW, "batch_size": 2, "device": "cuda", "dtype": "float16"}
    found = gpu.table_on_gpu(small_space(), layers, Resources(), bound_ms=7.0, **options)
    table = found.table
    assert found.correction.scale == 7.0
    assert table.entries == {"gpus": 1.0, "layers": len(layers.role)}
    assert (table.setting.device_name, table.setting.dtype, table.path) == ("a GPU", "float16", None)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_ray_that_only_believes_in_its_gpu_is_found_out(ray_with_a_gpu):
    with pytest.raises(NasrayError, match="latency_ms cannot be measured: device 'cuda' is not available"):
        LatencyCost(small_space(), device="cuda")(small_space().sample(1, np.random.default_rng(0)))


def test_no_gpu_in_the_cluster_is_refused(monkeypatch):
    import ray

    monkeypatch.setattr(
        gpu, "ray_session", lambda _: contextlib.nullcontext("cluster: 1 node, 2 CPUs, 0 GPUs; a trial")
    )
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(NasrayError, match=r"no GPU \(cluster: 1 node, 2 CPUs, 0 GPUs\)\. Add a node") as error:
        LatencyCost(small_space(), device="cuda")(small_space().sample(1, np.random.default_rng(0)))
    assert "\n" not in str(error.value)


@pytest.mark.gpu
def test_a_budget_s_table_is_that_of_the_gpu(cache):
    cost = LatencyCost(small_space(), device="cuda")
    assert (cost(small_space().sample(3, np.random.default_rng(0)))["latency_ms"] > 0).all()
    assert next(iter(cost.tables.values())).setting.device_name == torch.cuda.get_device_name()
