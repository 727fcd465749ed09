import os
import pickle

import numpy as np
import pytest

from nasray.data.image_files.images import (
    ImageFiles,
    ImagesInMemory,
    SelectedImages,
    load_header,
    load_image,
    stored_size,
)
from nasray.data.image_files.pixels import DEFAULT_RULES, ImageError
from tests.nasray.data.pictures import encode, exif, picture

BLOCKS = picture()


def load(files, index=0):
    return load_image(files, index, files.name(index), None, DEFAULT_RULES)


def test_missing_files_are_found_by_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"")
    files = ImageFiles(tmp_path, np.array(["a/1.jpg", "a/2.jpg", "b/1.jpg"]))
    assert files.missing().tolist() == [1, 2]


def test_images_in_memory():
    source = ImagesInMemory.of("two", [b"abc", b"d"])
    assert [source.read(0), source.read(1)] == [b"abc", b"d"]
    assert source.open(0).read() == b"abc"
    assert source.name(1) == "two, image 1"


def test_size_from_the_header_is_that_of_the_rule(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(BLOCKS, "JPEG", exif=exif(6)))
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    assert stored_size(tmp_path / "a.jpg") == (32, 24)
    assert stored_size(tmp_path / "a.jpg", "stored") == (24, 32)
    assert stored_size(tmp_path / "b.jpg") is None
    assert stored_size(tmp_path / ("c" * 5000)) is None


def test_a_header_is_read_without_the_pixels(tmp_path):
    content = encode(np.random.default_rng(0).integers(0, 256, (500, 400, 3)).astype(np.uint8), "PNG", exif=exif(6))
    (tmp_path / "a.png").write_bytes(content[:2000])  # its pixels are torn off
    files = SelectedImages(ImageFiles(tmp_path, np.array(["b.png", "a.png"])), np.array([1]))
    assert load_header(files, 0, "a").image_hw("upright") == (400, 500)
    with pytest.raises(ImageError):
        load(files)


@pytest.mark.parametrize("name", ["pipe", "folder", "device", "missing.png", "n" * 300, "zero\0byte", "lone\ud800"])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_named_and_nothing_is_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    files = ImageFiles(tmp_path, [name])
    for action in (load, lambda files: load_header(files, 0, "x")):
        with pytest.raises(ImageError, match="cannot read image") as info:
            action(files)
        assert "\n" not in str(info.value)


def test_names_that_are_not_utf8_are_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(encode(BLOCKS, "PNG"))
    assert load(ImageFiles(tmp_path, [name])).shape == (3, 24, 32)


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(ImageError("image a", "other-size")))
    assert (str(error), error.kind) == ("image a", "other-size")
