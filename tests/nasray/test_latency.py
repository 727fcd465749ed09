import contextlib
import json
import pickle
import re
import shutil
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.cluster import Resources
from nasray.experiment import parse_experiment
from nasray.latency import (
    CHANNELS,
    LatencyCost,
    LatencyTable,
    Setting,
    block_latency,
    gpu,
    measure,
    measure_architecture,
    measure_detector,
    space_table,
    table_error,
)
from nasray.latency.blocks import terms
from nasray.latency.space import _corners
from nasray.latency.table import _needed
from nasray.models import build
from nasray.models.detectors import build_detector
from nasray.parts import make_searcher
from nasray.searchers import Evolution
from nasray.spaces import SPACES, Architecture, Budget, NasrayError
from nasray.spaces.staged import StagedSpace

HW = (64, 64)
STAGED = [family for family, space in SPACES.items() if issubclass(space, StagedSpace)]
SETTING = Setting("cpu", "a processor", "float32", 1, 1, "0", HW)


def small_space(name="bottleneck", **options):
    options = {"max_mid": 32, **options} if name == "bottleneck" else options
    return SPACES[name](image_hw=HW, max_width=64, max_stem_width=32, max_depth=3, kernels=(3,), **options)


def synthetic(setting, block, in_channels, out_channels, estimate_ms=0.0):
    """A latency that grows with the work and is no power of it."""
    del setting, estimate_ms
    return 0.01 + 1e-6 * block.macs(in_channels, out_channels) ** 0.9


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path))
    monkeypatch.setattr("nasray.latency.table.block_latency", synthetic)
    return tmp_path


def one_convolution(in_channels, out_channels):
    """Layers of the initial architecture's first 1x1 convolution alone, for N pairs of channels."""
    layers = layer_table(ARCHITECTURES["maedet-initial"], HW)
    row = int(np.flatnonzero((layers.role == "main") & (layers.kernel[:, 0] == 1))[0])
    pick = {name: getattr(layers, name)[row : row + 1] for name in layers.__dataclass_fields__}
    ones = np.ones((1, len(in_channels)))
    wide = {name: ones * pick[name] for name in ("kernel", "pooled_elements", "skip")}
    wide |= {"in_channels": ones * in_channels, "out_channels": ones * out_channels, "repeats": ones}
    return type(layers)(**{**pick, **wide})


@pytest.mark.parametrize("name", sorted(STAGED))
def test_predicts_every_family_of_blocks_independently_of_the_batch(cache, name):
    space = small_space(name)
    table = space_table(space, SETTING)
    population = space.sample(300, np.random.default_rng(1))
    together = table.predict(space.layers(population))
    assert (together > 0).all()
    parts = [table.predict(space.layers(part)) for part in np.array_split(population, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), together)
    alone = [table.predict(space.layers(row[None]))[0] for row in population[:40]]
    np.testing.assert_array_equal(alone, together[:40])
    order = np.random.default_rng(2).permutation(300)
    np.testing.assert_array_equal(table.predict(space.layers(population[order])), together[order])


def test_interpolation_hits_the_entries_and_is_bilinear_in_logarithms_between(monkeypatch):
    monkeypatch.setattr("nasray.latency.table.block_latency", synthetic)
    table = LatencyTable(SETTING)
    nodes = CHANNELS[(CHANNELS >= 8) & (CHANNELS <= 512)]
    i, j = (grid.ravel() for grid in np.meshgrid(nodes, nodes))
    layers = one_convolution(i, j)
    table.ensure(layers)
    [(block, _)] = next(iter(terms(layers))).blocks()
    entries = [table.entries[block.key(a, b)] for a, b in zip(i.tolist(), j.tolist(), strict=True)]
    np.testing.assert_allclose(table.predict(layers), entries, rtol=1e-14)
    # 16 lies half way between 8 and 32 in the logarithm, 64 between 32 and 128.
    corners = [table.entries[block.key(a, b)] for a in (8, 32) for b in (32, 128)]
    middle = table.predict(one_convolution(np.array([16]), np.array([64])))
    np.testing.assert_allclose(middle, np.prod(corners) ** 0.25, rtol=1e-14)


def test_more_channels_take_longer(monkeypatch):
    monkeypatch.setattr("nasray.latency.table.block_latency", synthetic)
    table = LatencyTable(SETTING)
    widths = np.arange(8, 513, 8)
    for layers in (one_convolution(widths, np.full(64, 40)), one_convolution(np.full(64, 40), widths)):
        table.ensure(layers)
        assert (np.diff(table.predict(layers)) > 0).all()


def test_layers_count_as_often_as_they_occur(monkeypatch):
    monkeypatch.setattr("nasray.latency.table.block_latency", lambda *_: 1.0)
    table = LatencyTable(SETTING)
    layers = layer_table(ARCHITECTURES["resnet50"], HW)
    table.ensure(layers)
    # 1 stem, 16 blocks of 3 convolutions and an addition, 4 projections.
    np.testing.assert_allclose(table.predict(layers), 1 + 16 * 4 + 4, rtol=1e-12)


