"""Histories of zero-shot searches, equal to the byte on any processor.

They change only in a commit that changes searchers on purpose, which renews them: last, where the kinds of children
are drawn first and each is filled to its quota.
"""

import json
import subprocess
import sys
from pathlib import Path

GOLDEN = {
    "maedet-tiny:0": "0dd3100a2dc4b7f27c50c46fff4b15f5a437c6a1883325298459c12e1128f9b1",
    "maedet-tiny:1": "a1f67cb9ec3be171f9d7e42465b8da54154f3491b68a7fa33fa5dc506c88c1c3",
    "maedet-pareto:0": "05d3de2cec04d934601b938e3b0e23f088ab690da91eeacbe27cc542b8dcc4bc",
    "maedet-pareto:1": "29f4d0b5664192a701596749df5478971fb7785f428f8d6f5451817e64a3bc9b",
}
"""SHA-256 of genes, parents, metrics and costs of 2,048 evaluations, in the order told, by experiment and seed."""


def test_histories_are_as_they_were():
    program = Path(__file__).with_name("drive_zero_shot.py")
    done = subprocess.run([sys.executable, program, "2048", *GOLDEN], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == GOLDEN
