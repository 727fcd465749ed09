"""The network of a path filter, and the loss by which it learns to rank.

Reference: Oyama et al., "DetOFA: Efficient Training of Once-for-All Networks for Object Detection Using Path Filter",
section 3.1 and Equations 1 to 4.

Differs from the paper in, or reads it as:
- The bucket of costs is a token of its own, before the others and without a position; its output is what is scored.
- Positions are encoded with exponents 2i/d, as in "Attention is all you need". Equation 3 literally has 2i/L, which
  makes nearly all dimensions constant; `literal_positions` takes it so.
- Pairs are of one bucket, as the text says, where Equation 4 admits lower ones. Pairs of different buckets, whose term
  is constant, are left out of the mean.
- Architectures are ranked by what comes before the sigmoid: the order is the same, without ties of rounding.

Shapes: N architectures, L tokens of each, D dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FilterNetwork(nn.Module):
    """Transformer encoder over the tokens of architectures and the bucket of their cost.

    Args:
        vocabulary: Number of different tokens.
        num_buckets: Number of buckets of cost.
        layer: (L,) position of each token among the layers, from 0.
        block: (L,) position of its block, from 0.
        dim: Dimensions of tokens and of all layers; a multiple of `heads` and of 2.
        depth: Encoder layers.
        heads: Heads of their attention.
        literal_positions: Whether exponents of the positional encoding are divided by the number of positions, as
            Equation 3 has it, instead of by the dimensions.
        condition: Whether the bucket's token says which bucket it is.
        block_positions: Whether positions of blocks are encoded beside those of layers.
    """

    def __init__(
        self,
        vocabulary: int,
        num_buckets: int,
        layer: Tensor,
        block: Tensor,
        *,
        dim: int = 128,
        depth: int = 3,
        heads: int = 4,
        literal_positions: bool = False,
        condition: bool = True,
        block_positions: bool = True,
    ) -> None:
        super().__init__()
        self.condition = condition
        self.token = nn.Embedding(vocabulary, dim)
        self.bucket = nn.Embedding(num_buckets, dim)
        positions = _encoded(layer, dim, literal_positions)
        if block_positions:
            positions = positions + _encoded(block, dim, literal_positions)
        self.register_buffer("positions", positions, persistent=False)
        one = nn.TransformerEncoderLayer(dim, heads, dim_feedforward=dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(one, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))

    def forward(self, tokens: Tensor, bucket: Tensor) -> Tensor:
        """Return the (N,) logits of (N, L) tokens in (N,) buckets; the higher, the better the architecture."""
        condition = self.bucket(bucket if self.condition else torch.zeros_like(bucket))[:, None]
        encoded: Tensor = self.encoder(torch.cat([condition, self.token(tokens) + self.positions], dim=1))
        logits: Tensor = self.head(encoded[:, 0])[:, 0]
        return logits


def _encoded(position: Tensor, dim: int, literal: bool) -> Tensor:
    """Return (L, D) sines and cosines of positions."""
    longest = int(position.max()) + 1 if literal else dim
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, dim, 2) / longest)
    angles = position[:, None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def ranking_loss(logits: Tensor, losses: Tensor, bucket: Tensor, *, margin: float = 1.0) -> Tensor:
    """Return the mean squared hinge over all ordered pairs of one bucket of which the first is no worse.

    Scores are sigmoids of the logits. For n ranked architectures of a bucket the optimum of margin 1 has a quarter of
    the scores at 1 and a quarter at 0. Equal losses make pairs in both orders, which pull their scores together.

    Args:
        logits: (N,) logits.
        losses: (N,) validation losses, the lower the better.
        bucket: (N,) bucket of each.
        margin: Difference of scores beyond which a pair costs nothing.

    Returns:
        A scalar; 0, with a gradient of 0, where no bucket holds two.
    """
    scores = logits.sigmoid()
    total, count = logits.sum() * 0.0, 0
    for value in bucket.unique().tolist():
        inside = bucket == value
        own, worth = scores[inside], losses[inside]
        pairs = worth[:, None] <= worth
        pairs.fill_diagonal_(False)
        hinge = (margin - (own[:, None] - own)).clamp(min=0.0).square()
        total = total + (hinge * pairs).sum()
        count += int(pairs.sum())
    return total / max(count, 1)
