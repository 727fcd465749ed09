import json
import subprocess
import sys

import numpy as np
import pytest

from nasray.spaces import SPACES, Architecture, BottleneckSpace


@pytest.mark.parametrize("text", ["[]", '{"family": "a"}', '{"family": "a", "spec": {}, "more": 1}', "nonsense"])
def test_from_json_refuses_what_is_no_architecture(text):
    with pytest.raises(ValueError):  # noqa: PT011  json has messages of its own
        Architecture.from_json(text)


def test_architectures_are_equal_whatever_the_order_of_their_keys():
    first = Architecture.create("a", {"x": 1, "y": [2, {"z": 3, "w": 4}]})
    second = Architecture.from_json('{"spec": {"y": [2, {"w": 4, "z": 3}], "x": 1},\n "family": "a"}')
    assert first == second
    assert first.id == second.id
    assert first.id != Architecture.create("b", first.spec).id


def test_ids_never_change():
    # History files and run folders hold these: sha256sum of the text, first 16 digits.
    assert Architecture.create("a", {}).id == "13e89a5bf143fac9"
    space = BottleneckSpace()
    assert space.to_architecture(space.start()[0]).id == "3feb396000a49acc"


def test_ids_are_the_same_in_a_fresh_process():
    code = (
        "import numpy as np\nfrom nasray.spaces import SPACES\n"
        "print([SPACES[f]().ids(SPACES[f]().sample(3, np.random.default_rng(1))) for f in sorted(SPACES)])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = [SPACES[f]().ids(SPACES[f]().sample(3, np.random.default_rng(1))) for f in sorted(SPACES)]
    assert json.loads(there.replace("'", '"')) == here
