"""Boxes: conversion between forms, areas, overlaps, and the deltas that detectors regress.

A box is four numbers on the last axis, by default (x1, y1, x2, y2) with x1 ≤ x2, y1 ≤ y2 in a
plane whose y points down.  All functions take leading axes and broadcast over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import SymbolicDim, format_shape, product
from ...compiler.ir.types import INTEGERS
from ..creation import full, iota
from ..elementwise import atan, exp, log, maximum, minimum, square, stop_gradient, where
from ..manipulation import concatenate, stack, take
from ..promotion import canonical_dtype
from ..tensor import Tensor, as_tensor, floating
from ..tracing import fail

#: Widths are limited to exp(4.1) = 62.5 of the reference, as 1000 px over 16 (Girshick's choice).
_LARGEST_LOG_RATIO = math.log(1000.0 / 16)

_FORMS = ("xyxy", "xywh", "cxcywh")


def boxes_of(x: object, what: str, name: str = "boxes") -> Tensor:
    """Return ``x`` as a tensor of boxes; GraphError where the last axis has not four numbers."""
    tensor = as_tensor(x)
    if not tensor.ndim or tensor.shape[-1] != 4:
        fail(
            f"{what}: {name} have the shape {format_shape(tensor.shape)}; their last axis is "
            "(x1, y1, x2, y2), so (..., 4) would fit"
        )
    if tensor.dtype == "bool":
        fail(f"{what}: {name} are numbers, not bool", GraphTypeError)
    return tensor


def sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four columns, each without the last axis."""
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def box_area(boxes: object) -> Tensor:
    """Return (x2 - x1)(y2 - y1) of ``boxes`` (..., 4); (...)."""
    x1, y1, x2, y2 = sides(boxes_of(boxes, "box_area"))
    return (x2 - x1) * (y2 - y1)


def box_convert(boxes: object, in_fmt: str, out_fmt: str) -> Tensor:
    """Return ``boxes`` (..., 4) written in another form.

    Forms: ``"xyxy"`` two corners, ``"xywh"`` a corner and the size, ``"cxcywh"`` the centre and the
    size.
    """
    x = boxes_of(boxes, "box_convert")
    for form in (in_fmt, out_fmt):
        if form not in _FORMS:
            fail(f"box_convert: {form!r} is not one of {', '.join(_FORMS)}")
    if in_fmt == out_fmt:
        return x
    a, b, c, d = sides(x)
    match in_fmt:  # to corners
        case "xywh":
            c, d = a + c, b + d
        case "cxcywh":
            a, b, c, d = a - c * 0.5, b - d * 0.5, a + c * 0.5, b + d * 0.5
    match out_fmt:
        case "xywh":
            c, d = c - a, d - b
        case "cxcywh":
            a, b, c, d = (a + c) * 0.5, (b + d) * 0.5, c - a, d - b
    return stack([a, b, c, d], -1)


def clip_boxes_to_image(boxes: object, size: Sequence[object]) -> Tensor:
    """Return ``boxes`` (..., 4) limited to an image of ``size`` (height, width)."""
    x = boxes_of(boxes, "clip_boxes_to_image")
    if not isinstance(size, Sequence) or len(size) != 2:
        fail(f"clip_boxes_to_image: size is (height, width), not {size!r}")
    height, width = size
    x1, y1, x2, y2 = sides(x)
    limits = ((x1, width), (y1, height), (x2, width), (y2, height))
    # The limit has the boxes' type: a Python float would make integer boxes floats.
    columns = [side.clip(0, as_tensor(limit, dtype=x.dtype)) for side, limit in limits]
    return stack(columns, -1)


def remove_small_boxes(boxes: object, min_size: float) -> Tensor:
    """Return which ``boxes`` (..., 4) have both sides ≥ ``min_size``: bools (...).

    torchvision returns their indices, whose number depends on values.
    """
    x1, y1, x2, y2 = sides(boxes_of(boxes, "remove_small_boxes"))
    return (x2 - x1 >= min_size) & (y2 - y1 >= min_size)


def _positive_part(x: Tensor) -> Tensor:
    return x.clip(low=0)


