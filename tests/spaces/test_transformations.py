"""Golden figures of FAD's come from its released modules, those of DARTS's from the definition."""

from nasray.spaces.transformations import BY_NAME, DARTS, TRANSFORMATIONS

# at 96 channels: multiply-adds a pixel, parameters, receptive field
FAD = {
    "standard-1": (82_944, 83_232, 3), "standard-2": (165_888, 166_464, 5), "standard-3": (248_832, 249_696, 7),
    "standard-1+d2": (93_024, 93_696, 7), "standard-2+d2": (175_968, 176_928, 9), "standard-1+d3": (93_024, 93_696, 9),
    "separable-1": (10_080, 10_368, 3), "separable-2": (20_160, 20_736, 5), "separable-3": (30_240, 31_104, 7),
    "separable-1+d2": (20_160, 20_832, 7), "separable-2+d2": (30_240, 31_200, 9), "separable-1+d3": (20_160, 20_832, 9),
}  # fmt: skip


def separable(kernel, biases):
    """Depthwise and 1x1 convolution of 96 channels with their biases, and a norm."""
    weights = kernel**2 * 96 + 96**2
    return weights, weights + biases * 96 + 2 * 96


def test_fad_s_transformations_cost_what_the_released_ones_do():
    assert {each.name: (*each.cost(96), each.receptive_field) for each in TRANSFORMATIONS} == FAD


def test_two_of_each_stream_see_nine_pixels_and_two_seven():
    """Paper, section 3.1: four sizes of receptive fields; the larger two have a dilated convolution in one or two."""
    sides = [each.receptive_field for each in TRANSFORMATIONS if each.stream == "standard"]
    assert sorted(sides) == [3, 5, 7, 7, 9, 9]
    assert {each.name for each in TRANSFORMATIONS if each.receptive_field == 9 and each.num_convs == 1} == {
        "standard-1+d3", "separable-1+d3"
    }  # fmt: skip


def test_darts_s_operations_cost_what_their_definition_says():
    """ICLR 2019, section 3.1.1: separable convolutions are applied twice, dilated ones once."""
    none, once = (0, 0), [separable(3, 1), separable(5, 1)]
    assert {each.name: each.cost(96) for each in DARTS} == {
        "max-pool-3x3": none,
        "avg-pool-3x3": none,
        "skip-connect": none,
        "sep-conv-3x3": tuple(2 * value for value in once[0]),
        "sep-conv-5x5": tuple(2 * value for value in once[1]),
        "dil-conv-3x3": separable(3, 2),
        "dil-conv-5x5": separable(5, 2),
    }
    assert [each.receptive_field for each in DARTS] == [3, 3, 1, 5, 9, 5, 9]


def test_no_two_have_the_same_name_and_only_fad_s_share():
    assert len(BY_NAME) == len(TRANSFORMATIONS) + len(DARTS) == 19
    assert {each.stream for each in DARTS} == {""}
