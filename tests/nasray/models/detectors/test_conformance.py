"""What every detector keeps to. A new one joins by its line in the registry."""

import copy
import io
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from nasray.detector_export import RawOutputs
from nasray.export_check import detection_differences
from nasray.models.detectors import DETECTORS, build_detector
from nasray.spaces import NasrayError
from tests.nasray.models.detectors.common import (
    IMAGE_HW,
    STEPS,
    EndToEnd,
    ap50,
    detect,
    export,
    framed,
    overfit,
    run,
    shapes_batch,
    tiny_backbone,
    tiny_detector,
    total_loss,
    without_boxes,
)

pytestmark = pytest.mark.usefixtures("one_thread")
each_detector = pytest.mark.parametrize("name", list(DETECTORS))
WAITS = {"faster-rcnn": 5, "mask-rcnn": 7}
"""How often the host waits for a GPU in the losses of two images; else once."""


@pytest.fixture(scope="module")
def batch():
    return shapes_batch()


def members(*slow):
    """Names of all detectors, of which some are for the slow tests."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in DETECTORS]


@pytest.fixture(scope="module", params=members("faster-rcnn", "mask-rcnn"))
def trained(request, one_thread):
    """A detector that was trained on a batch, its losses, and the batch. Not to be changed: take a copy."""
    detector = tiny_detector(request.param)
    batch = shapes_batch(image_hw=IMAGE_HW.get(request.param, (96, 96)))
    losses = overfit(detector, *batch, steps=STEPS.get(request.param, 100))
    return detector, losses, batch


def gradients(detector, images, targets):
    detector.zero_grad()
    loss = total_loss(detector, images, targets)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in detector.named_parameters()}


# ---- trained ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_learned_by_heart(trained):
    detector, losses, (images, targets) = trained
    assert sum(losses[10:13]) < sum(losses[:3])
    assert ap50(detect(detector, images), targets) > 0.9


def test_detections_keep_to_the_contract(trained, batch):
    detector = copy.deepcopy(trained[0])
    detector.max_detections = 7  # fewer than there are
    image_hw = torch.tensor([[96, 96], [80, 64], [33, 96], [96, 50]])
    boxes, scores, labels, masks = detect(detector, batch[0][:4], image_hw)
    assert boxes.shape == (4, 7, 4)
    assert scores.shape == labels.shape == (4, 7)
    assert boxes.dtype == scores.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores.diff(dim=1) <= 0).all()
    assert ((labels >= 0) & (labels < 3)).all()
    assert (boxes >= 0).all()
    assert (boxes[..., 0::2] <= image_hw[:, None, 1:]).all()
    assert (boxes[..., 1::2] <= image_hw[:, None, :1]).all()
    assert (scores > detector.score_threshold).any()
    assert not ((scores > 0) & (scores <= detector.score_threshold)).any()
    thick = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    assert thick[scores > 0].all(), "what lies wholly in the padding is no detection"
    if masks is not None:
        assert masks.shape[:2] == (4, 7)
        assert ((masks >= 0) & (masks <= 1)).all()


def test_more_detections_than_candidates_are_padded(trained):
    detector = copy.deepcopy(trained[0])
    detector.max_detections = 3000
    boxes, scores, labels, _ = detect(detector, torch.zeros(1, 3, 64, 32))
    assert boxes.shape == (1, 3000, 4)
    assert scores[0, -1] == 0
    assert labels.shape == (1, 3000)


def test_an_image_in_a_batch_is_as_alone(trained, batch):
    detector, images = trained[0], batch[0]
    together = detect(detector, images)
    for index in (0, 5):
        alone = detect(detector, images[index : index + 1])
        sure = together.scores[index] > 0.3
        torch.testing.assert_close(alone.scores[0], together.scores[index], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.boxes[0][sure], together.boxes[index][sure], atol=1e-2, rtol=0)
        assert torch.equal(alone.labels[0][sure], together.labels[index][sure])


def test_state_survives_a_file(trained, batch):
    detector, images = trained[0], batch[0][:2]
    file = io.BytesIO()
    torch.save(detector.state_dict(), file)
    file.seek(0)
    other = tiny_detector(other_name(detector), seed=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    for ours, theirs in zip(detect(detector, images), detect(other, images), strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)


DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]


@each_detector
@pytest.mark.parametrize("device", DEVICES)
def test_a_device_computes_what_the_cpu_does(name, device, batch, exact_on_gpus):
    images, targets = batch[0][:4], batch[1][:4]
    losses, scores = [], []
    for where in ("cpu", device):
        detector = tiny_detector(name, score_threshold=0.0).train().to(where)
        moved = [{key: value.to(where) for key, value in one.items()} for one in targets]
        found = detector(images.to(where), moved, generator=torch.Generator().manual_seed(0))
        sum(found.values()).backward()
        assert all(torch.isfinite(one.grad).all() for one in detector.parameters() if one.grad is not None)
        losses.append({key: float(value.detach()) for key, value in found.items()})
        with torch.no_grad():
            scores.append(detector.eval()(images.to(where)).scores.cpu())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2, abs=1e-3)
    torch.testing.assert_close(scores[1], scores[0], atol=1e-2, rtol=0)


def other_name(detector):
    return next(name for name, kind in DETECTORS.items() if kind is type(detector))


# By default one of two stages; test_detector_export.py exports one of one stage.
@pytest.mark.parametrize("trained", members(*(DETECTORS.keys() - {"yolof"})), indirect=True, scope="module")
def test_export_finds_the_same_on_images_of_other_sizes(trained, tmp_path):
    detector, _, (learned, _) = trained
    module = EndToEnd(detector)
    session = export(module, tmp_path / "detector.onnx")
    for image_hw in ((96, 64), (197, 170), (530, 40)):
        # What it has learned by heart, cut or in a gray frame: it need not be sure of drawings that it has never seen.
        images = framed(learned[:1], image_hw).float()
        with torch.no_grad():
            ours = [output[0] for output in module(images)]
        theirs = [output[0] for output in run(session, images)]
        assert (ours[1] > 0.05).any() or image_hw != (197, 170), "the whole image is in the frame"
        distances, score = detection_differences(ours, theirs)  # whatever the order of almost the same scores
        assert len(distances) > 0
        assert distances.max() <= 1e-3
        assert score <= 1e-4


@pytest.mark.slow
def test_raw_export_takes_any_number_of_images_of_any_size(trained, tmp_path):
    module = RawOutputs(trained[0])
    session = export(module, tmp_path / "raw.onnx", batch_size=2)
    for num, image_hw in ((1, (96, 64)), (3, (117, 150))):
        images = shapes_batch(num, image_hw, seed=1)[0].float()
        with torch.no_grad():
            expected = module(images)
        found = run(session, images)
        if hasattr(trained[0], "rpn"):
            expected, found = same_proposals(expected, found)
        for ours, theirs in zip(expected, found, strict=True):
            torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=1e-4)


def same_proposals(ours, theirs):
    """Raw outputs of proposals that both have: of equally good ones another may be first, or survive."""
    distance = (ours[0][:, :, None] - theirs[0][:, None]).abs().amax(dim=-1)
    distance += (ours[1][:, :, None] - theirs[1][:, None]).abs() * 100
    nearest, index = distance.min(dim=2)
    same = nearest < 1e-3
    assert same.float().mean() > 0.98
    image = torch.arange(len(index))[:, None].expand_as(index)[same]
    picked = [x[image, index[same]] for x in theirs[:4]]
    return [*(x[same] for x in ours[:4]), *ours[4:]], [*picked, *theirs[4:]]


# ---- fresh -----------------------------------------------------------------------------------------------------------


@each_detector
def test_losses_are_named_finite_scalars(name, batch):
    losses = tiny_detector(name).train()(*batch)
    assert losses
    for key, value in losses.items():
        assert key.startswith("loss_")
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert value > 0
        assert value.requires_grad


@each_detector
@pytest.mark.parametrize("empty", [(0,), (0, 1)], ids=["one", "all"])
def test_images_without_boxes(name, empty, batch):
    images, targets = batch[0][:2], [
        without_boxes(target) if index in empty else target for index, target in enumerate(batch[1][:2])
    ]  # fmt: skip
    loss, slopes = gradients(tiny_detector(name).train(), images, targets)
    assert loss.isfinite()
    for parameter, slope in slopes.items():
        assert slope is not None, f"{parameter}: workers that train side by side would wait for it for ever"
        assert slope.isfinite().all(), parameter


@each_detector
def test_gradients_reach_all_weights(name, batch):
    images, (target, *targets) = batch
    large = {"boxes": torch.tensor([[1, 1, 95, 95.0]]), "labels": torch.tensor([0]), "masks": torch.ones(1, 96, 96) > 0}
    target = {key: torch.cat([value, large[key]]) for key, value in target.items()}  # so that coarse levels have some
    _, slopes = gradients(tiny_detector(name).train(), images, [target, *targets])
    for parameter, slope in slopes.items():
        assert slope is not None, parameter
        assert slope.isfinite().all(), parameter
        assert slope.dim() < 2 or slope.any(), parameter


@each_detector
def test_same_seed_same_gradients(name, batch):
    (loss, slopes), (again, slopes_again) = (
        gradients(tiny_detector(name).train(), batch[0][:2], batch[1][:2]) for _ in range(2)
    )
    assert torch.equal(loss, again)
    for parameter, slope in slopes.items():
        assert torch.equal(slope, slopes_again[parameter]), parameter


@each_detector
def test_bfloat16(name, batch):
    images, targets = batch[0][:2], batch[1][:2]
    detector = tiny_detector(name).train()
    exact = total_loss(detector, images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss, slopes = gradients(detector, images, targets)
        detections = detect(detector, images)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact.detach(), rtol=0.05, atol=0)
    assert all(slope.isfinite().all() for slope in slopes.values())
    assert detections.boxes.dtype == detections.scores.dtype == torch.float32


@each_detector
def test_channels_last_computes_the_same(name, batch):
    images, targets = batch[0][:2], batch[1][:2]
    detector = tiny_detector(name).train()
    loss, slopes = gradients(detector, images, targets)
    detector.to(memory_format=torch.channels_last)
    loss_last, slopes_last = gradients(detector, images.contiguous(memory_format=torch.channels_last), targets)
    torch.testing.assert_close(loss_last, loss, rtol=1e-4, atol=0)
    for parameter, slope in slopes.items():
        torch.testing.assert_close(
            slopes_last[parameter], slope, rtol=1e-2, atol=1e-3 * slope.abs().max().item() + 1e-6
        )


@each_detector
def test_a_frozen_backbone_keeps_its_statistics(name, batch):
    detector = tiny_detector(name).train()
    detector.backbone.eval().requires_grad_(False)
    before = {key: value.clone() for key, value in detector.backbone.state_dict().items()}
    _, slopes = gradients(detector, batch[0][:2], batch[1][:2])
    assert all((slope is None) == key.startswith("backbone.") for key, slope in slopes.items())
    assert all(torch.equal(before[key], value) for key, value in detector.backbone.state_dict().items())
    assert any(isinstance(module, _BatchNorm) for module in detector.backbone.modules())


@each_detector
def test_distributed_data_parallel(name, batch, tmp_path):
    images, targets = batch[0][:2], batch[1][:2]
    detector = tiny_detector(name).train()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(detector)
        for _ in range(2):  # a parameter without gradient would be found in the second pass
            sum(parallel(images, targets).values()).backward()
    finally:
        torch.distributed.destroy_process_group()


@each_detector
def test_losses_hardly_wait_for_a_gpu(name, host_waits, in_a_child):
    waits = in_a_child(partial(host_waits.count_step, name, 2, backward=False))
    assert sum(waits.values()) <= WAITS.get(name, 1), dict(waits)


@pytest.mark.slow
def test_steps_hardly_wait_for_a_gpu(host_waits):
    """Backward passes and the optimizer wait for nothing more; CenterNet's picks its peaks anew."""
    command = [sys.executable, host_waits.__file__, "--batch-size", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert found.keys() == {*DETECTORS, "detnas-supernet"}
    most = WAITS | {"centernet": 2, "detnas-supernet": WAITS["faster-rcnn"]}
    assert all(waits <= most.get(name, 1) for name, waits in found.items()), found


@each_detector
def test_a_backbone_that_does_not_fit_is_refused(name):
    backbone = tiny_backbone()
    backbone.feature_info = backbone.feature_info[:2]
    with pytest.raises(NasrayError, match=r"needs maps of reduction .* lacks"):
        build_detector(name, backbone, 3)
    with pytest.raises(NasrayError, match="num_classes is at least 1, got 0"):
        build_detector(name, tiny_backbone(), 0)
