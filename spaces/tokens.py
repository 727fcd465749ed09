"""Architectures as sequences of tokens: what a path filter (a small predictor) reads.

Shapes: N architectures, L tokens of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nasray.spaces.base import Gene, Population, Space

ABSENT = 0
"""Token of a gene that has none of its values, such as one of an absent part."""


class Tokens(NamedTuple):
    """A population as tokens.

    Attributes:
        ids: (N, L) tokens from 0 to `vocabulary` - 1; `ABSENT` stands for what an architecture does not have.
        vocabulary: Number of different tokens.
        layer: (L,) position in the network that each token is about, counted from 0.
        block: (L,) group of positions (stage, cell) to which each token belongs, counted from 0.
    """

    ids: NDArray[np.int64]
    vocabulary: int
    layer: NDArray[np.int64]
    block: NDArray[np.int64]


def gene_tokens(space: Space, population: Population) -> Tokens:
    """Return one token for each gene; genes of the same kind and values share their tokens.

    The kind of a gene is the last word of its name ("c3.1.width": width) unless that is a number. A gene is a layer of
    its own, and its group a block.
    """
    starts: dict[tuple[str, tuple[int, ...]], int] = {}
    vocabulary = 1
    ids = np.full(population.shape, ABSENT, dtype=np.int64)
    for column, gene in enumerate(space.genes):
        key = (_kind(gene), gene.values)
        if key not in starts:
            starts[key] = vocabulary
            vocabulary += len(gene.values)
        values = np.asarray(gene.values)
        place = np.searchsorted(values, population[:, column]).clip(max=len(values) - 1)
        known = values[place] == population[:, column]
        ids[known, column] = starts[key] + place[known]
    block = np.empty(space.num_genes, dtype=np.int64)
    for number, columns in enumerate(space.groups):
        block[list(columns)] = number
    return Tokens(ids, vocabulary, np.arange(space.num_genes), block)


def _kind(gene: Gene) -> str:
    word = gene.name.rpartition(".")[2]
    return "" if word.isdigit() else word
