"""What two workers exchange of a supernet's gradients in a step: those of the path, against those of all parameters.

    python benchmarks/gradient_exchange.py

Counted from shapes, of paths drawn as a training draws them: nothing is trained. "all" is what PyTorch's
`DistributedDataParallel(find_unused_parameters=True)` exchanges. Milliseconds are the host's for deciding what is
exchanged, which GPUs do not wait for while they compute. Transfer is bytes over a ring of two workers at 10 GB/s,
what PCIe 3.0 or a network of 100 Gbit/s carries; it is no measurement.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from nasray.checkpoint import make_network
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.base import supernet_of
from nasray.models.supernets.sampling import UniformPaths
from nasray.recipe import load_recipe
from nasray.spaces import MSNASSpace, OFAResNetSpace, ShuffleNetSpace, Space
from nasray.training.exchange import BUCKET_BYTES, GradientExchange

CASES: dict[str, tuple[Space, str]] = {
    "DetNAS small, pre-training": (ShuffleNetSpace("small"), "detnas-imagenet"),
    "DetNAS small, Faster R-CNN": (ShuffleNetSpace("small"), "detnas-fpn-1x"),
    "DetNAS large, Faster R-CNN": (ShuffleNetSpace("large"), "detnas-fpn-1x"),
    "MSNAS R18, Faster R-CNN": (MSNASSpace("r18"), "msnas-6x"),
    "OFA ResNet-50, CenterNet": (OFAResNetSpace(), "detofa-centernet-voc"),
}
NUM_CLASSES = {"detnas-imagenet": 1000, "detofa-centernet-voc": 20}
BYTES_PER_S = 10e9


def count(space: Space, recipe_name: str, num_paths: int) -> tuple[float, float, float, float]:
    """Return megabytes of all gradients and of a path's, the messages of a path, and milliseconds to decide on it."""
    with torch.device("meta"):
        network = make_network(load_recipe(recipe_name), supernet_architecture(space), NUM_CLASSES.get(recipe_name, 80))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    exchange, supernet = GradientExchange(network, parameters), supernet_of(network)
    assert supernet is not None
    paths, sizes, seconds = UniformPaths(space), [], []
    for step in range(num_paths):
        supernet.set_path(paths.draw(step))
        begin = time.perf_counter()
        used = exchange.used()
        seconds.append(time.perf_counter() - begin)
        sizes.append(sum(one.num_bytes for one in used))
    of_all = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    mean = float(np.mean(sizes))
    return of_all / 1e6, mean / 1e6, -(-mean // BUCKET_BYTES), 1e3 * float(np.median(seconds))


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=40)
    options = parser.parse_args()
    print("supernet                      all MB  path MB  share  messages  ms to decide  ms of transfer: all, path")
    for name, (space, recipe) in CASES.items():
        of_all, mean, messages, decide = count(space, recipe, options.paths)
        transfer = [1e3 * 1e6 * size / BYTES_PER_S for size in (of_all, mean)]
        print(
            f"{name:28} {of_all:7.1f} {mean:8.1f} {mean / of_all:6.2f} {messages:9.0f} {decide:13.1f} "
            f"{transfer[0]:15.1f}, {transfer[1]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
