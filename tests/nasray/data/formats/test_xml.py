import pytest

from nasray.data.formats.xml import read_xml
from nasray.spaces import NasrayError

NAME = "Äpfel猫"


def declared(encoding, text=NAME):
    return f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation><name>{text}</name></annotation>'


READ = {
    "utf-8": declared("utf-8").encode(), "utf-8 with a mark": b"\xef\xbb\xbf" + declared("UTF-8").encode(),
    "nothing declared": f"<annotation><name>{NAME}</name></annotation>".encode(),
    "utf-16": declared("utf-16").encode("utf-16"), "utf-16 without a mark": declared("utf-16").encode("utf-16-le"),
    "big endian": declared("utf-16").encode("utf-16-be"), "utf-32": declared("utf-32").encode("utf-32"),
    "gb18030": declared("gb18030").encode("gb18030"),
    "a document type alone": b"<!DOCTYPE annotation>" + f"<annotation><name>{NAME}</name></annotation>".encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_encodings(tmp_path, name):
    (tmp_path / "a.xml").write_bytes(READ[name])
    assert read_xml(tmp_path / "a.xml", "annotation").findtext("name") == NAME


@pytest.mark.parametrize("encoding", ["latin-1", "ISO-8859-1", "windows-1252", "shift_jis"])
def test_encodings_of_some_letters(tmp_path, encoding):
    text = "ネコ" if encoding == "shift_jis" else "Äpfel"
    (tmp_path / "a.xml").write_bytes(declared(encoding, text).encode(encoding))
    assert read_xml(tmp_path / "a.xml", "annotation").findtext("name") == text


BOMB = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
REFUSED = {
    "latin-1 that says utf-8": (declared("utf-8").encode("utf-8")[:-20] + b"\xe9</name>", "'utf-8', but its bytes"),
    "utf-8 that says utf-16": (declared("utf-16").encode(), "declares the encoding 'utf-16', but its bytes"),
    "latin-1 that says nothing": ("<annotation>é</annotation>".encode("latin-1"), "but its bytes are not in it"),
    "an unknown encoding": (declared("klingon").encode(), "encoding 'klingon', which is not known"),
    "no text encoding": (declared("hex").encode(), "encoding 'hex', which is not known"),
    "a bomb": (f'<!DOCTYPE x [<!ENTITY a "ha">{BOMB}]><annotation>&i;</annotation>'.encode(), "the entity 'a'"),
    "another file": (b'<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]><annotation>&a;</annotation>', "entity 'a'"),
    "an entity from elsewhere": (b'<!DOCTYPE x SYSTEM "x.dtd"><annotation>&a;</annotation>', "the entity 'a'"),
    "an unknown entity": (b"<annotation>&nbsp;</annotation>", "undefined entity at line 1, column 13"),
    "too deep": (b"<annotation>" + b"<a>" * 10**5, "nested too deeply"),
    "torn": (b"<annotation>\n<name>", "no element found at line 2, column 7"),
    "two roots": (b"<annotation/><annotation/>", "junk after document element"),
    "another root": (b"<html></html>", "its root is <html>, not <annotation>"),
    "zeros": (b"\0" * 100, "not valid XML|is empty|not in it"),
    "a picture": (b"\xff\xd8\xff\xe0" + bytes(range(256)), "not in it"),
    "nothing": (b"", "is empty"),
    "a zero": (b"<annotation>\0</annotation>", "not valid XML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_line(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(NasrayError, match=message) as error:
        read_xml(tmp_path / "a.xml", "annotation")
    assert "a.xml" in str(error.value)
    assert str(error.value).isprintable()
