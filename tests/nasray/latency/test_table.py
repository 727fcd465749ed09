import json
from dataclasses import replace

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.latency import (
    CHANNELS,
    LatencyTable,
    space_table,
)
from nasray.latency.blocks import terms
from nasray.latency.space import _corners
from nasray.spaces import SPACES
from tests.nasray.latency.common import HW, SETTING, STAGED, small_space, synthetic


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


def test_a_table_of_a_version_without_runtimes_is_eager(cache):
    table = space_table(small_space(), SETTING)
    content = json.loads(table.path.read_text())
    del content["setting"]["runtime"], content["setting"]["runtime_version"]
    table.path.write_text(json.dumps(content))
    assert LatencyTable.open(SETTING).entries == table.entries
    other = LatencyTable.open(replace(SETTING, runtime="onnxruntime", runtime_version="1.2"))
    assert (other.path.name, other.entries) == (table.path.name.replace(".json", "-onnxruntime1.2.json"), {})


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
