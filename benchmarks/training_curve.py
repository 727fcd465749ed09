"""The curve of a training as a picture: loss and validation over epochs.

python benchmarks/training_curve.py runs/maedet-laptop/train --to curve.png
"""

import argparse
import json
from pathlib import Path


def main() -> None:
    """Read log.jsonl and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of a training")
    parser.add_argument("--to", type=Path, default=Path("curve.png"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in (options.folder / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    validations = [row for row in rows if "metrics" in row]

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), dpi=110, layout="constrained")
    left.plot([row["epoch"] for row in steps], [row["loss"] for row in steps], color="#1f5fa8")
    left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    epochs = [0.0, *(row["epoch"] for row in validations)]
    for name, color in (("AP50", "#b3441e"), ("mAP", "#1f5fa8")):
        values = [0.0, *(row["metrics"][name] for row in validations)]
        right.plot(epochs, values, marker="o", color=color, label=f"{name} {values[-1]:.3f}")
    right.set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(options.to)
    print(options.to)


if __name__ == "__main__":
    main()
