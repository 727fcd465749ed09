import numpy as np
import pytest
from PIL import Image

from nasray.data.images import ImageFiles, ImagesInMemory, decode_image, encode_png, stored_size
from nasray.spaces import NasrayError

BLOCKS = np.kron(np.random.default_rng(0).integers(0, 256, size=(3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "LA"), ("BMP", "RGB"),
     ("WEBP", "RGB"), ("TIFF", "RGB")],
)  # fmt: skip
def test_every_kind_of_image_becomes_rgb(tmp_path, form, mode):
    path = tmp_path / "image"
    Image.fromarray(BLOCKS).convert(mode).save(path, form)
    image = decode_image(path.read_bytes(), "image", (24, 32))
    expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(image.numpy().astype(int) - expected).max() <= 2  # decoders may round differently


def test_16_bits_become_8(tmp_path):
    values = BLOCKS[..., 0].astype(np.uint16) * 256 + 255
    Image.fromarray(values).save(tmp_path / "deep.png")
    image = decode_image((tmp_path / "deep.png").read_bytes(), "deep.png")
    assert (image.numpy() == BLOCKS[None, ..., 0]).all()


def test_an_orientation_counts_only_if_the_annotated_size_says_so(encode):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    content = encode(BLOCKS, exif=exif, quality=95)
    as_stored = decode_image(content, "image", (24, 32))
    turned = decode_image(content, "image", (32, 24))
    difference = as_stored.rot90(-1, (1, 2)).int() - turned.int()
    assert difference.abs().max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_a_truncated_image_is_named(form, encode):
    content = encode(BLOCKS, form)
    for length in (0, len(content) // 2):
        with pytest.raises(NasrayError, match=r"cannot read image a/b\.jpg \(image id 7\): .*whole copy") as info:
            decode_image(content[:length], "a/b.jpg (image id 7)")
        assert "\n" not in str(info.value)


def test_what_is_no_image_is_named():
    with pytest.raises(NasrayError, match=r"cannot read image a\.jpg: it is no image\. "):
        decode_image(b"<html>", "a.jpg")


def test_another_size_than_annotated_is_refused(encode):
    with pytest.raises(NasrayError, match="32x24 pixels, but its annotation says 10x10"):
        decode_image(encode(BLOCKS), "image", (10, 10))


def test_png_keeps_pixels():
    pixels = BLOCKS.transpose(2, 0, 1)
    assert (decode_image(encode_png(pixels), "x").numpy() == pixels).all()


def test_missing_files_are_found_by_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"")
    files = ImageFiles(tmp_path, np.array(["a/1.jpg", "a/2.jpg", "b/1.jpg"]))
    assert files.missing().tolist() == [1, 2]


def test_images_in_memory():
    source = ImagesInMemory.of("two", [b"abc", b"d"])
    assert [source.read(0), source.read(1)] == [b"abc", b"d"]
    assert source.name(1) == "two, image 1"


def test_size_from_the_header(tmp_path, encode):
    (tmp_path / "a.jpg").write_bytes(encode(BLOCKS))
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    assert stored_size(tmp_path / "a.jpg") == (24, 32)
    assert stored_size(tmp_path / "b.jpg") is None
