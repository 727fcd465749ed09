import numpy as np
import pytest
import torch

from nasray.data.classification import ClassificationLoader, check_images, read_image_folder
from nasray.recipe_options import LoaderOptions
from nasray.spaces import NasrayError
from tests.nasray.data.pictures import as_stored, picture, tiff

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def root(tmp_path, encode):
    generator = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for name in ("dog", "cat"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, size=(40, 50, 3))
                (tmp_path / split / name / f"{index}.jpg").write_bytes(encode(pixels))
    return tmp_path


def loader(dataset, seed=0, processes=0, **options):
    options["options"] = LoaderOptions(processes=processes)
    return ClassificationLoader(dataset, image_size=32, batch_size=4, seed=seed, **options)


def test_classes_are_sorted_folders(root):
    (root / "train/.ipynb_checkpoints").mkdir()
    dataset = read_image_folder(root, "train")
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [0] * 5 + [1] * 5
    assert dataset.read_image(7).shape == (3, 40, 50)
    assert check_images(dataset) == []


def test_what_is_wrong_is_named(root):
    for split in ("test", "x" * 300, "a\0"):
        with pytest.raises(NasrayError, match="no folder") as error:
            read_image_folder(root, split)
        assert str(error.value).isprintable()
    (root / "val/cow").mkdir()
    with pytest.raises(NasrayError, match="cow"):
        read_image_folder(root, "val")
    (root / "train/cow").mkdir()
    with pytest.raises(NasrayError, match=r"class folder .*train/cow has no images"):
        read_image_folder(root, "train")
    (root / "train/cow").rmdir()
    (root / "train/cat/1.jpg").write_bytes(b"torn")
    dataset = read_image_folder(root, "train")
    (message,) = check_images(dataset)
    assert "train/cat/1.jpg" in message
    with pytest.raises(NasrayError, match=r"cat/1\.jpg"):
        list(loader(dataset, processes=1).epoch(0))


def test_images_are_upright_and_side_files_are_none(tmp_path):
    folder = tmp_path / "train" / "cat"
    folder.mkdir(parents=True)
    for name, content in (
        ("a.TIFF", tiff(as_stored(picture(), 6), orientation=6)),
        ("b.jpg", b"<html>"),
        ("._a.jpg", b"resource fork"),
        ("a.txt", b"text"),
        ("a.xml", b"<a/>"),
    ):
        (folder / name).write_bytes(content)
    dataset = read_image_folder(tmp_path, "train")
    assert len(dataset) == 2
    assert (dataset.read_image(0).permute(1, 2, 0).numpy() == picture()).all()
    assert len(check_images(dataset)) == 1


def test_training_is_a_function_of_seed_and_epoch(root):
    dataset = read_image_folder(root, "train")
    state = torch.get_rng_state()
    whole = list(loader(dataset).epoch(1))
    assert [batch.images.shape for batch in whole] == [(4, 3, 32, 32)] * len(loader(dataset)) == [(4, 3, 32, 32)] * 3
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(whole[1:], loader(dataset, processes=2).epoch(1, first_batch=1), strict=True):
        assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))
    assert not torch.equal(whole[0].images, next(loader(dataset).epoch(2)).images)
    for batch in whole:
        assert batch.labels.tolist() == dataset.labels[batch.indices].tolist()


def test_evaluation_takes_the_middle_of_every_image_once(root):
    dataset = read_image_folder(root, "val")
    batches = [batch for rank in range(2) for batch in loader(dataset, seed=None, rank=rank, world=2).epoch()]
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(6))
    assert [len(loader(dataset, seed=None, rank=0, world=world)) for world in (1, 2)] == [2, 1]
    again = next(loader(dataset, seed=None, rank=0, world=2).epoch(5))
    assert torch.equal(again.images, batches[0].images)
