"""Conformance of search spaces: run `check_space` on your own space from your own tests.

Plain functions that raise `AssertionError` with what was wrong; nothing but what a space needs is imported.

Shapes: N architectures in a population, G genes in a row.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture, text_id
from nasray.spaces.base import Gene, Population, Space, row_keys
from nasray.spaces.budget import Budget

MAX_ENUMERATED = 20_000
"""Spaces with at most so many combinations of gene values are checked architecture by architecture."""

Check = Callable[[Space, np.random.Generator, int], None]


def check_space(space: Space, *, seed: int = 0, num: int = 256) -> None:
    """Run every check of `SPACE_CHECKS`, each with a generator of its own.

    Args:
        space: Space to check.
        seed: Seed of the generators.
        num: Architectures that a check looks at, where it does not enumerate the space.

    Raises:
        AssertionError: naming the first broken rule, with the offending rows.
    """
    for check in SPACE_CHECKS:
        check(space, np.random.default_rng(seed), num)


def check_genes(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that genes have distinct names, and as many as there are columns."""
    del rng, num
    names = [gene.name for gene in space.genes]
    assert len(names) == len(set(names)), f"gene names are not unique: {names}"
    assert space.num_genes == len(names), f"num_genes is {space.num_genes}, there are {len(names)} genes"
    assert isinstance(space.family, str), f"family must be a string, got {space.family!r}"
    assert space.family, "family must not be empty"


