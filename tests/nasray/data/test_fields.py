import math

import pytest

from nasray.data import fields
from nasray.data.fields import FieldError

RIGHT = [
    (fields.integer, 3, 3), (fields.integer, 3.0, 3), (fields.integer, -(2**63), -(2**63)),
    (fields.number, 2, 2.0), (fields.number, -1e15, -1e15),
    (fields.flag, 0, False), (fields.flag, 1, True), (fields.flag, 1.0, True), (fields.flag, False, False),
    (fields.box, [1, 2, 3.5, 4], [1.0, 2.0, 3.5, 4.0]),
    (fields.class_name, " traffic  light\n", "traffic  light"), (fields.class_name, "猫", "猫"),
    (fields.file_name, " a b.jpg", " a b.jpg"), (fields.file_name, "x" * 255, "x" * 255),
    (fields.number_of_text, " 12.50 ", 12.5), (fields.number_of_text, "1e2", 100.0),
    (fields.flag_of_text, " Yes\n", True), (fields.flag_of_text, "TRUE", True), (fields.flag_of_text, "0", False),
]  # fmt: skip
WRONG = [
    (fields.integer, value) for value in (True, "3", 3.5, None, [3], 2**63, -(2**63) - 1, 1e300, math.nan, math.inf)
] + [
    (fields.number, value) for value in (True, "3", None, math.nan, math.inf, -math.inf, 10**400, 1e16)
] + [
    (fields.flag, value) for value in ("0", "1", "false", "", 2, -1, 0.5, None, [], math.nan)
] + [
    (fields.box, value) for value in ("1 2 3 4", [1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, None], [1, 2, 3, True], {}, None)
] + [
    (fields.class_name, value) for value in ("", " \n", 3, None, "x" * 201, "a\nb", "a\0", "\ud800")
] + [
    (fields.file_name, value)
    for value in ("", " ", 3, None, "x" * 256, "é" * 128, "x/" * 2100, "a\nb.jpg", "a\0", "\ud800.jpg")
] + [
    (fields.number_of_text, text) for text in ("", "nan", "inf", "1e400", "1_000", "٣", "12 px", "0x10", "1,5")
] + [
    (fields.flag_of_text, text) for text in ("", "2", "unspecified", "wahr", "0.0")
]  # fmt: skip


@pytest.mark.parametrize(("read", "value", "expected"), RIGHT)
def test_what_a_field_holds(read, value, expected):
    found = read(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("read", "value"), WRONG)
def test_what_is_something_else_is_one_line_with_the_value(read, value):
    with pytest.raises(FieldError, match="must") as error:
        read(value)
    message = str(error.value)
    assert "got " in message
    assert message.isprintable()
    assert len(message) < 300
