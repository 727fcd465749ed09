"""Whole networks correct the sums of blocks by one factor; they are measured once, and drawn from below the bound."""

import numpy as np
import pytest

from nasray.latency import LatencyTable, Setting
from nasray.latency import correction as module
from nasray.latency.correction import NUM_NETWORKS, corrected, corrected_table, correction_of
from nasray.latency.space import _corners
from tests.nasray.latency.common import HW, SETTING, small_space, synthetic


@pytest.fixture
def space(monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path))
    monkeypatch.setattr("nasray.latency.table.block_latency", synthetic)
    return small_space()


@pytest.fixture
def measured(monkeypatch):
    """Architectures whose networks were measured: as many ms as they have parameters."""
    found = []

    def measure(architecture, setting):
        found.append((architecture.id, setting.runtime))
        return float(len(found))

    monkeypatch.setattr(module, "network_ms", measure)
    return found


def test_a_factor_is_found_and_what_is_left_is_the_error():
    predicted = np.array([1.0, 2.0, 4.0, 8.0])
    found = corrected(predicted, 1.5 * predicted)
    assert (found.scale, found.error_percent, found.spearman) == (pytest.approx(1.5), pytest.approx(0), 1.0)
    noisy = corrected(predicted, 1.5 * predicted * [0.9, 1.0, 1.0, 1.1])
    assert noisy.scale == pytest.approx(1.5)
    assert noisy.error_percent == pytest.approx(100 * (1 / 0.9 - 1 + 1 - 1 / 1.1) / 4)
    assert corrected(predicted, predicted[::-1]).spearman == -1.0
    assert "whole networks have it" in found.text


def test_networks_are_measured_once_for_a_runtime(space, measured, capsys):
    layers = space.layers(_corners(space))
    options = {"image_hw": HW, "device": "cpu", "batch_size": 1, "dtype": "float32", "threads": 1}
    found = corrected_table(space, layers, **options)
    assert len(measured) == NUM_NETWORKS
    assert corrected_table(space, layers, **options).correction == found.correction
    assert len(measured) == NUM_NETWORKS, "nothing is measured twice"
    np.testing.assert_array_equal(found.predict(layers), found.table.predict(layers) * found.correction.scale)
    assert "whole networks, eager, float32, batch 1" in capsys.readouterr().err
    other = corrected_table(space, layers, **options, runtime="onnxruntime")
    assert [runtime for _, runtime in measured[NUM_NETWORKS:]] == ["onnxruntime"] * NUM_NETWORKS
    assert [name for name, _ in measured[NUM_NETWORKS:]] == [name for name, _ in measured[:NUM_NETWORKS]]
    assert (other.setting.runtime, other.table.setting.runtime) == ("onnxruntime", "eager")
    assert other.table.entries.items() >= found.table.entries.items(), "blocks are PyTorch's"


def test_networks_are_drawn_from_below_the_bound(space, measured, monkeypatch):
    table = LatencyTable(SETTING)
    table.ensure(space.layers(_corners(space)))
    drawn = []

    def measured_networks(networks, setting):
        rows = np.concatenate([space.from_architecture(one)[None] for one in networks])
        drawn.append(table.predict(space.layers(rows)))
        return drawn[-1]

    monkeypatch.setattr(module, "measured_networks", measured_networks)
    sample = table.predict(space.layers(space.sample(500, np.random.default_rng(5))))
    bound = float(np.quantile(sample, 0.5))
    setting = Setting.here(HW, device="cpu")
    for bound_ms in (bound, None, 1e-9):
        assert correction_of(space, table, setting, bound_ms=bound_ms).num == NUM_NETWORKS
    below, whole, least = drawn
    assert below.max() <= bound < whole.max()
    assert len(set(below.tolist())) == NUM_NETWORKS
    assert below.max() > 0.9 * bound
    assert least.max() < below.max(), "where none is below it, those that come closest"


@pytest.mark.slow
def test_real_networks(monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "NETWORK_SECONDS", 0.01)
    space = small_space()
    found = module.measured_networks(
        [space.to_architecture(row) for row in space.sample(2, np.random.default_rng(0))],
        Setting.here(HW, device="cpu"),
    )
    assert (found > 0).all()
