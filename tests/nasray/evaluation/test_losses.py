import math

import pytest
import torch
from torch import nn

from nasray.data import EvaluationLoader, open_data
from nasray.data.classification import ClassificationBatch
from nasray.evaluation.losses import mean_loss
from nasray.models.detectors import DETECTORS
from nasray.recipe import AugmentationOptions, LoaderOptions
from tests.nasray.models.detectors.common import tiny_detector

pytestmark = pytest.mark.usefixtures("one_thread")


def batches(num, size, *, with_masks=False, stride=32):
    dataset = open_data("shapes").split("val")
    dataset = dataset.select(torch.arange(num).numpy())
    return EvaluationLoader(
        dataset,
        AugmentationOptions(short_side=(96,), long_side=96),
        batch_size=size,
        stride=stride,
        options=LoaderOptions(processes=0),
        with_targets=True,
        with_masks=with_masks,
    )


@pytest.mark.parametrize("name", list(DETECTORS))
def test_it_is_that_of_the_batches_and_a_function_of_the_seed(name):
    detector = tiny_detector(name).eval()
    images = batches(5, 2, with_masks=detector.learns_masks, stride=detector.stride)
    generator, total = torch.Generator().manual_seed(7), 0.0
    with torch.no_grad():
        for batch in images:
            losses = detector.loss(batch.images, batch.targets, generator)
            total += sum(loss.double().item() for loss in losses.values()) * len(batch.images)
    state = torch.get_rng_state()
    found = mean_loss(detector, images, seed=7)
    assert found == pytest.approx(total / 5, rel=1e-12)
    assert math.isfinite(found)
    assert found > 0
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert mean_loss(detector, images, seed=7) == found
    assert not detector.training


def test_losses_that_sample_draw_from_the_seed():
    detector = tiny_detector("faster-rcnn").eval()
    found = {mean_loss(detector, batches(4, 4), seed=seed) for seed in range(3)}
    assert len(found) == 3


class Constant(nn.Module):
    """A loss that is the first label of the batch."""

    def forward(self, images, targets, generator=None):
        return {"loss_a": targets[0].float() / 2, "loss_b": targets[0].float() / 2}


def test_every_image_counts_the_same():
    labels = (torch.tensor([1, 9, 9]), torch.tensor([5]))
    both = [ClassificationBatch(torch.zeros(len(one), 3, 4, 4, dtype=torch.uint8), one, one) for one in labels]
    assert mean_loss(Constant(), both) == (3 * 1 + 5) / 4
    assert math.isnan(mean_loss(Constant(), []))
