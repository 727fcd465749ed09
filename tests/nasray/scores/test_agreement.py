import json
import math

import numpy as np
import pytest

from nasray.scores.agreement import agreement_report, pass_seed
from nasray.scores.entropy import (
    NARROW,
    log_width_score,
    narrowness,
)
from nasray.searchers import RandomSearch
from nasray.spaces import SPACES, Budget

pytestmark = pytest.mark.usefixtures("one_thread")


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
