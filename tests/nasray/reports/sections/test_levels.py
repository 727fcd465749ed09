import numpy as np
import pytest

from nasray.reports.sections.levels import level_costs, levels_section


def test_levels_add_up_to_the_whole(staged):
    rows = staged.run.genes[:20]
    costs, whole = level_costs(staged.space.layers(rows)), staged.space.cost(rows)
    for name in ("gmacs", "params_m", "layers"):
        np.testing.assert_allclose(getattr(costs, name).sum(axis=0), whole[name])


@pytest.mark.parametrize("kind", ["staged", "shufflenet"])
def test_the_winner_stands_beside_the_reference_level_by_level(kind, request):
    subject = request.getfixturevalue(kind)
    section = levels_section(subject)
    assert [plot.name for plot in section.drawings] == ["level-layers", "level-gmacs", "level-params", "level-winner"]
    best = subject.folder.read_entries()[0]
    for name in ("gmacs", "params_m", "layers"):
        total = sum(level[name] for level in section.figures["levels"].values())
        assert total == pytest.approx(best.costs[name])
    assert ("maedet-m" in section.drawings[-1].alternative) == (kind == "staged")
