"""How workers average the gradients of a step that uses a part of the network only: in few messages, behind it.

PyTorch's `DistributedDataParallel` would exchange gradients of all parameters, zeros for most of a supernet's, and let
the host wait in every step for which of them any worker used. Here the workers know it: they train the same path. What
is exchanged depends on nothing else, so that they cannot disagree about it:

- inside a supernet what the path uses, of elastic parameters its region; all of a relaxed supernet's without a path;
- outside all parameters.

Where a worker has no gradient of these, of a head for objects that its images do not have, it counts as zeros.

Differs from `DistributedDataParallel` in: gradients are exchanged behind the backward pass, not during it; and a
parameter outside of supernets that no worker used has a gradient of zeros, not None. Detectors here have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from nasray.models.supernets.base import Supernet
from nasray.spaces import NasrayError

BUCKET_BYTES = 25 * 2**20
"""Least bytes of a message that is not the last: one is on its way while the next is put together."""


Region = tuple[slice, ...]


class Used(NamedTuple):
    """A parameter of which workers exchange the gradient.

    Attributes:
        parameter: The parameter.
        region: The only entries with a gradient, a slice for each dimension; None for all.
    """

    parameter: nn.Parameter
    region: Region | None

    @property
    def num_bytes(self) -> int:
        """Bytes that are exchanged."""
        shape = self.parameter.shape if self.region is None else [part.stop - part.start for part in self.region]
        return math.prod(shape) * self.parameter.element_size()

    @property
    def gradient(self) -> Tensor:
        """Its gradient, or the region of it; zeros if it had none."""
        if self.parameter.grad is None:
            self.parameter.grad = torch.zeros_like(self.parameter)
        return self.parameter.grad if self.region is None else self.parameter.grad[self.region]


class GradientExchange:
    """Averages the gradients of a network's parameters over workers, after the backward pass of a step.

    Args:
        network: Network, with supernets in it or without.
        parameters: Those of its parameters that are trained.
    """

    def __init__(self, network: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self.network, self.parameters = network, parameters
        self.supernets = [module for module in network.modules() if isinstance(module, Supernet)]
        self.inside = {id(parameter) for supernet in self.supernets for parameter in supernet.parameters()}

    def __call__(self) -> None:
        """Average the gradients; all workers call it, with the same paths set.

        Raises:
            NasrayError: If a parameter has a gradient that is not exchanged: workers would no longer agree.
        """
        used = self.used()
        among = {id(one.parameter) for one in used}
        for parameter in self.parameters:
            if parameter.grad is not None and id(parameter) not in among:
                name = next(name for name, other in self.network.named_parameters() if other is parameter)
                raise NasrayError(
                    f"{name} has a gradient, but path_parameters of its supernet does not name it: workers exchange "
                    "what it names. Check the supernet with nasray.models.supernets.testing, or train with one worker"
                )
        average_gradients(used, distributed.get_world_size())

    def used(self) -> list[Used]:
        """Return what is exchanged, the same for all workers that have the same paths set."""
        regions: dict[int, Region | None] = {}
        for supernet in self.supernets:
            for parameter, region in _of_path(supernet):
                if regions.setdefault(id(parameter), region) != region:
                    regions[id(parameter)] = None  # of several regions all entries
        return [
            Used(parameter, regions.get(id(parameter)))
            for parameter in self.parameters
            if id(parameter) in regions or id(parameter) not in self.inside
        ]


def _of_path(supernet: Supernet) -> Iterator[tuple[nn.Parameter, Region | None]]:
    """Yield what the path of a supernet uses, without one all; the region of each, None for all entries."""
    if supernet.path is None:
        for parameter in supernet.parameters():
            yield parameter, None
    else:
        for parameter, region in supernet.path_parameters(supernet.path):
            shape = tuple(part.stop - part.start for part in region)
            yield parameter, None if shape == parameter.shape else region


def average_gradients(used: Iterable[Used], num_workers: int) -> None:
    """Average gradients over all workers, in place, by one message for each bucket of them."""
    sent, copied = [], list[tuple[Tensor, Tensor]]()
    for bucket in _buckets(used):
        gradients = [one.gradient for one in bucket]
        flat = gradients[0].new_empty(sum(gradient.numel() for gradient in gradients))
        parts, begin = [], 0
        for gradient in gradients:
            parts.append(_part_of(flat, begin, gradient))
            begin += gradient.numel()
        torch._foreach_copy_(parts, gradients)
        for one, part, gradient in zip(bucket, parts, gradients, strict=True):
            if one.region is None and part.stride() == gradient.stride():
                one.parameter.grad = part  # is averaged where it is
            else:
                copied.append((gradient, part))
        sent.append(distributed.all_reduce(flat.div_(num_workers), async_op=True))
    for message in sent:
        message.wait()  # of a GPU its stream, not the host
    if copied:
        torch._foreach_copy_([gradient for gradient, _ in copied], [part for _, part in copied])


@torch.no_grad()
def share_state(network: nn.Module) -> None:
    """Give all workers the parameters and buffers of the first: what is drawn differs in last digits by processor."""
    values = [*network.parameters(), *network.buffers()]
    for dtype in dict.fromkeys(value.dtype for value in values):
        members = [value for value in values if value.dtype == dtype]
        flat = torch.cat([value.reshape(-1) for value in members])
        distributed.broadcast(flat, src=0)
        for value, part in zip(members, flat.split([value.numel() for value in members]), strict=True):
            value.copy_(part.view(value.shape))


def _part_of(flat: Tensor, begin: int, like: Tensor) -> Tensor:
    """Return a view of as many entries of a vector, in the shape of a tensor, and in its layout if that has no gaps."""
    if like.is_contiguous(memory_format=torch.channels_last):
        return flat.as_strided(like.shape, like.stride(), begin)
    return flat[begin : begin + like.numel()].view(like.shape)


def _buckets(used: Iterable[Used]) -> Iterator[list[Used]]:
    """Yield parameters of one dtype, in their order, that have `BUCKET_BYTES` together, or less where others follow."""
    bucket, size = list[Used](), 0
    for one in used:
        if bucket and (size >= BUCKET_BYTES or one.parameter.dtype != bucket[0].parameter.dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.num_bytes
    if bucket:
        yield bucket
