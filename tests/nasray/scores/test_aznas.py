import math

import numpy as np
import pytest
import torch
from torch import nn

from nasray.models import build
from nasray.scores.aznas import (
    az_components,
    isotropy,
    log_share_below,
    rank_sum,
    reference_score,
    spectral_norm,
    stability,
)
from nasray.scores.weights import random_images, redrawn
from nasray.spaces import NasrayError
from tests.nasray.scores.common import generator, small

pytestmark = pytest.mark.usefixtures("one_thread")


class Chain(nn.Module):
    """Maps of two convolutions, the second of which halves height and width."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, images):
        first = self.first(images)
        return [first, self.second(first)]


def entropy_by_hand(features):
    """Of the eigenvalues of the covariance of (B, C, H, W) features, over all positions."""
    rows = features.double().numpy().transpose(0, 2, 3, 1).reshape(-1, features.shape[1])
    eigenvalues = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    shares = eigenvalues / eigenvalues.sum()
    return -sum(share * math.log(share) for share in shares if share > 0)


def test_isotropy_is_the_entropy_of_principal_components():
    features = torch.randn(3, 5, 4, 6, generator=generator()) * torch.tensor([1.0, 2, 3, 4, 5])[:, None, None]
    assert isotropy(features) == pytest.approx(entropy_by_hand(features))
    # neither scale, offset nor a rotation of the channels matters
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator(1))).Q
    turned = torch.einsum("ij,bjhw->bihw", rotation, features)
    assert isotropy(3 * turned + 7) == pytest.approx(isotropy(features), rel=1e-5)


def test_isotropy_is_the_logarithm_of_the_dimensions_that_features_fill():
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]]).T[:, 1:, None, None]  # two uncorrelated
    assert isotropy(signs) == pytest.approx(math.log(2))
    assert isotropy(torch.cat([signs, torch.zeros(4, 3, 1, 1)], dim=1)) == pytest.approx(math.log(2))
    assert isotropy(torch.cat([signs[:, :1]] * 4, dim=1)) == pytest.approx(0, abs=1e-6)
    assert isotropy(torch.ones(2, 3, 4, 4)) == 0


@pytest.mark.parametrize(("before_hw", "scale"), [((4, 6), 1), ((8, 12), 2), ((7, 11), 2)])
def test_the_spectral_norm_is_of_the_mean_over_positions(before_hw, scale):
    before = torch.randn(2, 3, *before_hw, generator=generator())
    behind = torch.randn(2, 5, 4, 6, generator=generator(1))
    matrix = np.zeros((3 * scale * scale, 5))
    for image in range(2):
        for y in range(4):
            for x in range(6):
                patch = np.zeros((3, scale, scale))
                seen = before[image, :, scale * y : scale * (y + 1), scale * x : scale * (x + 1)]
                patch[:, : seen.shape[1], : seen.shape[2]] = seen
                matrix += np.outer(patch.ravel(), behind[image, :, y, x]) / 48
    assert spectral_norm(before, behind) == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-6)


def test_the_spectral_norm_of_signs_through_a_convolution_is_its_weights():
    # The transposed Jacobian of a 1x1 convolution is its weight's transpose, at every position.
    weight = torch.randn(6, 4, generator=generator())
    signs = torch.randint(0, 2, (64, 6, 16, 16), generator=generator(1)) * 2.0 - 1.0
    before = torch.einsum("oi,bohw->bihw", weight, signs)
    assert spectral_norm(before, signs) == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=0.02)


def test_stability_is_greatest_where_norms_are_kept():
    assert stability(1.0) == 0
    assert stability(2.0) == stability(0.5) == -0.5
    assert stability(0.0) == -math.inf


def test_components_of_a_chain_by_hand():
    found = az_components(Chain(), generator=generator(3), image_hw=(6, 8), batch_size=2)
    draws = generator(3)
    chain = redrawn(Chain(), draws)
    first, second = chain(random_images(chain, draws, 2, (6, 8)))
    levels = [entropy_by_hand(x.detach()) for x in (first, second)]
    assert found.expressivity == pytest.approx(sum(levels), rel=1e-5)
    assert found.progressivity == pytest.approx(levels[1] - levels[0], rel=1e-4)
    signs = torch.randint(0, 2, second.shape, generator=draws) * 2.0 - 1.0
    weight = chain.second.weight.detach()
    gradient = nn.functional.conv_transpose2d(signs, weight, stride=2, padding=1, output_padding=1)
    assert found.trainability == pytest.approx(stability(spectral_norm(gradient, signs)), rel=1e-5)


def test_deep_maps_are_compared_with_the_one_before():
    class Single(nn.Conv2d):
        def forward(self, images):
            return {"c5": super().forward(images)}

    class Apart(Chain):
        def forward(self, images):
            return [self.first(images), self.second(self.first(images))]

    options = {"generator": generator(), "image_hw": (8, 8), "batch_size": 2}
    with pytest.raises(NasrayError, match="Single has one alone"):
        az_components(Single(3, 4, 1), **options)
    with pytest.raises(NasrayError, match="does not depend on the one before"):
        az_components(Apart(), **options)
    found = az_components(build(small("bottleneck")), **options)
    assert all(map(math.isfinite, found))
    assert found.trainability <= 0


def test_the_rank_sum_of_a_population():
    # Two columns: ranks 1, 2, 3, 4 and 4, 2.5, 2.5, 1 of four.
    found = rank_sum([[1.0, 2, 3, 4], [9.0, 5, 5, -np.inf]])
    expected = [math.log(a / 4) + math.log(b / 4) for a, b in [(1, 4), (2, 2.5), (3, 2.5), (4, 1)]]
    np.testing.assert_allclose(found, expected)
    columns = np.random.default_rng(0).normal(size=(4, 30))
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_allclose(rank_sum(columns[:, order]), rank_sum(columns)[order])
    np.testing.assert_allclose(rank_sum(np.exp(columns)), rank_sum(columns))
    assert rank_sum([[np.nan, 1.0, 2.0]])[0] == pytest.approx(math.log(1 / 3)), "what is not finite is last"


def test_the_score_of_one_network_is_its_own():
    rng = np.random.default_rng(2)
    references, rows = rng.normal(size=(24, 4)), rng.normal(size=(200, 4))
    together = reference_score(rows, references)
    assert together.tolist() == [reference_score(row[None], references)[0] for row in rows]
    assert (together < 0).all()
    for column in range(4):
        better = rows.copy()
        better[:, column] += 0.1
        assert (reference_score(better, references) > together).all()
    scales, shifts = np.array([2.0, 1e-3, 5, 1]), np.array([0.0, -7, 1e3, 2])
    np.testing.assert_allclose(reference_score(rows * scales + shifts, references * scales + shifts), together)
    flat = np.column_stack([references[:, :3], np.ones(24)])
    np.testing.assert_allclose(reference_score(rows, flat), reference_score(rows[:, :3], flat[:, :3]))


def test_the_share_below_is_the_normal_distributions():
    assert log_share_below(0.0) == pytest.approx(math.log(0.5))
    assert log_share_below(-1.959963984540054) == pytest.approx(math.log(0.025))
    z = torch.tensor([-40.0, -30.0, -29.9, -5.0, 3.0], dtype=torch.float64)
    found = [log_share_below(value) for value in z.tolist()]
    np.testing.assert_allclose(found, torch.special.log_ndtr(z).numpy(), rtol=1e-5)
