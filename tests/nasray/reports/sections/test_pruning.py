from collections import Counter

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nasray.filters.pruned import PrunedOperation, read_pruned
from nasray.reports.figures import RED
from nasray.reports.sections.filter import interval_text
from nasray.reports.sections.pruning import Grid, draw_map, draw_operations, grid_of, pruning_section
from nasray.spaces import OFAResNetSpace, ShuffleNetSpace
from nasray.spaces.buckets import Buckets
from tests.nasray.reports.detofa import SPACE


def test_the_page_says_what_was_pruned(detofa):
    (section,) = pruning_section(detofa, "prune")
    pruned = read_pruned(detofa.folder.path / "prune" / "pruned.json", SPACE)
    figures, counted = section.figures["prune.pruning"], Counter(one.state for one in pruned.operations)
    assert figures["pruned"] == counted["pruned"] > 10
    assert figures["pruned"] + figures["kept"] + figures["spared"] == len(SPACE.operations())
    assert figures["pruned_operations"] == [dict(operation) for operation in pruned.forbidden]
    assert f"Of {len(SPACE.operations())} operations {counted['pruned']} are pruned" in section.html
    assert "Strategy score-all: the worst 10 % of all was to go, then the worst 30 % of each bucket." in section.html
    assert "Trainings pass over 25 % of the paths that are left in a bucket" in section.html
    assert interval_text(figures["measured"]["acceptance"][1]) in section.html
    before, left = (figures["measured"]["settings"][name] for name in ("before", "left"))
    assert sum(left) < sum(before)
    for num in (*before, *left):
        assert (f">{num:,}<" if num < 10**7 else f">{num:.3g}<") in section.html
    assert pruning_section(detofa, "filter") == []


def test_every_operation_has_a_place_of_its_own():
    operations = OFAResNetSpace().operations()
    grid = Grid(operations)
    assert (len(operations), len(grid.layers), len(grid.columns)) == (378, 18, 27)
    assert len({grid.place_of(operation) for operation in operations}) == 378
    assert grid.genes == ("depth", "width", "expand")
    places, names = grid.marks()
    assert names == ["65", "80\ndepth 0", "100", "65", "80\ndepth 1", "100", "65", "80\ndepth 2", "100"]
    assert places == sorted(places)
    gaps = [after - before for before, after in zip(grid.places, grid.places[1:], strict=False)]
    assert gaps[0] < gaps[2] < gaps[8], "columns of one width are closest, depths furthest apart"


def test_operations_of_single_genes_have_a_map_too():
    space = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1))
    grid = Grid(space.operations())
    assert grid.layers == [gene.name for gene in space.genes]
    assert grid.marks() == ([0.0, 1.0, 2.0, 3.0], ["0", "1", "2", "3"])


def made(state, place, operation):
    return PrunedOperation(operation, score=float(place), cost=1.0 + place, bucket=place % 2, state=state)


def test_pruned_operations_are_red_where_they_stand():
    operations = [
        made("pruned" if place in (3, 7) else "spared" if place == 5 else "kept", place, operation)
        for place, operation in enumerate(SPACE.operations())
    ]
    axes, grid = Figure().add_subplot(), grid_of(operations)
    draw_map(axes, operations=operations, grid=grid)
    red = [(bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2)
           for bar in axes.patches if to_hex(bar.get_facecolor()) == RED]  # fmt: skip
    wanted = [grid.place_of(operations[place].operation) for place in (3, 7)]
    assert [(round(x, 6), round(y, 6)) for x, y in red] == [(round(x, 6), y) for x, y in wanted]
    assert len(axes.patches) == len(operations)
    assert axes.get_legend_handles_labels()[1] == ["kept", "pruned", "spared"]
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == ["c2.0", "c2.1"]
    axes = Figure().add_subplot()
    draw_operations(axes, operations=operations, buckets=Buckets("gmacs", (1.0, 5.0, 400.0)))
    assert {len(line.get_xdata()) for line in axes.lines} == {2, 1, len(operations) - 3}
