from __future__ import annotations

import math

import pytest
from markupsafe import Markup

from nasray.reports.pieces import answers, commands, cost, duration, facts, flat, numbers, paragraph, slug, table


def test_whatever_is_text_is_escaped_once():
    html = table(["a<b"], [["<x>", "1"]], text_columns=1) + paragraph("R&D", "note") + facts([("<", ">")])
    html += answers([("who?", Markup("<code>{}</code>").format("<me>"))])
    for part in (
        "<th class='text'>a&lt;b</th>",
        "<td class='text'>&lt;x&gt;</td>",
        "<td>1</td>",
        "R&amp;D",
        "<dt>&lt;</dt><dd>&gt;</dd>",
        "<code>&lt;me&gt;</code>",
        '<p class="note">',
    ):
        assert part in html
    assert "&amp;lt;" not in html


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.0, 250.0], ["1", "250"]),
        ([12.3456, -0.5], ["12.35", "−0.50"]),
        ([math.nan, math.inf, -math.inf, 0.25], ["–", "∞", "−∞", "0.2500"]),
        ([1234567.0], ["1,234,567"]),
        ([3e-12], ["3.000e−12"]),
    ],
)
def test_numbers_align(values, texts):
    assert numbers(values) == texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.531, "4.53 s"), (59.2, "59.2 s"), (119.7, "2 min 00 s"), (3599.9, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_times_are_in_units_that_suit_them(seconds, text):
    assert duration(seconds) == text


def test_costs_have_their_unit_before_what_they_count():
    assert cost("gmacs", 89.32) == "89.32 G multiply-adds"
    assert cost("layers", 91) == "91 layers"
    assert cost("price", 2) == "2 price"


def test_commands_can_be_typed():
    text = commands([(["nasray", "front", "my run"], "the front"), (["nasray", "x"], "other")])
    assert "nasray front &#39;my run&#39;  # the front" in text
    assert "nasray x               # other" in text


def test_nested_keys_and_file_names():
    assert list(flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3})) == [("a.b", 1), ("a.c.d", 2), ("e", 3)]
    assert slug("My score/2") == "my-score-2"
    assert slug("%") == "metric"
