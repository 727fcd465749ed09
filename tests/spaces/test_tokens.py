import numpy as np

from nasray.spaces import BasicSpace, Gene, ShuffleNetSpace, Space
from nasray.spaces.tokens import ABSENT


class Cell(Space):
    family = "cell"
    genes = (Gene("0.kind", (0, 1)), Gene("0.width", (0, 1)), Gene("1.kind", (0, 1)), Gene("1.width", (0, 1, 3)))


def test_genes_of_one_kind_and_the_same_values_share_tokens():
    tokens = Cell().tokens(np.array([[0, 1, 1, 3], [1, 0, 0, 0]]))
    assert tokens.ids.tolist() == [[1, 4, 2, 7], [2, 3, 1, 5]]
    assert tokens.vocabulary == 8
    assert tokens.layer.tolist() == tokens.block.tolist() == [0, 1, 2, 3]


def test_blocks_of_a_shufflenet_have_four_tokens_in_all():
    space = ShuffleNetSpace()
    tokens = space.tokens(np.tile(np.arange(4)[:, None], 20))
    assert tokens.vocabulary == 5
    assert (tokens.ids == np.arange(1, 5)[:, None]).all()


def test_what_is_absent_has_a_token_of_its_own():
    space = BasicSpace(parts=(1, 2, 1, 1))
    tokens = space.tokens(space.start())
    assert (tokens.ids[0, 7:9] == ABSENT).all()
    assert (np.delete(tokens.ids[0], [7, 8, 9]) != ABSENT).all()
    assert tokens.block.tolist() == [0] + [1] * 3 + [2] * 6 + [3] * 3 + [4] * 3
