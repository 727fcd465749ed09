"""The same images with the same boxes in every layout that is read."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nasray.data.image_files.images import encode_png

CLASSES = ("cat", "dog")  # in the order that VOC's names are sorted in
IMAGE_HW = (64, 128)  # of which every pixel is an exact share


def made_images(count=4, seed=0):
    """Images as PNG, (class, box xyxy in whole pixels) of each; the last image has none."""
    generator = np.random.default_rng(seed)
    images, height, width = [], *IMAGE_HW
    for index in range(count):
        pixels = generator.integers(0, 256, (3, height, width), dtype=np.uint8)
        objects = []
        for number in range(0 if index == count - 1 else index % 3 + 1):
            left, top = generator.integers(0, (width // 2, height // 2)).tolist()
            right, bottom = left + int(generator.integers(8, 60)), top + int(generator.integers(8, 30))
            objects.append(((index + number) % 2, (left, top, right, bottom)))
            pixels[:, top:bottom, left:right] = 40 + 150 * objects[-1][0]
        images.append((encode_png(pixels), objects))
    return images


def write_coco_set(root, splits):
    """Write annotations/NAME.json and images/NAME/."""
    for name, images in splits.items():
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
        for index, (encoded, objects) in enumerate(images):
            file = _write(root / "images" / name / f"{index:03d}.png", encoded)
            content["images"].append({"id": index, "file_name": file.name, "height": IMAGE_HW[0], "width": IMAGE_HW[1]})
            for label, (left, top, right, bottom) in objects:
                content["annotations"].append({
                    "id": len(content["annotations"]) + 1, "image_id": index, "category_id": label + 1,
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                })  # fmt: skip
        _write(root / "annotations" / f"{name}.json", json.dumps(content).encode())


def write_voc_set(root, splits):
    """Write Annotations/, ImageSets/Main/ and JPEGImages/."""
    for name, images in splits.items():
        stems = [f"{name}-{index:03d}" for index in range(len(images))]
        _write(root / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{stem}\n" for stem in stems).encode())
        for stem, (encoded, objects) in zip(stems, images, strict=True):
            _write(root / "JPEGImages" / f"{stem}.png", encoded)
            annotation = ElementTree.Element("annotation")
            _element(annotation, "size", height=IMAGE_HW[0], width=IMAGE_HW[1])
            for label, (left, top, right, bottom) in objects:
                item = _element(annotation, "object", name=CLASSES[label], difficult=0)
                _element(item, "bndbox", xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
            _write(root / "Annotations" / f"{stem}.xml", ElementTree.tostring(annotation))


def write_yolo_set(root, splits):
    """Write data.yaml, images/NAME/ and labels/NAME/."""
    height, width = IMAGE_HW
    for name, images in splits.items():
        for index, (encoded, objects) in enumerate(images):
            _write(root / "images" / name / f"{index:03d}.png", encoded)
            lines = [
                f"{label} {(left + right) / 2 / width!r} {(top + bottom) / 2 / height!r} {(right - left) / width!r} "
                f"{(bottom - top) / height!r}\n"
                for label, (left, top, right, bottom) in objects
            ]
            if lines:  # an image without label file is background
                _write(root / "labels" / name / f"{index:03d}.txt", "".join(lines).encode())
    entries = "".join(f"{name}: images/{name}\n" for name in splits)
    _write(root / "data.yaml", f"path: .\n{entries}names: {{0: cat, 1: dog}}\n".encode())


NAMES = {"train": "train", "val": "validation", "test": "test"}


def hugging_face_rows(images):
    """Rows as `datasets` holds them."""
    rows = []
    for index, (encoded, objects) in enumerate(images):
        boxes = [[left, top, right - left, bottom - top] for _, (left, top, right, bottom) in objects]
        rows.append({
            "image": {"bytes": encoded, "path": f"{index:03d}.png"}, "image_id": index, "width": IMAGE_HW[1],
            "height": IMAGE_HW[0], "objects": {
                "id": list(range(len(boxes))), "bbox": boxes, "category": [label for label, _ in objects],
                "area": [width * height for _, _, width, height in boxes],
            },
        })  # fmt: skip
    return rows


def hugging_face_schema(category=None, names=CLASSES):
    """The schema that `datasets` gives such rows, with its metadata."""
    box = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "List"}
    label = {"names": list(names), "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    features = {"image": {"_type": "Image"}, "objects": {
        "id": {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"},
        "bbox": {"feature": box, "_type": "List"}, "category": {"feature": label, "_type": "List"},
    }}  # fmt: skip
    return pa.schema({
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "image_id": pa.int64(), "width": pa.int32(),
        "height": pa.int32(), "objects": pa.struct({
            "id": pa.list_(pa.int64()), "bbox": pa.list_(pa.list_(pa.float32(), 4)),
            "category": pa.list_(category or pa.int64()), "area": pa.list_(pa.int64()),
        }),
    }, metadata={"huggingface": json.dumps({"info": {"features": features}})})  # fmt: skip


def write_hugging_face_set(root, splits, rows_per_file=2):
    """Write data/NAME-00000-of-00002.parquet and so on."""
    (root / "data").mkdir(parents=True)
    for name, images in splits.items():
        rows = hugging_face_rows(images)
        total = -(-len(rows) // rows_per_file)
        for number in range(total):
            table = pa.Table.from_pylist(rows[number * rows_per_file :][:rows_per_file], hugging_face_schema())
            pq.write_table(table, root / "data" / f"{NAMES[name]}-{number:05d}-of-{total:05d}.parquet")


def _element(parent, tag, **texts):
    element = ElementTree.SubElement(parent, tag)
    for name, text in texts.items():
        ElementTree.SubElement(element, name).text = str(text)
    return element


def _write(path, content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
