"""What sharing representations saves: FAD's twelve transformations on one edge, shared and each by itself.

    python benchmarks/representation_sharing.py [--channels 96] [--size 52x88] [--repeats 15] [--device cuda]

Forward and backward passes of the two alternate, so that a busy machine slows both; medians, on one thread. Bytes are
those that autograd keeps between the two passes, each storage once, without parameters; they do not depend on time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from nasray.cli.parsing import image_hw
from nasray.models.supernets.representations import Mixture
from nasray.spaces.transformations import TRANSFORMATIONS

NUM = len(TRANSFORMATIONS)


def step(mixture: Mixture, x: Tensor, weights: Tensor) -> float:
    """Return the seconds of a forward and a backward pass."""
    mixture.zero_grad()
    begin = _now(x)
    mixture(x, weights).square().mean().backward()
    return _now(x) - begin


def _now(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def kept_bytes(mixture: Mixture, x: Tensor, weights: Tensor) -> int:
    """Return the bytes that autograd keeps for the backward pass, parameters and the input left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in mixture.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = mixture(x, weights)
    kept.pop(x.untyped_storage().data_ptr(), None)
    del out
    return sum(kept.values())


def count(mixture: Mixture) -> tuple[int, int]:
    """Return the number of representations, and multiply-adds a pixel."""
    norms = sum(isinstance(module, nn.GroupNorm) for module in mixture.modules())
    macs = sum(module.weight.numel() for module in mixture.modules() if isinstance(module, nn.Conv2d))
    return norms, macs


def main() -> None:
    """Print a line for each, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--size", type=image_hw, default=(52, 88))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    known = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(known.batch, known.channels, *known.size, device=known.device, requires_grad=True)
    weights = torch.full((NUM,), 1 / NUM, device=known.device, requires_grad=True)
    shared, separate = (
        Mixture(known.channels, TRANSFORMATIONS, shared=each).to(known.device) for each in (True, False)
    )
    times: dict[str, list[float]] = {"shared": [], "separate": []}
    for _ in range(known.repeats):
        times["shared"].append(step(shared, x, weights))
        times["separate"].append(step(separate, x, weights))
    print(f"{'':10}{'representations':>16}{'MACs/pixel':>12}{'kept MB':>9}{'ms':>8}")
    figures = {}
    for name, mixture in (("shared", shared), ("separate", separate)):
        norms, macs = count(mixture)
        figures[name] = (norms, macs, kept_bytes(mixture, x, weights) / 1e6, 1e3 * statistics.median(times[name]))
        print(f"{name:10}{norms:16d}{macs:12,d}{figures[name][2]:9.1f}{figures[name][3]:8.1f}")
    ratios = [b / a for a, b in zip(figures["shared"], figures["separate"], strict=True)]
    print(f"{'ratio':10}{ratios[0]:16.3f}{ratios[1]:12.3f}{ratios[2]:9.3f}{ratios[3]:8.2f}")


if __name__ == "__main__":
    main()
