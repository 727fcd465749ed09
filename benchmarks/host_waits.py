"""How often the host waits for a GPU in a training step, and where: counted without a GPU.

    python benchmarks/host_waits.py --detectors fcos faster-rcnn --batch-size 8

The step runs on a pretended device: its tensors are tensors on the CPU that say they are elsewhere, so that the code
takes its way for accelerators. What needs a value or a size on the host, and copies between host and device without
`non_blocking`, are counted, once for each wait that PyTorch 2.15's CUDA kernels make of them: by reading, not
measured. On a GPU the step `syncs` of gpu_check.sh lets PyTorch count. `--lines` names operations and the lines that
they came from; those of a backward pass are "elsewhere".
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import get_total_norm
from torch.overrides import TorchFunctionMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from nasray.data.examples import moved_targets
from nasray.data.shapes import CLASSES, draw_image
from nasray.models import build
from nasray.models.detectors import DETECTORS, build_detector
from nasray.models.norms import synchronize_norms
from nasray.models.supernets import build_supernet
from nasray.recipe_options import OptimizerOptions
from nasray.spaces import Architecture, ShuffleNetSpace
from nasray.training.exchange import GradientExchange
from nasray.training.optimizers import make_optimizer
from nasray.values import read_image_hw

ROOT = Path(__file__).resolve().parents[1]
DEVICE = "pretended"
NUM_CLASSES = len(CLASSES)
Waits = Counter[tuple[str, str]]
"""Number of waits by operation and place."""
WAITS = {
    "aten::_local_scalar_dense": 1,
    "aten::nonzero": 1,
    "aten::masked_select": 1,
    "aten::_unique2": 1,
    "aten::unique_dim": 1,
    "aten::unique_consecutive": 1,
    "aten::equal": 1,
    "aten::bincount": 2,  # whether all are at least 0, and the largest
    "torchvision::nms": 1,
}
"""Operations whose result has a size or a value that the host must know."""


class Pretended(Tensor):
    """A tensor on the CPU that says it is on the pretended device.

    Attributes:
        inner: The tensor.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        """Return the tensor, with size, strides and type of the inner one."""
        outer: Pretended = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(DEVICE, 0), requires_grad=inner.requires_grad,
        )  # fmt: skip
        outer.inner = inner
        return outer

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation outside of a count."""
        return run(func, args, kwargs or {})


# Operations of synchronized norms that there are for CUDA alone, as simple as can be; of (B, C, H, W).


def norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / deviation of each channel."""
    variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
    return mean, (variance + eps).rsqrt()


