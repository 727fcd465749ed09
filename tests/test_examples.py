"""Every search that README and docs show runs to its asked number of evaluations, and what it finds is looked at."""

import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nasray.cluster import OrderedSearch
from nasray.cluster.reading import parse_yaml
from nasray.loading import load_plan, parse_plan
from nasray.spaces import SPACES
from nasray.spaces.staged import StagedSpace
from nasray.stages import make_plan

from .own_space import registered
from .test_readme import PAGES, ROOT, blocks, command_lines

EXPERIMENTS = {
    f"{page.name}-{number}": content
    for page in PAGES
    for number, block in enumerate(blocks(page, "yaml"))
    if "space" in (content := parse_yaml(block, page.name)) and content["space"]["name"] in SPACES
}
SHORTEST = {
    f"shortest-{name}": {"space": {"name": name}, "budget": {"layers": 60}}
    for name, space in SPACES.items()
    if issubclass(space, StagedSpace)  # the default evaluator's
}


def searches():
    """Arguments of every `nasray search` of the pages."""
    lines = [shlex.split(line, comments=True) for _, line in command_lines()]
    found = {tuple(words[words.index("search") + 1 :]) for words in lines if "search" in words}
    return sorted(words for words in found if words and "--options" not in words)


def overrides(words):
    """The keys among a command's options: all but `--plan`, the run's folder and the stages that are left out.

    Nor are a bound on latency and its options: blocks would be measured first.
    """
    words = [word for word in words if word != "--plan"]
    if "--without" in words:
        first = words.index("--without")
        last = next((at for at in range(first + 1, len(words)) if words[at].startswith("--")), len(words))
        del words[first:last]
    measured = [word for word in words if word.startswith(("--folder", "--budget.latency-ms", "--latency."))]
    for option in measured:
        del words[words.index(option) : words.index(option) + 2]
    return words[0], words[1:]


def run(plan, evaluate):
    """The search of a plan and all that it evaluated: (N, G) genes and (N,) scores."""
    experiment = plan.experiment
    search = OrderedSearch(
        plan.parts.searcher, evaluations=experiment.evaluations, batch_size=experiment.batch_size,
        in_flight=experiment.in_flight,
    )  # fmt: skip
    told = []
    search.run(evaluate, told.append)
    genes = np.concatenate([batch.proposal.genes for batch in told])
    return search, genes, np.concatenate([batch.metrics["score"] for batch in told])


@pytest.mark.parametrize("name", [*EXPERIMENTS, *SHORTEST])
def test_a_yaml_of_the_docs_runs_to_its_end_and_finds_something(name):
    plan = parse_plan({"name": "mine", **{**EXPERIMENTS, **SHORTEST}[name]}, name)
    experiment, evaluate = plan.experiment, plan.parts.evaluator
    search, genes, scores = run(plan, evaluate)
    searcher = search.searcher
    assert search.ended_early is None
    assert len(np.unique(genes, axis=0)) == len(genes) == experiment.evaluations
    costs = searcher.cost(genes)
    assert searcher.budget.admits(costs, len(genes)).all()
    sample = searcher.space.sample(20_000, np.random.default_rng(0))
    sample = sample[searcher.budget.admits(searcher.cost(sample), len(sample))]
    assert scores.max() > evaluate(sample)["score"].max(), "a search of half as many beats 20,000 random ones"
    assert costs["layers"][scores.argmax()] > 0.8 * experiment.budget.layers, "entropy grows with depth"


@pytest.fixture
def own_space():
    """The space of docs/own-space.md."""
    with registered():
        yield


@pytest.mark.usefixtures("own_space")
@pytest.mark.parametrize("words", searches(), ids=lambda words: " ".join(words[:3]))
def test_a_search_of_the_docs_runs_to_its_end(words):
    """Under a stand-in for the score, since this is about what is asked for; at most some thousand evaluations."""
    name, options = overrides(words)
    plan = load_plan(name, options)
    if plan.parts.searching is None:  # a gradient search evaluates no architectures one by one
        assert {plan.experiment.searcher, plan.experiment.evaluator} == {None}
        return
    if plan.experiment.searcher.name == "listed":  # of the stage whose architectures it takes up
        source = plan.experiment.searcher.of
        few = min(plan.stages[source].experiment.evaluations, 4000)
        plan = load_plan(name, [*options, f"--stages.{source}.evaluations", str(few)])
        searched = plan.stages[source]
    else:
        searched = make_plan(replace(plan.experiment, evaluations=min(plan.experiment.evaluations, 4000)))
    experiment = searched.experiment

    def evaluate(genes):
        return {"score": np.sin(genes * np.arange(1, genes.shape[1] + 1)).sum(axis=1)}

    search, genes, _ = run(searched, evaluate)
    assert search.ended_early is None
    assert len(np.unique(genes, axis=0)) == len(genes) == experiment.evaluations


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in searches() if "maedet" in words[0]], ids=" ".join)
def test_a_search_of_the_docs_runs_whole(words):
    name, options = overrides(words)
    plan = load_plan(name, options)
    experiment = plan.experiment
    search, _, scores = run(plan, plan.parts.evaluator)
    assert search.ended_early is None
    assert len(scores) == experiment.evaluations
    assert scores.max() > scores[: experiment.evaluations // 100].max()


@pytest.mark.slow
def test_python_of_the_docs_runs(tmp_path):
    """The block in docs/spaces.md, with the space and the evaluator of examples/custom_space.py."""
    (code,) = (block for block in blocks(ROOT / "docs/spaces.md", "python") if "nasray.search(" in block)
    code = code.replace("runs/mine", str(tmp_path / "mine"))
    given = (
        "from examples.custom_space import AnchorSpace, mean_overlap as evaluator\n"
        "class Space(AnchorSpace):\n"
        "    def cost(self, population):\n"
        "        return {'params_m': population.sum(axis=1) / 200.0}\n"
        "space = Space()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", given + code], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "10,000/10,000" in done.stderr


def test_the_benchmark_of_a_shipped_experiment_is_that_experiment():
    """With further stages, which its figures are compared with."""
    shipped, measured = (
        parse_yaml((ROOT / path).read_text(), path)
        for path in ("nasray/experiments/detofa-laptop.yaml", "benchmarks/detofa_laptop.yaml")
    )
    stages, further = shipped.pop("stages"), measured.pop("stages")
    assert measured == shipped
    assert {name: further[name] for name in stages} == stages
    assert all(name.startswith(("random-", "same-", "unpruned")) for name in further.keys() - stages.keys())
