import numpy as np
import pytest

from nasray.spaces import BasicSpace, Gene, OFAResNetSpace, ShuffleNetSpace, Space
from nasray.spaces.groups import count_settings, group_settings, in_order_shares, merge_groups


class Table(Space):
    family = "table"
    genes = (Gene("a", (1, 2)), Gene("b", (0, 5, 7)), Gene("c", (0, 1)))


class Sorted(Table):
    """Gene b is 0 where gene a is 1."""

    groups = ((0, 1), (2,))

    def repair(self, population):
        repaired = population.copy()
        repaired[:, 1] *= repaired[:, 0] > 1
        return repaired


def test_genes_stand_alone_where_nothing_is_repaired():
    assert Table().groups == ((0,), (1,), (2,))
    assert Table().num_architectures == 2 * 3 * 2


def test_all_genes_are_one_group_where_repair_says_nothing_of_it():
    class Unsaid(Sorted):
        groups = Space.groups

    assert Unsaid().groups == ((0, 1, 2),)
    assert Unsaid().num_architectures == (1 + 3) * 2


def test_settings_are_distinct_valid_and_in_order():
    assert group_settings(Sorted(), (0, 1)).tolist() == [[1, 0], [2, 0], [2, 5], [2, 7]]
    assert group_settings(Sorted(), (2,)).tolist() == [[0], [1]]
    assert group_settings(Sorted(), (0, 1, 2)).shape == (8, 3)


def test_more_settings_than_are_listed_are_none():
    assert group_settings(BasicSpace(parts=(1, 1, 1, 1)), (1, 2, 3)) is not None
    assert group_settings(BasicSpace(), BasicSpace().groups[-1]) is None
    assert count_settings(BasicSpace()) is None


def test_a_large_space_of_small_groups_is_counted():
    assert ShuffleNetSpace("large").num_architectures == 4**40


@pytest.mark.parametrize(
    ("together", "expected"),
    [([], ((0, 1), (2,))), ([(0,)], ((0, 1), (2,))), ([(1, 2)], ((0, 1, 2),)), ([(0, 1), (2,)], ((0, 1), (2,)))],
)
def test_groups_that_share_columns_are_united(together, expected):
    assert merge_groups(Sorted(), together) == expected


def test_stages_are_the_groups_of_staged_spaces():
    space = BasicSpace(parts=(1, 2, 1, 1))
    assert space.groups == ((0,), (1, 2, 3), (4, 5, 6, 7, 8, 9), (10, 11, 12), (13, 14, 15))
    rows = space.sample(200, np.random.default_rng(0))
    mixed = rows.copy()
    mixed[:, space.groups[2]] = rows[::-1, space.groups[2]]
    assert space.is_valid(mixed).all()


def test_shares_gene_by_gene_are_those_of_drawing_one_after_the_other():
    assert in_order_shares(group_settings(Sorted(), (0, 1))).tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    some = np.array([[0, 1, 1], [0, 2, 1], [0, 2, 3], [4, 0, 0]])
    assert in_order_shares(some).tolist() == pytest.approx([1 / 4, 1 / 8, 1 / 8, 1 / 2])
    space = OFAResNetSpace()
    for group in space.groups[3:]:
        settings = group_settings(space, group)
        blocks = np.count_nonzero(settings[:, 2:], axis=1)
        shares = in_order_shares(settings)  # a depth, a width, and the expansion of every block that is there
        assert shares == pytest.approx(1 / 3 / 3 / 3.0**blocks)
        assert shares.sum() == pytest.approx(1)
