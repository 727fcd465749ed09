import json
from pathlib import Path

import numpy as np
import pytest

from nasray.spaces import BottleneckSpace, InvertedGatedSpace, InvertedSpace, staged_layers

FACTS = Path(__file__).parents[2].parent / "shared/facts/mae-det.json"

# MAE-DET, Tables 12 to 14, in blocks: stem width, then kernel, width, bottleneck width, depth; params are exact.
# gmacs at 800x1280 as mmcv's get_model_complexity_info counts the released code's modules: convolutions, 2 per
# batch-norm element, inputs of average pools. They round to the paper's Table 1 (48.7, 89.9, 152.9).
PUBLISHED = {
    "maedet-s": (32, [(5, 48, 32, 2), (3, 272, 120, 4), (5, 1024, 80, 10), (3, 2048, 240, 10)], 21_233_120, 79, 48.702),
    "maedet-m": (
        64, [(3, 120, 64, 2), (5, 512, 72, 10), (5, 1632, 112, 10), (5, 2048, 184, 8)], 25_843_536, 91, 89.933,
    ),
    "maedet-l": (
        80, [(3, 144, 80, 2), (5, 608, 88, 12), (5, 1912, 136, 12), (5, 2400, 220, 10)], 43_879_552, 109, 152.915,
    ),
}  # fmt: skip


def bottlenecks(stem, parts, strides, image_hw=(800, 1280)):
    parts_t = np.array(parts, dtype=np.float64)[:, :, None]
    return staged_layers("bottleneck", np.array([float(stem)]), parts_t, strides, image_hw)


@pytest.mark.parametrize(("stem", "parts", "params", "layers", "gmacs"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_networks(stem, parts, params, layers, gmacs):
    table = bottlenecks(stem, parts, (2, 2, 2, 2))
    cost = table.cost()
    assert table.params.sum() == params
    assert cost["params_m"] == [params / 1e6]
    assert cost["layers"] == [layers]
    assert table.gmacs_mmcv() == pytest.approx(gmacs, abs=5e-4)


@pytest.mark.skipif(not FACTS.exists(), reason="the reference implementation's figures are not on this machine")
def test_every_architecture_of_the_released_code():
    architectures = json.loads(FACTS.read_text())["architectures"]
    assert len(architectures) == 65
    for architecture in architectures:
        (stem_kernel, stem, stem_stride, *_), *blocks = architecture["blocks"]
        assert (stem_kernel, stem_stride) == (3, 2)
        parts = [(kernel, width, mid, depth) for kernel, width, _, depth, mid in blocks]
        table = bottlenecks(stem, parts, [block[2] for block in blocks])
        assert table.params.sum() == architecture["params"], architecture
        assert table.cost()["layers"] == [architecture["layers"]], architecture


def test_cost_by_hand():
    # One 3x3 stem and one bottleneck of stride 2 on 16x32 pixels, written out.
    table = bottlenecks(8, [(3, 16, 8, 1)], (2,), image_hw=(16, 32))
    stem = 3 * 9 * 8 * (8 * 16)
    block = 8 * 8 * (8 * 16) + 8 * 8 * 9 * (4 * 8) + 8 * 16 * (4 * 8) + 8 * 16 * (4 * 8)
    weights = 3 * 9 * 8 + 8 * 8 + 8 * 8 * 9 + 8 * 16 + 8 * 16
    assert table.macs.sum() == stem + block
    assert table.params.sum() == weights + 2 * (8 + 8 + 8 + 16 + 16)
    assert table.cost()["layers"] == [4]


def test_odd_maps_are_rounded_up():
    table = bottlenecks(8, [(3, 16, 8, 1)] * 4, (2, 2, 2, 2), image_hw=(33, 65))
    assert table.out_hw[table.level == 5][-1].tolist() == [2, 3]


def test_expansion_of_one_has_no_expanding_layer():
    space = InvertedSpace(image_hw=(64, 64))
    row = space.start()
    row[0, 3] = 1  # c2.0.expansion
    table, before = space.layers(row), space.layers(space.start())
    assert before.cost()["layers"] - table.cost()["layers"] == 1


def test_gates_add_parameters_and_hardly_any_macs():
    plain, gated = (make().cost(make().start()) for make in (InvertedSpace, InvertedGatedSpace))
    assert plain["layers"] == gated["layers"]
    assert gated["params_m"] > plain["params_m"]
    assert plain["gmacs"] < gated["gmacs"] < 1.001 * plain["gmacs"]


def test_macs_scale_with_the_pixels():
    rows = BottleneckSpace().sample(20, np.random.default_rng(0))
    small, large = (BottleneckSpace(image_hw=hw).cost(rows) for hw in ((320, 320), (640, 960)))
    np.testing.assert_allclose(small["gmacs"] * 6, large["gmacs"], rtol=1e-12)
    np.testing.assert_array_equal(small["params_m"], large["params_m"])
