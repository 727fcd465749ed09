"""Detections of an exported detector on one image; needs onnxruntime, numpy and Pillow, not nasray.

python examples/detect_onnx.py model.onnx image.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

THRESHOLD = 0.3


def resized_size(width, height, rule):
    """Return the width and height that the file's metadata ask for."""
    if "height" in rule:
        return rule["width"], rule["height"]
    scale = min(rule["short_side"] / min(width, height), rule["long_side"] / max(width, height))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def detect(model, image):
    """Class, score and box (xyxy in the image's own pixels) of every detection, best first."""
    session = onnxruntime.InferenceSession(model)
    described = session.get_modelmeta().custom_metadata_map
    classes, rule = json.loads(described["classes"]), json.loads(described["resize"])
    picture = Image.open(image)
    if described["orientation"] == "upright":  # as EXIF says
        picture = ImageOps.exif_transpose(picture)
    picture = picture.convert("RGB")
    resized = picture.resize(resized_size(*picture.size, rule), Image.Resampling.BILINEAR)
    images = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)[None]
    boxes, scores, labels = (output[0] for output in session.run(["boxes", "scores", "labels"], {"images": images}))
    factors = [own / new for own, new in zip(picture.size, resized.size, strict=True)] * 2
    return [
        (classes[label], float(score), (box * factors).tolist())
        for label, score, box in zip(labels, scores, boxes, strict=True)
        if score >= THRESHOLD
    ]


if __name__ == "__main__":
    for name, score, box in detect(*sys.argv[1:]):
        print(f"{name:20} {score:.3f}  " + " ".join(f"{value:.0f}" for value in box))
