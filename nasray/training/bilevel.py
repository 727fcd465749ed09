"""Gradient search: architecture parameters and weights move in turn, each on images of their own.

References: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (the first-order
approximation); Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020.

In every iteration the alphas take a step along their gradient on held-out images, through the weights as they are; then
the weights take one on training images, with the alphas as they are. Neither optimizer holds what the other moves.

Differs from the released code of FAD, which takes the alphas' gradient through a copy of the network that is never
trained, moves them with the weights' optimizer too, and holds no images out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.data.examples import Batches, Examples
from nasray.data.order import ALPHA, seed_sequence
from nasray.models.supernets.base import supernet_of
from nasray.recipe_options import AlphaOptions, OptimizerOptions
from nasray.spaces import NasrayError
from nasray.training.learner import Learner

MOST_NONE = 0.5
"""Share of `none` on an average edge above which a search has collapsed."""
MOST_ALIKE = 10, 12
"""Edges with the same transformation, and all of a derived head, from which share on a search has collapsed."""


class AlphaLearner:
    """Moves the alphas of a relaxed supernet inside a network.

    Between its steps the alphas have no gradient, so that whoever trains the weights passes them over.

    Args:
        network: Network on its device, in training mode, with a supernet that has `alphas`, in whatever slot.
        options: How the alphas move.
        batches: Batches of held-out images.
        per_epoch: Iterations of an epoch of the weights' training, in which `warm_up` counts.
        seed: Seed of all that losses and dropout draw.
        rank: Number of this worker.
        world: Number of workers.
        precision: As of `Learner`.
        channels_last: As of `Learner`.

    Attributes:
        alphas: The alphas, by group.
        steps: Steps that they have taken.

    Raises:
        NasrayError: If the network has no alphas.
    """

    def __init__(
        self,
        network: nn.Module,
        options: AlphaOptions,
        batches: Batches,
        *,
        per_epoch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        precision: str = "float32",
        channels_last: bool = False,
    ) -> None:
        assert options.learning_rate is not None
        self.alphas = alphas_of(network)
        self.network, self.batches, self.seed, self.rank = network, batches, seed, rank
        self.first = round(options.warm_up * per_epoch)
        self.steps = 0
        self._left: Iterator[Any] = iter(())
        self._set(is_learned=True)
        self.learner = Learner(
            network,
            OptimizerOptions(
                name="adam",
                learning_rate=options.learning_rate,
                weight_decay=options.weight_decay,
                betas=options.betas,
            ),
            lambda _: 1.0,
            parameters=self.alphas.values(),
            precision=precision,
            channels_last=channels_last,
            world=world,
            uses_all=False,
        )
        self._set(is_learned=False)

    def step(self, iteration: int) -> Tensor | None:
        """Move the alphas in an iteration of the weights' training, before the weights; return the losses, if it did.

        Args:
            iteration: Iteration, counted from 0.
        """
        if iteration < self.first:
            return None
        seed = seed_sequence(self.seed, ALPHA, self.steps, self.rank).generate_state(1)
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        for parameter in learned:  # the backward pass goes as far as the alphas, and no further
            parameter.requires_grad_(False)
        self._set(is_learned=True)
        try:
            result = self.learner.step(self._next(), self.steps, int(seed[0]))
        finally:
            self._set(is_learned=False)
            for parameter in learned:
                parameter.requires_grad_(True)
        self.steps += 1
        return result.losses

    def _next(self) -> Examples:
        """Return the next batch, of the next epoch where one is at its end."""
        batch = next(self._left, None)
        if batch is None:
            self._left = self.batches.epoch(*divmod(self.steps, len(self.batches)))
            batch = next(self._left)
        return batch

    def _set(self, *, is_learned: bool) -> None:
        for alphas in self.alphas.values():
            alphas.requires_grad_(is_learned)
            if not is_learned:
                alphas.grad = None

    def shares(self) -> dict[str, list[list[float]]]:
        """Return of each group the share of every choice of every edge, `none` the last."""
        return shares_of(self.alphas)

    def state_dict(self) -> dict[str, Any]:
        """Return what continuing needs beside the network's own state."""
        return {**self.learner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            KeyError: If an entry is missing.
        """
        self.learner.load_state_dict(state)
        self.steps, self._left = state["steps"], iter(())


def alphas_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the alphas of the relaxed supernet inside a network, by group.

    Raises:
        NasrayError: If it has none.
    """
    alphas = getattr(supernet_of(network), "alphas", None)
    if not isinstance(alphas, nn.ParameterDict):
        raise NasrayError(
            "alpha is of relaxed supernets, such as that of space fad, whose choices have weights. Leave alpha out"
        )
    return dict(alphas.items())


def derived(network: nn.Module) -> tuple[NDArray[np.int64], dict[str, list[list[float]]]]:
    """Return the (G,) row of the architecture that the alphas inside a network stand for, and the shares as they are.

    Raises:
        NasrayError: If it has no alphas.
    """
    alphas = alphas_of(network)
    supernet: Any = supernet_of(network)
    row: NDArray[np.int64] = supernet.derive()
    return row, shares_of(alphas)


def shares_of(alphas: Mapping[str, Tensor]) -> dict[str, list[list[float]]]:
    """Return of each group the share of every choice of every edge, `none` the last."""
    return {name: values.detach().softmax(dim=1).tolist() for name, values in alphas.items()}


def collapse(shares: Mapping[str, list[list[float]]], chosen: Sequence[str]) -> str | None:
    """Return why a gradient search counts as collapsed: a reason in a few words; None if it does not.

    It is if `none` has more than half of the shares of an average edge, of all edges of all groups; or if ten or more
    of twelve edges of the derived head have the same transformation, which of six edges (one group) are five or more.

    Args:
        shares: Of each group the share of every choice of every edge, `none` the last.
        chosen: Transformations on the edges of the derived head.
    """
    _, none = entropy_and_none(shares)
    if none > MOST_NONE:
        return f"none has {none:.2f} of an average edge"
    name, num = Counter(chosen).most_common(1)[0]
    if num * MOST_ALIKE[1] >= MOST_ALIKE[0] * len(chosen):
        return f"{name} is on {num} of {len(chosen)} edges"
    return None


def entropy_and_none(shares: Mapping[str, list[list[float]]]) -> tuple[float, float]:
    """Return the mean entropy of an edge's shares in nats, and the mean share of `none`."""
    edges = torch.tensor([edge for group in shares.values() for edge in group], dtype=torch.float64)
    return float(-torch.special.xlogy(edges, edges).sum(dim=1).mean()), float(edges[:, -1].mean())