def check_sample(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `sample` returns valid rows, as many as asked for, none for 0."""
    _assert_population(space, space.sample(num, rng), num, "sample")
    _assert_population(space, space.sample(0, rng), 0, "sample(0)")


def check_start(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `start` returns valid rows, perhaps none."""
    del rng, num
    rows = space.start()
    _assert_population(space, rows, len(rows), "start")


def check_mutate(space: Space, rng: np.random.Generator, num: int) -> None:
    """`mutate` and `mutate_finely` give a valid row for each, leave their argument alone; `mutate` moves at all."""
    for what, mutate in (("mutate", space.mutate), ("mutate_finely", space.mutate_finely)):
        rows = np.concatenate([space.start(), space.sample(num, rng)])
        before, moved = rows.copy(), False
        for _ in range(8):  # mutants of mutants reach what samples do not
            mutants = mutate(rows, rng)
            _assert_population(space, mutants, len(rows), what)
            _assert_equal(rows, before, f"{what} changed its argument")
            moved |= bool((mutants != rows).any())
            rows, before = mutants, mutants.copy()
        single = all(len(gene.values) == 1 for gene in space.genes)
        assert mutate == space.mutate_finely or moved or single, f"{what} never changed any of {len(rows)} rows"
        _assert_population(space, mutate(rows[:0], rng), 0, f"{what} of no rows")


def check_crossover(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `crossover` returns one valid row for each pair; a row crossed with itself is itself."""
    first, second = space.sample(num, rng), space.sample(num, rng)
    before = first.copy(), second.copy()
    _assert_population(space, space.crossover(first, second, rng), num, "crossover")
    _assert_equal(first, before[0], "crossover changed its first argument")
    _assert_equal(second, before[1], "crossover changed its second argument")
    _assert_equal(space.crossover(first, first, rng), first, "a row crossed with itself became another")
    _assert_population(space, space.crossover(first[:0], second[:0], rng), 0, "crossover of no rows")


def check_repair(space: Space, rng: np.random.Generator, num: int) -> None:
    """`repair` maps any allowed values to valid rows, leaves valid rows alone, and is idempotent."""
    rows = _any_rows(space, rng, num)
    before = rows.copy()
    repaired = space.repair(rows)
    _assert_population(space, repaired, len(rows), "repair")
    _assert_equal(rows, before, "repair changed its argument")
    _assert_equal(space.repair(repaired), repaired, "repair is not idempotent")
    valid = space.sample(num, rng)
    _assert_equal(space.repair(valid), valid, "repair changed a valid row")
    _assert_population(space, space.repair(rows[:0]), 0, "repair of no rows")


def check_is_valid(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check `is_valid`: an (N,) mask that judges every row by itself and rejects what no gene has as a value."""
    rows = space.sample(num, rng)
    mask = space.is_valid(rows[:0])
    assert mask.shape == (0,), f"is_valid of no rows has shape {mask.shape}, not (0,)"
    for column, gene in enumerate(space.genes):
        inside = np.isin(rows[:, column], gene.values)
        low, high = gene.values[0], gene.values[-1]
        gaps = [value for value in (low - 1, low + 1, high - 1, 0) if value not in gene.values]
        for value in (-1, high + 1, *gaps):
            # Every other row is spoilt, so that a good and a bad row never stand in for each other.
            spoilt = rows.copy()
            spoilt[::2, column] = value
            mask = space.is_valid(spoilt)
            assert mask.shape == (num,), f"is_valid has shape {mask.shape}, not ({num},)"
            assert mask.dtype == bool, f"is_valid has dtype {mask.dtype}, not bool"
            wrong = np.flatnonzero(mask[::2] & inside[::2])
            assert not len(wrong), (
                f"is_valid accepts {gene.name}={value}, which is not among {_short(gene.values)}: "
                f"{spoilt[::2][wrong[0]].tolist()}"
            )
            assert mask[1::2].all(), f"is_valid rejects a good row that stands beside rows with {gene.name}={value}"


def check_cost(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that costs are finite, (N,), and the same to the last bit whatever population a row stands in."""
    rows = space.sample(num, rng)
    costs = space.cost(rows)
    for name, values in costs.items():
        assert values.shape == (num,), f"cost {name} has shape {values.shape}, not ({num},)"
        assert values.dtype == np.float64, f"cost {name} has dtype {values.dtype}, not float64"
        bad = np.flatnonzero(~np.isfinite(values))
        assert not len(bad), f"cost {name} is {values[bad[0]]} for {rows[bad[0]].tolist()}"
    order = rng.permutation(num)
    _assert_same_costs(space, rows[order], {name: values[order] for name, values in costs.items()}, "in another order")
    for index in range(min(num, 16)):
        alone = {name: values[index : index + 1] for name, values in costs.items()}
        _assert_same_costs(space, rows[index : index + 1], alone, "alone")
    _assert_same_costs(space, rows[:0], {name: values[:0] for name, values in costs.items()}, "of no rows")


def check_architectures(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that rows and architectures are one to one, also through JSON; texts are canonical, ids their hash."""
    rows = np.unique(np.concatenate([space.start(), space.sample(num, rng)]), axis=0)
    texts, ids = space.texts(rows), space.ids(rows)
    assert len(set(ids)) == len(rows), f"{len(rows)} different rows have {len(set(ids))} different ids"
    assert len(np.unique(row_keys(rows))) == len(rows), "different rows have equal row_keys"
    for row, text, row_id in zip(rows, texts, ids, strict=True):
        architecture = space.to_architecture(row)
        assert architecture.text == text, f"texts returns {text}, to_architecture returns {architecture.text}"
        canonical = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
        assert text == canonical, f"not canonical JSON: {text}, should be {canonical}"
        assert architecture.family == space.family, f"family {architecture.family!r} instead of {space.family!r}"
        assert architecture.id == row_id == text_id(text), (
            f"ids returns {row_id}, the architecture has {architecture.id}"
        )
        read = Architecture.from_json(json.dumps(json.loads(text), indent=2))
        assert read == architecture, f"JSON round trip changed {text} into {read.text}"
        back = space.from_architecture(read)
        assert back.shape == (space.num_genes,), f"from_architecture returns shape {back.shape}"
        _assert_equal(back[None], row[None], f"from_architecture(to_architecture(row)) is another row, of {text}")
    assert space.texts(rows[:0]) == [], "texts of no rows are not an empty list"


def check_foreign_architectures(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `from_architecture` raises ValueError for other families, lacking or additional keys."""
    del num
    own = space.to_architecture(space.sample(1, rng)[0])
    foreign = {
        "another family": Architecture.create("no-such-family", own.spec),
        "an empty spec": Architecture.create(space.family, {}),
        "an additional key": Architecture.create(space.family, {**own.spec, "no-such-key": 1}),
    }
    for what, architecture in foreign.items():
        try:
            row = space.from_architecture(architecture)
        except ValueError:
            continue
        raise AssertionError(f"from_architecture took an architecture with {what} for {row.tolist()}")


def check_tune(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that Ray Tune draws valid rows from `to_tune`, and every valid row is in its domains."""
    domains = space.to_tune()
    assert set(domains) == {gene.name for gene in space.genes}, f"to_tune names {sorted(domains)}"
    drawn = {name: np.ravel(domain.sample(size=num, random_state=rng)) for name, domain in domains.items()}
    rows = [space.from_tune({name: values[index] for name, values in drawn.items()}) for index in range(num)]
    _assert_population(space, np.array(rows), num, "from_tune(sampled config)")
    for row in _all_or_some_rows(space, rng, num):
        config = _carried_values(space, row)
        for name, value in config.items():
            assert _draws(domains[name], value), f"to_tune's {name} never draws {value}"
        _assert_equal(space.from_tune(config)[None], row[None], f"from_tune({config}) is another row")


def check_suggest(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that Optuna suggests valid rows, and can suggest every valid row."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=int(rng.integers(2**31))))
    optuna.logging.set_verbosity(verbosity)
    rows = [space.suggest(study.ask()) for _ in range(min(num, 64))]
    _assert_population(space, np.array(rows), len(rows), "suggest")
    for row in _all_or_some_rows(space, rng, num):
        params = _carried_values(space, row)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna only warns of a value outside of its distribution
            try:
                suggested = space.suggest(optuna.trial.FixedTrial(params))
            except (ValueError, UserWarning) as error:
                raise AssertionError(f"Optuna cannot suggest {row.tolist()}: {error}") from error
        _assert_equal(suggested[None], row[None], f"suggest with {params} is another row")


def check_groups(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `groups` divides the columns, any settings of groups fit, and `num_architectures` counts them."""
    columns = sorted(column for group in space.groups for column in group)
    assert columns == list(range(space.num_genes)), f"groups {space.groups} are no division of the columns"
    rows = np.concatenate([space.start(), space.sample(num, rng)])
    mixed = rows.copy()
    for group in space.groups:
        mixed[:, group] = rows[rng.permutation(len(rows))][:, group]
    _assert_population(space, mixed, len(rows), "mixing the settings of groups")
    if math.prod(len(gene.values) for gene in space.genes) <= MAX_ENUMERATED:
        counted, listed = space.num_architectures, len(all_rows(space))
        assert counted == listed, f"num_architectures is {counted}, there are {listed}"


def check_sample_within(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `sample_within` returns valid rows within the budget, as many as asked for where there are any."""
    costs = space.cost(space.sample(num, rng))
    for name, values in costs.items():
        middle = float(np.median(values))
        for budget in (Budget(upper={name: middle}), Budget(lower={name: middle})):
            rows = space.sample_within(num, budget, rng)
            _assert_population(space, rows, num, f"sample_within({budget})")
            bad = np.flatnonzero(~budget.admits(space.cost(rows), num))
            assert not len(bad), f"sample_within({budget}) returns {rows[bad[0]].tolist()}"
        vain = space.sample_within(num, Budget(upper={name: float(values.min()) - 1e12}), rng, max_tries=64)
        _assert_population(space, vain, 0, "sample_within of a budget that nothing meets")
    _assert_population(space, space.sample_within(num, Budget(), rng), num, "sample_within without a budget")


def check_tokens(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `tokens` are in the vocabulary, a sequence for each row, and different for different architectures."""
    rows = np.unique(space.sample(num, rng), axis=0)
    tokens = space.tokens(rows)
    length = len(tokens.layer)
    assert tokens.ids.shape == (len(rows), length), f"tokens have shape {tokens.ids.shape}, layer has {length}"
    assert tokens.block.shape == (length,), f"block has shape {tokens.block.shape}, layer has {length}"
    inside = (tokens.ids >= 0) & (tokens.ids < tokens.vocabulary)
    assert inside.all(), f"tokens {tokens.ids[~inside].tolist()} of a vocabulary of {tokens.vocabulary}"
    distinct = len(np.unique(tokens.ids, axis=0))
    assert distinct == len(rows), f"{len(rows)} architectures have {distinct} different sequences of tokens"
    alone = space.tokens(rows[:1])
    _assert_equal(alone.ids, tokens.ids[:1], "tokens of a row depend on what stands beside it")
    assert space.tokens(rows[:0]).ids.shape == (0, length), "tokens of no rows have another length"


def check_texts_about_itself(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that `cost_scope` is a word, and `network_options` are JSON."""
    del rng, num
    assert isinstance(space.cost_scope, str), f"cost_scope must be a string, got {space.cost_scope!r}"
    assert space.cost_scope, "cost_scope must not be empty"
    options = space.network_options()
    assert json.loads(json.dumps(options)) == options, f"network_options change through JSON: {options}"


def check_same_seed(space: Space, rng: np.random.Generator, num: int) -> None:
    """Check that the same generator state leads to the same results; nothing else is drawn from."""
    seed = int(rng.integers(2**31))

    def everything() -> list[Population]:
        own = np.random.default_rng(seed)
        first, second = space.sample(num, own), space.sample(num, own)
        return [
            first,
            second,
            space.mutate(first, own),
            space.mutate_finely(first, own),
            space.crossover(first, second, own),
        ]

    names = ("sample", "second sample", "mutate", "mutate_finely", "crossover")
    for name, left, right in zip(names, everything(), everything(), strict=True):
        _assert_equal(left, right, f"{name} differs for the same seed")


SPACE_CHECKS: tuple[Check, ...] = (
    check_genes,
    check_sample,
    check_start,
    check_mutate,
    check_crossover,
    check_repair,
    check_is_valid,
    check_cost,
    check_architectures,
    check_foreign_architectures,
    check_tune,
    check_suggest,
    check_groups,
    check_sample_within,
    check_tokens,
    check_texts_about_itself,
    check_same_seed,
)


def all_rows(space: Space) -> Population:
    """Return (N, G) every valid row of a small space: what `repair` makes of all combinations of gene values.

    Raises:
        ValueError: if there are more than `MAX_ENUMERATED` combinations.
    """
    combinations = math.prod(len(gene.values) for gene in space.genes)
    if combinations > MAX_ENUMERATED:
        raise ValueError(f"{combinations} combinations of gene values, at most {MAX_ENUMERATED} are enumerated")
    rows = np.array(list(itertools.product(*(gene.values for gene in space.genes))), dtype=np.int64)
    return np.unique(space.repair(rows), axis=0)


def _all_or_some_rows(space: Space, rng: np.random.Generator, num: int) -> Population:
    """Return every valid row of a small space; else start rows, samples, mutants, and repaired extremes."""
    if math.prod(len(gene.values) for gene in space.genes) <= MAX_ENUMERATED:
        return all_rows(space)
    sampled = space.sample(num, rng)
    extremes = np.array([[gene.values[end] for gene in space.genes] for end in (0, -1)], dtype=np.int64)
    some = [space.start(), space.repair(extremes), sampled[: num // 2], space.mutate(sampled[num // 2 :], rng)]
    return np.concatenate(some)


def _any_rows(space: Space, rng: np.random.Generator, num: int) -> Population:
    """Return (num, G) independent uniform draws of the allowed values, which need not fit each other."""
    columns = [np.asarray(gene.values)[rng.integers(len(gene.values), size=num)] for gene in space.genes]
    return np.stack(columns, axis=1).astype(np.int64)


def _carried(gene: Gene, value: int) -> int:
    """Return a gene's value as Tune and Optuna carry it; any value for what `repair` put there and is not allowed."""
    allowed = int(value) if int(value) in gene.values else gene.values[0]
    return allowed // gene.values[0] if gene.log else allowed


def _carried_values(space: Space, row: NDArray[np.int64]) -> dict[str, int]:
    """Return a Tune config or Optuna's parameters of a row; the two carry genes alike."""
    return {gene.name: _carried(gene, value) for gene, value in zip(space.genes, row, strict=True)}


def _draws(domain: Any, value: int) -> bool:
    """Return whether a Tune domain, which may check less strictly than it draws, has the value."""
    if hasattr(domain, "categories"):
        return value in domain.categories
    quantum = getattr(domain.get_sampler(), "q", 1) or 1
    return domain.lower <= value < domain.upper and value % quantum == 0


def _assert_population(space: Space, rows: Population, num: int, what: str) -> None:
    shape = (num, space.num_genes)
    assert isinstance(rows, np.ndarray), f"{what} returns {type(rows).__name__}, not an array"
    assert rows.shape == shape, f"{what} returns shape {rows.shape}, not {shape}"
    assert rows.dtype == np.int64, f"{what} returns dtype {rows.dtype}, not int64"
    valid = space.is_valid(rows)
    bad = np.flatnonzero(~valid)
    assert not len(bad), f"{what} returns {len(bad)} invalid rows of {num}, the first is {rows[bad[0]].tolist()}"


def _assert_equal(left: Population, right: Population, message: str) -> None:
    assert left.shape == right.shape, f"{message}: shapes {left.shape} and {right.shape}"
    differs = np.flatnonzero((left != right).any(axis=1))
    if len(differs):
        first = int(differs[0])
        raise AssertionError(f"{message}: {left[first].tolist()} is not {right[first].tolist()}")


def _assert_same_costs(space: Space, rows: Population, expected: dict[str, NDArray[np.float64]], what: str) -> None:
    costs = space.cost(rows)
    assert list(costs) == list(expected), f"costs {what} are {list(costs)}, were {list(expected)}"
    for name, values in costs.items():
        assert values.shape == expected[name].shape, f"cost {name} {what} has shape {values.shape}"
        differs = np.flatnonzero(values != expected[name])
        assert not len(differs), (
            f"cost {name} {what} is {values[differs[0]]!r} instead of {expected[name][differs[0]]!r} "
            f"for {rows[differs[0]].tolist()}"
        )


def _short(values: tuple[int, ...]) -> str:
    return str(values) if len(values) <= 12 else f"({values[0]}, {values[1]}, ..., {values[-1]})"
