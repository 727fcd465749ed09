import pytest
import torch
from torch import nn

from nasray.training.averaging import MovingAverage


def test_follows_weights_and_buffers_with_a_decay_that_warms_up():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, decay=0.5)
    assert not average.model.training
    expected = [value.clone() for value in (model[0].weight, model[1].running_mean)]
    for step in range(20):
        with torch.no_grad():
            model[0].weight.fill_(step)
            model[1].running_mean.fill_(-step)
            model[1].num_batches_tracked.add_(1)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        for value, now in zip(expected, (step, -step), strict=True):
            value.copy_(decay * value + (1 - decay) * now)
        assert decay == pytest.approx([0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5][min(step, 8)])
    torch.testing.assert_close(average.model[0].weight, expected[0])
    torch.testing.assert_close(average.model[1].running_mean, expected[1])
    assert average.model[1].num_batches_tracked == 20
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_the_model_itself_is_not_touched():
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    MovingAverage(model, 0.9).update(model)
    assert model.training
    assert model.weight.requires_grad
    assert torch.equal(model.weight, before)
