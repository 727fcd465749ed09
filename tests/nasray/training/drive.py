"""One of several workers without Ray: `python drive.py FOLDER RANK WORLD [DEVICE]`. It trains what FOLDER describes."""

import sys
from pathlib import Path

import torch
from torch import distributed

from nasray.cluster.training import Worker
from nasray.training import recipe_of_training, setup

if __name__ == "__main__":
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}.store", rank=rank, world_size=world)
    device = sys.argv[4] if len(sys.argv) > 4 else "cpu"
    setup.train(recipe_of_training(folder), folder, Worker(rank, world, device))
    if world > 1:
        distributed.destroy_process_group()
