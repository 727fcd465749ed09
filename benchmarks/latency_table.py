"""How far the latency table's predictions are from whole networks, measured on this device, and how fast they are.

The same networks in every runtime that is named, float32:

python benchmarks/latency_table.py --image-size 224x224 --min-gmacs 1 --num 12 --runtimes eager onnxruntime
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from nasray.cluster.files import to_json
from nasray.latency import Setting, space_table, table_error
from nasray.latency.steadiness import Look, judge
from nasray.spaces import SPACES, Budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="bottleneck", choices=sorted(SPACES))
    parser.add_argument("--image-size", default="224x224", help="height x width in pixels")
    parser.add_argument("--min-gmacs", type=float, default=0.0)
    parser.add_argument("--max-gmacs", type=float, default=7.0)
    parser.add_argument("--max-layers", type=float, default=100)
    parser.add_argument("--num", type=int, default=12, help="architectures")
    parser.add_argument("--repeats", type=int, default=10, help="passes of each network")
    parser.add_argument("--population", type=int, default=100_000, help="architectures of the timed prediction")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--runtimes", nargs="+", default=["eager"], help="what runs the whole networks")
    parser.add_argument("--threads", type=int, help="of PyTorch; 1 is steadier on a machine that others use too")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    known = parser.parse_args()

    if known.threads:
        torch.set_num_threads(known.threads)
    image_hw = tuple(int(side) for side in known.image_size.split("x"))
    space = SPACES[known.space](image_hw=image_hw)
    setting = Setting.here(
        image_hw, batch_size=known.batch_size, device=known.device, dtype=known.dtype, channels_last=known.channels_last
    )
    begin = time.perf_counter()
    table = space_table(space, setting)
    build_s = time.perf_counter() - begin
    budget = Budget({"gmacs": known.max_gmacs, "layers": known.max_layers}, {"gmacs": known.min_gmacs})
    runtimes = {
        name: table_error(space, table, known.num, known.seed, budget=budget, repeats=known.repeats, runtime=name)
        for name in known.runtimes
    }
    layers = space.layers(space.sample(known.population, np.random.default_rng(known.seed)))
    begin = time.perf_counter()
    table.predict(layers)
    result = {"build_s": build_s, "entries": len(table.entries), "predict_s": time.perf_counter() - begin}
    if known.json:
        print(to_json({**result, "runtimes": runtimes}, indent=1))
        return
    print(f"{setting.text}, {known.image_size}")
    print(f"{len(table.entries)} entries, {build_s:.1f} s to make or load them")
    print(f"{known.population:,} predictions in {result['predict_s']:.2f} s")
    first = next(iter(runtimes.values()))
    print("gmacs  predicted ms  " + "  ".join(f"{name:>12} (spread)" for name in runtimes))
    for row, (gmacs, predicted) in enumerate(zip(first["gmacs"], first["predicted_ms"], strict=True)):
        cells = [f"{found['measured_ms'][row]:12.1f} ({found['spread_ms'][row]:6.1f})" for found in runtimes.values()]
        print(f"{gmacs:5.2f}  {predicted:12.1f}  {'  '.join(cells)}")
    for name, found in runtimes.items():
        print(
            f"{name}: mean absolute error {found['mape_percent']:.1f} %, bias {found['bias_percent']:+.1f} %; times "
            f"{found['scale']:.3f} it is {found['scaled_mape_percent']:.1f} %; against the least of the passes "
            f"{found['mape_min_percent']:.1f} %; Kendall {found['kendall']:.3f}, Spearman {found['spearman']:.3f}"
        )
        if warning := judge([Look(*look) for look in found["reference_ms"]]).warning:
            print(f"{name}: {warning}")


if __name__ == "__main__":
    main()
