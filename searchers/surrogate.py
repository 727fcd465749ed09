"""What architectures are worth, guessed from those that were evaluated: a Gaussian process on their genes.

Reference: Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, sections 2.2 (regression),
4.2.1 (rational quadratic kernel) and 5.4.1 (marginal likelihood).

Differs from the book in: the kernel falls with the distance of ordered genes and with the number of genes that differ;
its parameters are the best of a grid; nothing but sums, products, quotients and square roots in a fixed order, so that
a guess has the same bits on every processor and with any number of threads, which those of BLAS have not.

Shapes: N rows asked about, M rows known, G genes, P points of the grid.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import Gene, Population, Space
from nasray.spaces.exact import log, log_table

Floats = NDArray[np.float64]

CHUNK = 256
"""Rows that are guessed together; more leave a processor's cache."""
MAX_COMPARED = 64
"""Known rows, evenly over all, by which the parameters are chosen; all rows are then fitted with them."""


class Powers(NamedTuple):
    """Parameters of the kernel, as exponents of 2.

    Attributes:
        near: How fast likeness falls with the squared distance of ordered genes, each counted from 0 to 1.
        other: How fast it falls with the number of genes that differ.
        noise: Variance that no gene explains, as a share of the rest.
    """

    near: int
    other: int
    noise: int


NEAR, OTHER, NOISE = (-5, -3, -1, 1, 3, 5), (-9, -7, -5, -3, -1), (-9, -6, -3)


class GaussianProcess:
    """A Gaussian process over the rows of a space, fitted to (M, G) rows and their (M,) values.

    A call returns (N,) guesses of the values of (N, G) rows and their (N,) standard deviations.

    Args:
        space: Space of the rows.
        genes: (M, G) rows, at least one, each of them once.
        values: (M,) finite values.

    Attributes:
        powers: Parameters of the kernel, those of the largest likelihood.
    """

    def __init__(self, space: Space, genes: Population, values: Floats) -> None:
        self._distances = Distances(space)
        self._genes, self._mean = genes, float(values.mean())
        self._scale = math.sqrt(float(((values - self._mean) ** 2).mean())) or 1.0
        scaled = (values - self._mean) / self._scale
        few = np.arange(min(len(genes), MAX_COMPARED)) * len(genes) // min(len(genes), MAX_COMPARED)
        self.powers = likeliest(*self._distances(genes[few], genes[few]), scaled[few])
        factor = factorize(kernel(*self._distances(genes, genes), self.powers), scaled, self.powers.noise)
        self._factor, self._pivots, self._worth = factor[:, :-1], factor.diagonal().copy(), factor[:, -1].copy()
        self._variance = float((self._worth**2 / self._pivots).mean())

    def __call__(self, genes: Population) -> tuple[Floats, Floats]:
        """Return (N,) guesses of the values of (N, G) rows, and their (N,) standard deviations."""
        means, deviations = np.empty(len(genes)), np.empty(len(genes))
        for begin in range(0, len(genes), CHUNK):
            part = slice(begin, begin + CHUNK)
            rest = self._eliminated(kernel(*self._distances(genes[part], self._genes), self.powers))
            shares = rest / self._pivots
            means[part] = (shares * self._worth).sum(axis=1)
            explained = (shares * rest).sum(axis=1)
            deviations[part] = np.sqrt(np.maximum(1 - explained, 0) * self._variance)
        return means * self._scale + self._mean, deviations * self._scale

    def _eliminated(self, rows: Floats) -> Floats:
        """Return (N, M) rows after the elimination that `factorize` made of the known ones."""
        rest = rows.T.copy()
        for i in range(len(rest) - 1):
            rest[i + 1 :] -= self._factor[i, i + 1 :, None] * (rest[i] / self._pivots[i])
        return np.ascontiguousarray(rest.T)


