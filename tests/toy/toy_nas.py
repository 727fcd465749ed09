"""A method of a stranger's, in a package of its own: space, network, supernet, evaluator and a kind of stage.

It is found by the entry points beside it; nothing in nasray knows of it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from nasray.architectures.family import Family
from nasray.cluster import write_atomic
from nasray.spaces import Architecture, Gene, NasrayError, Space
from nasray.spaces.references import From
from nasray.stages import Site, Stage, Work

if TYPE_CHECKING:
    from torch import Tensor, nn

KERNELS = (1, 3, 5)
PLACES = 4


class ToySpace(Space):
    """Networks of four convolutions, each with one of three kernels.

    Args:
        width: Channels of all of them.
    """

    family = "toy"

    def __init__(self, *, width: int = 8) -> None:
        self.width, self.image_hw = width, (64, 64)
        self.genes = tuple(Gene(f"kernel{place}", (0, 1, 2)) for place in range(PLACES))

    def network_options(self) -> dict[str, Any]:
        """Return what the supernet depends on."""
        return {"width": self.width}

    def cost(self, population):
        """Return `params_m`, parameters of the places."""
        squares = np.array(KERNELS) ** 2
        return {"params_m": squares[population].sum(axis=1) * self.width**2 / 1e6}

    def to_architecture(self, row):
        """Return the architecture of a row."""
        return Architecture.create("toy", {"width": self.width, "kernels": [KERNELS[gene] for gene in row]})

    def from_architecture(self, architecture):
        """Return the row of an architecture."""
        return self.checked_row(np.array([KERNELS.index(kernel) for kernel in architecture.spec["kernels"]]))


def check_spec(spec: Any) -> dict[str, Any]:
    """Return the spec of a network."""
    if not isinstance(spec, Mapping) or set(spec) != {"width", "kernels"} or len(spec["kernels"]) != PLACES:
        raise NasrayError(f"spec of a toy has width and {PLACES} kernels; got {spec}")
    return dict(spec)


FAMILY = Family(slot="backbone", network="toy_nas:make_network", check=check_spec)


def make_network(width: int, kernels: Sequence[int], out_levels: Sequence[int] = (2, 3, 4, 5)) -> nn.Module:
    """Return the network: a stem of stride 4, then maps of strides 4 to 32."""
    from torch import nn

    class ToyNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1, bias=False), nn.BatchNorm2d(width))
            self.places = nn.ModuleList(make_place(width, kernel, index) for index, kernel in enumerate(kernels))
            self.feature_info = [
                {"num_chs": width, "reduction": 2**level, "module": f"places.{level - 2}"} for level in out_levels
            ]
            self.out_channels = [width] * len(out_levels)

        def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
            x, maps = self.stem(images), OrderedDict()
            for level, place in enumerate(self.places, start=2):
                x = place(x)
                if level in out_levels:
                    maps[f"c{level}"] = x
            return maps

    return ToyNet()


def make_place(width: int, kernel: int, index: int) -> nn.Module:
    """Return the convolution of a place."""
    from torch import nn

    stride = 1 if index == 0 else 2
    convolution = nn.Conv2d(width, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def ToySupernet(space: ToySpace, **options: Any) -> nn.Module:  # noqa: N802  torch is imported when one is built
    """Return the supernet: all kernels in every place."""
    from nasray.models.supernets.choice import ChoiceSupernet, OneOf

    class Supernet(ChoiceSupernet):
        def __init__(self) -> None:
            super().__init__(space)
            self.network = self.standalone(np.zeros(PLACES, dtype=np.int64))
            for index in range(PLACES):
                self.network.places[index] = OneOf([make_place(space.width, kernel, index) for kernel in KERNELS])
            self.feature_info = [info | {"module": f"network.{info['module']}"} for info in self.network.feature_info]
            self.out_channels = self.network.out_channels

        def standalone(self, row):
            return make_network(**space.to_architecture(row).spec, **options)

    return Supernet()


@dataclass(frozen=True)
class ToyPath:
    """Mean absolute weight of a path.

    Attributes:
        space: Space of the genes.
        supernet: Stage or checkpoint of the supernet's training.
        scale: Factor of the score.
    """

    space: Space
    supernet: Annotated[str, From("checkpoint")]
    scale: float = 1.0

    def __call__(self, genes):
        """Return `score`."""
        from nasray.checkpoint import Checkpoint
        from nasray.models.supernets.base import supernet_of

        supernet = supernet_of(Checkpoint.load(Path(self.supernet)).network())
        states = [supernet.path_state(row) for row in genes]
        time.sleep(0.3 * len(genes))
        sums = [sum(float(value.double().abs().mean()) for value in state.values()) for state in states]
        return {"score": self.scale * np.array(sums)}


class ToyNote(Stage):
    """Count to a number, and note the winner of a stage.

    Args:
        of: Stage whose best architecture is noted.
        steps: Number to count to.
    """

    def __init__(self, *, of: Annotated[str, From("architectures")], steps: int = 8) -> None:
        self.of, self.steps = of, steps

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        if self.steps < 1:
            raise NasrayError(f"steps is at least 1; got {self.steps}")

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        return (site.folder / "note.txt").is_file()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        site.folder.mkdir(exist_ok=True)
        count = site.folder / "count"
        while (done := int(count.read_text()) if count.is_file() else 0) < self.steps:
            time.sleep(0.3)
            write_atomic(count, str(done + 1).encode())
        winner = site.entries(self.of)[0]
        write_atomic(site.folder / "note.txt", winner.architecture.text.encode())
        return {"id": winner.id}

    def plan(self, site: Site) -> Work:
        """See `Stage.plan`."""
        return Work(text=f"counts to {self.steps}")
