"""What is the same on every processor: zero-shot searches, under the instruction sets that this one can do without.

numpy, the C library and OpenBLAS choose their code by processor; each can be told to choose as on an older one.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from nasray.experiment import experiment_names
from nasray.loading import load_plan

OTHER_NUMPY = {
    "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name)),
    "OPENBLAS_CORETYPE": "Prescott",
}
OTHER_LIBRARY = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-FMA,-FMA4"}
OTHER_TORCH = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
WITHOUT_TORCH = ("entropy", "single-scale-entropy", "log-width")
ZERO_SHOT = [
    name for name in experiment_names() if getattr(load_plan(name).experiment.evaluator, "name", None) in WITHOUT_TORCH
]
ROOT = Path(__file__).parents[2]
ROUNDED_BY_LIBRARIES = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "power", "pow", "float_power", "cbrt", "hypot", "sin",
    "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh",
    "logaddexp", "matmul", "dot", "einsum", "tensordot", "inner", "vdot", "linalg", "fsum", "gamma", "lgamma", "erf",
}  # fmt: skip


def digests_under(settings, evaluations, names):
    """The digests that a fresh process finds under these environment variables."""
    command = [sys.executable, Path(__file__).with_name("drive_zero_shot.py"), str(evaluations), *names]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_zero_shot_searches_are_the_same():
    names = ["maedet-mb-m", "maedet-pareto", "maedet-laptop"]
    own = digests_under({}, 1600, names)
    assert len(set(own.values())) == len(names)
    assert digests_under(OTHER_NUMPY | OTHER_LIBRARY | OTHER_TORCH, 1600, names) == own


@pytest.mark.slow
@pytest.mark.parametrize("settings", [
    OTHER_NUMPY, OTHER_LIBRARY, {"OPENBLAS_CORETYPE": "SkylakeX"},
    *({"ATEN_CPU_CAPABILITY": name} for name in ("default", "avx2", "avx512")),
    *({"ONEDNN_MAX_CPU_ISA": name} for name in ("SSE41", "AVX2")),
], ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()))  # fmt: skip
def test_all_shipped_zero_shot_searches_are_the_same(settings):
    assert digests_under(settings, 16_000, ZERO_SHOT) == digests_under({}, 16_000, ZERO_SHOT)


def of_the_processor(text):
    """What a program calls whose last bits, or whose order of ties, are the library's, as (line, name)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield node.lineno, "@"
        if isinstance(node, ast.Attribute):
            is_library = isinstance(node.value, ast.Name) and node.value.id in ("np", "math")
            if is_library and node.attr in ROUNDED_BY_LIBRARIES | {"partition", "argpartition"}:
                yield node.lineno, node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "argsort":  # noqa: SIM102
            if "kind='stable'" not in ast.unparse(node):
                yield node.lineno, "argsort"


def test_nothing_on_a_zero_shot_search_s_way_is_rounded_or_sorted_by_the_processor():
    files = [
        *(ROOT / "spaces").glob("*.py"), *(ROOT / "searchers").glob("*.py"), ROOT / "cluster/ordering.py",
        ROOT / "nasray/scores/entropy.py",
    ]  # fmt: skip
    files = [path for path in files if path.name not in ("optuna.py", "testing.py")]
    found = [(path.name, *call) for path in files for call in of_the_processor(path.read_text())]
    assert len(files) > 10
    assert not found


@pytest.mark.parametrize("text", ["np.log(x)", "math.acos(x)", "x @ y", "np.argsort(x)", "x.argsort()", "np.exp(-x)"])
def test_what_a_processor_rounds_or_sorts_is_recognized(text):
    assert len(list(of_the_processor(text))) == 1
    assert not list(of_the_processor("math.sqrt(x) + np.argsort(x, kind='stable') * exact.log(x)"))
