"""What a message suggests."""

from nasray.spaces.errors import did_you_mean


def test_the_nearest_of_the_known_words_is_suggested():
    assert did_you_mean("evolutoin", ["random", "evolution"]) == "; did you mean 'evolution'?"
    assert did_you_mean("popsize", ["population_size", "parents"]) == "; did you mean 'population_size'?"
    assert did_you_mean("zzz", ["random", "evolution"]) == "."
    assert did_you_mean("random" * 10_000, ["random"]) == "."
