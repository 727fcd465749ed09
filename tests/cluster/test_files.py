import json
from pathlib import Path

import numpy as np
import pytest

from nasray.cluster.files import to_json


def test_numbers_that_are_not_finite_become_null():
    content = {"a": float("nan"), "b": [np.float32("inf"), (1, -np.inf)], "c": np.array([1.0, np.nan])}
    assert json.loads(to_json(content)) == {"a": None, "b": [None, [1, None]], "c": [1.0, None]}


def test_plain_values_stay_what_they_are():
    content = {
        "a": 1,
        "b": True,
        "c": None,
        "d": "ü\n",
        "e": [0.1, 1e300],
        3: np.int64(2),
        "f": Path("x/y"),
        "g": np.bool_(True),
    }
    expected = {"a": 1, "b": True, "c": None, "d": "ü\n", "e": [0.1, 1e300], "3": 2, "f": "x/y", "g": True}
    assert json.loads(to_json(content, indent=1)) == expected


def test_what_has_no_json_is_our_own_bug():
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_keys_are_the_same_with_and_without_numbers_that_are_not_finite():
    content = {1: 0.0, None: 0.0, 2.5: 0.0, "x": 0.0}
    assert list(json.loads(to_json(content))) == list(json.loads(to_json({**content, "x": float("nan")})))
    assert json.loads(to_json({float("nan"): 1, Path("a"): 2})) == {"nan": 1, "a": 2}


def test_compact_json_has_no_spaces():
    assert to_json([[1, float("nan")], {"a": 2}], compact=True) == '[[1,null],{"a":2}]'
