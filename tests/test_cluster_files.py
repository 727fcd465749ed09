"""The files of examples/cluster/, as far as can be told without one: they parse, and what they run and name exists."""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from nasray.cluster.reading import read_yaml

from .test_readme import ROOT, blocks, check_arguments

FOLDER = ROOT / "examples/cluster"
PAGE = ROOT / "docs/cluster.md"
RAY = Path(importlib.util.find_spec("ray").origin).parent


def ray_commands(text):
    """The words of every `ray` command of a text."""
    return [
        shlex.split(found)
        for found in re.findall(r"\bray (?:start|stop|status|up|down|get-auth-token)[^&;|>\n\\]*", text)
    ]


@pytest.mark.parametrize("path", [*sorted(FOLDER.iterdir()), PAGE], ids=lambda path: path.name)
def test_commands_and_options_of_ray_exist(path):
    source = (RAY / "scripts/scripts.py").read_text()
    text = "\n".join(blocks(path, "bash")) if path == PAGE else path.read_text()
    for name, command, *words in ray_commands(text):
        function = command.replace("-", "_")
        assert re.search(rf"^def {function}(\(|_)", source, re.MULTILINE), f"{name} {command}"
        for word in words:
            if word.startswith("--"):
                assert f'"{word.partition("=")[0]}"' in source, f"{path.name}: {command} {word}"


def test_the_slurm_script_is_one():
    path = FOLDER / "slurm.sh"
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    assert len(ray_commands(text)) == 3
    for words in re.findall(r"^#   sbatch \S+ (.*)$", text, re.MULTILINE):
        check_arguments(shlex.split(words))
    assert path.stat().st_mode & 0o100


def test_sigterm_reaches_the_command_and_its_status_the_job(tmp_path):
    """The end of the script, around a command that takes a while to save."""
    text = (FOLDER / "slurm.sh").read_text()
    stand_in = "trap 'sleep 0.2; exit 143' TERM; touch begun; while :; do sleep 0.05; done"
    end = text[text.index('nasray "$@" &') :].replace('nasray "$@"', f"bash -c {shlex.quote(stand_in)}")
    (tmp_path / "end.sh").write_text(f"set -euo pipefail\n{end}")
    ask = "bash end.sh & job=$!; until [ -e begun ]; do sleep 0.05; done; kill -TERM $job; wait $job"
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 143


def test_the_job_on_kubernetes_is_whole():
    job = read_yaml(FOLDER / "rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_arguments(shlex.split(job["spec"]["entrypoint"])[1:])
    cluster = job["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"]: "/shared" for volume in pod["volumes"]}
        assert container["resources"]["limits"]
    folder = shlex.split(job["spec"]["entrypoint"])[-1]
    assert folder.startswith("/shared/")
    constraints = (ROOT / "constraints.txt").read_text()
    assert f"ray=={cluster['rayVersion']}\n" in constraints


def test_ray_up_takes_its_file():
    jsonschema = pytest.importorskip("jsonschema")
    content = read_yaml(FOLDER / "ray-up.yaml")
    jsonschema.validate(content, json.loads((RAY / "autoscaler/ray-schema.json").read_text()))
    assert content["max_workers"] == len(content["provider"]["worker_ips"])
    assert [words[:2] for line in content["head_start_ray_commands"] for words in ray_commands(line)] == [
        ["ray", "stop"],
        ["ray", "start"],
    ]


def test_the_image_holds_the_package():
    text = (FOLDER / "Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert {"nasray", "cluster", "searchers", "spaces", "pyproject.toml", "constraints.txt", "README.md"} <= set(copied)


def test_the_page_names_the_files():
    text = "\n".join(blocks(PAGE, "bash"))
    for name in ("slurm.sh", "Containerfile", "rayjob.yaml", "ray-up.yaml"):
        assert f"examples/cluster/{name}" in text
    for words in re.findall(r"^sbatch .*?slurm\.sh (.*)$", text, re.MULTILINE):
        check_arguments(shlex.split(words))
