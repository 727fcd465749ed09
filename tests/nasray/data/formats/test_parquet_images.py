import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nasray.data.formats.parquet_images import BATCH, describe_groups, images_of, open_parquet
from nasray.data.image_files.images import ImageFiles
from nasray.data.mapped import Texts
from nasray.spaces import NasrayError

KIND = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture
def write(tmp_path):
    """A function that writes files of such images and returns them: row groups of `size` rows."""

    def write_files(*contents, size=10, plain=False, **options):
        paths = [tmp_path / f"{number}.parquet" for number in range(len(contents))]
        for path, images in zip(paths, contents, strict=True):
            rows = images if plain else [{"bytes": image, "path": "x"} for image in images]
            table = pa.table({"image": pa.array(rows, type=pa.binary() if plain else KIND)})
            pq.write_table(table, path, row_group_size=size, **options)
        names = Texts.of(["x"] * sum(map(len, contents)))
        column = "image" if plain else "image.bytes"
        return images_of(paths, [open_parquet(path) for path in paths], column, names, is_packed=False)

    return write_files


def numbered(first, count):
    return [str(number).encode() * 50 for number in range(first, first + count)]


@pytest.mark.parametrize("plain", [False, True])
def test_images_of_several_files_and_groups_in_any_order(write, plain):
    images = write(numbered(0, 23), [], numbered(23, 4), [], plain=plain)
    assert images.groups.tolist() == [0, 10, 20, 23, 23, 27, 27]
    for index in (0, 1, 9, 10, 3, 26, 22, 23, 22, 22, 5):
        assert images.read(index) == str(index).encode() * 50
        assert images.open(index).read() == images.read(index)
    assert images.name(24).endswith("2.parquet, row 1 (x)")
    assert pickle.loads(pickle.dumps(images)).read(25) == b"25" * 50


def test_a_group_is_read_on_from_where_it_was_read_last(write, monkeypatch):
    images, begun, read = write(numbered(0, 30)), [], []
    opening = pq.ParquetFile.iter_batches

    def noted(self, *args, **options):
        begun.extend(options["row_groups"])
        for batch in opening(self, *args, **options):
            read.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    for index in range(10, 20):
        images.read(index)
    assert (begun, sum(read)) == ([1], 10)
    images.read(3)
    assert (begun, sum(read)) == ([1, 0], 10 + BATCH)  # no more of the group than up to the image
    images.read(9)
    images.read(0)
    assert begun == [1, 0, 0]


def test_probes_are_the_first_images_of_groups(write):
    images = write(numbered(0, 23), numbered(23, 4), [])
    assert images.probes(50) == [0, 10, 20, 23]
    assert images.probes(2) == [0, 23]


def test_groups_of_many_images_are_said(write):
    assert describe_groups(write(numbered(0, 40), size=31)) is None
    assert "row groups hold up to 39 images" in describe_groups(write(numbered(0, 40), size=39))
    assert describe_groups(ImageFiles(Path(), ["a.jpg"])) is None


def test_rows_without_an_image_are_named(write):
    images = write([b"a", None])
    assert images.read(0) == b"a"
    with pytest.raises(NasrayError, match=r"0\.parquet, row 1 \(x\) holds no image, only its name"):
        images.read(1)


def test_damaged_files_are_one_message(write, tmp_path):
    images = write(numbered(0, 4000), size=4000, compression="none", use_dictionary=False)
    path = tmp_path / "0.parquet"
    content = bytearray(path.read_bytes())
    content[100_000:260_000] = b"\xff" * 160_000
    path.write_bytes(content)
    damaged = pickle.loads(pickle.dumps(images))
    with pytest.raises(NasrayError, match=r"cannot read .*0\.parquet, row 3999 \(x\): .*Get a whole copy") as error:
        damaged.read(3999)
    assert str(error.value).isprintable()
    path.write_bytes(content[:-20])
    with pytest.raises(NasrayError, match=r"0\.parquet is no Parquet file, or a damaged one"):
        pickle.loads(pickle.dumps(images)).read(0)
    path.unlink()
    with pytest.raises(NasrayError, match="not found"):
        pickle.loads(pickle.dumps(images)).read(0)
