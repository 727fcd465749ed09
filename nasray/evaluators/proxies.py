"""Zero-shot proxies of image classification on the built backbone: those of Table 9 of MAE-DET, AZ-NAS and SWAP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from nasray.architectures import FAMILIES
from nasray.devices import Device, Threads, choose_device, computing_threads
from nasray.evaluators.seeding import generator_of
from nasray.searchers import Metrics, RandomSearch
from nasray.spaces import Budget, CostFunction, NasrayError, Population, Space
from nasray.spaces.ranges import MAX_BATCH, Range, check_finite, check_image_hw, check_whole

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn


@dataclass(frozen=True)
class Proxy(ABC):
    """A score of a network with fresh weights.

    Attributes:
        space: Space of the genes.
        seed: Seed of the random numbers, together with the architecture's id.
        device: Device of the network; auto is a GPU where the trial has one.
        image_hw: Height and width of an image in pixels.
        threads: Threads that compute; on CPUs the last digits of a score depend on it.
    """

    space: Space
    seed: int = 0
    device: Device = "auto"
    image_hw: tuple[int, int] = (224, 224)
    threads: Threads = 1
    names: ClassVar[tuple[str, ...]] = ("score",)
    zero_shot = True
    meaning = (
        "The score is a proxy for image classification without training: larger stands for a better classifier. It is "
        "no accuracy, and its scale means nothing by itself."
    )

    def __post_init__(self) -> None:
        check_image_hw(self.image_hw)

    @classmethod
    def fits(cls, space: Space) -> str | None:
        """Return why the score does not go with a space; None if it does."""
        if space.resolutions:
            return "scores networks on images of one size, and the space has resolutions"
        family = FAMILIES.get(space.family)
        return None if family is None or family.slot == "backbone" else "scores backbones"

    def __call__(self, genes: Population) -> Metrics:
        """`score`, and what else is in `names`."""
        return dict(zip(self.names, self._table(genes).T, strict=True))

    def _table(self, genes: Population) -> NDArray[np.float64]:
        """Return (N, M) what is measured of each architecture; the columns are those of `_measure`."""
        import torch

        from nasray.models import build

        device = choose_device(self.device)
        rows = []
        for row in genes:
            architecture = self.space.to_architecture(row)
            generator = generator_of(self.seed, architecture)
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(generator.initial_seed())  # GPUs' own are left alone
                network = build(architecture).to(device)
            with computing_threads(self.threads):
                rows.append(self._measure(network, generator))
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1)

    @abstractmethod
    def _measure(self, network: nn.Module, generator: torch.Generator) -> tuple[float, ...]:
        """Return the score of a network, or what it is made of."""


@dataclass(frozen=True)
class BatchProxy(Proxy):
    """A score of a network's outputs for random images.

    Attributes:
        batch_size: Images of one pass.
    """

    batch_size: Annotated[int, Range(1, 65_536)] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("batch_size", self.batch_size, 1, MAX_BATCH)


@dataclass(frozen=True)
class ZenScore(BatchProxy):
    """Zen-score (Lin et al., ICCV 2021)."""

    def _measure(self, network: nn.Module, generator: torch.Generator) -> tuple[float, ...]:
        from nasray.scores.zen import zen_score

        score = zen_score(network, generator=generator, image_hw=self.image_hw, batch_size=self.batch_size)
        return (score,)


@dataclass(frozen=True)
class NASWOT(BatchProxy):
    """NASWOT (Mellor et al., ICML 2021)."""

    def _measure(self, network: nn.Module, generator: torch.Generator) -> tuple[float, ...]:
        from nasray.scores.naswot import naswot_score

        score = naswot_score(network, generator=generator, image_hw=self.image_hw, batch_size=self.batch_size)
        return (score,)


@dataclass(frozen=True)
class SynFlow(Proxy):
    """SynFlow (Tanaka et al., NeurIPS 2020), on one image of ones."""

    def _measure(self, network: nn.Module, generator: torch.Generator) -> tuple[float, ...]:
        from nasray.scores.synflow import synflow_score

        score = synflow_score(network, generator=generator, image_hw=self.image_hw)
        return (score,)


@dataclass(frozen=True)
class SWAP(BatchProxy):
    """SWAP (Peng et al., ICLR 2024): how many different patterns the rectifiers show over the images.

    Attributes:
        batch_size: Images of one pass; 2 to their power bounds the score.
        target_params_m: Parameters of the backbone in millions at which the regularized score is greatest; not
            regularized if left out.
        width_params_m: Distance from there, in millions, at which the score is divided by e; `target_params_m` if left
            out.
    """

    batch_size: Annotated[int, Range(1, 65_536)] = 32
    target_params_m: Annotated[float, Range(1e-6, 1e6)] | None = None
    width_params_m: Annotated[float, Range(1e-6, 1e6)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_params_m", "width_params_m"):
            if (value := getattr(self, name)) is not None:
                check_finite(name, value, 1e-6)
        if self.width_params_m is not None and self.target_params_m is None:
            raise NasrayError("width_params_m is around target_params_m, which is not set. Set it, or leave both out")

    def _measure(self, network: nn.Module, generator: torch.Generator) -> tuple[float, ...]:
        from nasray.scores.swap import size_weight, swap_score

        score = swap_score(network, generator=generator, image_hw=self.image_hw, batch_size=self.batch_size)
        if self.target_params_m is None:
            return (score,)
        params_m = sum(weight.numel() for weight in network.parameters()) / 1e6
        return (score * size_weight(params_m, self.target_params_m, self.width_params_m or self.target_params_m),)


@dataclass(frozen=True)
class AZNAS(BatchProxy):
    """AZ-NAS (Lee and Ham, CVPR 2024): expressivity, progressivity, trainability and complexity.

    The paper ranks the candidates of a search among each other. Here the score of each is by itself: how it stands to
    random architectures of the same space and budget, which follow from the seed alone; each process measures them
    before its first candidate.

    Attributes:
        num_references: Random architectures that candidates are held against.
        budget: Budget of the references; none by default.
        cost: Function that returns what the budget bounds; the space's own if left out.
    """

    num_references: Annotated[int, Range(2, 10_000)] = 24
    budget: Budget | None = None
    cost: CostFunction | None = None
    components: ClassVar[tuple[str, ...]] = ("expressivity", "progressivity", "trainability")
    names: ClassVar[tuple[str, ...]] = ("score", *components, "complexity")
    meaning = (
        "The score is AZ-NAS's: how a random network stands to random ones of the same space and budget in "
        "expressivity, progressivity, trainability and multiply-adds; it was made for classification. 0 would be above "
        "all of them in everything. It is no accuracy."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("num_references", self.num_references, 2, 10_000)

    @classmethod
    def fits(cls, space: Space) -> str | None:
        """Return why the score does not go with a space; None if it does."""
        if reason := super().fits(space):
            return reason
        counted = space.cost(np.empty((0, space.num_genes), dtype=np.int64))
        return None if "gmacs" in counted else "needs a space that counts multiply-adds"

    def __call__(self, genes: Population) -> Metrics:
        """`score`, and the components that it is made of; `complexity` is in G multiply-adds of the backbone."""
        from nasray.scores.aznas import reference_score

        table = self._table(genes)
        score = reference_score(table, self._references)
        return dict(zip(self.names, [score, *table.T], strict=True))

    def measure(self, genes: Population) -> Metrics:
        """Return the components alone, without the references that the score needs: each (N,)."""
        return dict(zip(self.names[1:], self._table(genes).T, strict=True))

    def _table(self, genes: Population) -> NDArray[np.float64]:
        complexity = self.space.cost(genes)["gmacs"]
        return np.column_stack([super()._table(genes).reshape(-1, len(self.components)), complexity])

    @cached_property
    def _references(self) -> NDArray[np.float64]:
        """(R, 4) components of the references; fewer where the budget holds fewer."""
        search = RandomSearch(self.space, budget=self.budget, cost=self.cost, seed=self.seed)
        return self._table(search.ask(self.num_references).genes)

    def _measure(self, network: nn.Module, generator: torch.Generator) -> tuple[float, ...]:
        from nasray.scores.aznas import az_components

        return az_components(network, generator=generator, image_hw=self.image_hw, batch_size=self.batch_size)
