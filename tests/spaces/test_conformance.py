import numpy as np
import pytest

from nasray.spaces import (
    SPACES,
    BasicSpace,
    BottleneckSpace,
    FADSpace,
    Gene,
    InvertedSpace,
    MSNASSpace,
    OFAResNetSpace,
    RestrictedSpace,
    ShuffleNetSpace,
    Space,
)
from nasray.spaces.restricted import forbid_values
from nasray.spaces.testing import SPACE_CHECKS, check_is_valid, check_repair, check_space, check_suggest, check_tune


class Cell(Space):
    """Every kind of gene, and one that depends on another: a layer without an operation has the smallest width."""

    family = "cell"
    genes = (
        Gene("operation", (0, 1, 2), ordered=False),
        Gene("width", (8, 16, 24, 32), log=True),
        Gene("kernel", (3, 5, 7)),
        Gene("expansion", (1, 3, 6)),
        Gene("depth", (1, 2, 3)),
    )

    def repair(self, population):
        repaired = population.copy()
        repaired[repaired[:, 0] == 0, 1] = 8
        return repaired

    def cost(self, population):
        return {"width": population[:, 1].astype(np.float64)}


TINY = {"max_width": 16, "max_stem_width": 16, "kernels": (3,)}
TESTED = {
    **{family: make() for family, make in SPACES.items()},
    "cell": Cell(),
    "tiny": BottleneckSpace(**TINY, max_mid=16, parts=(1, 1, 1, 1), max_depth=1),
    "tiny with parts": BasicSpace(**TINY, parts=(1, 2, 1, 1), max_depth=1),
    "narrow shufflenet": ShuffleNetSpace(stem_width=4, widths=(8, 12, 16, 24), depths=(1, 2, 1, 1)),
    "many parts": InvertedSpace(kernels=(5, 3, 7), parts=(3, 3, 3, 3), max_depth=3),
    "operations of darts": FADSpace(operations="darts", groups=1),
    "coupled narrow once-for-all": OFAResNetSpace("tiny", coupled=True),
    "once-for-all with resolutions": OFAResNetSpace(
        "tiny", image_hw=(128, 160), resolutions=((64, 96), (96, 160), (128, 160))
    ),
    "msnas of live blocks": MSNASSpace("tiny", dead_blocks=False, counted="live"),
    "msnas like FPN": MSNASSpace("r50", utilization="fpn", counted="live"),
    "free msnas": MSNASSpace("laptop", blocks=1, utilization="free"),
    "msnas with a first stride of 1": RestrictedSpace(
        MSNASSpace("r34"), forbid_values(MSNASSpace("r34"), {"b0.stride": [1]})
    ),
    "restricted once-for-all": RestrictedSpace(
        OFAResNetSpace("laptop"),
        (*forbid_values(OFAResNetSpace("laptop"), {"expand": [20, 35]}), (("c2.depth", 1), ("c2.width", 65))),
    ),
    "restricted cell": RestrictedSpace(Cell(), ((("width", 16), ("kernel", 5)), (("depth", 2),), (("width", 8),))),
    "restricted shufflenet": RestrictedSpace(
        ShuffleNetSpace(), (*forbid_values(ShuffleNetSpace(), {"c2.0": [0, 3]}), (("c2.1", 1), ("c5.3", 2)))
    ),
    "restricted stages": RestrictedSpace(
        BottleneckSpace(), forbid_values(BottleneckSpace(), {"kernel": [3], "width": [64, 128, 256]})
    ),
}


@pytest.mark.parametrize("space", TESTED.values(), ids=TESTED)
@pytest.mark.parametrize("check", SPACE_CHECKS, ids=lambda check: check.__name__)
def test_space(space, check):
    check(space, np.random.default_rng(0), 48)


def test_check_space_runs_every_check():
    check_space(Cell(), seed=1, num=16)


class NotIdempotent(Cell):
    def repair(self, population):
        return np.where(population[:, 1:2] < 32, population + np.array([0, 8, 0, 0, 0]), population)


class TakesAnything(Cell):
    def is_valid(self, population):
        return np.ones(len(population), dtype=bool)


class TuneLacksTheLast(Cell):
    def to_tune(self):
        from ray import tune

        return {**super().to_tune(), "depth": tune.randint(1, 3)}


class OptunaLacksTheLast(Cell):
    def suggest(self, trial):
        row = [gene.suggest(trial) for gene in self.genes[:-1]]
        return self.repair(np.array([[*row, trial.suggest_int("depth", 1, 2)]]))[0]


@pytest.mark.parametrize(
    ("space", "check", "message"),
    [
        (NotIdempotent(), check_repair, "not idempotent|invalid|changed a valid row"),
        (TakesAnything(), check_is_valid, "accepts operation=-1"),
        (TuneLacksTheLast(), check_tune, "depth never draws 3"),
        (OptunaLacksTheLast(), check_suggest, "cannot suggest .*, 3]"),
    ],
)
def test_checks_find_broken_spaces(space, check, message):
    with pytest.raises(AssertionError, match=message):
        check(space, np.random.default_rng(0), 32)
