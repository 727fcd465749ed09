import torch

from nasray.data.examples import moved_targets


def test_targets_are_moved_whatever_is_learned():
    labels = torch.tensor([2, 0, 1])
    assert torch.equal(moved_targets(labels, torch.device("cpu")), labels)
    boxes = [{"boxes": torch.ones(2, 4), "labels": torch.zeros(2)}, {"boxes": torch.ones(0, 4)}]
    on_meta = moved_targets(boxes, torch.device("meta"))
    assert [{name: tuple(value.shape) for name, value in one.items()} for one in on_meta] == [
        {"boxes": (2, 4), "labels": (2,)}, {"boxes": (0, 4)},
    ]  # fmt: skip
    assert all(value.is_meta for one in on_meta for value in one.values())
