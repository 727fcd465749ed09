import pytest

from nasray.architectures import checked_spec
from nasray.architectures.supernet import FAMILY
from nasray.models import build
from nasray.models.supernets import build_supernet, supernet_architecture
from nasray.spaces import Architecture, NasrayError, ShuffleNetSpace


def test_a_supernet_is_built_from_its_architecture():
    space = ShuffleNetSpace(stem_width=4, widths=(8, 16, 24, 32), depths=(1, 1, 1, 1))
    network = build(supernet_architecture(space))
    assert network.space == space or network.space.network_options() == space.network_options()
    expected = {name: value.shape for name, value in build_supernet(space).state_dict().items()}
    assert {name: value.shape for name, value in network.state_dict().items()} == expected


def test_a_spec_without_space_is_refused():
    with pytest.raises(NasrayError, match="spec of a supernet is an object with the key space"):
        checked_spec(Architecture.create(FAMILY, {"size": "small"}))
