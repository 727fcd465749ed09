import numpy as np

from nasray.data.image_files import sizes
from nasray.data.image_files.images import ImageFiles, encode_png
from nasray.data.image_files.sizes import file_sizes


def test_sizes_of_many_images_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "KEPT_FROM", 3)
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "cache"))
    asked = []
    stored = sizes.stored_size
    monkeypatch.setattr(sizes, "stored_size", lambda path, rule: asked.append(path.name) or stored(path, rule))
    for name, width in (("a.png", 5), ("b.png", 6)):
        (tmp_path / name).write_bytes(encode_png(np.zeros((3, 4, width), dtype=np.uint8)))
    files = ImageFiles(tmp_path, ["a.png", "b.png", "gone.png"])
    for _ in range(2):
        assert file_sizes(files, "upright").tolist() == [[4, 5], [4, 6], [0, 0]]
    assert asked == ["a.png", "b.png", "gone.png"]
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((3, 40, 50), dtype=np.uint8)))
    assert file_sizes(files, "upright")[0].tolist() == [40, 50]
    assert file_sizes(files, "stored").shape == (3, 2)
    assert len(asked) == 9
