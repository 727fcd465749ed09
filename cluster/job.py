"""What runs on the cluster when a job begins: it travels with the job and needs nothing but Python's own library.

Ray unpacks a job into a cache that it may clear at any time, and which nobody will look for results in. So files that
were shipped are copied to where runs are kept, and the command runs in the home folder, with everything that was
named on the command line as an absolute path.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import sys
from pathlib import Path

ARGUMENTS = "nasray-job.json"


def main() -> None:
    """Run the command of `nasray-job.json`."""
    here = Path(__file__).parent
    arguments = [_resolve(part, here) for part in json.loads((here / ARGUMENTS).read_text())]
    os.chdir(Path.home())
    sys.path.insert(0, str(here))
    sys.argv = ["nasray", *arguments]
    runpy.run_module("nasray", run_name="__main__")


def _resolve(part: list[str], here: Path) -> str:
    """Return an argument on the cluster.

    Args:
        part: What it begins with, such as `--data=`; and kind and text of the rest: a word, a path in the cluster's
            home, or a file in the job's folder.
        here: The job's folder.
    """
    prefix, kind, text = part
    if kind == "home":
        return prefix + os.path.expanduser(text)
    return prefix + (str(_keep(here / text)) if kind == "file" else text)


def _keep(file: Path) -> Path:
    """Copy a file to a lasting place, one for each content."""
    content = file.read_bytes()
    runs = Path(os.environ["NASRAY_RUNS"]).expanduser()
    kept = runs / "submitted" / hashlib.sha256(content).hexdigest()[:16] / file.name
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
        shutil.copyfile(file, aside)
        os.replace(aside, kept)
    return kept


if __name__ == "__main__":
    main()
