"""What Ray Tune adds to a candidate, and how busy it keeps the workers.

`python benchmarks/tune_overhead.py [--json]` runs, in one session and in turn:
- the experiment's search in this process, without Ray;
- the same search through Tune: the difference of the two times between the first and the last batch, per candidate;
- an evaluator that takes 10 ms a candidate: the share of the time between the start of the first and the end of the
  last batch in which the two workers evaluate.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from nasray.cluster import OrderedSearch, Resources, RunFolder, ray_session, run_search
from nasray.cluster.files import to_json
from nasray.cluster.recorder import Recorder
from nasray.loading import load_plan
from nasray.parts import make_parts
from nasray.reports import report_figures


class TenMilliseconds:
    """An evaluator that takes 10 ms a candidate, on top of another one."""

    def __init__(self, evaluator):
        self.evaluator = evaluator

    def __call__(self, genes):
        time.sleep(0.01 * len(genes))
        return self.evaluator(genes)


def without_ray(experiment, folder):
    """Seconds of the search in this process, with the same writing to disk."""
    parts = make_parts(experiment)
    search = OrderedSearch(
        parts.searcher,
        evaluations=experiment.evaluations,
        batch_size=experiment.batch_size,
        in_flight=experiment.in_flight,
    )
    recorder, evaluator = Recorder(RunFolder.create(folder, {}), search), parts.evaluator
    begin = time.monotonic()
    search.run(evaluator, lambda batch: recorder.write(batch, {"batch": batch.index}))
    recorder.finish()
    return time.monotonic() - begin


def with_tune(experiment, folder, evaluator):
    """Return the run's folder."""
    run = RunFolder.create(folder, {})
    run_search(
        make_parts(experiment).searcher,
        evaluator,
        run,
        evaluations=experiment.evaluations,
        batch_size=experiment.batch_size,
        in_flight=experiment.in_flight,
    )
    return run


def span(run):
    """Seconds from the start of the first batch to the end of the last."""
    trials = run.read_trials()
    return max(t["started"] + t["seconds"] for t in trials) - min(t["started"] for t in trials)


def main(name):
    experiment = load_plan(name).experiment
    slow = replace(experiment, evaluations=4096, batch_size=128)
    space, evaluator = make_parts(experiment).space, make_parts(experiment).evaluator
    with tempfile.TemporaryDirectory() as folder, ray_session(Resources(local_cpus=2)):
        alone = without_ray(experiment, Path(folder) / "alone")
        tuned = span(with_tune(experiment, Path(folder) / "tune", evaluator))
        run = with_tune(slow, Path(folder) / "slow", TenMilliseconds(evaluator))
        busy = report_figures(run, space)["busy_share"]
        return {
            "experiment": name,
            "evaluations": experiment.evaluations,
            "batch_size": experiment.batch_size,
            "in_process_seconds": alone,
            "through_tune_seconds": tuned,
            "tune_adds_microseconds_per_candidate": (tuned - alone) / experiment.evaluations * 1e6,
            "busy_share_at_10_ms_per_candidate": busy,
            "slow_evaluator_batch_size": slow.batch_size,
            "slow_evaluator_wall_seconds": span(run),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiment", default="maedet-m")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name, value in (result := main(options.experiment)).items():
        if not options.json:
            print(f"{name:40} {value:.3f}" if isinstance(value, float) else f"{name:40} {value}")
    if options.json:
        print(to_json(result, indent=1))