def test_missing_entries_are_nan_not_guesses():
    assert np.isnan(LatencyTable(SETTING).predict(one_convolution(np.array([8]), np.array([8])))).all()


def test_table_file_round_trip_and_growth_leave_predictions_alone(cache):
    space = small_space()
    table = space_table(space, SETTING)
    layers = space.layers(space.sample(100, np.random.default_rng(0)))
    before = table.predict(layers)
    again = LatencyTable.open(SETTING)
    assert again.entries == table.entries
    np.testing.assert_array_equal(again.predict(layers), before)
    num = len(again.entries)
    again.ensure(SPACES["bottleneck"](image_hw=HW).layers(_corners(SPACES["bottleneck"](image_hw=HW))))
    assert len(again.entries) > num
    np.testing.assert_array_equal(LatencyTable.open(SETTING).predict(layers), before)
    assert not LatencyTable.open(replace(SETTING, dtype="bfloat16")).entries


def test_entries_on_disk_win_over_those_measured_meanwhile(cache):
    key = "conv 1x1 stride 1 8x8 8-8"
    first, second = LatencyTable.open(SETTING), LatencyTable.open(SETTING)
    first.entries[key], second.entries[key] = 1.0, 2.0
    first.save()
    second.save()
    assert second.entries[key] == LatencyTable.open(SETTING).entries[key] == 1.0


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', "nan", "setting"])
def test_broken_table_is_set_aside_and_made_anew(cache, capsys, damage):
    space = small_space()
    table = space_table(space, SETTING)
    content = table.path.read_text()
    if damage == "nan":
        damage = content.replace(": 0.", ": -0.", 1)
    elif damage == "setting":
        damage = content.replace("a processor", "another")
    table.path.write_text(damage)
    capsys.readouterr()
    again = space_table(space, SETTING)
    message = capsys.readouterr().err
    assert str(table.path) in message
    assert "measured anew" in message
    assert again.path.read_text() == content
    assert again.path.with_name(again.path.name + ".broken").read_text() == damage


def test_heavy_entries_are_scaled_not_measured(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        "nasray.latency.table.block_latency", lambda _, block, i, j, *__: calls.append((i, j)) or 1.0 * i * j
    )
    table = LatencyTable(SETTING)
    layers = one_convolution(np.array([8, 2048]), np.array([8, 2048]))
    table.ensure(layers)
    assert (8, 32) in calls
    assert (2048, 2048) not in calls
    assert "too heavy" in capsys.readouterr().err
    np.testing.assert_allclose(table.predict(layers), [64.0, 2048.0**2], rtol=1e-12)


def test_cost_builds_nothing_before_it_is_asked_and_survives_pickling(cache):
    space = small_space()
    cost = pickle.loads(pickle.dumps(LatencyCost(space, device="cpu")))
    empty = cost(np.empty((0, space.num_genes), dtype=np.int64))
    assert empty["latency_ms"].shape == (0,)
    assert not list(cache.rglob("*.json"))
    population = space.sample(20, np.random.default_rng(0))
    costs = cost(population)
    assert set(costs) == {*space.cost(population), "latency_ms"}
    assert len(list(cache.rglob("*.json"))) == 1
    copy = pickle.loads(pickle.dumps(cost))
    np.testing.assert_array_equal(copy(population)["latency_ms"], costs["latency_ms"])


def test_evolution_keeps_a_latency_budget(cache):
    space = small_space()
    cost = LatencyCost(space, device="cpu")
    bound = float(np.median(cost(space.sample(200, np.random.default_rng(0)))["latency_ms"]))

    def run():
        searcher = Evolution(space, budget=Budget({"latency_ms": bound}), cost=LatencyCost(space, device="cpu"))
        asked = []
        for _ in range(4):
            genes = searcher.ask(50).genes
            searcher.tell(genes, {"score": space.cost(genes)["gmacs"]})
            asked.append(genes)
        return np.concatenate(asked)

    genes = run()
    assert (cost(genes)["latency_ms"] <= bound).all()
    np.testing.assert_array_equal(run(), genes)


def test_experiment_with_a_latency_budget(cache):
    searcher = make_searcher(parse_experiment(LATENCY, "test"))
    assert not list(cache.rglob("*.json"))
    genes = searcher.ask(50).genes
    assert (searcher.cost(genes)["latency_ms"] <= 1.0).all()


LATENCY = {
    "name": "fast", "evaluations": 50, "searcher": {"name": "evolution"}, "budget": {"latency_ms": 1.0},
    "space": {"name": "inverted", "image_hw": list(HW), "kernels": [3], "max_width": 64},
}  # fmt: skip


def test_options_of_latency():
    options = {"device": "cuda", "dtype": "float16", "batch_size": 4}
    cost = make_searcher(parse_experiment(LATENCY | {"latency": options}, "test")).cost
    assert (cost.device, cost.dtype, cost.batch_size) == ("cuda", "float16", 4)
    with pytest.raises(NasrayError, match=r"latency\.device is for searches with a bound on latency_ms"):
        parse_experiment(LATENCY | {"budget": {}, "latency": {"device": "cuda"}}, "test")
    with pytest.raises(NasrayError, match="device"):
        parse_experiment(LATENCY | {"latency": {"device": "auto"}}, "test")


