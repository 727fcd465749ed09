"""Eight processes that want one folder at the same moment: prints who won, what the others were told, and what is left.

drive_race.py FOLDER
"""

import json
import multiprocessing
import os
import sys
from pathlib import Path

from nasray.cluster.ownership import owned
from nasray.spaces import NasrayError

FORK = multiprocessing.get_context("fork")
RACERS = 8


def race(folder, start, results, hold):
    start.wait()
    try:
        with owned(folder):
            results.put(os.getpid())
            hold.wait()
    except NasrayError as error:
        results.put(str(error))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    start, hold, results = FORK.Event(), FORK.Event(), FORK.SimpleQueue()
    racers = [FORK.Process(target=race, args=(folder, start, results, hold), daemon=True) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    start.set()
    found = [results.get() for _ in racers]
    left = [path.name for path in folder.iterdir()]
    hold.set()
    for racer in racers:
        racer.join()
    winners, losers = ([item for item in found if isinstance(item, kind)] for kind in (int, str))
    print(json.dumps([winners, losers, left]))
    sys.exit(any(racer.exitcode for racer in racers))
