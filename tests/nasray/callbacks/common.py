"""A session of a search and a training, as callbacks hear it."""

from nasray.cluster.callbacks import BatchEvent, LogEvent, StageEvent
from nasray.cluster.log_tail import log_scalars


def begin_run(folder):
    """Make what a callback finds in the folder of a run."""
    folder.mkdir()
    (folder / "experiment.yaml").write_text("---\nexperiment: {name: tiny, seed: 3, data: null}\n...\n")


def session(run, number):
    """Return the events of a run's session: a batch and two lines of a log in each."""
    step = 8 * number + 8
    scores = {"score/best": 2.5 + number, "score/batch_mean": 0.5}
    line = {"iteration": step, "loss": 3.0, "losses": {"cls": 1.0, "box": 2.0}, "lr": 0.1, "images_per_s": 4.0}
    check = {"iteration": step, "metrics": {"mAP": 0.25, "mAP_large": float("nan")}}
    return [
        StageEvent(run, "search", "resume" if number else "begin"),
        BatchEvent(run, "search", step, 16, number, ["a"], {"score": [1.0]}, {"gmacs": [2.0]}, scores),
        StageEvent(run, "search", "end"),
        *(LogEvent(run, "train/1-ab", step, each, log_scalars(each)) for each in (line, check)),
    ]


def expected(number):
    """Return what a session shows of the search, and of the training."""
    search = {"score/best": 2.5 + number, "score/batch_mean": 0.5}
    step = {"loss": 3.0, "loss/cls": 1.0, "loss/box": 2.0, "train/lr": 0.1, "speed/images_per_s": 4.0}
    return search, step | {"val/mAP": 0.25}
