"""What other work on the machine costs a training, by how long threads that wait for each other keep their cores.

    python benchmarks/busy_machine.py [--steps 8] [--counts default 4000 1000]

Steps of a small detector on all cores, each setting in processes of its own: alone, and beside one process that holds a
core. `GOMP_SPINCOUNT` is how often a thread of PyTorch's (GNU OpenMP) looks again before it sleeps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

CHILD = "--child"


def step_ms(steps: int) -> float:
    """Return milliseconds of a training step in this process."""
    import torch

    from nasray.architectures import ARCHITECTURES
    from nasray.checkpoint import make_network
    from nasray.recipe import load_recipe

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    network = make_network(load_recipe("shapes-detect"), ARCHITECTURES["basic-tiny"], 3).train()
    images = torch.randint(0, 256, (8, 3, 128, 128), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 10.0, 60.0, 70.0], [40.0, 30.0, 100.0, 90.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 1])} for _ in images]
    optimizer, generator = torch.optim.AdamW(network.parameters()), torch.Generator()
    for number in range(steps + 2):
        if number == 2:
            begin = time.perf_counter()
        optimizer.zero_grad()
        sum(network(images, targets, generator=generator).values()).backward()
        optimizer.step()
    return 1e3 * (time.perf_counter() - begin) / steps


def measured(count: str, steps: int, *, is_busy: bool) -> float:
    """Return milliseconds of a step in a process with a setting, alone or beside other work."""
    environment = dict(os.environ) if count == "default" else {**os.environ, "GOMP_SPINCOUNT": count}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) if is_busy else None
    try:
        command = [sys.executable, __file__, CHILD, "--steps", str(steps)]
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--counts", nargs="+", default=["default", "4000"])
    parser.add_argument(CHILD, action="store_true", help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.child:
        print(step_ms(known.steps))
        return
    print("| GOMP_SPINCOUNT | alone, ms a step | beside other work | ratio |\n|---|---|---|---|")
    for count in known.counts:
        alone, busy = (measured(count, known.steps, is_busy=is_busy) for is_busy in (False, True))
        print(f"| {count} | {alone:.1f} | {busy:.1f} | {busy / alone:.1f} |")


if __name__ == "__main__":
    main()
