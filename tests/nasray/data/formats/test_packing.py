import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nasray.data.formats.packing import pack_data
from nasray.data.loader import TrainLoader
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


def test_what_is_packed_comes_back(tmp_path):
    source = open_data("shapes")
    pack_data(source.all_splits(), tmp_path / "shards", images_per_shard=30)
    names = sorted(path.name for path in (tmp_path / "shards" / "data").iterdir())
    assert names[:2] == ["train-00000-of-00006.parquet", "train-00001-of-00006.parquet"]
    assert names[6:] == ["validation-00000-of-00002.parquet", "validation-00001-of-00002.parquet"]
    packed = open_data(str(tmp_path / "shards"))
    assert packed.splits == ("train", "val")
    for name in packed.splits:
        assert_same(packed.split(name), source.split(name))
    (tmp_path / "set.yaml").write_text("format: huggingface\nroot: shards\n")
    assert open_data(str(tmp_path / "set.yaml")).split("val").read_image(3).shape == (3, 128, 128)


def test_crowds_ids_and_boxes_that_sums_would_round_come_back(write_coco, tmp_path):
    def change(content):
        content["annotations"][0].update(bbox=[0.1, 0.7, 3.3, 1e-3], segmentation=[[1, 1, 5, 1, 5, 5]])
        content["annotations"][1].update(segmentation={"size": [30, 40], "counts": [5, 1195]})

    write_coco(change)
    source = open_data(str(tmp_path))
    pack_data(source.all_splits(), tmp_path / "shards", images_per_shard=2)
    packed = open_data(str(tmp_path / "shards"))
    assert_same(packed.split("train"), source.split("train"))
    assert packed.split("train").category_ids == (3, 7)
    table = pq.read_table(tmp_path / "shards" / "data" / "train-00000-of-00002.parquet").to_pylist()
    assert table[1]["objects"]["bbox"] == [pytest.approx([0.1, 0.7, 3.3, 1e-3], rel=1e-9)]
    assert table[0]["objects"]["iscrowd"] == [0, 1]


def test_how_images_are_read_is_packed_too(tmp_path, write_coco):
    write_coco()
    (tmp_path / "set.yaml").write_text(
        "format: coco\norientation: stored\ntrain: {images: images, annotations: annotations/train.json}\n"
    )
    pack_data(open_data(str(tmp_path / "set.yaml")).all_splits(), tmp_path / "shards")
    packed = tmp_path / "packed.yaml"
    packed.write_text("format: huggingface\nroot: shards\nclasses: [dog]\n")
    train = open_data(str(packed)).split("train")
    assert (train.pixel_rules.orientation, train.category_ids, len(train.boxes)) == ("stored", (7,), 2)
    packed.write_text("format: huggingface\nroot: shards\nvalue_range: [0, 5]\n")
    with pytest.raises(NasrayError, match=r"was packed with how its images are read, .*Leave orientation"):
        open_data(str(packed)).read("train")


def test_datasets_reads_what_is_packed_and_writes_what_is_read(tmp_path, write_coco, capsys):
    datasets = pytest.importorskip("datasets")
    write_coco(lambda content: content["annotations"][1].update(segmentation=[[1, 1, 5, 1, 5, 5]]))
    write_coco(name="val")
    source = open_data(str(tmp_path))
    pack_data(source.all_splits(), tmp_path / "shards", images_per_shard=2)
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", data_dir=str(tmp_path / "shards"), cache_dir=cache)
    assert {name: len(split) for name, split in loaded.items()} == {"train": 3, "validation": 3}
    train = loaded["train"]
    category = train.features["objects"]["category"]
    assert getattr(category, "feature", category).names == ["cat", "dog"]
    row = train[1]
    assert row["image"].size == (40, 30)
    assert row["objects"]["bbox"] == [[1, 2, 3, 4]]
    assert train[0]["objects"]["category"] == [0, 1]
    (tmp_path / "again").mkdir()
    for name, split in loaded.items():
        split.to_parquet(str(tmp_path / "again" / f"{name}.parquet"))
    shutil.rmtree(cache)
    again = open_data(str(tmp_path / "again"))
    for name in ("train", "val"):
        one, other = source.split(name), again.split(name)
        assert other.files.name(1).endswith(f"{'train' if name == 'train' else 'validation'}.parquet, row 1 (1.jpg)")
        for key in ARRAYS:
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key), err_msg=key)
        assert [one.files.read(index) for index in range(3)] == [other.files.read(index) for index in range(3)]
    assert again.split("train").segmentations.value(0) == [[1, 1, 5, 1, 5, 5]]


def test_loader_processes_read_packed_images(tmp_path):
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
    with pytest.raises(NasrayError, match=r"images is not empty: it holds 0.jpg"):
        pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "images")
    torn = tmp_path / "images/1.jpg"
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(NasrayError, match=r"cannot read image .*1\.jpg \(image id 11\)"):
        pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards", images_per_shard=1)
    assert list((tmp_path / "shards").iterdir()) == []
    with pytest.raises(NasrayError, match="shards is empty"):
        open_data(str(tmp_path / "shards"))


def test_what_was_not_finished_is_no_data_set(write_coco, tmp_path):
    write_coco()
    pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")
    (tmp_path / "shards" / "data").rename(tmp_path / "shards" / ".incomplete")
    with pytest.raises(NasrayError, match="no layout that nasray knows"):
        open_data(str(tmp_path / "shards"))
    with pytest.raises(NasrayError, match=r"holds what an earlier command did not finish. Empty it"):
        pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")


def test_outlines_that_are_none_are_not_packed(write_coco, tmp_path):
    write_coco(lambda content: content["annotations"][0].update(segmentation=[[1, 2]]))
    with pytest.raises(NasrayError, match=r"annotation 1 of image 1\.jpg"):
        pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")


def test_an_earlier_format_is_refused(tmp_path):
    (tmp_path / "shards.json").write_text("{}")
    with pytest.raises(NasrayError, match=r"packed by an earlier version of nasray. Pack the data set again"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, r"was packed by a newer version of nasray \(format 99\)"),
        ({"format": "3"}, "metadata are damaged: FieldError must be a whole number, got '3'"),
        ({"category_ids": [1]}, "1 category_ids are not one a class"),
        ({"category_ids": ["1", 2]}, "metadata are damaged"),
        ({"pixel_rules": 3}, "metadata are damaged"),
    ],
)  # fmt: skip
def test_damaged_metadata_are_one_message(write_coco, tmp_path, change, message):
    write_coco()
    pack_data(open_data(str(tmp_path)).all_splits(), tmp_path / "shards")
    path = tmp_path / "shards/data/train-00000-of-00001.parquet"
    table = pq.read_table(path)
    packed = json.loads(table.schema.metadata[b"nasray"]) | change
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"nasray": json.dumps(packed)}), path)
    with pytest.raises(NasrayError, match=message) as error:
        open_data(str(tmp_path / "shards")).split("train")
    assert str(error.value).isprintable()
