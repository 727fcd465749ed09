"""A space and an evaluator of one's own: which four anchor boxes fit the boxes of a data set best?"""

import sys

import numpy as np

import nasray

SIDES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class AnchorSpace(nasray.Space):
    """Four anchors, each a height and a width in pixels."""

    family = "anchors"
    genes = tuple(nasray.Gene(f"{slot}.{side}", SIDES) for slot in range(4) for side in ("height", "width"))

    def repair(self, population):
        """Anchors in ascending order, so that each set of them is one row of the (N, 8) population."""
        anchors = population.reshape(-1, 4, 2)
        order = np.lexsort((anchors[:, :, 1], anchors[:, :, 0]))
        return np.take_along_axis(anchors, order[:, :, None], axis=1).reshape(population.shape)


def mean_overlap(population):
    """Score of each row: the overlap (IoU) of a box with the anchor that fits it best, on average over the boxes."""
    boxes = np.exp(np.random.default_rng(0).normal(4.2, 0.8, (500, 2)))  # stands for a data set
    anchors = population.reshape(-1, 4, 1, 2)
    shared = np.minimum(anchors, boxes).prod(axis=3)
    overlap = shared / (anchors.prod(axis=3) + boxes.prod(axis=1) - shared)
    return {"score": overlap.max(axis=1).mean(axis=1)}


if __name__ == "__main__":
    best = nasray.search(AnchorSpace(), mean_overlap, folder=sys.argv[1], evaluations=int(sys.argv[2]))
    print(best["best"][0])
