"""The device of a name is the one that Ray assigned; PyTorch computes with the threads that an evaluator states."""

import os

import pytest
import torch

from nasray.cluster import resources
from nasray.devices import autocast, choose_device, choose_precision, computing_threads
from nasray.spaces import NasrayError


@pytest.mark.parametrize(
    ("visible", "assigned", "device"),
    [
        (True, None, "cuda"),  # outside of Ray
        (True, ["1"], "cuda"),
        (True, [], "cpu"),  # a trial with gpus: 0 on a machine with GPUs
        (False, None, "cpu"),
        (False, [], "cpu"),
    ],
)
def test_auto_is_the_device_that_ray_assigned(monkeypatch, visible, assigned, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible)
    monkeypatch.setattr(resources, "assigned_gpus", lambda: assigned)
    assert choose_device("auto").type == device
    assert choose_device("cpu").type == "cpu"
    if device == "cpu":
        why = "Ray assigned no GPU to this trial" if assigned == [] else "PyTorch finds no GPU here"
        with pytest.raises(NasrayError, match=why):
            choose_device("cuda")


@pytest.mark.parametrize(("assigned", "expected"), [([], ""), (["3"], "3,4"), (None, "3,4")])
def test_gpus_that_ray_did_not_assign_are_hidden(monkeypatch, assigned, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    monkeypatch.setattr(resources, "assigned_gpus", lambda: assigned)
    resources.hide_unassigned_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_threads_are_set_and_put_back():
    before = torch.get_num_threads()
    for num in (1, 3):
        with computing_threads(num):
            assert torch.get_num_threads() == num
        assert torch.get_num_threads() == before
    with pytest.raises(KeyError), computing_threads(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_a_name_that_is_no_device():
    with pytest.raises(NasrayError, match="device is one of auto, cpu, cuda; got 'tpu'"):
        choose_device("tpu")


def test_precision_is_that_of_the_training_on_gpus_alone():
    for device, expected in (("cuda", "bfloat16"), ("cpu", "float32")):
        assert choose_precision(None, torch.device(device), "bfloat16") == expected
        assert choose_precision("float16", torch.device(device), "bfloat16") == "float16"
    for precision in ("float32", "bfloat16"):
        with autocast(torch.device("cpu"), precision):
            assert str((torch.ones(2, 2) @ torch.ones(2, 2)).dtype) == f"torch.{precision}"
