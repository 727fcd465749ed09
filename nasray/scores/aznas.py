"""AZ-NAS: expressivity, progressivity, trainability and complexity of a random network, put together by ranks.

Reference: Lee and Ham, "AZ-NAS: Assembling zero-cost proxies for network architecture search", CVPR 2024, Section 3.

Differs from the paper in:
- The features are those of the maps that a detector reads (C2 to C5 of most backbones); the paper takes every primary
  block. So all networks of a space have as many terms, and depth counts by what it does to a map alone.
- A gradient whose height or width is no multiple of the one behind is filled with zeros before space goes to channels.
- Terms of eigenvalues that are 0 are 0; the released code adds 1e-8 to each of them within the logarithm.
- Images are drawn from N(0, 1), as the released code does where it is given no data.
- `rank_sum` is the paper's aggregate, which needs all candidates at once; `reference_score` is of one candidate.

Shapes: B images, C channels of a map, n positions of a map in all images, N networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from nasray.scores.weights import random_images, redrawn
from nasray.spaces import NasrayError

Floats = NDArray[np.float64]


class AZComponents(NamedTuple):
    """What AZ-NAS computes of one network, beside its multiply-adds; larger is better.

    Attributes:
        expressivity: Sum of `isotropy` over the maps, in nats.
        progressivity: Least increase of `isotropy` from a map to the next, in nats.
        trainability: Mean of `stability` over the steps from a map to the next, at most 0.
    """

    expressivity: float
    progressivity: float
    trainability: float


def az_components(
    module: nn.Module,
    *,
    generator: torch.Generator,
    image_hw: tuple[int, int] = (224, 224),
    batch_size: int = 16,
) -> AZComponents:
    """Return the components of AZ-NAS by one forward and one backward pass.

    Args:
        module: A backbone of at least two maps, each computed from the one before; it is copied, never changed.
        generator: Generator that draws weights (He et al.), images, and signs for the last map first.
        image_hw: Height and width in pixels.
        batch_size: Images in the batch. Where a map has fewer positions in all of them than channels, its expressivity
            is at most the logarithm of the positions.

    Raises:
        NasrayError: if there is one map alone, or one that does not depend on the one before.
    """
    network = redrawn(module, generator)
    images = random_images(network, generator, batch_size, image_hw)
    with torch.enable_grad():
        maps = _all_maps(network(images))
    if len(maps) < 2:
        raise NasrayError(
            f"aznas compares a backbone's maps, and {type(module).__name__} has one alone. Take zen, naswot or swap"
        )
    levels = [isotropy(x.detach()) for x in maps]
    steps = [
        stability(spectral_norm(*_signs_through(maps[place - 1], maps[place], generator)))
        for place in reversed(range(1, len(maps)))
    ]
    return AZComponents(sum(levels), min(np.diff(levels).tolist()), sum(steps) / len(steps))


def isotropy(features: Tensor) -> float:
    """Return the entropy of how a map's variance is spread over its principal components, from 0 to log C.

    Args:
        features: (B, C, H, W); every position is an observation of C variables. A constant map has 0.
    """
    rows = features.movedim(1, -1).flatten(0, -2).double()  # (n, C)
    rows = rows - rows.mean(dim=0)
    covariance = rows.T @ rows / len(rows)
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp_min(0)
    total = eigenvalues.sum()
    return float(torch.special.entr(eigenvalues / total).sum()) if total > 0 else 0.0


def spectral_norm(before: Tensor, behind: Tensor) -> float:
    """Return the largest singular value of the mean of before_p behind_p^T over all positions p.

    With signs behind, whose covariance is the identity, that matrix estimates the transposed Jacobian between two maps
    (least squares, Section 3.1.3).

    Args:
        before: (B, C, H, W), the gradient of the earlier map.
        behind: (B, C', H', W'), that of the later one, no larger. Where H' < H, patches of the earlier map are
            positions with as many times the channels.
    """
    scales = [math.ceil(a / b) for a, b in zip(before.shape[2:], behind.shape[2:], strict=True)]
    height, width = (b * scale for b, scale in zip(behind.shape[2:], scales, strict=True))
    padded = nn.functional.pad(before, (0, width - before.shape[3], 0, height - before.shape[2]))
    patches = padded.unflatten(3, (-1, scales[1])).unflatten(2, (-1, scales[0]))  # (B, C, H', s, W', s)
    rows = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2).double()  # (n, C s s)
    columns = behind.movedim(1, -1).flatten(0, -2).double()  # (n, C')
    matrix = rows.T @ columns / len(rows)
    square = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    return math.sqrt(max(float(torch.linalg.eigvalsh(square)[-1]), 0.0))


def stability(norm: float) -> float:
    """Return 2 - norm - 1 / norm: 0 at a norm of 1, less where gradients grow or shrink, minus infinity at 0."""
    return 2.0 - norm - 1.0 / norm if norm > 0 else -math.inf


def reference_score(rows: ArrayLike, references: ArrayLike) -> Floats:
    """Return a score of each network by itself: (N,), how it stands to networks that stay the same.

    A reading of ours, for searches, whose candidates must not depend on each other: the sum over components of the
    logarithm of the share of all networks that it is better than, as a normal distribution with the references' mean
    and standard deviation has it. So it is `rank_sum`'s shape (the weakest component counts most), goes on where the
    references end, and is at most 0. A component in which the references do not differ is left out.

    Args:
        rows: (N, K) components and a cost of the networks, larger is better.
        references: (R, K) those of the references; what is not finite is left out.
    """
    known = np.asarray(references, dtype=np.float64)
    total: Floats = np.zeros(len(np.asarray(rows)))
    for values, others in zip(np.asarray(rows, dtype=np.float64).T, known.T, strict=True):
        others = others[np.isfinite(others)]
        if len(others) and (sd := float(others.std())) > 0:
            mean = float(others.mean())
            total += [log_share_below((value - mean) / sd) for value in values.tolist()]
    return total


def log_share_below(z: float) -> float:
    """Return the logarithm of the standard normal distribution's share below z, also far below 0."""
    if z > -30:
        return math.log(math.erfc(-z / math.sqrt(2)) / 2)
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi))  # relative error of the share: 1 / z^2


