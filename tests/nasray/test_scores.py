"""Scores: the closed form, literal sampling, the proxies it is compared with, and rank agreement."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.models import build
from nasray.scores.agreement import agreement_report, pass_seed
from nasray.scores.entropy import (
    NARROW,
    NUM_LEVELS,
    SINGLE_SCALE,
    entropy_score,
    level_entropies,
    level_widths,
    log_width_score,
    narrowness,
    weigh_levels,
)
from nasray.scores.naswot import naswot_score
from nasray.scores.ranking import rank_correlations
from nasray.scores.sampled import sampled_entropy, sampled_level_entropies
from nasray.scores.synflow import synflow_score
from nasray.scores.zen import zen_score
from nasray.searchers import RandomSearch
from nasray.spaces import SPACES, Architecture, BottleneckSpace, Budget, NasrayError
from nasray.spaces.staged import StagedSpace

FACTS = Path(__file__).parents[2].parent / "shared" / "facts" / "mae-det.json"
HW = (384, 384)
STAGED = [family for family, space in SPACES.items() if issubclass(space, StagedSpace)]


pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(family, *, width=16, **changes):
    """A small network of `family` that has all kinds of shortcuts."""
    mid = {"bottleneck": {"bottleneck": width // 2}, "basic": {}}.get(family, {"expansion": 3})
    stages = [{"kernel": 3, "width": width, "depth": 2, "stride": 2, **mid} for _ in range(4)]
    stages.insert(3, {"kernel": 5, "width": width + 8, "depth": 2, "stride": 1, **mid, **changes})
    return Architecture.create(family, {"stem": {"kernel": 3, "width": 16}, "stages": stages})


# ---- closed form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "score"),
    [
        # the released code's score "madnas", measured on its own models
        ("maedet-s", 1731.907009966715),
        ("maedet-m", 2114.7828676827894),
        ("maedet-l", 2599.396120322784),
        ("maedet-initial", 608.2001741059656),
    ],
)
def test_log_width_is_the_released_score(name, score):
    assert log_width_score(layer_table(ARCHITECTURES[name], HW))[0] == pytest.approx(score, rel=1e-13)


@pytest.mark.parametrize(
    ("name", "mean", "noise"),
    [
        # mean and standard deviation over 15 forward passes of an independent implementation, without shortcuts
        ("maedet-m", [1.646, 14.43, 92.98, 181.78, 257.87], [0.018, 0.25, 0.66, 0.77, 0.97]),
        # the mean of two such passes of each; the noise is that of one
        ("maedet-s", [1.671, 13.525, 43.037, 125.689, 218.586], [0.02, 0.25, 0.4, 0.7, 0.9]),
        ("maedet-l", [1.656, 15.194, 113.114, 222.415, 319.755], [0.02, 0.25, 0.9, 0.9, 1.1]),
    ],
)
@pytest.mark.parametrize("residual", [False, True])
def test_closed_form_is_within_the_noise_of_forward_passes(name, mean, noise, residual):
    entropies = level_entropies(layer_table(ARCHITECTURES[name], HW), residual=residual, image_hw=HW)[:, 0]
    assert np.all(np.abs(entropies - mean) < 2 * np.array(noise))


@pytest.mark.parametrize("family", STAGED)
def test_same_to_the_last_bit_in_any_population(family):
    space = SPACES[family]()
    rows = space.sample(24, np.random.default_rng(0))
    together = entropy_score(space.layers(rows))
    assert np.isfinite(together).all()
    shuffled = np.random.default_rng(1).permutation(len(rows))
    assert np.array_equal(entropy_score(space.layers(rows[shuffled])), together[shuffled])
    for index, row in enumerate(rows):
        assert entropy_score(space.layers(row[None]))[0] == together[index]
        assert entropy_score(layer_table(space.to_architecture(row), HW))[0] == together[index]


def test_the_score_does_not_depend_on_what_was_scored_before():
    from nasray.scores import borders

    space = BottleneckSpace()
    rows = np.repeat(space.start(), 300, axis=0)
    for _ in range(6):
        rows = space.mutate(rows, np.random.default_rng(5))
    borders._profiles_of.cache_clear()
    together = entropy_score(space.layers(rows))
    for index in range(0, 300, 7):  # each alone, in a process that has scored nothing yet
        borders._profiles_of.cache_clear()
        assert entropy_score(space.layers(rows[index : index + 1]))[0] == together[index]


def test_depth_and_width_raise_the_score():
    spec = ARCHITECTURES["maedet-s"].spec
    before = entropy_score(layer_table(ARCHITECTURES["maedet-s"], HW))[0]
    for key, value in [("depth", 12), ("width", 4096), ("bottleneck", 480)]:
        changed = {**spec, "stages": [*spec["stages"][:3], {**spec["stages"][3], key: value}]}
        assert entropy_score(layer_table(Architecture.create("bottleneck", changed), HW))[0] > before


def test_narrowness_adds_up_layers():
    table = layer_table(small("basic", width=16), HW)
    assert narrowness(table)[0] == pytest.approx(1 / 16 + 4 * 4 / 16 + 4 / 24)  # stem, and two layers a block
    published = [narrowness(layer_table(architecture, HW))[0] for architecture in ARCHITECTURES.values()]
    assert max(published) < NARROW / 4


def test_level_widths_and_weights():
    table = layer_table(ARCHITECTURES["resnet50"], HW)
    widths = level_widths(table)
    assert widths[:, 0].tolist() == [64, 256, 512, 1024, 2048]
    entropies = level_entropies(table)
    single = entropy_score(table, weights=SINGLE_SCALE, size_factor="none")
    assert single[0] == entropies[4, 0]
    by_size = weigh_levels(entropies, widths, (0, 0, 1, 0, 0), "map-size", HW)
    assert by_size[0] == entropies[2, 0] * (48 * 48)
    with pytest.raises(ValueError, match="five numbers"):
        entropy_score(table, weights=(1.0, 1.0, 6.0))


# ---- sampled --------------------------------------------------------------------------------------------------------


def test_sampled_entropy_of_a_published_network():
    # Z without size factor: 1822.0 +- 7.1, an independent implementation's 15 passes at 384x384
    entropies = sampled_level_entropies(ARCHITECTURES["maedet-m"], generator=generator(), residual=False)
    assert abs(float(entropies @ [0, 0, 1, 1, 6]) - 1822.0) < 4 * 7.1


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("residual", [False, True])
def test_closed_form_is_the_mean_of_forward_passes(family, residual):
    architecture = small(family, width=64)
    num = 12
    options = {"residual": residual, "image_hw": (64, 64)}
    passes = np.stack([sampled_level_entropies(architecture, generator=generator(s), **options) for s in range(num)])
    expected = level_entropies(layer_table(architecture, (64, 64)), **options)[:, 0]
    # The closed form is of first order in 1 / width; what that leaves is below 0.1 a level at these widths.
    error = 4 * passes.std(axis=0, ddof=1) / math.sqrt(num) + 0.1
    assert np.all(np.abs(passes.mean(axis=0) - expected) < error)


def test_sampled_entropy_of_a_single_convolution():
    # H(C1): 27 inputs, less the zero padding of one row and one column, whatever comes after
    entropies = [sampled_level_entropies(small("basic"), generator=generator(s), image_hw=(64, 64)) for s in range(8)]
    assert np.mean(entropies, axis=0)[0] == pytest.approx(0.5 * math.log(27), abs=0.1)


@pytest.mark.parametrize("family", STAGED)
def test_sampled_entropy_does_not_depend_on_the_gammas(family, monkeypatch):
    from nasray.scores import sampled

    options = {"image_hw": (64, 64)}
    before = sampled_level_entropies(small(family), generator=generator(), **options)

    def other_gamma(before, *, relu):
        values = (before.values.relu() if relu else before.values) / 7.0
        return sampled._Map(values, before.log_scale + math.log(7.0))

    monkeypatch.setattr(sampled, "_rescaled", other_gamma)
    after = sampled_level_entropies(small(family), generator=generator(), **options)
    np.testing.assert_allclose(after, before, rtol=1e-5)


def test_sampled_entropy_depends_on_the_generator_alone():
    architecture = small("inverted-se")
    options = {"repeats": 2, "image_hw": (64, 64)}
    first = sampled_entropy(architecture, generator=generator(3), **options)
    torch.manual_seed(99)
    assert sampled_entropy(architecture, generator=generator(3), **options) == first
    assert sampled_entropy(architecture, generator=generator(4), **options) != first
    shared = generator(3)
    passes = [sampled_entropy(architecture, generator=shared, image_hw=(64, 64)) for _ in range(2)]
    assert np.mean(passes) == pytest.approx(first)
    with pytest.raises(ValueError, match="repeats"):
        sampled_entropy(architecture, generator=generator(), repeats=0)


def test_pooled_and_strided_networks_are_sampled_too():
    for name in ("resnet18", "mobilenet-v2"):
        entropies = sampled_level_entropies(ARCHITECTURES[name], generator=generator(), image_hw=(96, 96))
        assert entropies.shape == (NUM_LEVELS,)
        assert np.all(np.diff(entropies) > 0)


@pytest.mark.skipif(not FACTS.exists(), reason="the measured facts are not beside this checkout")
def test_closed_form_ranks_as_measured_forward_passes_do():
    rows = json.loads(FACTS.read_text())["architectures"]
    closed, passes = [], []
    for row in rows:
        if "sampled_log_std_per_stage" not in row:
            continue
        stem, *stages = row["blocks"]
        names = ("kernel", "width", "stride", "depth", "bottleneck")
        spec = {
            "stem": {"kernel": stem[0], "width": stem[1]},
            "stages": [dict(zip(names, stage, strict=True)) for stage in stages],
        }
        table = layer_table(Architecture.create("bottleneck", spec), HW)
        closed.append(level_entropies(table, residual=False, image_hw=HW)[:, 0])
        passes.append(np.mean(row["sampled_log_std_per_stage"], axis=0))
    weights = np.array([0.0, 0.0, 1.0, 1.0, 6.0])
    closed_scores, sampled_scores = np.array(closed) @ weights, np.array(passes) @ weights
    assert len(closed_scores) > 10
    assert rank_correlations(closed_scores, sampled_scores)[0] > 0.95
    assert abs(np.mean(closed_scores - sampled_scores)) < 3.0


# ---- proxies --------------------------------------------------------------------------------------------------------

PROXIES = {
    "zen": (zen_score, {"batch_size": 4}),
    "naswot": (naswot_score, {"batch_size": 6}),
    "synflow": (synflow_score, {}),
}


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("family", STAGED)
def test_proxies_are_pure(proxy, family):
    score, options = PROXIES[proxy]
    options = {"image_hw": (32, 32), **options}
    network = build(small(family)).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modules = [str(module) for module in network.modules()]
    first = score(network, generator=generator(1), **options)
    assert math.isfinite(first)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [str(module) for module in network.modules()] == modules
    assert not network.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    # neither the module's own weights nor the global generator matter
    network.reset_parameters()
    torch.manual_seed(5)
    assert score(network, generator=generator(1), **options) == pytest.approx(first, rel=1e-6)
    assert score(network, generator=generator(2), **options) != first


@pytest.mark.parametrize("proxy", ["zen", "synflow"])
def test_deeper_networks_score_higher(proxy):
    score, options = PROXIES[proxy]
    shallow, deep = (build(small("bottleneck", depth=depth)) for depth in (1, 6))
    scores = [score(m, generator=generator(), image_hw=(64, 64), **options) for m in (shallow, deep)]
    assert scores[1] > scores[0]


def test_zen_score_of_one_convolution():
    # Without norms or shortcuts f is linear: the score is the log of alpha times the mean norm of f(noise).
    conv = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False))
    score = zen_score(conv, generator=generator(), image_hw=(34, 34), batch_size=8, alpha=0.01)
    assert score == pytest.approx(math.log(0.01 * math.sqrt(27 * 64 * 32 * 32)), abs=0.1)
    # A norm divides by the scale that is then added back: almost the same score.
    normed = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64))
    assert zen_score(normed, generator=generator(), image_hw=(34, 34), batch_size=8) == pytest.approx(score, abs=0.1)


def test_naswot_by_hand():
    class Codes(nn.Module):
        """Shows its rectifier fixed codes, of which images 0 and 2 share half."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.relu = nn.ReLU()

        def forward(self, images):
            return self.relu(torch.tensor([[1.0, 1, -1, -1], [-1, -1, 1, 1], [1, -1, -1, 1]]))

    agreeing = np.array([[4.0, 0, 2], [0, 4, 2], [2, 2, 4]])
    score = naswot_score(Codes(), generator=generator(), image_hw=(4, 4), batch_size=3)
    assert score == pytest.approx(math.log(np.linalg.det(agreeing)))
    with pytest.raises(ValueError, match="has none"):
        naswot_score(nn.Conv2d(3, 8, 3), generator=generator(), image_hw=(8, 8))


