"""What headers say, how a data set says otherwise, and that everything goes by one rule."""

import json

import numpy as np
import pytest

from nasray.data import check_data, describe_check, open_data, pack_data
from nasray.data.image_files.pixels import PixelRules
from nasray.spaces import NasrayError
from tests.nasray.data.pictures import as_stored, deep_png, encode, exif, picture, tiff

BLOCKS = picture()
SQUARE = picture(24, 24)


@pytest.fixture
def write_set(tmp_path):
    """Write a COCO set of images with one box each: name to (content, annotated height and width)."""

    def write(images, keys=""):
        (tmp_path / "images").mkdir(exist_ok=True)
        records, boxes = [], []
        for number, (name, (content, image_hw)) in enumerate(images.items(), start=1):
            (tmp_path / "images" / name).write_bytes(content)
            size = {} if image_hw is None else {"height": image_hw[0], "width": image_hw[1]}
            records.append({"id": number, "file_name": name, **size})
            boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [2, 3, 8, 9]})
        content = {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
        (tmp_path / "train.json").write_text(json.dumps(content))
        path = tmp_path / "set.yaml"
        path.write_text(f"format: coco\ntrain: {{images: images, annotations: train.json}}\n{keys}")
        return str(path)

    return write


def turned(pixels, orientation):
    return encode(as_stored(pixels, orientation), "PNG", exif=exif(orientation))


def test_turned_images_are_counted_and_the_rule_is_said(write_set):
    source = write_set({
        "a.png": (turned(BLOCKS, 6), (24, 32)), "b.png": (turned(BLOCKS, 3), (24, 32)),
        "c.png": (turned(SQUARE, 8), (24, 24)), "d.png": (encode(BLOCKS, "PNG"), (24, 32)),
    })  # fmt: skip
    report = check_data(source)
    assert report["errors"] == report["warnings"] == 0
    assert report["splits"]["train"]["turned_images"] == {"upright": 1, "both": 2}
    assert ("reading: 3 images are turned by EXIF, read upright (the default); by their annotated size "
            "1 fit upright only, 2 fit both ways") in describe_check(report)  # fmt: skip


def test_sets_whose_sizes_do_not_tell_are_said_to_be_undecided(write_set):
    text = describe_check(check_data(write_set({"a.png": (turned(SQUARE, 6), (24, 24))})))
    assert "only a look at the images tells (`orientation`)" in text


def test_sizes_of_stored_pixels_name_the_option_and_with_it_are_right(write_set):
    images = {"a.png": (turned(BLOCKS, 6), (32, 24)), "b.png": (turned(BLOCKS, 1), (24, 32))}
    source = write_set(images)
    assert "other-size" in check_data(source)["splits"]["train"]["defects"]
    with pytest.raises(NasrayError, match=r"'train', cannot be used: .*a\.png .*`orientation: stored`"):
        open_data(source).split("train")
    source = write_set(images, "orientation: stored\n")
    report = check_data(source)
    assert report["errors"] == 0
    assert "read stored (as the data set says)" in describe_check(report)
    dataset = open_data(source).split("train")
    assert (dataset.read_image(0).permute(1, 2, 0).numpy() == as_stored(BLOCKS, 6)).all()


@pytest.mark.parametrize(("keys", "expected"), [("", (24, 32)), ("orientation: stored\n", (32, 24))])
def test_sizes_that_are_not_annotated_follow_the_rule(write_set, keys, expected):
    dataset = open_data(write_set({"a.png": (turned(BLOCKS, 5), None)}, keys)).split("train")
    assert tuple(dataset.image_hw[0]) == tuple(dataset.read_image(0).shape[1:]) == expected


def test_swapped_sizes_are_found_without_decoding(write_set):
    defects = check_data(write_set({"a.png": (encode(BLOCKS, "PNG"), (32, 24))}))["splits"]["train"]["defects"]
    assert "width and height are swapped" in defects["other-size"]["messages"][0]


def test_deep_images_are_said_and_12_bits_are_found_without_decode(write_set):
    shares = BLOCKS / 255
    images = {"a.png": (deep_png(np.rint(shares * 4095).astype(np.uint16)), (24, 32)),
              "b.tif": (tiff(np.rint(shares[..., 0] * 4095).astype(np.uint16)), (24, 32)),
              "c.png": (encode(BLOCKS, "PNG"), (24, 32))}  # fmt: skip
    source = write_set(images)
    split = check_data(source)["splits"]["train"]
    assert (split["deep_images"], split["defects"]["value-range"]["count"]) == (2, 2)
    with pytest.raises(NasrayError, match="it is of 12 bits or very dark"):
        open_data(source).split("train")
    source = write_set(images, "value_range: [0, 4095]\n")
    assert "2 images have more than 8 bits: 0 becomes 0 and 4095 255" in describe_check(check_data(source))
    dataset = open_data(source).split("train")
    assert (dataset.read_image(0).permute(1, 2, 0).numpy() == BLOCKS).all()
    assert (dataset.read_image(1)[2].numpy() == BLOCKS[..., 0]).all()
    assert (dataset.read_image(2).permute(1, 2, 0).numpy() == BLOCKS).all()


def test_files_with_several_frames_are_said(write_set):
    from PIL import Image

    frames = [Image.fromarray(BLOCKS), Image.fromarray(255 - BLOCKS)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    defects = check_data(write_set({"a.gif": (content, (24, 32))}))["splits"]["train"]["defects"]
    assert {kind: defect["severity"] for kind, defect in defects.items()} == {"frames": "warning"}


def test_headers_that_are_none_are_found_without_decoding(write_set):
    images = {"a.png": (b"", (24, 32)), "b.jpg": (b"<html>", (24, 32)), "c.png": (encode(BLOCKS, "PNG"), (24, 32))}
    messages = check_data(write_set(images))["splits"]["train"]["defects"]["unreadable-image"]["messages"]
    assert ["the file is empty" in messages[0], "it is no image" in messages[1], len(messages)] == [True, True, 2]


@pytest.mark.parametrize(
    ("keys", "message"),
    [("orientation: sideways", "orientation.*upright"), ("value_range: [1, 1]", "value_range must be two finite"),
     ("value_range: [0, .nan]", "value_range"), ("value_range: 5", "value_range"), ("value_range: [0]", "value_range")],
)  # fmt: skip
def test_rules_that_are_none_are_refused(write_set, keys, message):
    with pytest.raises(NasrayError, match=message) as info:
        open_data(write_set({}, keys + "\n"))
    assert "\n" not in str(info.value)


def test_shards_keep_the_rules(write_set, tmp_path):
    rules = "orientation: stored\nvalue_range: [0, 1023]\n"
    deep = np.rint(as_stored(BLOCKS, 6) / 255 * 1023).astype(np.uint16)
    data = open_data(write_set({"a.png": (deep_png(deep, 6), (32, 24))}, rules))
    pack_data(data.all_splits(), tmp_path / "packed")
    packed = open_data(str(tmp_path / "packed")).split("train")
    assert packed.pixel_rules == PixelRules("stored", (0, 1023))
    assert (packed.read_image(0).permute(1, 2, 0).numpy() == as_stored(BLOCKS, 6)).all()
    (tmp_path / "packed.yaml").write_text("format: huggingface\nroot: packed\norientation: upright\n")
    with pytest.raises(NasrayError, match="Leave orientation and value_range out"):
        open_data(str(tmp_path / "packed.yaml")).read("train")


def test_voc_takes_the_rules_too(tmp_path):
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    (tmp_path / "voc/JPEGImages/a.png").write_bytes(turned(BLOCKS, 6))
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("a\n")
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    size = "<size><width>24</width><height>32</height></size>"
    (tmp_path / "voc/Annotations/a.xml").write_text(
        f"<annotation>{size}<object><name>cat</name>{box}</object></annotation>"
    )
    with pytest.raises(NasrayError, match="`orientation: stored`"):
        open_data(str(tmp_path / "voc")).split("train")
    (tmp_path / "set.yaml").write_text(
        "format: voc\nroot: voc\norientation: stored\ntrain: {lists: [ImageSets/Main/train.txt]}\n"
    )
    dataset = open_data(str(tmp_path / "set.yaml")).split("train")
    assert (dataset.read_image(0).permute(1, 2, 0).numpy() == as_stored(BLOCKS, 6)).all()
