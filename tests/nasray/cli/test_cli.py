import subprocess
import sys
from pathlib import Path

import pytest

from nasray.cli import main


def test_the_command_line_starts_without_ray_and_torch():
    code = (
        "import sys; from nasray.cli import main; main(['list', 'experiments', '--json']);"
        "sys.exit(str([name for name in ('ray', 'torch', 'matplotlib', 'optuna') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "function", "advice"),
    [
        (["rank", "my runs/x", "--seed", "4"], "nasray.rank.rank_run",
         ". `nasray rank 'my runs/x' --architectures 12 --seed 4` continues"),
        (["rank", "x", "--recipe", "cpu-fcos"], "nasray.rank.rank_run",
         ". `nasray rank x --architectures 12 --seed 0 --recipe cpu-fcos` continues"),
        (["resume", "begun"], "nasray.cluster.RunFolder.open", ". `nasray resume begun` continues"),
        (["search", "maedet-tiny", "--folder", "new"], "nasray.searching.search_experiment", ""),
        (["train", "shapes-detect", "--folder", "new"], "nasray.training.begin_training", ""),
        (["evaluate", "x.pt"], "nasray.checkpoint.Checkpoint.load", ""),
        (["job", "logs", "job-1", "--address", "http://head:8265"], "nasray.cluster.jobs.job_logs",
         ". The job goes on: `nasray job logs job-1 --address http://head:8265 --follow` prints its log"),
        (["job", "stop", "job-1", "--address", "http://head:8265"], "nasray.cluster.jobs.stop_job", ""),
        (["cost", "maedet-m"], "nasray.finding.find_architecture", ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_advice_after_an_interrupt_can_be_followed(command, function, advice, capsys, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    Path("begun").mkdir()
    Path("begun/experiment.yaml").touch()
    Path("x.pt").touch()
    monkeypatch.setattr(function, interrupted)
    assert main(command) == 130
    assert capsys.readouterr().err.endswith(f"nasray: interrupted{advice}\n")