def test_synflow_conserves_the_flow():
    # In a chain without biases every layer's saliencies sum to the output (Tanaka et al., Theorem 1).
    chain = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.ReLU6(), nn.Conv2d(5, 4, 1, bias=False))
    score = synflow_score(chain, generator=generator(), image_hw=(6, 6))
    draws = generator()
    first = torch.randn(5, 3, 3, 3, generator=draws).double().abs() * math.sqrt(2 / 27)
    second = torch.randn(4, 5, 1, 1, generator=draws).double().abs() * math.sqrt(2 / 5)
    ones = torch.ones(1, 3, 6, 6, dtype=torch.float64)
    flow = nn.functional.conv2d(nn.functional.conv2d(ones, first), second).sum()
    assert score == pytest.approx(math.log(2 * float(flow)), rel=1e-6)


def test_synflow_reports_overflow():
    layers = [nn.Conv2d(64, 64, 1, bias=False) for _ in range(400)]  # each multiplies the flow by about 9
    with pytest.raises(NasrayError, match="overflows"):
        synflow_score(nn.Sequential(nn.Conv2d(3, 64, 1), *layers), generator=generator(), image_hw=(1, 1))


# ---- agreement ------------------------------------------------------------------------------------------------------


AGREEMENT_SPACE = SPACES["inverted"](image_hw=(320, 320))
AGREEMENT_BUDGET = Budget(upper={"gmacs": 0.2}, lower={"gmacs": 0.05})


