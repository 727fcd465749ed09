import pytest
import torch

from nasray.checkpoint import Checkpoint
from nasray.recipe import load_recipe
from nasray.spaces import Architecture, NasrayError


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    architecture = Architecture.create("resnet", {"depth": 18})
    state = {"weight": torch.arange(50_000.0), "steps": torch.tensor(3)}
    Checkpoint(load_recipe("shapes-detect"), architecture, ("a",), (1,), state).save(path)
    return path


@pytest.mark.parametrize("shared", [False, True])
def test_a_checkpoint_with_a_flipped_bit_is_refused(checkpoint, shared):
    assert torch.equal(Checkpoint.load(checkpoint, shared=shared).model["weight"], torch.arange(50_000.0))
    whole = checkpoint.read_bytes()
    place = whole.index(torch.arange(50_000.0).numpy().tobytes()[4000:4100])
    for offset in (0, 1, 50, 99):
        damaged = bytearray(whole)
        damaged[place + offset] ^= 1 << offset % 8
        checkpoint.write_bytes(damaged)
        with pytest.raises(NasrayError, match=r"last.pt .*does not have its checksum.*Take another"):
            Checkpoint.load(checkpoint, shared=shared)


@pytest.mark.parametrize("key", ["recipe", "architecture", "classes", "category_ids", "model", "metrics", "iteration",
                                 "training", "format"])  # fmt: skip
@pytest.mark.parametrize("value", [None, "x", 7.5, [None]])
def test_a_checkpoint_of_another_shape_is_refused(checkpoint, key, value):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, key: value}, checkpoint)
    with pytest.raises(NasrayError, match=r"last\.pt") as caught:
        Checkpoint.load(checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 10, 1000, 100_000, -1])
def test_a_checkpoint_that_is_cut_short_is_refused(checkpoint, size):
    checkpoint.write_bytes(checkpoint.read_bytes()[:size])
    with pytest.raises(NasrayError, match=r"last\.pt is no checkpoint, or damaged"):
        Checkpoint.load(checkpoint)
