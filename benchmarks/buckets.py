"""Searches by buckets in the space of once-for-all's ResNet-50: time of draws in each bucket, and of asking.

`python benchmarks/buckets.py [--draws 2000] [--evaluations 50000] [--batch-size 100] [--json]`

Processor seconds of this process. Draws are within each of five buckets, by the space's own costs and by those of whole
detectors; what is counted once is in the first one's time. The score that evolution is told is made up.
"""

import argparse
import time

import numpy as np

from nasray.cluster import OrderedSearch
from nasray.cluster.files import to_json
from nasray.models.detector_cost import DetectorCost
from nasray.searchers import BucketEvolution, BucketSampling
from nasray.spaces import OFAResNetSpace
from nasray.spaces.buckets import Buckets

SPACE = OFAResNetSpace(image_hw=(384, 384))
DETECTORS = ("centernet", "fcos", "faster-rcnn")
OPTIONS = {"population_size": 100, "parents": 25, "mutation": 0.5, "crossover": 0.5}


def seconds_of_draws(cost, num):
    buckets, rng = Buckets.spanning(SPACE, "gmacs", 5, count=cost), np.random.default_rng(0)
    seconds = []
    for bucket in range(len(buckets)):
        begin = time.process_time()
        rows = SPACE.sample_within(num, buckets.budget(bucket), rng, cost=cost)
        seconds.append(time.process_time() - begin)
        assert len(rows) == num
    return seconds


def seconds_of_asks(searcher, evaluations, batch_size):
    weights, seconds, ask = np.random.default_rng(1).random(SPACE.num_genes), [], searcher.ask

    def timed(num):
        begin = time.process_time()
        proposal = ask(num)
        seconds.append(time.process_time() - begin)
        return proposal

    searcher.ask = timed
    search = OrderedSearch(searcher, evaluations=evaluations, batch_size=batch_size, in_flight=2)
    search.run(lambda genes: {"score": np.sin(genes @ weights)})
    return {
        "asks": len(seconds),
        "seconds": sum(seconds),
        "median_ms": 1e3 * float(np.median(seconds)),
        "most_ms": 1e3 * max(seconds),
        "asked_of_each_bucket": [len(each.seen) for each in searcher.searchers],
    }


def main(draws, evaluations, batch_size):
    costs = {"backbone": SPACE.cost, **{name: DetectorCost(SPACE, name, num_classes=20) for name in DETECTORS}}
    return {
        "draws": draws,
        "seconds_of_draws": {name: seconds_of_draws(cost, draws) for name, cost in costs.items()},
        "evaluations": evaluations,
        "batch_size": batch_size,
        "asking": {
            "buckets": seconds_of_asks(BucketSampling(SPACE), evaluations, batch_size),
            "bucket-evolution": seconds_of_asks(BucketEvolution(SPACE, **OPTIONS), evaluations, batch_size),
            "bucket-evolution, centernet": seconds_of_asks(
                BucketEvolution(SPACE, cost=costs["centernet"], **OPTIONS), evaluations, batch_size
            ),
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--evaluations", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = vars(parser.parse_args())
    as_json = arguments.pop("json")
    found = main(**arguments)
    if as_json:
        print(to_json(found, indent=1))
    else:
        for name, seconds in found["seconds_of_draws"].items():
            print(
                f"{name:12} {found['draws']:,} draws of each bucket: " + ", ".join(f"{each:.2f} s" for each in seconds)
            )
        for name, each in found["asking"].items():
            print(
                f"{name}: {each['asks']} asks {each['seconds']:.1f} s, median {each['median_ms']:.1f} ms, at most "
                f"{each['most_ms']:.1f} ms; of each bucket {each['asked_of_each_bucket']}"
            )