def report(**changes):
    options = {"num": 6, "repeats": 2, "image_hw": (48, 48), "workers": 1} | changes
    return agreement_report(AGREEMENT_SPACE, AGREEMENT_BUDGET, **options)


def genes_of(num):
    return RandomSearch(AGREEMENT_SPACE, budget=AGREEMENT_BUDGET, seed=0).ask(num).genes


def test_agreement_report():
    told = []
    result = report(progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (6, 6)
    assert json.loads(json.dumps(result)) == result
    assert set(result["agreement"]) == {"closed_form", "log_width", "params_m", "gmacs", "layers", "one_pass"}
    nothing = {"num": 6, "kendall": {"value": None, "low": None, "high": None}, "spearman": None}
    assert result["agreement"]["closed_form"] == nothing, "nothing is claimed of six"
    assert result["one_pass_kendall_mean"] is None
    assert 0 < result["narrowness"]["mean"] <= result["narrowness"]["max"]
    assert result["narrowness"]["num_narrow"] == sum(narrowness(AGREEMENT_SPACE.layers(genes_of(6))) > NARROW)
    rows = result["architectures"]
    assert len({row["id"] for row in rows}) == 6
    assert all(0.05 <= row["gmacs"] <= 0.2 for row in rows)
    alone = [log_width_score(AGREEMENT_SPACE.layers(row[None], (48, 48)))[0] for row in genes_of(6)]
    assert [row["log_width"] for row in rows] == alone
    gaps = [row["closed_form"] - np.mean(row["sampled"]) for row in rows]
    assert result["difference"]["mean"] == pytest.approx(np.mean(gaps))
    spread = [np.var(row["sampled"], ddof=1) for row in rows]
    assert result["sampled_sd"] == pytest.approx(math.sqrt(np.mean(spread)))
    assert report(seed=1)["architectures"] != rows
    with pytest.raises(ValueError, match="repeats=1"):
        report(repeats=1)


@pytest.mark.slow
def test_agreement_report_does_not_depend_on_workers():
    assert report(workers=2) == report(workers=1)


def test_pass_seeds_are_fixed():
    assert pass_seed(0, "0123456789abcdef", 0) == pass_seed(0, "0123456789abcdef", 0) < 2**63
    seeds = {pass_seed(s, f"{i:016x}", r) for s in range(3) for i in range(3) for r in range(3)}
    assert len(seeds) == 27