def intersection_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of the intersection and the union of boxes that broadcast; (...)."""
    ax1, ay1, ax2, ay2 = sides(first)
    bx1, by1, bx2, by2 = sides(second)
    width = _positive_part(minimum(ax2, bx2) - maximum(ax1, bx1))
    height = _positive_part(minimum(ay2, by2) - maximum(ay1, by1))
    shared = width * height
    total = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)
    return shared, total - shared


def _hull(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the width and height of the smallest box around both."""
    ax1, ay1, ax2, ay2 = sides(first)
    bx1, by1, bx2, by2 = sides(second)
    width = _positive_part(maximum(ax2, bx2) - minimum(ax1, bx1))
    height = _positive_part(maximum(ay2, by2) - minimum(ay1, by1))
    return width, height


def _pairs(boxes1: object, boxes2: object, what: str) -> tuple[Tensor, Tensor]:
    """Return both with axes for all pairs, (..., n, 1, 4) and (..., 1, m, 4), as floats."""
    first = floating(boxes_of(boxes1, what, "boxes1"))
    second = floating(boxes_of(boxes2, what, "boxes2"))
    for name, boxes in (("boxes1", first), ("boxes2", second)):
        if boxes.ndim < 2:
            fail(
                f"{what}: {name} have the shape {format_shape(boxes.shape)}; lists of boxes "
                "(..., n, 4) would fit"
            )
    return first.expand_dims(-2), second.expand_dims(-3)


def _centre_distance(first: Tensor, second: Tensor, eps: float) -> Tensor:
    """Return the squared distance of the centres over that of the hull's corners."""
    ax1, ay1, ax2, ay2 = sides(first)
    bx1, by1, bx2, by2 = sides(second)
    width, height = _hull(first, second)
    x = (ax1 + ax2) * 0.5 - (bx1 + bx2) * 0.5
    y = (ay1 + ay2) * 0.5 - (by1 + by2) * 0.5
    return (square(x) + square(y)) / (square(width) + square(height) + eps)


def _shape_penalty(first: Tensor, second: Tensor, overlap: Tensor, eps: float) -> Tensor:
    """Return α v, v the squared difference of the angles of the diagonals (Zheng et al., eq. 8).

    α is a weight, not a path of the gradient (section 3.3 there).
    """
    ax1, ay1, ax2, ay2 = sides(first)
    bx1, by1, bx2, by2 = sides(second)
    angle = atan((ax2 - ax1) / (ay2 - ay1)) - atan((bx2 - bx1) / (by2 - by1))
    v = square(angle) * (4.0 / math.pi**2)
    alpha = stop_gradient(v / (1.0 - overlap + v + eps))
    return alpha * v


def _overlap(
    first: Tensor, second: Tensor, kind: str, eps: float = 0.0, guard: float = 0.0
) -> Tensor:
    """Return the IoU of boxes that broadcast, less the penalty of its ``kind``.

    ``guard`` is added to the areas that divide.
    """
    shared, union = intersection_and_union(first, second)
    overlap = shared / (union + guard) if guard else shared / union
    match kind:
        case "generalized":
            width, height = _hull(first, second)
            hull = width * height
            return overlap - (hull - union) / (hull + guard if guard else hull)
        case "distance":
            return overlap - _centre_distance(first, second, eps)
        case "complete":
            return (
                overlap
                - _centre_distance(first, second, eps)
                - _shape_penalty(first, second, overlap, eps)
            )
    return overlap


def box_iou(boxes1: object, boxes2: object) -> Tensor:
    """Return the intersection over union of all pairs.

    ``boxes1`` (..., n, 4), ``boxes2`` (..., m, 4), leading axes broadcast; (..., n, m).  Two empty
    boxes give NaN, as in torchvision.
    """
    return _overlap(*_pairs(boxes1, boxes2, "box_iou"), "plain")


def generalized_box_iou(boxes1: object, boxes2: object) -> Tensor:
    """Return the IoU less the share of the hull that neither box covers, in (-1, 1].

    Arguments as in `box_iou`.  (Rezatofighi et al., CVPR 2019, algorithm 1.)
    """
    return _overlap(*_pairs(boxes1, boxes2, "generalized_box_iou"), "generalized")


