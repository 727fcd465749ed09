"""A whole search as a user runs it: wall time with start-up, peak memory of all its processes, winner.

`python benchmarks/full_search.py [EXPERIMENT] [--json]`. Memory is sampled every 0.1 s over the process and all its
descendants: `pss` shares shared pages out, `rss` counts them in every process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time

import psutil

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.cluster.files import to_json
from nasray.loading import load_plan
from nasray.scores.entropy import entropy_score


def memory(root):
    pss = rss = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            info = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        pss, rss = pss + info.pss, rss + info.rss
    return pss, rss


def main(name, extra):
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        command = [sys.executable, "-m", "nasray", "search", name, "--folder", f"{folder}/{name}", "--json", *extra]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peak_pss = peak_rss = 0
        root = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                pss, rss = memory(root)
            except psutil.NoSuchProcess:
                break
            peak_pss, peak_rss = max(peak_pss, pss), max(peak_rss, rss)
            time.sleep(0.1)
        output = process.communicate()[0]
        wall = time.monotonic() - begin
        best = json.loads(output)
    plan = load_plan(name)
    winner = best["best"][0]
    result = {
        "experiment": name,
        "evaluations": best["evaluations"],
        "wall_seconds": wall,
        "peak_pss_gb": peak_pss / 1e9,
        "peak_rss_gb": peak_rss / 1e9,
        "winner": {**winner["metrics"], **winner["costs"]},
    }
    if reference := plan.experiment.reference:
        evaluator = plan.parts.evaluator
        table = layer_table(ARCHITECTURES[reference], (800, 1280))
        published = {cost: float(value[0]) for cost, value in table.cost().items()}
        published["score"] = float(entropy_score(table, weights=evaluator.weights, image_hw=evaluator.image_hw)[0])
        result["published"] = published
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("experiment", nargs="?", default="maedet-m")
    parser.add_argument("--json", action="store_true")
    options, rest = parser.parse_known_args()
    result = main(options.experiment, rest)
    print(to_json(result, indent=1))
