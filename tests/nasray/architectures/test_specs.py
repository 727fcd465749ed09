import pytest

from nasray.architectures.specs import check_keys, check_numbers
from nasray.spaces import NasrayError


def test_keys():
    check_keys({"a": 1, "c": 2}, "spec", needed=("a",), optional=("b", "c"))
    with pytest.raises(
        NasrayError, match=r"spec has an unknown key 'widht'; did you mean 'width'\? Its keys are width"
    ):
        check_keys({"widht": 1}, "spec", needed=("width",))
    with pytest.raises(NasrayError, match=r"spec\.stem lacks width, kernel"):
        check_keys({}, "spec.stem", needed=("width", "kernel"))
    with pytest.raises(NasrayError, match="spec is an object with the keys width; got 3"):
        check_keys(3, "spec", needed=("width",))


def test_numbers():
    check_numbers({"width": 1, "kernel": 3}, "spec", ("width", "kernel"))
    with pytest.raises(NasrayError, match=r"spec\.stride is a whole number from 1 to 2; got 3"):
        check_numbers({"stride": 3}, "spec", ("stride",))
    with pytest.raises(NasrayError, match=r"spec\.kernel is odd, got 2"):
        check_numbers({"kernel": 2}, "spec", ("kernel",))
