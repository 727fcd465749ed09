"""Evaluation: predictions over a data set, COCO's and VOC's average precision."""
