"""What is the same on every processor: zero-shot searches, under the instruction sets that this one can do without.

numpy, the C library and OpenBLAS choose their code by processor; each can be told to choose as on an older one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from nasray.experiment import experiment_names, load_experiment

OTHER_NUMPY = {
    "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name)),
    "OPENBLAS_CORETYPE": "Prescott",
}
OTHER_LIBRARY = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-FMA,-FMA4"}
OTHER_TORCH = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
WITHOUT_TORCH = ("entropy", "single-scale-entropy", "log-width")
ZERO_SHOT = [name for name in experiment_names() if load_experiment(name).evaluator.name in WITHOUT_TORCH]


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