def test_says_where_it_was_measured(cache, capsys):
    LatencyCost(small_space())(small_space().sample(3, np.random.default_rng(0)))
    assert re.search(r"latency_ms: backbone on .+ \(cpu\), float32, batch 1, \d+ thread", capsys.readouterr().err)


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
    def holding(layers, setting):
        """Stands for the measurement, which needs a real GPU."""
        import ray

        here = Setting("cuda", "a GPU", setting["dtype"], setting["batch_size"], 0, "2", setting["image_hw"])
        return here, {"gpus": float(len(ray.get_gpu_ids())), "layers": len(layers.role)}

    monkeypatch.setattr(gpu, "_measured", holding)
    layers = layer_table(ARCHITECTURES["resnet18"], (32, 32))
    table = gpu.table_on_gpu(layers, Resources(), image_hw=HW, batch_size=2, device="cuda", dtype="float16")
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
    assert cost.table.setting.device_name == torch.cuda.get_device_name()


def test_measures_a_network_and_leaves_it_and_the_random_state_alone():
    network = torch.nn.Conv2d(3, 8, 3)
    weight, state = network.weight.clone(), torch.get_rng_state()
    result = measure(network, HW, batch_size=2, device="cpu", dtype="bfloat16", repeats=5, channels_last=True)
    assert 0 < result["min_ms"] <= result["median_ms"]
    assert result["fps"] == pytest.approx(2000 / result["median_ms"])
    assert (result["device"], result["dtype"], result["batch_size"]) == ("cpu", "bfloat16", 2)
    assert network.training
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_real_blocks_predict_a_real_network(monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path))
    monkeypatch.setattr("nasray.latency.blocks.ENTRY_SECONDS", 0.001)
    stages = [{"depth": 1, "expansion": 3, "kernel": 3, "stride": 2, "width": 8} for _ in range(4)]
    architecture = Architecture.create("inverted-se", {"stem": {"kernel": 3, "width": 8}, "stages": stages})
    state = torch.get_rng_state()
    result = measure_architecture(architecture, image_hw=HW, device="cpu", with_table=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert json.loads(json.dumps(result)) == result
    assert result["predicted_ms"] > 0
    assert result["error_percent"] == pytest.approx(100 * (result["predicted_ms"] / result["median_ms"] - 1))


@pytest.mark.parametrize("family", ["bottleneck", "basic"])
def test_every_block_of_resnets_can_be_measured(monkeypatch, family):
    monkeypatch.setattr("nasray.latency.blocks.ENTRY_SECONDS", 0.001)
    name = {"bottleneck": "resnet50", "basic": "resnet18"}[family]
    layers = layer_table(ARCHITECTURES[name], (32, 32))
    setting = Setting.here((32, 32), device="cpu")
    for block in {entry[0] for entry in _needed(layers)}:
        in_channels = 1 if block.kind == "add" else 8
        assert block_latency(setting, block, in_channels, 8) > 0


def test_table_error_is_complete(cache):
    result = table_error(small_space(), LatencyTable(Setting.here(HW, device="cpu")), num=3, repeats=1)
    assert len(result["measured_ms"]) == len(result["predicted_ms"]) == result["num"] == 3
    assert json.loads(json.dumps(result)) == result
    assert -1 <= result["kendall"] <= 1


@pytest.mark.parametrize("name", ["fcos", "mask-rcnn"])
def test_measures_detectors_in_half_precision(name):
    with torch.random.fork_rng(devices=[]):
        detector = build_detector(name, build(ARCHITECTURES["basic-tiny"]), 3, channels=16)
    result = measure_detector(detector, HW, device="cpu", dtype="bfloat16", warmup=1, repeats=2)
    assert result["scope"] == "detector"
    assert result["dtype"] == "bfloat16"
    assert result["median_ms"] > 0
    assert next(detector.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "float32, float16, bfloat16; got 'int8'"),
        ({"device": "tpu"}, "auto, cpu, cuda; got 'tpu'"),
        ({"batch_size": 0}, "batch size is a whole number from 1"),
        ({"batch_size": 65_536, "image_hw": (4096, 4096)}, "one pass takes at most"),
    ],
)
def test_says_what_is_allowed(options, message):
    with pytest.raises(NasrayError, match=message):
        Setting.here(**{"image_hw": HW, **options})


def test_says_that_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NasrayError, match="'cuda' is not available"):
        Setting.here(HW, device="cuda")


def test_says_that_a_space_has_no_layers():
    with pytest.raises(NasrayError, match="has none"):
        LatencyCost(object())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_measures_on_a_gpu(dtype):
    result = measure_architecture(ARCHITECTURES["resnet18"], image_hw=HW, device="cuda", dtype=dtype)
    assert result["device"] == "cuda"
    assert result["threads"] == 0
    assert result["median_ms"] > 0
