"""Networks scaled in width: by a factor, and to a cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasray.architectures import ARCHITECTURES, checked_spec, layer_table, named_architecture
from nasray.architectures.scaling import scaled, scaled_within
from nasray.spaces import NasrayError

STAGED = ["resnet18", "resnet50", "mobilenet-v2", "maedet-s"]


def gmacs(architecture):
    return float(layer_table(architecture, (224, 320)).cost()["gmacs"][0])


@pytest.mark.parametrize("name", STAGED)
def test_a_factor_of_one_is_the_network_itself(name):
    assert scaled(ARCHITECTURES[name], 1.0) == ARCHITECTURES[name] == named_architecture(f"{name}@1")


def test_widths_alone_are_scaled():
    assert named_architecture("resnet18@0.25") == ARCHITECTURES["resnet18-quarter"]
    spec, whole = scaled(ARCHITECTURES["resnet50"], 0.5).spec, ARCHITECTURES["resnet50"].spec
    for part, before in zip((spec["stem"], *spec["stages"]), (whole["stem"], *whole["stages"]), strict=True):
        changed = {key for key in part if part[key] != before[key]}
        assert changed == {"width", "bottleneck"} & set(part)
        assert all(2 * part[key] == before[key] for key in changed)


@given(st.sampled_from(STAGED), st.floats(0.001, 4), st.floats(0.001, 4))
def test_a_wider_network_costs_no_less(name, one, other):
    narrow, wide = (scaled(ARCHITECTURES[name], factor) for factor in sorted((one, other)))
    checked_spec(narrow)
    assert gmacs(narrow) <= gmacs(wide)


@given(st.sampled_from(STAGED), st.floats(0.01, 50))
def test_the_widest_scaling_within_a_bound(name, bound):
    found = scaled_within(ARCHITECTURES[name], bound, gmacs)
    assert gmacs(found) <= bound
    first = found.spec["stem"]["width"] / ARCHITECTURES[name].spec["stem"]["width"]
    assert gmacs(scaled(ARCHITECTURES[name], min(1.3 * first, 4))) > bound or first > 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18@0", "above 0 and up to 4, got 0"),
        ("resnet18@17", "above 0 and up to 4, got 17"),
        ("shufflenetv2-20@0.5", "family shufflenet has no stem and residual stages"),
        ("fad-paper@2", "family fad has no stem"),
        ("msnas-r18-1@2", "family msnas has no stem"),
        ("ofa-resnet50-largest@0.5", "family ofa-resnet has no stem"),  # its widths are shares of a hundred
    ],
)
def test_what_cannot_be_scaled_is_refused(name, message):
    with pytest.raises(NasrayError, match=message):
        named_architecture(name)


def test_a_bound_below_the_narrowest_network_is_refused():
    with pytest.raises(NasrayError, match=r"the narrowest scaling costs .*, more than 1e-06. Loosen the budget"):
        scaled_within(ARCHITECTURES["resnet18"], 1e-6, gmacs)


@pytest.mark.parametrize("name", ["nothing@2", "resnet18@", "resnet18@x", "@2"])
def test_other_names_are_none(name):
    assert named_architecture(name) is None
