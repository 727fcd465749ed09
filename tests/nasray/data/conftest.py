import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"


@pytest.fixture
def shared_data():
    """A function that gives the folder of a real data set, or skips the test where it is absent."""

    def folder(name):
        path = (SHARED / name).resolve()
        if not path.is_dir():
            pytest.skip(f"no data set {name} beside the repository")
        return path

    return folder


def encoded(pixels, form="JPEG", **options):
    """An (H, W, 3) array as a file's bytes."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def encode():
    """A function that gives an (H, W, 3) array as a file's bytes."""
    return encoded


@pytest.fixture
def write_coco(tmp_path):
    """A function that writes a set of three 40x30 images, one of them without boxes, after changing its JSON."""

    def write(change=lambda content: None, name="train"):
        for folder in ("images", "annotations"):
            (tmp_path / folder).mkdir(exist_ok=True)
        images, annotations = [], []
        for index in range(3):
            path = tmp_path / "images" / f"{index}.jpg"
            path.write_bytes(encoded(np.full((30, 40, 3), 50 * index)))
            images.append({"id": 10 + index, "file_name": path.name, "height": 30, "width": 40})
        for number, image_id, category, box in ((1, 11, 7, [1, 2, 3, 4]), (2, 10, 3, [5.5, 6, 10, 10]),
                                                (5, 10, 7, [0, 0, 40, 30])):  # fmt: skip
            annotations.append({"id": number, "image_id": image_id, "category_id": category, "bbox": box,
                                "area": 7.5, "iscrowd": int(number == 5)})  # fmt: skip
        categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        change(content)
        path = tmp_path / "annotations" / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    return write
