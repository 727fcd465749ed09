"""What a folder or file is that is no data set of a kind that is read: one line that says so, and what to do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from nasray.cluster.reading import shown
from nasray.data.formats.yolo_labels import is_label

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
LOOKED_AT = 5_000  # files and folders
HEAD = 64 * 2**10  # bytes of a file
READ = "COCO's JSON, Pascal VOC's XML, YOLO's text files and Hugging Face's Parquet are read"
EXPORT = "Export it as COCO: annotation tools can, and FiftyOne and supervision convert"


def yolo_message(root: Path) -> str:
    """Return what to say of YOLO's labels in a folder without their YAML file."""
    names = next((f" (of {path.name})" for path in sorted(root.glob("*.txt")) if path.stem in ("classes", "obj")), "")
    return (
        f"{shown(root)} holds YOLO labels, and no data.yaml that names their classes. Write one: train and val, "
        f"folders of images relative to it or .txt files that list them, and names, the classes{names}: "
        "{train: images/train, val: images/val, names: [cat, dog]}"
    )


def recognized_file(path: Path) -> str | None:
    """Return what a file is that was passed as a data set, and what to pass instead; None if that cannot be told."""
    suffix = path.suffix.lower()
    if suffix in ARCHIVES:
        return f"{shown(path)} is an archive. Unpack it and pass the folder"
    if suffix in IMAGES:
        return f"{shown(path)} is an image, not a data set. Pass the folder with images and annotations"
    if suffix == ".json":
        if path.parent.name == "annotations" and (message := _json_kind(path, path.parent)) and "COCO" in message:
            return f"{shown(path)} is one split of a COCO set. Pass its folder, {shown(path.parent.parent)}"
        return _json_kind(path, path.parent)
    if suffix == ".xml":
        return f"{shown(path)} is one annotation. Pass the folder that holds Annotations/, ImageSets/ and JPEGImages/"
    if suffix in (".csv", ".tfrecord", ".record"):
        return f"{shown(path)} is a {suffix} file; {READ}. {EXPORT} it"
    return None


def recognized_folder(root: Path) -> str | None:
    """Return what a folder without a layout that is read is, and what to do; None if that cannot be told."""
    files = list(itertools.islice(_walk(root, 3), LOOKED_AT))
    if not files:
        return f"{shown(root)} is empty: it holds no files. Pass the folder with images and annotations"
    by_suffix: dict[str, list[Path]] = {}
    for path in files:
        by_suffix.setdefault(path.suffix.lower(), []).append(path)
    images = [path for suffix in IMAGES for path in by_suffix.get(suffix, [])]
    for path in by_suffix.get(".json", [])[:20]:
        if message := _json_kind(path, root):
            return message
    if _has_yolo_labels(by_suffix.get(".txt", [])):
        return yolo_message(root)
    if xml := by_suffix.get(".xml"):
        return (
            f"{shown(root)} holds XML files ({shown(xml[0].relative_to(root))}) without VOC's folders. Write a YAML "
            "file: format: voc, and for each split `lists` (a text file with one image name a line, without suffix), "
            "`images` and `annotations` (folders)"
        )
    if any(path.name.endswith((".tfrecord", ".record")) for path in files):
        return f"{shown(root)} holds TFRecords; {READ}. {EXPORT} it"
    if tables := by_suffix.get(".csv"):
        return f"{shown(root)} has its boxes in {shown(tables[0].relative_to(root))}; {READ}. {EXPORT} it"
    if images:
        return _only_images(root, images)
    return None


def _only_images(root: Path, images: list[Path]) -> str:
    folders = {path.parent.relative_to(root).parts for path in images}
    if len(folders) > 1 and any(len(parts) == 2 and parts[0] in ("train", "val", "test") for parts in folders):
        return (
            f"{shown(root)} holds images by class, for classification: there are no boxes to detect. Pass it with a "
            "recipe of classification (`nasray list recipes`), or a folder with annotations"
        )
    return (
        f"{shown(root)} holds images ({shown(images[0].relative_to(root))}) and no annotations. Detectors learn from "
        "boxes: annotate the images, and export them as COCO (annotations/train.json beside images/)"
    )


def _has_yolo_labels(texts: list[Path]) -> bool:
    """Return whether one of these files holds lines of a class and four shares of the image, or of a polygon."""
    for path in [*(path for path in texts if "labels" in path.parts), *texts][:20]:
        if is_label(_head(path).strip().split("\n")[0]):
            return True
    return False


def _json_kind(path: Path, root: Path) -> str | None:
    head = _head(path)
    where = shown(path.relative_to(root) if path.is_relative_to(root) else path)
    keys = set(re.findall(r'"(\w+)"\s*:', head))
    if {"shapes", "imagePath"} <= keys:
        return f"{shown(root)} holds annotations of LabelMe ({where}, one JSON an image); {READ}. {EXPORT} it"
    if {"coordinates", "label"} <= keys and head.lstrip().startswith("["):
        return f"{shown(root)} holds annotations of CreateML ({where}); {READ}. {EXPORT} it"
    if {"images", "annotations", "categories"} & keys and {"file_name", "category_id", "image_id", "bbox"} & keys:
        split = next((name for name in ("train", "test") if name in where), "train" if "val" not in where else "val")
        images = Path(where).parent.as_posix() if "_annotations" in path.name else "images"
        return (
            f"{where} in {shown(root)} is in COCO's format, but does not lie where it is looked for. Move it to "
            f"annotations/{split}.json beside images/, or write a YAML file: format: coco, "
            f"{split}: {{images: {images}, annotations: {where}}}"
        )
    return None


def _head(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(HEAD).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the files of a folder and of those below it, each folder's own first."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    folders = []
    for path in entries:
        if path.is_dir():
            folders.append(path)
        else:
            yield path
    for inner in folders if depth > 1 else ():
        yield from itertools.islice(_walk(inner, depth - 1), 500)
