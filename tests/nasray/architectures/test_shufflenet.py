"""Published ShuffleNets have their published sizes."""

import pytest

from nasray.architectures import ARCHITECTURES, layer_table


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # backbones of DetNAS's released code, built and counted at 224x224
        ("detnas-coco-fpn", 1_849_680, 288_082_368),
        ("detnas-coco-retinanet", 2_041_888, 291_205_824),
        ("detnas-voc-fpn", 1_967_696, 316_387_904),
        ("detnas-voc-retinanet", 1_796_048, 327_489_344),
        ("detnasnet", 8_415_216, 1_269_181_536),
        ("detnasnet-3.8g", 26_724_428, 3_937_832_864),
        ("shufflenetv2-20", 1_473_488, 262_705_856),
        ("shufflenetv2-40", 6_244_464, 1_036_681_632),
        ("shufflenetv2-40-3.8g", 20_014_520, 3_265_452_512),
        ("spos-imagenet", 1_877_072, 289_782_080),
    ],
)
def test_exact_counts_of_shufflenets(name, params, macs):
    table = layer_table(ARCHITECTURES[name], (224, 224))
    assert (table.params.sum(), table.macs.sum()) == (params, macs)
    assert ARCHITECTURES[name].spec["shuffle"] == "even-odd"
