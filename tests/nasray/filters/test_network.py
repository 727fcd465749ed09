import numpy as np
import pytest
import torch

from nasray.filters.network import FilterNetwork, ranking_loss
from nasray.spaces import OFAResNetSpace

SPACE = OFAResNetSpace()


def network(**options):
    tokens = SPACE.tokens(SPACE.sample(1, np.random.default_rng(0)))
    return FilterNetwork(
        tokens.vocabulary, 5, torch.from_numpy(tokens.layer), torch.from_numpy(tokens.block), **options
    )


def test_parameters_are_those_of_detofas_description():
    """Embeddings 1,280 and 640, three encoder layers of 99,584, and a head of 16,512 and 129."""
    assert sum(parameter.numel() for parameter in network().parameters()) == 317_313


def brute_force(scores, losses, bucket, margin):
    terms = [
        max(0.0, margin - (scores[i] - scores[j])) ** 2
        for i in range(len(scores))
        for j in range(len(scores))
        if i != j and bucket[i] == bucket[j] and losses[i] <= losses[j]
    ]
    return sum(terms) / max(len(terms), 1)


@pytest.mark.parametrize("seed", range(200))
def test_the_loss_is_the_mean_over_all_pairs(seed):
    """Ties, buckets of one, and empty ones among them."""
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 14))
    logits = torch.from_numpy(rng.normal(0, 3, num))
    losses = torch.from_numpy(rng.integers(0, 5, num).astype(float))
    bucket, margin = torch.from_numpy(rng.integers(0, 4, num)), float(rng.choice([0.5, 1.0]))
    expected = brute_force(logits.sigmoid().tolist(), losses.tolist(), bucket.tolist(), margin)
    assert ranking_loss(logits, losses, bucket, margin=margin).item() == pytest.approx(expected, abs=1e-6)


def test_the_optimum_has_a_quarter_at_each_end():
    """For n ranked architectures s_i = clip(1/2 + (n + 1 - 2i) / n, 0, 1), of which a quarter are 1 and a quarter 0."""
    num = 40
    logits = torch.zeros(num, dtype=torch.float64, requires_grad=True)
    losses, bucket = torch.arange(num, dtype=torch.float64), torch.zeros(num, dtype=torch.long)
    optimizer = torch.optim.LBFGS([logits], max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = ranking_loss(logits, losses, bucket)
        loss.backward()
        return loss

    optimizer.step(closure)
    rank = np.arange(1, num + 1)
    expected = np.clip(0.5 + (num + 1 - 2 * rank) / num, 0.0, 1.0)
    np.testing.assert_allclose(logits.detach().sigmoid().numpy(), expected, atol=0.02)


def test_buckets_condition_the_score_and_positions_count():
    torch.manual_seed(0)
    net = network().eval()
    tokens = torch.from_numpy(SPACE.tokens(SPACE.sample(6, np.random.default_rng(0))).ids)
    low, high = (net(tokens, torch.full((6,), value)) for value in (0, 4))
    assert low.shape == (6,)
    assert not torch.allclose(low, high)
    assert not torch.allclose(net(tokens.flip(1), torch.zeros(6, dtype=torch.long)), low)
    literal = network(literal_positions=True).positions
    assert (literal.std(dim=0) < 1e-3).float().mean() > 0.8  # why it is not the default
    assert (net.positions.std(dim=0) < 1e-3).float().mean() < 0.5


def test_settings_of_table_2():
    """Without its condition the network does not know the bucket; without block positions it has those of layers."""
    torch.manual_seed(0)
    net = network(condition=False).eval()
    tokens = torch.from_numpy(SPACE.tokens(SPACE.sample(6, np.random.default_rng(0))).ids)
    low, high = (net(tokens, torch.full((6,), value)) for value in (0, 4))
    assert torch.equal(low, high)
    both, layers = network().positions, network(block_positions=False).positions
    assert not torch.equal(both, layers)
    assert torch.equal(layers[0, ::2], torch.zeros(64))  # sines of position 0
