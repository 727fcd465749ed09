"""Parts of other packages are found by entry point and named like ours; nothing is imported before it is asked for."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from nasray.models.detectors import DETECTORS
from nasray.registry import SEARCHERS
from nasray.spaces import NasrayError

PACKAGE = '''
"""A package that knows nasray, and that nasray does not know."""

import numpy as np

from nasray.searchers import Searcher
from nasray.spaces import Architecture, Gene, Space


class Ladder(Space):
    """Rungs of several lengths.

    Args:
        rungs: Number of rungs.
    """

    family = "ladder"

    def __init__(self, *, rungs: int = 4) -> None:
        self.genes = tuple(Gene(f"rung{index}", (1, 2, 3)) for index in range(rungs))

    def cost(self, population):
        return {"length": population.sum(axis=1).astype(np.float64)}


class Blind(Searcher):
    """Try what comes.

    Args:
        hops: Samples that are thrown away first.
    """

    def __init__(self, space: Space, *, hops: int = 0, **options) -> None:
        super().__init__(space, **options)
        self.hops = hops

    def options(self):
        return {"hops": self.hops}

    def _propose(self, num, kind):
        for _ in range(self.hops):
            self.space.sample(1, self.rng)
        return self.space.sample(num, self.rng), np.full((num, 2), -1)


class Height:
    """Height of a ladder.

    Args:
        scale: Factor of the score.
    """

    def __init__(self, space: Space, *, seed: int = 0, scale: float = 1.0) -> None:
        self.space, self.seed, self.scale = space, seed, scale

    @staticmethod
    def fits(space):
        return None if space.family == "ladder" else "measures ladders"

    def __call__(self, genes):
        return {"score": self.scale * genes.sum(axis=1).astype(np.float64)}
'''
ENTRY_POINTS = """
[nasray.spaces]
ladder = ladders:Ladder
[nasray.searchers]
blind = ladders:Blind
broken = ladders:Missing
random = ladders:Blind
[nasray.evaluators]
height = ladders:Height
"""
EXPERIMENT = """
evaluations: 8
space: {name: ladder, rungs: 3}
searcher: {name: blind}
evaluator: {name: height, scale: 2.0}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of packages as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "ladders.py").write_text(PACKAGE)
    info = folder / "ladders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ladders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "mine.yaml").write_text(EXPERIMENT)
    return folder


def run(site, *arguments):
    """A process that has the package."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=site,
        timeout=120,
        check=False,
    )


def test_parts_of_another_package_are_named_like_ours(site):
    code = """
    import json
    from nasray.loading import load_plan
    plan = load_plan("mine.yaml", ["--searcher.hops", "2"])
    searcher, evaluator, experiment = plan.parts.searcher, plan.parts.evaluator, plan.experiment
    genes = searcher.ask(5).genes
    searcher.tell(genes, evaluator(genes))
    print(json.dumps({"hops": experiment.searcher.hops, "rungs": genes.shape[1], "kind": type(searcher).__name__,
                      "score": evaluator(genes)["score"].tolist(), "sums": (2.0 * genes.sum(axis=1)).tolist()}))
    """
    done = run(site, "-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["score"] == found["sums"]
    assert (found["hops"], found["rungs"], found["kind"]) == (2, 3, "Blind")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--searcher.hosp", "2"], "searcher 'blind' has no option 'hosp'; did you mean 'hops'? It has: name, hops"),
        (["--searcher.name", "blnd"], "unknown searcher 'blnd'; did you mean 'blind'? There are: random, evolution,"),
        (
            ["--space.name", "basic"],
            "evaluator 'height' measures ladders; space 'basic' does not fit. Take one of",
        ),
        (["--searcher.name", "broken"], "searcher 'broken' cannot be imported from ladders:Missing"),
        (["--evaluator.scale", ".inf"], "evaluator.scale: Input should be a finite number"),
    ],
)
def test_mistakes_with_parts_of_another_package_are_told_like_ours(site, arguments, message):
    done = run(site, "-m", "nasray", "search", "mine.yaml", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_parts_of_another_package_are_listed(site):
    done = run(site, "-m", "nasray", "list", "spaces", "ladder")
    assert done.stdout.startswith("ladder: Rungs of several lengths\nrungs 4\n    Number of rungs.\n"), done.stderr
    assert "architectures: 81, counted exactly" in done.stdout
    done = run(site, "-m", "nasray", "list", "searchers", "--json")
    listed = json.loads(done.stdout)
    assert listed["blind"] == "Try what comes"
    assert listed["broken"].startswith("searcher 'broken' cannot be imported")
    assert listed["random"].startswith("Independent samples"), "ours stays ours"


@pytest.mark.parametrize("registry", [SEARCHERS, DETECTORS], ids=lambda registry: registry.what)
def test_texts_are_the_first_lines_of_docstrings(registry):
    for name in registry:
        assert registry.text(name) + "." == registry[name].__doc__.strip().partition("\n")[0]


def test_a_process_registers_a_part_of_its_own(monkeypatch):
    monkeypatch.setitem(SEARCHERS, "mine", SEARCHERS["random"])
    assert SEARCHERS.part("mine") is SEARCHERS["random"]
    assert "mine" in list(SEARCHERS)
    monkeypatch.undo()
    assert "mine" not in SEARCHERS


def test_names_are_checked_without_importing_anything():
    code = "import sys; from nasray.models.detectors import DETECTORS; DETECTORS.check('fcos'); DETECTORS.text('gfl')"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    with pytest.raises(NasrayError, match="unknown detector 'fcso'; did you mean 'fcos'"):
        DETECTORS.check("fcso")
    assert "fcso" not in DETECTORS