def rank_sum(columns: Sequence[ArrayLike]) -> Floats:
    """Return AZ-NAS's aggregate over a population: (N,), the sum over columns of log(rank / N), Eq. 9.

    The best of a column has rank N. Ties share the mean of their ranks. Values that are not finite rank last.

    Args:
        columns: The components and a cost, each (N,), larger is better.
    """
    total: Floats = np.zeros(len(np.asarray(columns[0])))
    for column in columns:
        values = np.asarray(column, dtype=np.float64)
        values = np.where(np.isfinite(values), values, -np.inf)
        smaller = (values[:, None] > values).sum(axis=1)
        same = (values[:, None] == values).sum(axis=1)
        total += np.log((smaller + (same + 1) / 2) / len(values))
    return total


def _signs_through(before: Tensor, behind: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return what signs on a map become at the one before, and the signs."""
    signs = torch.randint(0, 2, behind.shape, generator=generator, device=generator.device) * 2.0 - 1.0
    signs = signs.to(behind.device)
    with torch.enable_grad():
        total = (behind * signs).sum()  # handed over as `grad_outputs`, signs make PyTorch import SymPy, for seconds
    (gradient,) = torch.autograd.grad(total, before, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise NasrayError("aznas follows gradients from map to map, and a map here does not depend on the one before")
    return gradient, signs


def _all_maps(output: Any) -> list[Tensor]:
    """Return the maps of what a backbone returns, finest first."""
    if isinstance(output, Tensor):
        return [output]
    return list(output.values()) if isinstance(output, Mapping) else list(output)
