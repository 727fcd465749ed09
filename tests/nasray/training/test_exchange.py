"""What workers exchange behind a backward pass: what the path uses, the same on all of them, whatever is in images."""

import multiprocessing
import os
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from nasray.models.detectors import assemble_detector
from nasray.models.norms import synchronize_norms
from nasray.models.supernets import build_supernet, supernet_architecture
from nasray.models.supernets.base import Supernet, supernet_of
from nasray.recipe_options import OptimizerOptions
from nasray.spaces import FADSpace, MSNASSpace, NasrayError, OFAResNetSpace, ShuffleNetSpace
from nasray.training import exchange
from nasray.training.exchange import GradientExchange, Used, average_gradients
from nasray.training.learner import Learner
from tests.nasray.models.detectors.common import OPTIONS, shapes_batch, total_loss, without_boxes

DETNAS = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1))
MSNAS = MSNASSpace("tiny", blocks=6, stem_width=8, width=8)
DEAD = [2, 1, 0, 2, 2, 0, 8, 8, 16, 16, 16]
"""A path of `MSNAS` whose last block no head needs."""
HEADS = FADSpace(channels=4, in_channels=32, cells=1)


def around(space, name, **options):
    """A small detector around the supernet of a space, with a path set."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = OPTIONS.get(name, {"channels": 32}) | options
        network = assemble_detector(name, supernet_architecture(space), 3, **options).train()
    supernet_of(network).set_path(DEAD if space is MSNAS else space.sample(1, np.random.default_rng(1))[0])
    if hasattr(network, "region_samples"):
        network.region_samples = 32
    return network


@pytest.mark.parametrize(
    ("space", "name", "options"),
    [
        (DETNAS, "fcos", {}),
        (DETNAS, "faster-rcnn", {"box_head": "4conv1fc", "norm": "batch"}),
        (DETNAS, "mask-rcnn", {}),
        *(pytest.param(DETNAS, name, {}, marks=pytest.mark.slow) for name in ("gfl", "retinanet", "centernet")),
        *(pytest.param(DETNAS, name, {}, marks=pytest.mark.slow) for name in ("ssdlite", "yolof")),
        (OFAResNetSpace("tiny"), "fcos", {}),
        (MSNAS, "faster-rcnn", {"channels": 8, "box_head": "2conv1fc", "norm": "batch", "separate_heads": True}),
    ],
)
@pytest.mark.parametrize("has_objects", [True, False])
def test_what_is_exchanged_is_what_has_gradients_whatever_is_in_the_images(
    space, name, options, has_objects, one_thread
):
    network = around(space, name, **options)
    images, targets = shapes_batch(2, (64, 64))
    total_loss(network, images, targets if has_objects else list(map(without_boxes, targets))).backward()
    parameters = list(network.parameters())
    used = GradientExchange(network, parameters).used()
    with_gradients = [parameter for parameter in parameters if parameter.grad is not None]
    assert [id(one.parameter) for one in used] == [id(parameter) for parameter in with_gradients]
    assert len(used) < len(parameters)
    for one in used:
        outside = one.parameter.grad.clone()
        outside[one.region or ...] = 0
        assert not outside.any()
    assert any(one.region for one in used) == isinstance(space, OFAResNetSpace)


class Drawn(nn.Module):
    """A relaxed head by itself."""

    def __init__(self):
        super().__init__()
        self.head = build_supernet(HEADS)


def test_architecture_parameters_are_exchanged_where_no_path_is_set():
    network = Drawn()
    alphas = list(network.head.alphas.values())
    assert [one.parameter for one in GradientExchange(network, alphas).used()] == alphas
    network.head.set_path(HEADS.sample(1, np.random.default_rng(0))[0])
    assert not GradientExchange(network, alphas).used()


@pytest.mark.parametrize("space", [DETNAS, MSNAS, OFAResNetSpace("tiny")], ids=["detnas", "msnas", "ofa"])
def test_parameters_of_a_path_are_those_of_its_state(space):
    """Supernets that tell them without building the path's network tell the same; of MSNAS's less what is dead."""
    supernet = build_supernet(space)
    for row in space.sample(5, np.random.default_rng(0)):
        found, by_state = (
            {id(parameter): region for parameter, region in parameters}
            for parameters in (supernet.path_parameters(row), Supernet.path_parameters(supernet, row))
        )
        assert found.items() <= by_state.items()
        assert found == by_state or space is MSNAS


@pytest.fixture
def messages(monkeypatch):
    """Messages to a second worker, which has only zeros: what is received is what is sent, and so half of it."""
    distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    sent = []

    def all_reduce(value, async_op):
        sent.append(value.numel())
        return distributed.distributed_c10d.all_reduce(value, async_op=async_op)

    monkeypatch.setattr(exchange.distributed, "all_reduce", all_reduce)
    yield sent
    distributed.destroy_process_group()


def test_gradients_are_averaged_in_few_messages_in_their_own_layout(messages, monkeypatch):
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 4 * 250)
    shapes = [(6, 4, 3, 3), (7,), (5, 3), (2, 2)]
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    parameters[0].data = parameters[0].data.contiguous(memory_format=torch.channels_last)
    regions = [None, None, (slice(0, 2), slice(1, 3)), None]
    for parameter in parameters[:3]:
        parameter.grad = torch.randn_like(parameter)
    before = [parameter.grad.clone() for parameter in parameters[:3]]
    average_gradients(list(map(Used, parameters, regions)), 2)
    before[2][:2, 1:3] /= 2
    expected = [before[0] / 2, before[1] / 2, before[2], torch.zeros(2, 2)]
    for parameter, value in zip(parameters, expected, strict=True):
        assert torch.equal(parameter.grad, value)
        assert parameter.grad.stride() == parameter.stride()
    assert messages == [6 * 4 * 9 + 7 + 4 + 4]
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 1)
    average_gradients(list(map(Used, parameters, regions)), 2)
    assert messages[1:] == [6 * 4 * 9, 7, 4, 4]


@pytest.mark.usefixtures("messages")
def test_a_gradient_off_the_path_is_refused():
    network = around(DETNAS, "fcos")
    off = [place[(place.chosen + 1) % 4] for place in supernet_of(network).places().values()]
    weight = next(off[2].parameters())
    weight.grad = torch.zeros_like(weight)
    with pytest.raises(NasrayError, match=r"backbone\.network\.stages\.2\.0\.\d\..* has a gradient, but"):
        GradientExchange(network, list(network.parameters()))()


# ---- two workers -------------------------------------------------------------------------------------------------


def learn(space, rank=0, world=1, accumulate=1):
    """Train two paths on a share of four images, of which the last two have no objects.

    In double precision, where rounding does not grow. It returns the state, of each step the norm of the gradient and
    what moved, and the bytes of gradients that were sent.
    """
    torch.set_num_threads(1)
    network = around(space, "fcos").double()
    if world > 1:
        synchronize_norms(network, torch.device("cpu"))
        with torch.no_grad():  # as another processor might have drawn it
            next(network.parameters()).add_(rank)
    options = OptimizerOptions(learning_rate=0.001, weight_decay=0.01, clip=5.0, accumulate=accumulate)
    learner = Learner(network, options, lambda _: 1.0, world=world, uses_all=False)
    images, targets = shapes_batch(4, (64, 64))
    targets[2:] = map(without_boxes, targets[2:])
    mine = slice(4 * rank // world, 4 * (rank + 1) // world)
    sent, steps, all_reduce = [0], [], distributed.all_reduce

    def counting(value, async_op=False, **options):
        sent[0] += async_op * value.numel() * value.element_size()
        return all_reduce(value, async_op=async_op, **options)

    distributed.all_reduce = counting
    try:
        for iteration, row in enumerate(paths(space)):
            supernet_of(network).set_path(row)
            before = {name: value.detach().clone() for name, value in network.named_parameters()}
            result = learner.step(SimpleNamespace(images=images[mine], targets=targets[mine]), iteration, 0)
            moved = [name for name, value in network.named_parameters() if not torch.equal(value, before[name])]
            steps.append((result.grad_norm.item(), moved))
    finally:
        distributed.all_reduce = all_reduce
    return network.state_dict(), steps, sent[0]


def paths(space):
    return space.sample(2, np.random.default_rng(2))


def bytes_of(space):
    """Bytes of the gradients on the two paths, and of all gradients in two steps, in double precision."""
    network = around(space, "fcos")
    parameters, num = list(network.parameters()), 0
    for row in paths(space):
        supernet_of(network).set_path(row)
        num += sum(one.num_bytes for one in GradientExchange(network, parameters).used())
    return 2 * num, 16 * sum(parameter.numel() for parameter in parameters)


def two_workers(folder, work):
    """Return what a function of the rank returns in each of two processes."""

    def run(rank):
        try:
            distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
            torch.save(work(rank), folder / f"{rank}.pt")
            distributed.barrier()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    workers = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("space", [DETNAS, OFAResNetSpace("tiny")], ids=["detnas", "ofa"])
def test_two_workers_one_without_objects_are_one_and_exchange_what_is_on_the_path(space, tmp_path, one_thread):
    state, steps, nothing = learn(space)
    one, other = two_workers(tmp_path, lambda rank: learn(space, rank, 2))
    sent, of_all = bytes_of(space)
    assert nothing == 0
    assert one[2] == other[2] == sent < 0.8 * of_all
    assert one[1] == other[1]
    for (norm, moved), (expected, names) in zip(one[1], steps, strict=True):
        assert norm == pytest.approx(expected)
        assert moved == names
    for name, value in state.items():
        assert torch.equal(one[0][name], other[0][name])
        torch.testing.assert_close(one[0][name], value, rtol=0, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")


def test_parts_of_a_batch_are_exchanged_together(tmp_path, one_thread):
    one, other = two_workers(tmp_path, lambda rank: learn(DETNAS, rank, 2, accumulate=2))
    assert one[2] == other[2] == bytes_of(DETNAS)[0]
    assert one[1] == other[1]
    assert all(torch.equal(value, other[0][name]) for name, value in one[0].items())
