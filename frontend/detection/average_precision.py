"""Mean average precision of detections, in NumPy: a metric of whole data sets, not of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...compiler.errors import InputError

Images = Sequence[Mapping[str, Any]]
_METHODS = ("area", "11 points", "101 points")


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU of all pairs of boxes (n, 4) and (m, 4); 0 where both are empty."""
    a, b = first[:, None], second[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(sides.clip(0), -1)
    union = np.prod(a[..., 2:] - a[..., :2], -1) + np.prod(b[..., 2:] - b[..., :2], -1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def detections_by_image(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Return what `mean_average_precision` takes of padded arrays: (n, k, 4), (n, k), (n, k).

    Places with a negative label are empty, as in what `select_detections` gives.
    """
    return [
        {"boxes": b[found], "scores": s[found], "labels": label[found]}
        for b, s, label in zip(boxes, scores, labels, strict=True)
        for found in [label >= 0]
    ]


def mean_average_precision(
    predictions: Images,
    targets: Images,
    iou_thresholds: float | Sequence[float] = 0.5,
    method: str = "area",
) -> dict[str, Any]:
    """Return the mean over classes and thresholds of the average precision.

    Detections of all images, best first, claim objects of their class: the unclaimed one that they
    overlap most, if by the threshold at least.  A detection that claims none is false.  Precision
    at a recall is the best at that recall or a higher one.

    Parameters
    ----------
    predictions : sequence of mappings, one for each image
        ``boxes`` (n, 4), ``scores`` (n,), ``labels`` (n,).
    targets : sequence of mappings
        ``boxes`` (m, 4), ``labels`` (m,), and optionally ``difficult`` bool (m,): objects which
        count neither as missed nor, when detected, at all.
    iou_thresholds : float or several
        0.5 is that of Pascal VOC; COCO's are ``np.arange(0.5, 1.0, 0.05)``.
    method : str
        ``"area"`` under the curve (VOC from 2010), or the mean at ``"11 points"`` (VOC 2007) or
        ``"101 points"`` (COCO) of recall.

    Returns
    -------
    dict
        ``map``; ``per_class``: label to average precision, over classes with objects;
        ``per_threshold``: threshold to mean; ``recall``: the share of objects found, at any score.
        Without objects the numbers are NaN.

    Raises
    ------
    InputError
        Arrays, thresholds or the method do not fit.

    Everingham et al., "The Pascal visual object classes challenge", IJCV 2010, section 4.2.
    """
    thresholds = np.atleast_1d(np.asarray(iou_thresholds, float))
    if not thresholds.size or (thresholds < 0).any() or (thresholds > 1).any():
        raise InputError(f"iou_thresholds must lie in [0, 1], got {iou_thresholds}")
    if method not in _METHODS:
        raise InputError(f"method {method!r} is not one of {', '.join(_METHODS)}")
    if len(predictions) != len(targets):
        raise InputError(f"{len(predictions)} images with predictions, {len(targets)} with targets")
    found = [_arrays(item, i, ("scores", "labels")) for i, item in enumerate(predictions)]
    objects = [_arrays(item, i, ("labels",)) for i, item in enumerate(targets)]
    for item, target in zip(objects, targets, strict=True):
        item["difficult"] = np.asarray(target.get("difficult", np.zeros(len(item["labels"]))), bool)
    present = [item["labels"][~item["difficult"]] for item in objects]
    classes = np.unique(np.concatenate(present)) if present else np.array([])
    precision = np.zeros((len(thresholds), len(classes)))
    recall = np.zeros_like(precision)
    for column, label in enumerate(classes):
        for row, threshold in enumerate(thresholds):
            correct, total = _claim(found, objects, label, threshold)
            precision[row, column] = _average_precision(correct, total, method)
            recall[row, column] = correct.sum() / total
    per_class, per_threshold = _mean(precision, 0), _mean(precision, 1)
    return {
        "map": float(_mean(per_class, 0)),
        "per_class": {c.item(): float(v) for c, v in zip(classes, per_class, strict=True)},
        "per_threshold": {
            float(t): float(v) for t, v in zip(thresholds, per_threshold, strict=True)
        },
        "recall": float(_mean(recall.ravel(), 0)),
    }


def _mean(x: np.ndarray, axis: int) -> np.ndarray:
    return x.mean(axis) if x.shape[axis] else np.full(np.delete(x.shape, axis), np.nan)


def _arrays(item: Mapping[str, Any], number: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return an image's arrays, checked."""
    missing = [name for name in ("boxes", *names) if name not in item]
    if missing:
        raise InputError(f"image {number} has no {' and no '.join(missing)}")
    boxes = np.asarray(item["boxes"], float)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"image {number}: boxes have the shape {boxes.shape}; (n, 4) would fit")
    arrays = {"boxes": boxes}
    for name in names:
        array = np.asarray(item[name]).reshape(-1)
        if len(array) != len(boxes):
            raise InputError(f"image {number}: {len(boxes)} boxes and {len(array)} {name}")
        arrays[name] = array
    return arrays


def _claim(
    found: Sequence[Mapping[str, np.ndarray]],
    objects: Sequence[Mapping[str, np.ndarray]],
    label: Any,
    threshold: float,
) -> tuple[np.ndarray, int]:
    """Return whether each detection of a class, best first, is right; and the number of objects."""
    scores, right, counted, total = [], [], [], 0
    for prediction, target in zip(found, objects, strict=True):
        of_class = prediction["labels"] == label
        order = np.argsort(-prediction["scores"][of_class], kind="stable")
        boxes = prediction["boxes"][of_class][order]
        wanted = target["labels"] == label
        difficult = target["difficult"][wanted]
        total += int((~difficult).sum())
        overlaps = pairwise_iou(boxes, target["boxes"][wanted])
        claimed = np.zeros(len(difficult), bool)
        for score, row in zip(prediction["scores"][of_class][order], overlaps, strict=True):
            row = np.where(claimed, -1.0, row)
            best = int(row.argmax()) if row.size else -1
            hit = best >= 0 and row[best] >= threshold
            if hit:
                claimed[best] = not difficult[best]
            scores.append(score)
            right.append(hit and not difficult[best])
            counted.append(not (hit and difficult[best]))
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    keep = np.asarray(counted, bool)[order]
    return np.asarray(right, bool)[order][keep], total


def _average_precision(correct: np.ndarray, total: int, method: str) -> float:
    hits = np.cumsum(correct)
    recall = hits / total
    precision = hits / np.arange(1, len(correct) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if method == "area":
        steps = np.diff(recall, prepend=0.0)
        return float((steps * envelope).sum())
    points = np.linspace(0, 1, 11 if method == "11 points" else 101)
    place = np.searchsorted(recall, points - 1e-12)  # 3 of 10 are at 0.3
    return float(np.append(envelope, 0.0)[place].mean())