class Distances:
    """How far rows of a space are apart: (N, M) squared distances of ordered genes, and numbers of genes that differ.

    Args:
        space: Space of the rows.
    """

    def __init__(self, space: Space) -> None:
        self._genes = space.genes
        self._axes = [_axis(gene) for gene in space.genes]

    def __call__(self, one: Population, other: Population) -> tuple[Floats, Floats]:
        """Return both, (N, M) each, of (N, G) and (M, G) rows."""
        near, different = np.zeros((len(one), len(other))), np.zeros((len(one), len(other)))
        for column, (gene, axis) in enumerate(zip(self._genes, self._axes, strict=True)):
            places, others = (np.searchsorted(gene.values, rows[:, column]) for rows in (one, other))
            different += places[:, None] != others
            if axis is not None:
                near += (axis[places][:, None] - axis[others]) ** 2
        return near, different


def _axis(gene: Gene) -> Floats | None:
    """Return where the values of an ordered gene stand from 0 to 1; None where they are labels, or no more than two."""
    if not gene.ordered or len(gene.values) <= 2:
        return None
    if gene.log:
        logs = log_table(len(gene.values) + 1)[1:]
        scaled: Floats = logs / logs[-1]
        return scaled
    return np.arange(len(gene.values)) / (len(gene.values) - 1)


def likeliest(near: Floats, different: Floats, values: Floats) -> Powers:
    """Return the parameters of the grid under which the values are likeliest; of equals the first.

    Args:
        near: (M, M) squared distances of ordered genes.
        different: (M, M) numbers of genes that differ.
        values: (M,) values of mean 0.
    """
    grid = [Powers(*powers) for powers in itertools.product(NEAR if near.any() else NEAR[:1], OTHER, NOISE)]
    scales = [
        kernel(near, different, powers) for powers in grid if powers.noise == NOISE[0]
    ]  # the same for every noise
    kernels = np.repeat(np.stack(scales), len(NOISE), axis=0)
    factors = factorize(kernels, values, np.array([powers.noise for powers in grid]))
    pivots, worth = np.diagonal(factors, axis1=1, axis2=2), factors[:, :, -1]
    squares = np.maximum((worth**2 / pivots).mean(axis=1), 2.0**-1000)
    product, exponent = np.ones(len(grid)), np.zeros(len(grid))
    for column in range(len(values)):
        product, shift = np.frexp(product * pivots[:, column])
        exponent += shift
    unlikely = [
        len(values) * log(square) + log(mantissa) + power * log(2.0)
        for square, mantissa, power in zip(squares.tolist(), product.tolist(), exponent.tolist(), strict=True)
    ]
    return grid[int(np.argmin(unlikely))]


def kernel(near: Floats, different: Floats, powers: Powers) -> Floats:
    """Return the rational quadratic kernel of (N, M) distances; 1 where both are 0."""
    root = 1 / (1 + 2.0**powers.near * near + 2.0**powers.other * different)
    return root * root


def factorize(kernels: Floats, values: Floats, noise: int | NDArray[np.int64]) -> Floats:
    """Return what Gauss's elimination leaves of kernels with their noise, and of the values beside them.

    Args:
        kernels: (..., M, M) kernels.
        values: (M,) values.
        noise: Exponents of 2 of the noise, one for each kernel.

    Returns:
        (..., M, M + 1): pivots on the diagonal, the rest of their rows to the right of it, the values as the last
        column; what is to the left of it means nothing.
    """
    num = len(values)
    left = np.empty((*kernels.shape[:-1], num + 1))
    left[..., :num], left[..., num] = kernels, values
    places = np.arange(num)
    left[..., places, places] += np.ldexp(1.0, noise)[..., None]
    for i in range(num - 1):
        row = left[..., i, i + 1 :]
        scaled = row[..., :-1] / left[..., i, i, None]
        left[..., i + 1 :, i + 1 :] -= scaled[..., :, None] * row[..., None, :]
    return left