def gather_norm_stats(
    x: Tensor, means: Tensor, invstds: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the same over all workers, of (W, C) statistics and (W,) counts; running statistics follow them."""
    counts, total = counts[:, None], counts.sum()
    mean = (means * counts).sum(dim=0) / total
    variance = ((invstds.pow(-2) - eps + (means - mean).square()) * counts).sum(dim=0) / total
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * total / (total - 1), momentum)
    return mean, (variance + eps).rsqrt()


def apply_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, eps: float) -> Tensor:
    """Normalize, scale and shift."""
    scaled = (x.float() - mean[:, None, None]) * (invstd * weight)[:, None, None] + bias[:, None, None]
    return scaled.to(x.dtype)


def sum_norm_gradients(
    gradient: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, *needed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return sums of the gradient and of it times x - mean, and the gradients of weight and bias."""
    total = gradient.float().sum(dim=(0, 2, 3))
    product = (gradient.float() * (x.float() - mean[:, None, None])).sum(dim=(0, 2, 3))
    return total, product, product * invstd, total


def apply_norm_gradients(
    gradient: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, total: Tensor, product: Tensor,
    counts: Tensor,
) -> Tensor:  # fmt: skip
    """Return the gradient of x, from sums over all workers."""
    num = counts.sum()
    slope = (product / num * invstd.square())[:, None, None]
    centered = gradient.float() - (total / num)[:, None, None] - (x.float() - mean[:, None, None]) * slope
    return (centered * (invstd * weight)[:, None, None]).to(x.dtype)


CUDA_ONLY = {
    "aten::batch_norm_stats": norm_stats,
    "aten::batch_norm_gather_stats_with_counts": gather_norm_stats,
    "aten::batch_norm_elemt": apply_norm,
    "aten::batch_norm_backward_reduce": sum_norm_gradients,
    "aten::batch_norm_backward_elemt": apply_norm_gradients,
}


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the inner tensors; what it returns is on the device if anything given is, or it is asked."""
    is_outer = any(isinstance(leaf, Pretended) for leaf in tree_leaves((args, kwargs)))
    asked = kwargs.get("device")
    if asked is not None:
        is_outer = torch.device(asked).type == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu") if is_outer else asked}
    outer_of: dict[int, Tensor] = {}

    def inner(value: Any) -> Any:
        if isinstance(value, Pretended):
            outer_of[id(value.inner)] = value
            return value.inner
        return value

    def outer(value: Any) -> Any:
        if not is_outer or not isinstance(value, Tensor) or isinstance(value, Pretended):
            return value
        return outer_of[id(value)] if id(value) in outer_of else Pretended(value)

    name = func._schema.name
    call = CUDA_ONLY.get(name, func)
    args = tree_map(inner, args)
    if name == "c10d::_allgather_base_":  # the pretended other worker sends the same; the rows are the workers'
        args = (args[0].view(2, -1), *args[1:])
    return tree_map(outer, call(*args, **tree_map(inner, kwargs)))


class Copies(TorchFunctionMode):
    """Lets numbers go to the device, and come from it, by a copy that can be counted, as they do with a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of PyTorch."""
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist:
            return func(args[0].cpu() if isinstance(args[0], Pretended) else args[0])
        if func is Tensor.new_tensor:
            func, kwargs = torch.tensor, {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            args = args[1:]
        if func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            device = kwargs.pop("device", None)
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class HostWaits(TorchDispatchMode):
    """Counts the waits of everything within.

    Attributes:
        counts: Number of waits by operation and place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Waits = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and run an operation."""
        kwargs = kwargs or {}
        if num := waits_of(func, args, kwargs):
            self.counts[func._schema.name.split("::")[1], _place()] += num
        return run(func, args, kwargs)


def waits_of(func: Any, args: Any, kwargs: dict[str, Any]) -> int:
    """Return how often the host waits in an operation."""
    name = func._schema.name
    leaves = tree_leaves((args, kwargs))
    if name in ("aten::_to_copy", "aten::copy_"):
        source = args[0] if name == "aten::_to_copy" else args[1]
        target = torch.device(kwargs.get("device") or source.device) if name == "aten::_to_copy" else args[0].device
        is_blocking = not kwargs.get("non_blocking", len(args) > 2 and args[2])
        return int(is_blocking and DEVICE in (source.device.type, target.type) and source.device.type != target.type)
    if not any(isinstance(leaf, Pretended) for leaf in leaves):
        return 0
    if name in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
        return sum(index is not None and index.dtype == torch.bool for index in args[1])
    if name == "aten::repeat_interleave":
        return int(kwargs.get("output_size") is None)
    return WAITS.get(name, 0)


def _place() -> str:
    """Return the innermost line of nasray that is being run, with the function that it is in."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts and path != Path(__file__):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


# ---- what is counted ---------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"channels": 32} for name in ("fcos", "retinanet", "gfl", "yolof")},
    **{name: {"channels": 16, "region_samples": 64} for name in ("faster-rcnn", "mask-rcnn")},
}
BACKBONE = {
    "stem": {"kernel": 3, "width": 16},
    "stages": [{"kernel": 3, "width": width, "depth": 1, "stride": 2} for width in (16, 32, 48, 64)],
}
"""Small, as the options are: what a detector waits for depends neither on width nor, but for norms, on its backbone."""
SUPERNET = "detnas-supernet"
"""Faster R-CNN on DetNAS's supernet as its recipes have it, trained by two workers."""


