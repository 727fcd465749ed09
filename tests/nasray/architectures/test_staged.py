"""Published architectures have their published figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES, PUBLISHED, checked_spec, layer_table
from nasray.spaces import Architecture, BottleneckSpace, NasrayError

FACTS = Path(__file__).parents[3].parent / "shared" / "facts" / "mae-det.json"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    # MAE-DET, Table 1, at 1280x800
    table = layer_table(ARCHITECTURES[name], (800, 1280))
    cost = table.cost()
    assert cost["gmacs"][0] == pytest.approx(PUBLISHED[name]["gmacs"], rel=0.01)
    assert cost["params_m"][0] == pytest.approx(PUBLISHED[name]["params_m"], rel=0.01)
    if name.startswith("maedet"):  # to the last digit given, with norms and pools counted as mmcv counts them
        assert round(table.gmacs_mmcv()[0], 1) == PUBLISHED[name]["gmacs"]


@pytest.mark.parametrize(
    ("name", "gmacs", "params_m"),
    [
        ("maedet-multi-scale-coarse", 88.7, 29.4),  # MAE-DET, Table 8, row 1:1:6
        ("maedet-single-scale", None, 60.1),  # MAE-DET, Table 4, row single-scale
    ],
)
def test_figures_of_the_ablations(name, gmacs, params_m):
    table = layer_table(ARCHITECTURES[name], (800, 1280))
    assert table.cost()["params_m"][0] == pytest.approx(params_m, rel=0.002)
    if gmacs:
        assert round(table.gmacs_mmcv()[0], 1) == gmacs


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # torchvision without classifier: sum of p.numel(), and half of FlopCounterMode at 1280x800
        ("resnet50", 23_508_032, 83.411e9),
        ("resnet101", 42_500_160, 159.171e9),
        ("resnet18", 11_176_512, None),
        ("resnet34", 21_284_672, None),
        ("mobilenet-v2", 1_811_712, None),  # and without the last 1x1 convolution
        # the released code's models, counted in the same way
        ("maedet-s", 21_233_120, 48.372e9),
        ("maedet-m", 25_843_536, 89.317e9),
        ("maedet-l", 43_879_552, 152.080e9),
    ],
)
def test_exact_counts(name, params, macs):
    table = layer_table(ARCHITECTURES[name], (800, 1280))
    assert table.params.sum() == params
    if macs:
        assert table.macs.sum() == pytest.approx(macs, abs=0.5e6)


@pytest.mark.parametrize(("name", "layers"), [("maedet-s", 79), ("maedet-m", 91), ("maedet-l", 109)])
def test_number_of_layers(name, layers):
    assert layer_table(ARCHITECTURES[name], (800, 1280)).cost()["layers"][0] == layers


def test_initial_structure_is_where_the_space_starts():
    space = BottleneckSpace()
    assert space.to_architecture(space.start()[0]) == ARCHITECTURES["maedet-initial"]


@pytest.mark.parametrize(
    "name", ["maedet-s", "maedet-m", "maedet-single-scale", "maedet-multi-scale-coarse", "maedet-initial"]
)
def test_structures_that_the_default_space_holds(name):
    space = BottleneckSpace()
    row = space.from_architecture(ARCHITECTURES[name])
    assert space.to_architecture(row) == ARCHITECTURES[name]
    table = layer_table(ARCHITECTURES[name], space.image_hw)
    for cost, value in space.cost(row[None]).items():
        assert value[0] == table.cost()[cost][0]


@pytest.mark.skipif(not FACTS.exists(), reason="the measured facts are not beside this checkout")
def test_parameters_of_the_released_code():
    blocks = {row["name"]: row for row in json.loads(FACTS.read_text())["architectures"] if "name" in row}
    for ours, theirs in [("maedet-s", "maedet_s"), ("maedet-m", "maedet_m"), ("maedet-l", "maedet_l")]:
        stages = checked_spec(ARCHITECTURES[ours])["stages"]
        rows = [[s["kernel"], s["width"], s["stride"], s["depth"], s["bottleneck"]] for s in stages]
        assert rows == blocks[theirs]["blocks"][1:]
        assert layer_table(ARCHITECTURES[ours], (800, 1280)).params.sum() == blocks[theirs]["params"]


def change(spec, path, value):
    *parents, last = path
    for key in parents:
        spec = spec[key]
    spec[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("shortcuts",), "pool", "did you mean 'shortcut'"),
        (("shortcut",), "max", '"pool" or "stride", got \'max\''),
        (("stem", "width"), 0, r"spec.stem.width is a whole number from 1 to 16,384; got 0"),
        (("stem", "pool"), 1, "true or false"),
        (("stem", "pool"), True, "end at C6"),
        (("stages", 0, "widht"), 8, r"stages\[0\] has an unknown key 'widht'; did you mean 'width'"),
        (("stages", 1, "kernel"), 4, r"stages\[1\].kernel is odd, got 4"),
        (("stages", 1, "depth"), 2.5, r"stages\[1\].depth is a whole number"),
        (("stages", 1, "stride"), 4, r"stages\[1\].stride is a whole number from 1 to 2; got 4"),
        (("stages", 1, "stride"), 1, "end at C4"),
        (("stages", 2), 3, r"stages\[2\] is an object"),
        (("stages",), [], "at least one stage"),
    ],
)
def test_a_bad_spec_is_named(path, value, message):
    spec = ARCHITECTURES["maedet-s"].spec
    change(spec, path, value)
    with pytest.raises(NasrayError, match=message):
        layer_table(Architecture.create("bottleneck", spec), (64, 64))


def test_a_missing_key_and_a_foreign_family():
    spec = ARCHITECTURES["maedet-s"].spec
    del spec["stages"][3]["bottleneck"]
    with pytest.raises(NasrayError, match=r"stages\[3\] lacks bottleneck"):
        layer_table(Architecture.create("bottleneck", spec), (64, 64))
    with pytest.raises(NasrayError, match="family 'vgg'"):
        layer_table(Architecture.create("vgg", spec), (64, 64))


def test_tables_of_absent_defaults():
    spec = ARCHITECTURES["maedet-s"].spec
    spec["shortcut"] = "pool"
    spec["stem"]["pool"] = False
    table = layer_table(Architecture.create("bottleneck", spec), (800, 1280))
    assert np.array_equal(table.macs, layer_table(ARCHITECTURES["maedet-s"], (800, 1280)).macs)
