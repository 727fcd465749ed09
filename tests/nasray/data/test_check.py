from nasray.data.check import check_data, describe_check


def test_what_is_in_it_and_what_is_wrong_with_it(write_coco, tmp_path, capsys):
    write_coco()
    write_coco(
        lambda content: [
            content["annotations"][0].update(image_id=99),
            content["annotations"].append(dict(content["annotations"][1], id=8, bbox=[0, 0, 0, 0])),
            content["categories"][0].update(name="wolf"),
        ],
        name="val",
    )
    report = check_data(str(tmp_path))
    train, val = report["splits"]["train"], report["splits"]["val"]
    assert (train["images"], train["boxes"], train["empty_images"], train["ignored"]) == (3, 3, 1, 1)
    assert train["boxes_per_class"] == {"cat": 1, "dog": 2}
    assert train["box_sizes"] == {"small": 3, "medium": 0, "large": 0}
    assert train["image_sizes"] == {"40x30": 3}
    assert not train["defects"]
    assert {kind: defect["count"] for kind, defect in val["defects"].items()} == {
        "unknown-image": 1, "zero-box": 1, "categories-differ": 1, "split-overlap": 3,
    }  # fmt: skip
    assert (report["errors"], report["warnings"]) == (2, 4)
    text = describe_check(report)
    assert "train: 3 images, 1 of them without boxes; 3 boxes, 1 of them ignored" in text
    assert "error: annotations of images that are not listed: 1" in text
    assert "annotation 1 is of image id 99" in text
    assert "id 7: 'dog' and 'wolf'" in text
    assert text.endswith("2 errors, 4 warnings")


def test_decoding_finds_torn_images(write_coco, tmp_path, capsys):
    write_coco()
    torn = tmp_path / "images/1.jpg"
    torn.write_bytes(torn.read_bytes()[:-20])
    (tmp_path / "images/2.jpg").unlink()
    assert check_data(str(tmp_path))["errors"] == 1
    report = check_data(str(tmp_path), decode=True)
    defects = report["splits"]["train"]["defects"]
    assert {kind: defect["count"] for kind, defect in defects.items()} == {"missing-image": 1, "unreadable-image": 1}
    assert "1.jpg (image id 11)" in defects["unreadable-image"]["messages"][0]
    assert "decode train" in capsys.readouterr().err


def test_few_examples_of_many(write_coco, tmp_path):
    write_coco(lambda content: [item.update(image_id=99) for item in content["annotations"]])
    text = describe_check(check_data(str(tmp_path)), examples=1)
    assert "    and 2 more" in text


def test_classes_that_are_not_chosen_are_counted_as_boxes_and_classes(write_coco, tmp_path):
    write_coco(lambda content: content["categories"].append({"id": 9, "name": "cow"}))
    (tmp_path / "data.yaml").write_text(
        "format: coco\nclasses: [cat]\ntrain: {images: images, annotations: annotations/train.json}\n"
    )
    report = check_data(str(tmp_path))
    (kind,) = report["splits"]["train"]["defects"].values()
    assert (kind["count"], len(kind["messages"])) == (2, 1)
    assert "warning: boxes of classes that are not among those chosen (left out): 2 of 1 class\n" in describe_check(
        report
    )


def test_a_split_that_cannot_be_read_does_not_hide_the_others(write_coco, tmp_path):
    write_coco(lambda content: content["annotations"][0].update(iscrowd="0"))
    write_coco(name="val").write_text("{")
    report = check_data(str(tmp_path))
    assert report["errors"] == 2
    text = describe_check(report)
    assert "iscrowd must be 0, 1, true or false, got '0'" in text
    assert "val.json is not valid JSON" in text


def test_nothing_is_wrong_with_shapes():
    assert describe_check(check_data("shapes")).endswith("nothing is wrong with it")
