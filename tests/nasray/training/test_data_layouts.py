"""The same images in every layout that is read: the same boxes, and the same training to the bit."""

import dataclasses

import numpy as np
import pytest

from nasray.checkpoint import Checkpoint
from nasray.data import open_data
from nasray.data.formats.packing import pack_data
from nasray.finding import find_architecture
from nasray.recipe_options import ScheduleOptions
from nasray.training import setup
from nasray.training.folder import Description, create_folder
from tests.nasray.data.layout_sets import (
    made_images,
    write_coco_set,
    write_hugging_face_set,
    write_voc_set,
    write_yolo_set,
)

LAYOUTS = {"coco": write_coco_set, "voc": write_voc_set, "yolo": write_yolo_set, "huggingface": write_hugging_face_set}


@pytest.fixture
def sources(tmp_path):
    """The folder of each set, by its layout; `packed` is what nasray makes of YOLO's."""
    splits = {"train": made_images(), "val": made_images(2, seed=1)}
    for name, write in LAYOUTS.items():
        write(tmp_path / name, splits)
    pack_data(open_data(str(tmp_path / "yolo")).all_splits(), tmp_path / "packed", images_per_shard=3)
    return {name: str(tmp_path / name) for name in (*LAYOUTS, "packed")}


def test_every_layout_gives_the_same_boxes(sources):
    first, *others = (open_data(source) for source in sources.values())
    for name in ("train", "val"):
        one = first.split(name)
        assert len(one.boxes) == {"train": 6, "val": 1}[name]
        for other in (data.split(name) for data in others):
            assert one.classes == other.classes
            for key in ("image_hw", "offsets", "boxes", "labels", "areas", "ignored"):
                np.testing.assert_array_equal(getattr(one, key), getattr(other, key), err_msg=key)
                assert getattr(one, key).dtype == getattr(other, key).dtype
            for index in range(len(one)):
                assert one.files.read(index) == other.files.read(index)


def test_every_layout_gives_the_same_training(sources, recipe, same, tmp_path):
    def weights(name, source):
        mine = dataclasses.replace(
            recipe, data=source, batch_size=2, schedule=ScheduleOptions(epochs=1, milestones=(), warmup_iterations=1)
        )
        dataset = open_data(source).split("train")
        folder = tmp_path / f"trained-{name}"
        of_data = (dataset.classes, dataset.category_ids, dataset.pixel_rules)
        create_folder(folder, Description(mine, find_architecture(mine.backbone), *of_data))
        assert setup.train(mine, folder)["iterations"] == 2
        return Checkpoint.load(folder).model

    first, *others = (weights(name, source) for name, source in sources.items())
    assert all(same(first, other) for other in others)
    (tmp_path / "yolo/labels/train/000.txt").write_text("0 0.5 0.5 0.25 0.25")
    assert not same(first, weights("changed", sources["yolo"]))
