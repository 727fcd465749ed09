"""COCO's annotations in several processes: seconds and memory of each, parsed by every one or mapped from one file.

    python benchmarks/annotation_memory.py --annotations 60000 --factor 1 2 4

The file is drawn as train2017 is: seven objects an image, outlines of 25 corners on average, one object in a hundred a
crowd with run lengths. Seconds are of processor time, which a busy machine does not change. Memory is what the set adds
to a process (PSS: pages that several processes map count as shares), measured while another process holds the same set,
and the peak of the whole process. "before" is `json.loads` and arrays of each process's own, as it was before there was
a cache; "first" parses and writes the cache's file, "second" maps it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nasray.cluster.files import to_json, write_atomic

PARTS = r"""
import gc, sys, time
from pathlib import Path
import numpy as np
import nasray.data.formats.coco, pycocotools.mask

def memory(kind):
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(kind)) / 1024

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

path, how = Path(sys.argv[1]), sys.argv[2]
pss, begin = memory("Pss:"), time.process_time()
if how == "before":
    import json
    content = json.loads(path.read_bytes())
    texts = [json.dumps(item["segmentation"]).encode() for item in content["annotations"]]
    outlines = np.frombuffer(b"".join(texts), dtype=np.uint8)
    boxes = np.array([item["bbox"] for item in content["annotations"]])
    seconds = time.process_time() - begin
    top = peak()
    del content, texts
    gc.collect()
else:
    dataset = nasray.data.formats.coco.read_coco(path, [path.parent], name="train")
    seconds = time.process_time() - begin
    total = int(dataset.segmentations.content.sum()) + float(dataset.boxes.sum())  # touch every page
    top = peak()
print(f"READY {seconds:.3f}", flush=True)
sys.stdin.readline()
print(f"MEMORY {memory('Pss:') - pss:.1f} {memory('Private_Dirty:'):.1f} {top:.1f}", flush=True)
sys.stdin.readline()
"""


def draw(num_annotations: int, seed: int = 0) -> dict[str, Any]:
    """Content of a file of train2017's make."""
    rng = np.random.default_rng(seed)
    num_images = max(num_annotations // 7, 1)
    images = [
        {
            "license": 3,
            "file_name": f"{image:012d}.jpg",
            "coco_url": f"cocodataset.org/train2017/{image:012d}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 11:18:45",
            "id": image,
        }
        for image in range(1, num_images + 1)
    ]
    annotations = []
    for number in range(1, num_annotations + 1):
        x, y, width, height = (rng.random(4) * (320, 240, 320, 240)).round(2).tolist()
        corners = rng.random((int(rng.integers(4, 47)), 2)) * (width, height) + (x, y)
        outline: Any = [corners.round(2).ravel().tolist()]
        if number % 100 == 0:
            outline = {"size": [480, 640], "counts": [1000, 640 * 480 - 2000, 1000]}
        annotations.append(
            {
                "segmentation": outline,
                "area": round(width * height / 2, 4),
                "iscrowd": int(number % 100 == 0),
                "image_id": int(rng.integers(1, num_images + 1)),
                "bbox": [x, y, width + 1, height + 1],
                "category_id": int(rng.integers(1, 81)),
                "id": number,
            }
        )
    categories = [{"supercategory": "thing", "id": label, "name": f"class {label}"} for label in range(1, 81)]
    return {"images": images, "annotations": annotations, "categories": categories}


def measure(path: Path, how: str, cache: Path, processes: int = 2) -> list[dict[str, float]]:
    """Seconds and MiB of processes that read the file one after the other, and hold it at the same time."""
    environment = {**os.environ, "NASRAY_CACHE": str(cache)}
    running, found = [], []
    for _ in range(processes):
        process = subprocess.Popen(
            [sys.executable, "-c", PARTS, str(path), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        running.append(process)
        assert process.stdout is not None
        found.append({"seconds": float(process.stdout.readline().split()[1])})
    for process, figures in zip(running, found, strict=True):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        _, pss, private, peak = process.stdout.readline().split()
        figures |= {"pss_mib": float(pss), "private_mib": float(private), "peak_mib": float(peak)}
    for process in running:
        process.communicate("\n")
    return found


def main() -> None:
    """Print one line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=60_000)
    parser.add_argument("--factor", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    for factor in options.factor:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "instances.json"
            write_atomic(path, to_json(draw(options.annotations * factor)).encode())
            for image in range(1, options.annotations * factor // 7 + 1):
                (path.parent / f"{image:012d}.jpg").touch()
            before = measure(path, "before", path.parent / "unused", processes=2)[1]
            first, second = measure(path, "now", path.parent / "cache")
            figures = {
                "annotations": options.annotations * factor,
                "json_mib": path.stat().st_size / 2**20,
                "before": before,
                "first": first,
                "second": second,
                "seconds_ratio": before["seconds"] / second["seconds"],
                "pss_ratio": before["pss_mib"] / second["pss_mib"],
                "peak_ratio": before["peak_mib"] / second["peak_mib"],
            }
            print(to_json(figures))


if __name__ == "__main__":
    main()
