import dataclasses

import pytest
import torch
from torch import nn

from nasray.architectures import ARCHITECTURES
from nasray.models import build
from nasray.recipe import Recipe
from nasray.recipe_options import OptimizerOptions
from nasray.spaces import NasrayError
from nasray.training.optimizers import freeze_backbone, make_optimizer, scale_learning_rate


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = build(ARCHITECTURES["basic-tiny"])
        self.head = nn.Sequential(nn.Conv2d(96, 8, 1), nn.GroupNorm(2, 8))


def test_groups_by_decay_and_learning_rate():
    toy = Toy()
    options = OptimizerOptions(
        learning_rate=0.1, weight_decay=0.01, norm_weight_decay=0.0, backbone_factor=0.5, momentum=0.8
    )
    optimizer = make_optimizer(toy, options)
    found = {(group["learning_rate"], group["weight_decay"]): len(group["params"]) for group in optimizer.param_groups}
    kinds = {True: 0, False: 0}
    for module in toy.backbone.modules():
        kinds[True] += 2 * isinstance(module, nn.BatchNorm2d)
        kinds[False] += isinstance(module, nn.Conv2d)
    assert found == {(0.05, 0.01): kinds[False], (0.05, 0.0): kinds[True], (0.1, 0.01): 1, (0.1, 0.0): 3}
    assert all(group["momentum"] == 0.8 for group in optimizer.param_groups)
    scale_learning_rate(optimizer, 0.1)
    assert all(group["lr"] == pytest.approx(0.1 * group["learning_rate"]) for group in optimizer.param_groups)


def test_one_group_where_all_are_treated_alike():
    assert len(make_optimizer(Toy(), OptimizerOptions()).param_groups) == 1


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_on_channels_last_weights_is_the_textbook_step(name):
    # The fused steps walk through memory: weights and gradients have to lie in the same order.
    models = [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3)]
    models[1].load_state_dict(models[0].state_dict())
    models[0].to(memory_format=torch.channels_last)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    special = {"momentum": 0.9} if name == "sgd" else {}
    optimizers = [
        make_optimizer(models[0], OptimizerOptions(name=name, learning_rate=0.1, weight_decay=0.01)),
        kind(models[1].parameters(), 0.1, weight_decay=0.01, foreach=False, **special),
    ]
    images = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=1e-4, atol=1e-5)


def frozen(**options):
    toy = Toy()
    freeze_backbone(toy, dataclasses.replace(Recipe(name="x", weights="w.pt"), **options))
    return toy


def test_frozen_stages_are_the_stem_and_the_first_ones():
    toy = frozen(frozen_stages=2)
    trained = {name.split(".")[0] + name.split(".")[1] * (name[:6] == "stages")
               for name, parameter in toy.backbone.named_parameters() if parameter.requires_grad}  # fmt: skip
    assert trained == {"stages1", "stages2", "stages3"}
    toy.train()
    assert not toy.backbone.stem[1].training
    assert toy.backbone.stages[1][0].main[1].training
    before = toy.backbone.stem[1].running_mean.clone()
    toy.backbone(torch.ones(1, 3, 64, 64))
    assert torch.equal(toy.backbone.stem[1].running_mean, before)


def test_frozen_norms_are_those_of_the_backbone_alone():
    toy = frozen(backbone_norm="frozen")
    assert {name.rpartition(".")[2] for name, p in toy.backbone.named_parameters() if p.requires_grad} == {"weight"}
    assert all(parameter.requires_grad for parameter in toy.head.parameters())


def test_mistakes_are_one_message():
    with pytest.raises(NasrayError, match="frozen_stages 6: the backbone has a stem and 4 stages; choose at most 5"):
        frozen(frozen_stages=6)
    toy = Toy()
    toy.requires_grad_(False)
    with pytest.raises(NasrayError, match="everything is frozen"):
        make_optimizer(toy, OptimizerOptions())


def test_a_slot_has_its_own_learning_rate():
    toy = Toy()
    toy.neck = nn.Conv2d(8, 8, 1)
    toy.slots = {"backbone": "backbone", "pyramid": "backbone", "head": "head"}
    options = OptimizerOptions(learning_rate=0.1, backbone_factor=0.5, head_factor=3.0)
    groups = make_optimizer(toy, options).param_groups
    rates = {id(parameter): group["learning_rate"] for group in groups for parameter in group["params"]}
    for module, rate in ((toy.backbone, 0.05), (toy.head, 0.3), (toy.neck, 0.1)):
        assert [rates[id(parameter)] for parameter in module.parameters()] == pytest.approx(
            [rate] * len(list(module.parameters()))
        )
