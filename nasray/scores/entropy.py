"""Multi-scale entropy in closed form: mean-field propagation of variances through a population of networks.

Reference: Sun et al., "MAE-DET", ICML 2022, Eq. 2-5. The paper draws weights and an image from N(0, 1), runs one
forward pass and takes half the log-variance of each stage's last pre-activation map. Here that log-variance is
predicted. In the order of their weight:

- A convolution of fan-in f maps mean square q to variance f*q; a ReLU halves a variance to its mean square.
- Zero padding removes part of the fan-in at the borders. The variance map stays the product of a column and a row
  vector, so that two 1-D profiles per network carry it; networks of the same kernels and depths share theirs.
- Finite width: E[log] lies below log E. Given its input, the energies of a layer's n channels are independent with
  variance 4 Cov(rho) around a unit mean, so the logarithm of their mean loses 2 Cov(rho) / n. Here rho is the
  correlation of the pre-activations at two far positions; it starts at 0 for a white image and every ReLU maps it by
  the arc-cosine kernel of degree 1 (Cho and Saul, "Kernel methods for deep learning", 2009), and Cov follows from the
  kernel of degree 2: Cov(0) = 0, Cov(1) = 5/4. Nothing is fitted.
- A residual branch adds its own variance: log(1 + shortcut / main) for every block.
- A depthwise convolution keeps the spread of the channels' energies, which multiplies its loss by 1 + 4 Cov(rho), or
  by 1 + 2 rho^2 if it reads a linear map (no expansion).
- In narrow layers the losses are no longer small: one of x to first order is taken as x / (1 + x).
- A squeeze-and-excitation gate is not homogeneous, so its effect would depend on the arbitrary constants gamma of
  Eq. 4; it stands at its symmetric point 1/2 (what it is for a map of small mean).

All results are the same to the last bit for an architecture whatever population it stands in: sums run over the
layer axis, element by element. They are the same on every processor, too: logarithms and arc cosines come from
`nasray.spaces.exact`, and nothing else is rounded other than by addition, multiplication, division and square root.

Shapes: N architectures, L layer rows, B block positions, U distinct profiles.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.scores.borders import NUM_LEVELS, blocks, border_losses
from nasray.spaces import exact
from nasray.spaces.layers import Floats, LayerTable

SizeFactor = Literal["log-channels", "map-size", "none"]
MULTI_SCALE = (0.0, 0.0, 1.0, 1.0, 6.0)
SINGLE_SCALE = (0.0, 0.0, 0.0, 0.0, 1.0)

NARROW = 6.0
"""The `narrowness` above which the closed form of C5 may be off by as much as two passes differ: docs/scores.md."""

Ints = NDArray[np.int64]


def entropy_score(
    table: LayerTable,
    *,
    weights: tuple[float, ...] = MULTI_SCALE,
    size_factor: SizeFactor = "log-channels",
    residual: bool = True,
    image_hw: tuple[int, int] = (384, 384),
) -> Floats:
    """Return the multi-scale entropy Z of Eq. 5, (N,).

    Args:
        table: The layers of N architectures, at any image size (only kernels, strides and widths are read).
        weights: Alpha of C1 to C5.
        size_factor: What Eq. 4's "multiplied by the size of the feature map" is read as. "log-channels" adds the log
            of the channels, as the released code does; "map-size" multiplies by height times width, as the text says.
        residual: Whether the shortcuts take part (the deployed network) or not (Eq. 2's vanilla network).
        image_hw: Height and width in pixels of the image.
    """
    entropies = level_entropies(table, residual=residual, image_hw=image_hw)
    return weigh_levels(entropies, level_widths(table), weights, size_factor, image_hw)


def weigh_levels(
    entropies: Floats,
    widths: Floats,
    weights: tuple[float, ...],
    size_factor: SizeFactor,
    image_hw: tuple[int, int],
) -> Floats:
    """Weigh (5, N) level entropies and (5, N) level widths by Eq. 5; see `entropy_score`."""
    if len(weights) != NUM_LEVELS:
        raise ValueError(f"weights are alpha of C1 to C5, five numbers; got {len(weights)}: {weights}")
    score = np.zeros(entropies.shape[1])
    height, width = image_hw
    for level in range(NUM_LEVELS):
        height, width = (height + 1) // 2, (width + 1) // 2
        if not weights[level]:
            continue
        if size_factor == "log-channels":
            term = entropies[level] + _log_table(int(widths[level].max(initial=1)))[widths[level].astype(np.int64)]
        elif size_factor == "map-size":
            term = entropies[level] * (height * width)
        else:
            term = entropies[level]
        score = score + weights[level] * term
    return score


def log_width_score(table: LayerTable, weights: tuple[float, ...] = MULTI_SCALE) -> Floats:
    """Return the released code's formula, (N,): half the sum of log fan-in up to each stage, plus the log of its width.

    It ignores ReLUs, borders, finite width and shortcuts. Reference: alibaba/lightweight-neural-architecture-search,
    score "madnas".
    """
    main = np.flatnonzero(table.role == "main")
    logs = _log_table(int(max(table.in_channels.max(initial=1), table.kernel.max(initial=1))))
    log_fan_in = 2 * logs[table.kernel[main].astype(np.int64)]
    log_fan_in += np.where(table.depthwise[main][:, None], 0.0, logs[table.in_channels[main].astype(np.int64)])
    here = table.repeats[main] > 0  # an absent row's logarithms are minus infinity
    running = (0.5 * np.where(here, log_fan_in, 0.0) * table.repeats[main]).cumsum(axis=0)
    last = [np.flatnonzero(table.level[main] <= level)[-1] for level in range(1, NUM_LEVELS + 1)]
    return weigh_levels(running[last], level_widths(table), weights, "log-channels", (1, 1))


def narrowness(table: LayerTable) -> Floats:
    """Return the sum of 1 / width over the layers of each network, (N,); see `NARROW`."""
    rows = np.flatnonzero(table.role == "main")
    sums: Floats = (table.repeats[rows] / np.maximum(table.out_channels[rows], 1.0)).sum(axis=0)
    return sums


def level_widths(table: LayerTable) -> Floats:
    """Return (5, N) output channels of C1 to C5; a skipped level (ResNet's C1) has those of the one before."""
    widths = np.zeros((NUM_LEVELS, table.repeats.shape[1]))
    for rows in blocks(table):
        width, level = table.out_channels[rows[-1]], table.level[rows[-1]] - 1
        widths[level:] = np.where(table.repeats[rows[-1]] > 0, width, widths[level])
    return widths


def level_entropies(table: LayerTable, *, residual: bool = True, image_hw: tuple[int, int] = (384, 384)) -> Floats:
    """Return H(C1) to H(C5): (5, N) predicted half log-variances of the last pre-activation map of each level."""
    rows = np.flatnonzero(table.role == "main")  # M of them
    block = table.block[rows]
    starts = np.flatnonzero(np.r_[True, np.diff(block) > 0])  # (B,) into `rows`
    ends = np.r_[starts[1:], len(rows)] - 1
    block_of_row = np.cumsum(np.r_[False, np.diff(block) > 0])
    repeats, out_channels = table.repeats[rows], np.maximum(table.out_channels[rows], 1.0)
    here = repeats > 0
    count = repeats[ends].astype(np.int64)  # (B, N)

    log_gain, gain, relu_in = _gains(table, rows, here)
    log_gain_b = _by_block(np.add, log_gain, starts, ends)
    # ReLUs in one repetition of a block (B, 1 or N), and in it before a row (M, 1 or N): the same for all
    # architectures unless some lack a row of a block that they have (an inverted residual without expansion).
    relu = table.relu_out[rows][:, None].astype(np.int64)
    if (here != (count > 0)[block_of_row]).any():
        relu = relu * here
    period = _by_block(np.add, relu, starts, ends)
    before = relu.cumsum(axis=0) - relu
    before -= before[starts][block_of_row]
    passed = period * count
    after = passed.cumsum(axis=0)  # (B, N) ReLUs passed at each block's end
    first = (after - passed)[block_of_row] + before

    # Finite width: the losses at first + t * period for t in [0, count) are a difference of two prefix sums.
    most = 1 << int(after.max(initial=0) + 8).bit_length()
    losses, sums = _loss_tables(most)
    kind = (2 * table.depthwise[rows] + table.relu_out[rows])[:, None]
    if table.depthwise.any():
        kind = kind + 2 * (table.depthwise[rows][:, None] & ~relu_in)
    row_period, turns = period[block_of_row], np.maximum(count - 1, 0)[block_of_row]
    line = (kind * 4 + row_period) * (most + _PAD) + _PAD + first
    summed = sums.ravel().take(line + row_period * turns) - sums.ravel().take(line - row_period)
    if (silent := row_period == 0).any():  # no ReLU in a repetition: the same loss count times
        summed = np.where(silent, losses[kind, first] * (turns + 1), summed)
    mean_loss = summed / ((turns + 1) * out_channels)
    loss = _by_block(np.add, repeats * _narrow(mean_loss), starts, ends)

    extra = _residual_gains(table, rows, starts, ends, gain) if residual else np.zeros_like(log_gain_b)
    variance = (count * (log_gain_b + extra) - loss).cumsum(axis=0)
    # At the last map of a level the variance is read before the ReLU and before the shortcut is added.
    relu_at_end = table.relu_out[rows[ends]][:, None].astype(np.int64)
    at = np.maximum(after - relu_at_end, 0)
    width = out_channels[ends]
    reading = _narrow(losses[relu_at_end, at] / width) - _narrow(losses[0, at] / width) - extra

    borders = border_losses(table, image_hw)
    entropies = np.zeros((NUM_LEVELS, repeats.shape[1]))
    last = np.zeros(repeats.shape[1])
    for index, level in enumerate(table.level[rows[ends]] - 1):
        last = np.where(count[index] > 0, reading[index], last)
        entropies[level:] = 0.5 * (variance[index] + last + borders[level])
    return entropies


def _by_block(operation: np.ufunc, values: NDArray[Any], starts: Ints, ends: Ints) -> NDArray[Any]:
    """Return (B, N) rows starts[b] to ends[b] of (M, N) values joined by `operation`; reduceat, but faster."""
    joined = values[starts]
    for offset in range(1, int((ends - starts).max()) + 1):
        longer = np.flatnonzero(starts + offset <= ends)
        joined[longer] = operation(joined[longer], values[starts[longer] + offset])
    return joined


def _narrow(loss: Floats) -> Floats:
    """Return the loss of a narrow layer from its first-order term.

    A positive mean of n of relative variance v loses v/2 of its logarithm to first order, and log(1 + v)/2 if it is
    log-normal; here by its rational approximation, which needs no logarithm.
    """
    return loss / (1.0 + loss)


def _gains(table: LayerTable, rows: Ints, here: NDArray[np.bool_]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return, each (M, N): log of a layer's variance gain (0 if absent), the gain (1 if absent), a ReLU before it.

    The last is (M, 1) where it is the same for all architectures.
    """
    kernel, channels = table.kernel[rows], table.in_channels[rows]
    dense = ~table.depthwise[rows][:, None]
    logs = _log_table(int(max(channels.max(initial=1), kernel.max(initial=1))))
    log_gain = 2 * logs[kernel.astype(np.int64)] + np.where(dense, logs[channels.astype(np.int64)], 0.0)
    relu_in = table.relu_in[rows][:, None]  # (M, 1), or (M, N) where architectures differ
    # A row whose predecessor in the block is absent reads what that one would have read.
    same_block = np.r_[False, np.diff(table.block[rows]) == 0]
    for row in np.flatnonzero(same_block & np.r_[False, (here[1:] & ~here[:-1]).any(axis=1)]):
        if relu_in.shape != here.shape:
            relu_in = np.repeat(relu_in, here.shape[1], axis=1)
        relu_in[row] = np.where(here[row - 1], relu_in[row], relu_in[row - 1])
    gates = np.isin(table.block[rows], table.block[table.role == "gate"]) & table.depthwise[rows]
    halvings = relu_in + 2.0 * gates[:, None]
    log_gain = np.where(here, log_gain - halvings * _LOG2, 0.0)
    gain = np.where(here, kernel * kernel * np.where(dense, channels, 1.0) * _HALF_POWERS[halvings.astype(int)], 1.0)
    return log_gain, gain, relu_in


def _residual_gains(table: LayerTable, rows: Ints, starts: Ints, ends: Ints, gain: Floats) -> Floats:
    """Return (B, N) log(1 + shortcut / main) of one repetition of each block."""
    last = rows[ends]
    shortcut = table.skip[last].copy()
    for row in np.flatnonzero(table.role == "shortcut"):
        index = np.searchsorted(table.block[last], table.block[row])
        shortcut[index] += (table.repeats[row] > 0) * table.in_channels[row]
    # A stream that ends in a ReLU carries half its variance as mean square.
    shortcut *= np.where(table.relu_out[last], 0.5, 1.0)[:, None]
    ratio: Floats = shortcut / _by_block(np.multiply, gain, starts, ends)
    return 2 * ratio / (2 + ratio)  # log1p to third order; the ratio is below 0.01


_LOG2 = exact.log(2.0)
_PAD = 4  # room in front of the prefix sums for the term before the first


_HALF_POWERS = np.array([1.0, 0.5, 0.25, 0.125])


@lru_cache(maxsize=8)
def _loss_tables(most: int) -> tuple[Floats, Floats]:
    """Return the losses of log-variance times width, by kind of layer and by the number of ReLUs before it.

    Returns:
        (6, most) losses, and (6, 4, most + pad) their prefix sums with strides 0 (unused) to 3. The kinds are
        0 linear, 1 followed by a ReLU, 2 and 3 the same for depthwise layers behind a ReLU, 4 and 5 for depthwise
        layers behind a linear map.
    """
    losses = np.zeros((6, most))
    correlation = 0.0
    for relus in range(most):
        theta = exact.arccos(min(correlation, 1.0))
        square = correlation * correlation
        sine = math.sqrt(max(1.0 - square, 0.0))
        degree_two = (3 * sine * correlation + (math.pi - theta) * (1 + 2 * square)) / (2 * math.pi)
        covariance = degree_two - 0.25
        losses[:2, relus] = square, 2 * covariance
        losses[2:4, relus] = losses[:2, relus] * (1 + 4 * covariance)
        losses[4:, relus] = losses[:2, relus] * (1 + 2 * square)
        correlation = (sine + (math.pi - theta) * correlation) / math.pi
    sums = np.zeros((6, 4, most + _PAD))
    for period in (1, 2, 3):
        for relus in range(most):
            sums[:, period, relus + _PAD] = losses[:, relus] + sums[:, period, relus + _PAD - period]
    return losses, sums


@lru_cache(maxsize=32)
def _log_table_of(size: int) -> Floats:
    return exact.log_table(size)


def _log_table(largest: int) -> Floats:
    """Return the natural logarithms of 0 (minus infinity) to at least `largest`."""
    return _log_table_of(1 << (largest + 1).bit_length())
