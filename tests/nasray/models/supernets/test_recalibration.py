import copy

import pytest
import torch
from torch import nn

from nasray.models.detectors import build_detector
from nasray.models.supernets import build_supernet
from nasray.models.supernets.recalibration import kept_statistics, recalibrate
from nasray.spaces import ShuffleNetSpace

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1))


def batches(*sizes, hw=(64, 64)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, *hw, generator=generator) for size in sizes]


def state_of(module):
    return copy.deepcopy(dict(module.state_dict()))


def same(module, state, names=None):
    now = module.state_dict()
    return all(torch.equal(now[name], state[name]) for name in names or now)


def test_equals_a_reference_computation():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))
    given = batches(4, 4, 3)
    means, variances, weights = [[], []], [[], []], []
    for batch in (given[0], given[1], given[2][:2]):
        x = batch
        with torch.no_grad():
            for index, (conv, norm) in enumerate(((network[0], network[1]), (network[3], network[4]))):
                x = conv(x)
                means[index].append(x.mean(dim=(0, 2, 3)))
                variances[index].append(x.var(dim=(0, 2, 3), unbiased=True))
                spread = x.var(dim=(0, 2, 3), unbiased=False) + norm.eps
                x = (x - means[index][-1][:, None, None]) / spread.sqrt()[:, None, None]
                x = x.relu()
        weights.append(len(batch) / 10)
    recalibrate(network, given, 10)
    for index, norm in enumerate((network[1], network[4])):
        mean = sum(weight * value for weight, value in zip(weights, means[index], strict=True))
        variance = sum(weight * value for weight, value in zip(weights, variances[index], strict=True))
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-5, atol=1e-6)
        assert norm.num_batches_tracked == 3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_statistics_of_another_precision_are_float32(precision):
    """Sums over images are, too: in 16 bits the mean of many images would stop moving."""
    network, given = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), batches(*[2] * 20, hw=(16, 16))
    exact = copy.deepcopy(network)
    recalibrate(exact, given, 40)
    seen = []
    network[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    recalibrate(network, given, 40, precision=precision)
    assert set(seen) == {getattr(torch, precision)}
    for name in ("running_mean", "running_var"):
        found, expected = getattr(network[1], name), getattr(exact[1], name)
        assert found.dtype == torch.float32
        assert not torch.equal(found, found.to(seen[0]).float()), "rounded to 16 bits"
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0.001)


def test_old_statistics_do_not_matter():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    twin = copy.deepcopy(network)
    twin[1].running_mean.fill_(float("nan"))
    twin[1].running_var.fill_(1e9)
    for each in (network, twin):
        recalibrate(each, batches(2, 2), 4)
    assert same(twin, state_of(network))


def test_one_path_of_a_supernet():
    supernet = build_supernet(NARROW).train()
    before = state_of(supernet)
    path = [0, 3, 1, 2]
    supernet.set_path(path)
    on = {name for name in state_of(supernet) if any(
        name.startswith(f"network.{place}.") for place in ("stem", "stages.0.0.0", "stages.1.0.3", "stages.2.0.1",
                                                          "stages.3.0.2"))}  # fmt: skip
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    with kept_statistics(supernet):
        recalibrate(supernet, batches(4, 4), 8)
        assert same(supernet, before, set(before) - (on & statistics)), "weights, and all that is off the path"
        assert not any(same(supernet, before, [name]) for name in on & statistics if "running" in name)
        # the standalone network gets the same statistics, and computes the same with them
        network = supernet.extract(path)
        standalone = copy.deepcopy(network)
        recalibrate(standalone, batches(4, 4), 8)
        assert same(standalone, state_of(network))
        images = batches(2)[0]
        with torch.no_grad():
            assert torch.equal(supernet.eval()(images)["c5"], standalone.eval()(images)["c5"])
    assert same(supernet, before)


def test_shared_memory_is_not_written_to():
    supernet = build_supernet(NARROW)
    supernet.set_path([1, 1, 1, 1])
    shared = dict(supernet.state_dict())  # the same memory, no copies
    before = state_of(supernet)
    recalibrate(supernet, batches(4), 4)
    assert all(torch.equal(value, before[name]) for name, value in shared.items())
    assert not same(supernet, before)


def test_statistics_come_back_after_an_error():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = state_of(network)

    def evaluate():
        with kept_statistics(network):
            recalibrate(network, batches(2), 2)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate()
    assert same(network, before)


def test_modes_and_momenta_stay_and_only_norms_train():
    seen = []
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.01), nn.Dropout(0.5), nn.ReLU())
    network.train()
    network[3].eval()
    network[2].register_forward_hook(lambda module, *_: seen.append(module.training))
    recalibrate(network, batches(2, 2), 4)
    assert seen == [False, False]
    assert [module.training for module in network.modules()] == [True, True, True, True, False]
    assert network[1].momentum == 0.01
    assert not network[1]._forward_pre_hooks
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_norm_that_levels_share_averages_all_of_them():
    norm = nn.BatchNorm2d(3)
    levels = batches(2, 2), batches(2, 2, hw=(8, 8))
    network = nn.ModuleList([norm])
    given = [torch.arange(2), torch.arange(2)]
    steps = iter(zip(*levels, strict=True))
    recalibrate(network, given, 4, forward=lambda _: [norm(x) for x in next(steps)])
    means = [x.mean(dim=(0, 2, 3)) for level in levels for x in level]
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(dim=0))


def test_frozen_norms_stay():
    class Frozen(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    network = nn.Sequential(nn.Conv2d(3, 8, 3), Frozen(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    before = state_of(network)
    recalibrate(network, batches(2), 2)
    assert same(network, before, [name for name in before if not name.startswith("3.")])
    assert not same(network, before)


@pytest.mark.parametrize(
    ("name", "options"),
    [("fcos", {"num_convs": 1}), ("faster-rcnn", {"box_head": "4conv1fc"})],  # the latter is DetNAS's
)
def test_all_norms_of_a_detector(name, options):
    supernet = build_supernet(NARROW)
    detector = build_detector(name, supernet, 3, channels=32, norm="batch", **options).eval()
    supernet.set_path([3, 2, 1, 0])
    before = state_of(detector)
    with kept_statistics(detector):
        recalibrate(detector, batches(2, 2), 4, forward=detector.forward_raw)
        own = [key for key in before if "running_var" in key and not key.startswith("backbone")]
        assert len(own) > 2
        assert not any(same(detector, before, [key]) for key in own)
        assert same(detector, before, [key for key, _ in detector.named_parameters()])
        assert not detector.training
    assert same(detector, before)


def test_too_few_images():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    with pytest.raises(ValueError, match="of 5 images are asked for, and there are only 4"):
        recalibrate(network, batches(2, 2), 5)
    assert not network[1]._forward_pre_hooks
    with pytest.raises(ValueError, match="at least 1, got 0"):
        recalibrate(network, batches(2), 0)
