"""A trial's limit of time."""

import subprocess
import sys
import time

import pytest

from nasray.cluster import Resources
from nasray.cluster.trial import ended_after
from nasray.spaces import NasrayError

HANGS = """
import time
from nasray.cluster.trial import ended_after
with ended_after({limit}):
    pass
time.sleep(0.3)
print("within the limit", flush=True)
with ended_after(0.2):
    time.sleep(60)
print("never")
"""


def test_a_process_that_hangs_ends_and_says_where():
    done = subprocess.run([sys.executable, "-c", HANGS.format(limit=0.2)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "within the limit\n")
    assert done.stderr.startswith("Timeout (0:00:00.2")
    assert 'File "<string>", line 9' in done.stderr


def test_without_a_limit_nothing_ends():
    with ended_after(None):
        time.sleep(0.01)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "5"])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(NasrayError, match="timeout_s"):
        Resources(timeout_s=limit)
