"""Histories of zero-shot searches, equal to the byte on any processor.

They change only in a commit that changes searchers on purpose, which renews them: last, where the kinds of children
take turns, which leaves searches by mutants alone as they were.
"""

import json
import subprocess
import sys
from pathlib import Path

GOLDEN = {
    "maedet-tiny:0": "0dd3100a2dc4b7f27c50c46fff4b15f5a437c6a1883325298459c12e1128f9b1",
    "maedet-tiny:1": "a1f67cb9ec3be171f9d7e42465b8da54154f3491b68a7fa33fa5dc506c88c1c3",
    "maedet-pareto:0": "29fd864436a00dfd3848edbbab4a5d9619f67f38a5a441440327917881f9b70c",
    "maedet-pareto:1": "ea5e1192ab894dac8b946336ddd14e69a81d47b39c52c87e36ccd8afaf87bbb1",
}
"""SHA-256 of genes, parents, metrics and costs of 2,048 evaluations, in the order told, by experiment and seed."""


def test_histories_are_as_they_were():
    program = Path(__file__).with_name("drive_zero_shot.py")
    done = subprocess.run([sys.executable, program, "2048", *GOLDEN], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == GOLDEN