def make_detector(name: str) -> nn.Module:
    """Return a detector on a small backbone, or `SUPERNET` with a path set; on the CPU, in training mode."""
    if name != SUPERNET:
        backbone = build(Architecture.create("basic", BACKBONE))
        return build_detector(name, backbone, NUM_CLASSES, **OPTIONS.get(name, {})).train()
    space = ShuffleNetSpace("small")
    supernet = build_supernet(space)
    supernet.set_path(space.sample(1, np.random.default_rng(0))[0])
    options = OPTIONS["faster-rcnn"] | {"box_head": "4conv1fc", "norm": "batch"}
    detector = build_detector("faster-rcnn", supernet, NUM_CLASSES, **options)
    synchronize_norms(detector, torch.device("cuda"))
    return detector.train()


def make_batch(size: int, image_hw: tuple[int, int]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return images (B, 3, H, W) and their targets, with masks, on the CPU."""
    images, targets = [], []
    for index in range(size):
        image, boxes, labels, masks = draw_image(np.random.default_rng([0, index]), image_hw, with_masks=True)
        images.append(torch.from_numpy(image))
        named = {"boxes": boxes, "labels": labels, "masks": masks}
        targets.append({name: torch.from_numpy(value) for name, value in named.items()})
    return torch.stack(images), targets


@contextmanager
def pretending(num_workers: int = 1) -> Iterator[HostWaits]:
    """Let the device be there, and workers of which this one is the first; yield what counts its waits."""
    if torch._C._get_privateuse1_backend_name() != DEVICE:
        _setup_privateuseone_for_python_backend(DEVICE)
    if num_workers > 1:
        distributed.init_process_group("fake", rank=0, world_size=num_workers, store=FakeStore())
    try:
        with Copies(), HostWaits() as waits:
            yield waits
    finally:
        if num_workers > 1:
            distributed.destroy_process_group()


def count_step(name: str, batch_size: int, image_hw: tuple[int, int] = (96, 96), *, backward: bool = True) -> Waits:
    """Return the waits of a training step: copying the batch, losses, gradients, their norm, the optimizer's step.

    Two workers exchange the gradients of a path; those of whole networks are left to PyTorch, which is not counted.

    A backward pass needs a process in which there was none before the device was pretended.
    """
    with torch.random.fork_rng(devices=[]), pretending(2 if name == SUPERNET else 1) as waits:
        torch.manual_seed(0)
        detector, (images, targets) = make_detector(name), make_batch(batch_size, image_hw)
        detector.to(DEVICE, memory_format=torch.channels_last)
        optimizer = make_optimizer(detector, OptimizerOptions())
        waits.counts.clear()
        moved = images.to(DEVICE, memory_format=torch.channels_last, non_blocking=True)
        losses = detector(moved, moved_targets(targets, torch.device(DEVICE)))
        if backward:
            torch.stack(list(losses.values())).sum().backward()
            if name == SUPERNET:
                GradientExchange(detector, list(detector.parameters()))()
            get_total_norm([one.grad for one in detector.parameters() if one.grad is not None])
            optimizer.step()
    return waits.counts


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detectors", nargs="+", default=[*DETECTORS, SUPERNET])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", default="96x96")
    parser.add_argument("--lines", action="store_true", help="where each wait is")
    options = parser.parse_args()
    for name in options.detectors:
        counts = count_step(name, options.batch_size, read_image_hw(options.image_size))
        print(f"{name:16} {sum(counts.values()):4} waits a step of {options.batch_size} images", flush=True)
        if options.lines:
            for (operation, place), num in counts.most_common():
                print(f"    {num:4} {operation:22} {place}")


if __name__ == "__main__":
    main()