def distance_box_iou(boxes1: object, boxes2: object, eps: float = 1e-7) -> Tensor:
    """Return the IoU less the squared distance of the centres over the hull's squared diagonal.

    Arguments as in `box_iou`.  (Zheng et al., "Distance-IoU loss", AAAI 2020, equation 6.)
    """
    return _overlap(*_pairs(boxes1, boxes2, "distance_box_iou"), "distance", eps)


def complete_box_iou(boxes1: object, boxes2: object, eps: float = 1e-7) -> Tensor:
    """Return `distance_box_iou` less a penalty for different aspect ratios.

    Arguments as in `box_iou`.  (Zheng et al., AAAI 2020, equations 8 to 11.)
    """
    return _overlap(*_pairs(boxes1, boxes2, "complete_box_iou"), "complete", eps)


def _box_loss(kind: str, boxes1: object, boxes2: object, reduction: str, eps: float) -> Tensor:
    what = f"{kind}_box_iou_loss"
    first = floating(boxes_of(boxes1, what, "boxes1"))
    second = floating(boxes_of(boxes2, what, "boxes2"))
    if first.shape != second.shape:
        fail(
            f"{what}: boxes of shapes {format_shape(first.shape)} and "
            f"{format_shape(second.shape)} are compared one by one; the shapes must be equal"
        )
    return reduced(1.0 - _overlap(first, second, kind, eps, eps), reduction, what)


def reduced(loss: Tensor, reduction: str, what: str) -> Tensor:
    """Return the loss, its mean or its sum; the mean over no boxes is 0, as in torchvision."""
    match reduction:
        case "none":
            return loss
        case "mean":
            return loss.mean() if loss.size != 0 else loss.sum()
        case "sum":
            return loss.sum()
    fail(f"{what}: reduction {reduction!r} is not one of none, mean, sum")


def generalized_box_iou_loss(
    boxes1: object, boxes2: object, reduction: str = "none", eps: float = 1e-7
) -> Tensor:
    """Return 1 - generalized IoU of ``boxes1`` and ``boxes2`` (..., 4), one by one; (...)."""
    return _box_loss("generalized", boxes1, boxes2, reduction, eps)


def distance_box_iou_loss(
    boxes1: object, boxes2: object, reduction: str = "none", eps: float = 1e-7
) -> Tensor:
    """Return 1 - distance IoU of ``boxes1`` and ``boxes2`` (..., 4), one by one; (...)."""
    return _box_loss("distance", boxes1, boxes2, reduction, eps)


def complete_box_iou_loss(
    boxes1: object, boxes2: object, reduction: str = "none", eps: float = 1e-7
) -> Tensor:
    """Return 1 - complete IoU of ``boxes1`` and ``boxes2`` (..., 4), one by one; (...)."""
    return _box_loss("complete", boxes1, boxes2, reduction, eps)


def _weights(weights: Sequence[float], what: str) -> tuple[float, ...]:
    if len(weights) != 4 or any(w <= 0 for w in weights):
        fail(f"{what}: weights are four positive numbers, for x, y, w and h, not {weights!r}")
    return tuple(float(w) for w in weights)


