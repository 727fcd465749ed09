import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nasray.data.loader import TrainLoader
from nasray.data.shards import GROUP, pack_data
from nasray.data.source import open_data
from nasray.recipe_options import AugmentationOptions, LoaderOptions
from nasray.spaces import NasrayError

ARRAYS = ("image_ids", "image_hw", "offsets", "boxes", "labels", "areas", "ignored", "annotation_ids")


def assert_same(one, other):
    assert (one.name, one.classes, one.category_ids) == (other.name, other.classes, other.category_ids)
    for key in ARRAYS:
        first, second = getattr(one, key), getattr(other, key)
        assert first.dtype == second.dtype, key
        np.testing.assert_array_equal(first, second, err_msg=key)
    for index in range(len(one)):
        assert one.files.read(index) == other.files.read(index)
    assert (one.segmentations is None) == (other.segmentations is None)
    if one.segmentations is not None:
        assert all(one.segmentations.value(row) == other.segmentations.value(row) for row in range(len(one.boxes)))


def noted(function, notes):
    """The function, which also notes its first argument after `self`."""
    return lambda *args, **options: notes.append(args[1]) or function(*args, **options)


def test_what_is_packed_comes_back(tmp_path):
    source = open_data("shapes")
    pack_data(source.all_splits(), tmp_path / "shards", images_per_shard=30)
    assert len(list((tmp_path / "shards").glob("train-*.parquet"))) == 6
    packed = open_data(str(tmp_path / "shards"))
    assert packed.splits == ("train", "val")
    for name in packed.splits:
        assert_same(packed.split(name), source.split(name))
    assert packed.split("train").files.name(31).endswith("train-00001.parquet, row 1 (shapes train, image 31)")
    (tmp_path / "set.yaml").write_text("format: shards\nroot: shards\n")
    assert open_data(str(tmp_path / "set.yaml")).split("val").read_image(3).shape == (3, 128, 128)


def test_crowds_and_empty_images_come_back(write_coco, tmp_path):
    write_coco(lambda content: content["annotations"][1].update(segmentation=[[1, 1, 5, 1, 5, 5]]))
    source = open_data(str(tmp_path))
    pack_data(source.all_splits(), tmp_path / "shards", images_per_shard=2)
    assert_same(open_data(str(tmp_path / "shards")).split("train"), source.split("train"))


def test_an_image_is_read_without_its_shard(tmp_path, monkeypatch):
    pack_data(open_data("shapes").all_splits(), tmp_path / "shards", images_per_shard=40)
    dataset = open_data(str(tmp_path / "shards")).split("val")
    groups, opened = [], []
    read, opening = pq.ParquetFile.read_row_group, pq.ParquetFile.__init__
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted(read, groups))
    monkeypatch.setattr(pq.ParquetFile, "__init__", noted(opening, opened))
    for index in (5, 39, 6):
        dataset.files.read(index)
    assert groups == [5 // GROUP, 39 // GROUP, 6 // GROUP]
    assert len(opened) == 1
    assert pickle.loads(pickle.dumps(dataset)).files.read(6) == dataset.files.read(6)


def test_loader_processes_read_shards(tmp_path):
    source = open_data("shapes")
    pack_data(source.all_splits(), tmp_path / "shards")
    dataset = open_data(str(tmp_path / "shards")).split("val")
    dataset.files.read(0)  # a file is open before processes fork
    options = {"batch_size": 10, "stride": 32, "seed": 0, "options": LoaderOptions(processes=2)}
    plain = AugmentationOptions(short_side=(64,))
    batches = [TrainLoader(one, plain, **options).epoch(0) for one in (dataset, source.split("val"))]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images)


def test_torn_images_and_full_folders_are_refused(write_coco, tmp_path):
    write_coco()
    with pytest.raises(NasrayError, match="not empty"):
        pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "images")
    torn = tmp_path / "images/1.jpg"
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(NasrayError, match=r"cannot read image .*1\.jpg \(image id 11\)"):
        pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []
    with pytest.raises(NasrayError, match="shards is empty"):
        open_data(str(tmp_path / "shards"))


def test_shards_that_do_not_fit_the_index_are_named(write_coco, tmp_path):
    write_coco()
    pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards", images_per_shard=2)
    first, second = (tmp_path / f"shards/train-0000{number}.parquet" for number in range(2))
    second.write_bytes(first.read_bytes())
    with pytest.raises(NasrayError, match=r"train-00001\.parquet has 2 images, the index says 1"):
        open_data(str(tmp_path / "shards")).split("train")
    second.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(NasrayError, match=r"cannot read shard .*train-00001\.parquet"):
        open_data(str(tmp_path / "shards")).split("train")
    index = tmp_path / "shards/shards.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format": 99}))
    with pytest.raises(NasrayError, match="newer version"):
        open_data(str(tmp_path / "shards"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["cat", "cat"]}, "classes and category_ids must be as many"), ({"classes": "cat"}, "as many"),
        ({"category_ids": ["3", 7]}, "must be a whole number, got '3'"), ({"splits": []}, "is damaged"),
        ({"splits": {"train": [{"file": "a"}]}}, "is damaged: KeyError 'images'"), ({"format": "1"}, "not the index"),
        ({"splits": {"train": [{"file": "gone.parquet", "images": 3}]}}, "cannot read shard .*gone"),
    ],
)  # fmt: skip
def test_an_index_that_is_damaged_is_one_message(write_coco, tmp_path, change, message):
    write_coco()
    pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")
    index = tmp_path / "shards/shards.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(NasrayError, match=message) as error:
        open_data(str(tmp_path / "shards")).split("train")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("labels", [[5, 5], [5], []], "labels of none of its 2 classes"), ("height", [0, 30, 30], "without height"),
     ("boxes", [[0.0] * 8, [0.0] * 4, []], "boxes outside"), ("areas", [[1.0], [1.0], []], "not of one length"),
     ("boxes", [[0.0] * 7, [0.0] * 4, []], "damaged: cannot reshape")],
)  # fmt: skip
def test_columns_that_do_not_fit_are_one_message(write_coco, tmp_path, column, value, message):
    write_coco()
    pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")
    path = tmp_path / "shards/train-00000.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    changed = table.set_column(place, column, pa.array(value, type=table.schema.field(column).type))
    pq.write_table(changed, path, row_group_size=GROUP)
    with pytest.raises(NasrayError, match=message):
        open_data(str(tmp_path / "shards")).split("train")


def test_outlines_that_are_none_are_not_packed(write_coco, tmp_path):
    write_coco(lambda content: content["annotations"][0].update(segmentation=[[1, 2]]))
    with pytest.raises(NasrayError, match=r"annotation 1 of image 1\.jpg"):
        pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")
