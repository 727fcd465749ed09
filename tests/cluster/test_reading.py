import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasray.cluster.reading import parse_json, parse_yaml, read_bytes, read_json, read_text, read_yaml, to_yaml
from nasray.spaces import NasrayError

BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("5E3", 5000.0), ("no", "no"), ("on", "on"), ("y", "y"), ("010", 10), ("0x1f", 31),
        ("0o17", 15),
        ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("true", True), ("~", None), ("", None),
        (".inf", math.inf), ("-1.5", -1.5), ("+3", 3), ("1.", 1.0),
    ],
)  # fmt: skip
def test_yaml_scalars_are_those_of_yaml_1_2(text, value):
    found = parse_yaml(f"key: {text}", "x")["key"]
    assert found == value
    assert type(found) is type(value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_what_is_written_is_read_back(value):
    assert parse_yaml(to_yaml({"k": value}), "x") == {"k": value}


@pytest.mark.parametrize(
    "text", ["no", "1e-3", "010", "true", "~", "", "<<", "null", "0x1f", "12", "1.", ".nan", "=", "- x"]
)
def test_words_that_look_like_values_stay_words(text):
    assert parse_yaml(to_yaml({"k": text, text: 1}), "x") == {"k": text, text: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "key 'a' occurs twice at line 1"),
        ("a: {b: 1, c: 2, b: 3}", "key 'b' occurs twice"),
        ("a: [1, 2", "line 1"),
        ("a: b: c", "line 1, column 5"),
        ("a: \x01", "not valid YAML"),
        ("a: &a [*a]", "alias inside the value"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "[" * 150 + "]" * 150, "nested too deeply"),
        ("a: !!python/object/apply:os.system [x]", "line 1"),
        ("a: !!int word", "not valid YAML"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? [a]\n: 1", "unhashable"),
        (BOMB, "more than 200,000 values"),
    ],
)  # fmt: skip
def test_yaml_that_is_refused(text, message):
    with pytest.raises(NasrayError, match=message) as caught:
        parse_yaml(text, "some.yaml")
    assert str(caught.value).startswith("some.yaml")
    assert "\n" not in str(caught.value)


def test_merged_keys_may_be_overridden():
    assert parse_yaml("a: &x {p: 1, q: 2}\nb: {<<: *x, p: 3}", "x")["b"] == {"p": 3, "q": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "key 'a' twice"),
        ("[NaN]", "NaN"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":', "line 1, column 6"),
        ("9" * 5000, "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_json_that_is_refused(text, message):
    with pytest.raises(NasrayError, match=message) as caught:
        parse_json(text, "some.json")
    assert str(caught.value).startswith("some.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: ü".encode("utf-16"), "UTF-16"),
        ("a: ü".encode("latin-1"), "not UTF-8: byte 0xfc at offset 3"),
        (b"\x89PNG\0\0", "binary"),
        ("a: 1".encode("utf-32-le"), "binary"),
    ],
)
def test_files_that_are_not_utf_8(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    for read in (read_text, read_yaml, read_json):
        with pytest.raises(NasrayError, match=message):
            read(path)


def test_a_byte_order_mark_is_read_over(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_yaml(path) == {"a": 1}


@pytest.mark.parametrize("name", ["missing", ".", "x" * 5000, "nul\0byte", "line\nbreak", "\udcff"])
def test_paths_that_cannot_be_read(tmp_path, name):
    with pytest.raises(NasrayError) as caught:
        read_text(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    str(caught.value).encode()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_devices_are_no_files(path):
    with pytest.raises(NasrayError, match=f"^{path} is a device, not a file"):
        read_bytes(path)


@pytest.mark.parametrize("read", [parse_json, parse_yaml])
def test_numbers_without_end_are_said_in_our_words(read):
    with pytest.raises(NasrayError, match="a number of thousands of digits"):
        read("[" + "9" * 5000 + "]", "here")