def encode_boxes(
    boxes: object, references: object, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Return the deltas that lead from ``references`` to ``boxes``, both (..., 4); (..., 4).

    ``(wx (x - xr)/wr, wy (y - yr)/hr, ww log(w/wr), wh log(h/hr))`` of centres and sizes (Girshick
    et al., "Rich feature hierarchies", 2014, appendix C).  ``weights`` are those of Faster R-CNN;
    SSD's variances are one over them: (0.1, 0.1, 0.2, 0.2) is (10, 10, 5, 5).
    """
    what = "encode_boxes"
    wx, wy, ww, wh = _weights(weights, what)
    x, y, w, h = sides(box_convert(floating(boxes_of(boxes, what)), "xyxy", "cxcywh"))
    to = box_convert(floating(boxes_of(references, what, "references")), "xyxy", "cxcywh")
    rx, ry, rw, rh = sides(to)
    deltas = [(x - rx) / rw * wx, (y - ry) / rh * wy, log(w / rw) * ww, log(h / rh) * wh]
    return stack(deltas, -1)


def decode_boxes(
    deltas: object,
    references: object,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    clip: float = _LARGEST_LOG_RATIO,
) -> Tensor:
    """Return the boxes at ``deltas`` from ``references``: the inverse of `encode_boxes`.

    ``deltas`` (..., 4), ``references`` (..., 4) broadcast; ``clip`` limits the logarithms of the
    ratios of sizes, so that a wild prediction cannot overflow.
    """
    what = "decode_boxes"
    wx, wy, ww, wh = _weights(weights, what)
    dx, dy, dw, dh = sides(floating(boxes_of(deltas, what, "deltas")))
    to = box_convert(floating(boxes_of(references, what, "references")), "xyxy", "cxcywh")
    rx, ry, rw, rh = sides(to)
    x, y = dx / wx * rw + rx, dy / wy * rh + ry
    w = exp((dw / ww).clip(high=clip)) * rw
    h = exp((dh / wh).clip(high=clip)) * rh
    return stack([x - w * 0.5, y - h * 0.5, x + w * 0.5, y + h * 0.5], -1)


def masks_to_boxes(masks: object, dtype: object = "float32") -> Tensor:
    """Return the smallest boxes around ``masks`` (..., height, width), inclusive; (..., 4).

    A mask of one pixel at (x, y) gives (x, y, x, y), an empty one zeros.
    """
    tensor = as_tensor(masks).astype("bool")
    if tensor.ndim < 2:
        fail(
            f"masks_to_boxes: masks have the shape {format_shape(tensor.shape)}; "
            "(..., height, width) would fit"
        )
    ends = []
    for across in (-2, -1):  # x, then y
        hit = tensor.any(across)
        size = hit.shape[-1]
        first = hit.astype("int64").argmax(-1)
        last = size - 1 - hit[..., ::-1].astype("int64").argmax(-1)
        ends.append((first, last * hit.any(-1).astype("int64")))
    (x1, x2), (y1, y2) = ends
    return stack([x1, y1, x2, y2], -1).astype(canonical_dtype(dtype))


def join_boxes(groups: Sequence[object], what: str) -> Tensor:
    """Return lists of boxes, one for each image, as (n, 5) with the image's number in front."""
    rows = []
    for number, group in enumerate(groups):
        boxes = boxes_of(group, what, f"boxes[{number}]")
        if boxes.ndim != 2:
            fail(
                f"{what}: boxes[{number}] have the shape {format_shape(boxes.shape)}; "
                "(n, 4) would fit"
            )
        rows.append(concatenate([full((boxes.shape[0], 1), number, boxes.dtype), boxes], 1))
    return concatenate(rows, 0)


def extended(x: Tensor, axis: int) -> Tensor:
    """Return ``x`` with one more element along ``axis``, of zeros."""
    shape = list(x.shape)
    shape[axis] = 1
    return concatenate([x, full(shape, 0, x.dtype)], axis)


def take_boxes(values: object, index: object, fill: float = 0) -> Tensor:
    """Return the rows of ``values`` at ``index``, and ``fill`` where that is -1.

    ``values`` (..., n) or (..., n, d), ``index`` int64 (..., k) such as `nms` gives; (..., k[, d]).
    """
    rows, places = as_tensor(values), as_tensor(index)
    lead = places.ndim - 1
    fits = (
        places.ndim
        and rows.ndim in (lead + 1, lead + 2)
        and rows.shape[:lead] == (places.shape[:-1])
    )
    if not fits or places.dtype not in INTEGERS:
        fail(
            f"take_boxes: index {places.dtype}{format_shape(places.shape)} does not fit values of "
            f"shape {format_shape(rows.shape)}; integers (..., k) for (..., n) or (..., n, d) do"
        )
    filling = as_tensor(fill, dtype=rows.dtype)
    n = rows.shape[lead]
    if n == 0:
        return full((*places.shape, *rows.shape[lead + 1 :]), fill, rows.dtype)
    found = places >= 0
    if isinstance(n, SymbolicDim):
        rows, n = extended(rows, lead), n + 1  # there is a first row to read, whatever n is
    flat = rows.reshape((product(rows.shape[: lead + 1]), *rows.shape[lead + 1 :]))
    first = iota((product(places.shape[:-1]), 1), 0).reshape((*places.shape[:-1], 1)) * n
    taken = take(flat, where(found, places.astype("int64") + first, 0), 0)
    if rows.ndim > lead + 1:
        found = found.expand_dims(-1)
    return where(found, taken, filling)
