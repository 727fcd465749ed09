import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasray.recipe_options import ScheduleOptions
from nasray.training.schedules import is_due, learning_rate_factor, total_iterations


def factors(options, per_epoch=10):
    return [learning_rate_factor(i, per_epoch, options) for i in range(total_iterations(options, per_epoch))]


def test_step_divides_after_each_milestone():
    values = factors(ScheduleOptions(epochs=4, milestones=(2, 3.5), warmup_iterations=0))
    assert len(values) == 40
    assert values[:20] == [1.0] * 20
    assert values[20:35] == pytest.approx([0.1] * 15)
    assert values[35:] == pytest.approx([0.01] * 5)


def test_cosine_and_linear_end_near_zero_and_constant_stays():
    cosine = factors(ScheduleOptions(epochs=4, name="cosine", warmup_iterations=0))
    assert (cosine[0], cosine[20]) == (1.0, pytest.approx(0.5))
    assert cosine[39] == pytest.approx(0.0015, abs=1e-4)  # (1 + cos(pi 39 / 40)) / 2
    linear = factors(ScheduleOptions(epochs=4, name="linear", warmup_iterations=0))
    assert linear == pytest.approx([1 - i / 40 for i in range(40)])
    assert set(factors(ScheduleOptions(name="constant", warmup_iterations=0))) == {1.0}


def test_warm_up_is_linear_and_a_factor_of_its_own():
    values = factors(ScheduleOptions(epochs=1, name="constant", warmup_iterations=4, warmup_factor=0.2))
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 6)
    warm = factors(ScheduleOptions(epochs=1, name="linear", warmup_iterations=4, warmup_factor=0.2))
    assert warm == pytest.approx([value * (1 - i / 10) for i, value in enumerate(values)])


def test_a_training_has_at_least_one_iteration():
    assert total_iterations(ScheduleOptions(epochs=0.01), 10) == 1


@given(st.integers(1, 500), st.floats(0.3, 100))
def test_due_once_for_every_multiple(iterations, every):
    due = sum(is_due(iteration, max(every, 1.0)) for iteration in range(1, iterations + 1))
    assert due == int(iterations / max(every, 1.0) + 1e-9)


def test_due_of_fractions_of_an_epoch():
    assert [i for i in range(1, 11) if is_due(i, 0.5 * 5)] == [3, 5, 8, 10]
    assert [i for i in range(1, 31) if is_due(i, 0.1 * 3 * 10)] == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
