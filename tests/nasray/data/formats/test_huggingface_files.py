import pytest

from nasray.data.formats.huggingface_files import find_parquet, parquet_file
from nasray.spaces import NasrayError


def make(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("names", "place", "splits"),
    [
        (["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet",
          "data/validation-00000-of-00001.parquet"], "data", {"train": 2, "val": 1}),
        (["data/train-00000-of-00001-0a1b2c3d4e5f.parquet", "README.md"], "data", {"train": 1}),
        (["train.parquet", "valid.parquet", "test.parquet"], ".", {"train": 1, "val": 1, "test": 1}),
        (["train/0000.parquet", "train/0001.parquet", "dev/0000.parquet"], ".", {"train": 2, "val": 1}),
        (["default/train/0000.parquet"], "default", {"train": 1}),
        (["some-name/train/0000.parquet", "other/x.txt"], "some-name", {"train": 1}),
        (["anything.parquet"], ".", {"train": 1}),
        (["test-1.parquet", "train-1.parquet", "train-2.parquet"], ".", {"train": 2, "test": 1}),
    ],
)  # fmt: skip
def test_files_of_each_split(tmp_path, names, place, splits):
    make(tmp_path, names)
    found = find_parquet(tmp_path)
    assert found is not None
    assert found[0] == place
    assert {name: len(paths) for name, paths in found[1].items()} == splits
    assert list(found[1]) == list(splits)
    assert list(found[1]["train"]) == sorted(found[1]["train"])


def test_files_of_something_else_are_none(tmp_path):
    make(tmp_path, ["history/000012.parquet", "history/000013.parquet", "a.csv"])
    assert find_parquet(tmp_path) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"],
         r"train-00001-of-00003\.parquet of 3 files are missing"),
        (["train-00000-of-00004.parquet"], r"train-00001-of-00004\.parquet and 2 more of 4 files are missing"),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "train-00000-of-00001.parquet"],
         "holds two versions of a split"),
        (["train-00000-of-00001-aaaa.parquet", "train-00000-of-00001-bbbb.parquet"], "2 files of a split of 1"),
        (["train.parquet", "train-00000-of-00001.parquet"], "two versions"),
        (["val.parquet", "validation.parquet"], "'val' and 'validation', which both are the split 'val'"),
        (["train.parquet", "train/0000.parquet"], "'train' and 'train/', which both are the split 'train'"),
        (["data/train.parquet", "val.parquet"], r"two sets, in .*data and .*Pass one of the folders"),
        (["train.parquet", "embeddings.parquet"], r"embeddings\.parquet names no split\. Call it train\.parquet"),
        (["a/train.parquet", "b/train.parquet"], r"holds several sets: a, b\. Pass one, such as .*/a"),
    ],
)  # fmt: skip
def test_files_that_do_not_go_together_are_named(tmp_path, names, message):
    make(tmp_path, names)
    with pytest.raises(NasrayError, match=message):
        find_parquet(tmp_path)


def test_a_single_file_is_a_split(tmp_path):
    names = {"validation.parquet": "val", "pets.parquet": "train", "test-00000-of-00001.parquet": "test"}
    for name, split in names.items():
        assert parquet_file(tmp_path / name) == {split: (tmp_path / name,)}
    with pytest.raises(NasrayError, match=r"is one of 3 files of a split\. Pass the folder .*"):
        parquet_file(tmp_path / "data" / "train-00000-of-00003.parquet")
