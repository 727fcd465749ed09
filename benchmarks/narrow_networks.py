"""How far the closed-form entropy of C5 is from the mean of forward passes, by how narrow networks are.

    python benchmarks/narrow_networks.py --networks 2 --passes 16

Random networks of three families, with all widths divided by 1 to 32; narrowness is the sum of 1 / width over layers.
A pass whose last map is zero everywhere has no logarithm: networks with one are counted, and left out of differences.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import torch

from nasray.architectures import layer_table
from nasray.scores.entropy import level_entropies, narrowness
from nasray.scores.sampled import sampled_level_entropies
from nasray.spaces import SPACES, Architecture
from nasray.values import read_image_hw

BOUNDS = (0, 2, 4, 6, 8, 12, 24)


def divided(architecture: Architecture, factor: int) -> Architecture:
    """Return the network with all widths divided, at least 4 each."""
    spec = architecture.spec
    for part in [spec["stem"], *spec["stages"]]:
        for key in ("width", "bottleneck"):
            if key in part:
                part[key] = max(round(part[key] / factor / 4) * 4, 4)
    return Architecture.create(architecture.family, spec)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=2, help="of each family and factor")
    parser.add_argument("--passes", type=int, default=16, help="of each network")
    parser.add_argument("--image-size", type=read_image_hw, default="192x192", help="height x width in pixels")
    options = parser.parse_args()
    image_hw = options.image_size
    torch.set_num_threads(1)
    rows = []
    for family in ("bottleneck", "basic", "inverted"):
        space = SPACES[family](image_hw=image_hw)
        for factor in (1, 2, 4, 8, 16, 32):
            genes = space.sample(20 * options.networks, np.random.default_rng(factor))
            chosen = genes[space.cost(genes)["layers"] <= 60][: options.networks]
            for architecture in (divided(space.to_architecture(row), factor) for row in chosen):
                table = layer_table(architecture, image_hw)
                generators = (torch.Generator().manual_seed(seed) for seed in range(options.passes))
                passes = np.array(
                    [
                        sampled_level_entropies(architecture, generator=generator, image_hw=image_hw)[4]
                        for generator in generators
                    ]
                )
                rows.append([narrowness(table)[0], level_entropies(table, image_hw=image_hw)[4, 0], passes])
    print(f"{'narrowness':12} networks  dead  mean difference  worst  of noise  sd of one pass")
    for low, high in itertools.pairwise(BOUNDS):
        here = [(closed, passes) for narrow, closed, passes in rows if low <= narrow < high]
        sound = [(closed, passes) for closed, passes in here if np.isfinite(passes).all()]
        if not sound:
            continue
        difference = np.array([closed - passes.mean() for closed, passes in sound])
        spread = np.array([passes.std(ddof=1) for _, passes in sound])
        noise = float(np.sqrt((spread**2).mean() / options.passes))
        print(
            f"{low:2} to {high:2} {len(here):13} {len(here) - len(sound):5} {difference.mean():+16.2f} "
            f"{difference[np.abs(difference).argmax()]:+6.2f} {noise:9.2f} {np.sqrt((spread**2).mean()):15.2f}"
        )


if __name__ == "__main__":
    main()
