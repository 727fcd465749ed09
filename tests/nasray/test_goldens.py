"""Histories of zero-shot searches as they were before the mechanism of stages: equal to the byte on any processor.

They change only in a commit that changes searchers on purpose, which renews them.
"""

import json
import subprocess
import sys
from pathlib import Path

GOLDEN = {
    "maedet-tiny:0": "7ce4ce29cd387d4b89ff5b5f29f1731e67eb5743335ba86342f3cffabf8c06e2",
    "maedet-tiny:1": "4319abb60e890693914359cf53a63ee5609548a3e134efd6f51b920bb68f76a3",
    "maedet-pareto:0": "0bd267faf01053c828f6bdba1aef484e2bcee25914201cd720ed3addb78d8d09",
    "maedet-pareto:1": "fee1082e227a80bee87aa2d8e08b06208b21e5ca1b01b72d8d4a6a401a3ba41c",
}
"""SHA-256 of genes, parents, metrics and costs of 2,048 evaluations, in the order told, by experiment and seed."""


def test_histories_are_as_they_were():
    program = Path(__file__).with_name("drive_zero_shot.py")
    done = subprocess.run([sys.executable, program, "2048", *GOLDEN], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == GOLDEN
