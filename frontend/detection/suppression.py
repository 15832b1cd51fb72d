"""Non-maximum suppression as a compiled loop with a result of static size.

Each of ``max_outputs`` steps picks the best box that is left and drops those that it overlaps: the
greedy rule in O(max_outputs · n) time and O(n) memory.  No matrix of all pairs, no sort, nothing
of which the size depends on values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import SymbolicDim, format_shape
from ...compiler.ir.types import FLOATS, INTEGERS
from ..control_flow import scan
from ..creation import full, iota
from ..elementwise import stop_gradient, where
from ..manipulation import moveaxis
from ..tensor import Tensor, as_tensor, floating
from ..tracing import fail
from .boxes import boxes_of, extended, intersection_and_union, take_boxes

#: What stands in the places of a result that no box fills.
NO_BOX = -1


def _checked(
    what: str, boxes: object, scores: object, iou_threshold: float, max_outputs: int | None
) -> tuple[Tensor, Tensor, int]:
    places = stop_gradient(floating(boxes_of(boxes, what)))
    values = stop_gradient(as_tensor(scores))
    if places.ndim < 2:
        fail(f"{what}: boxes have the shape {format_shape(places.shape)}; (..., n, 4) would fit")
    if values.shape != places.shape[:-1]:
        fail(
            f"{what}: scores of shape {format_shape(values.shape)} do not fit boxes of shape "
            f"{format_shape(places.shape)}; {format_shape(places.shape[:-1])} would fit"
        )
    if values.dtype not in FLOATS:
        fail(f"{what}: scores are floats, not {values.dtype}", GraphTypeError)
    if not 0 <= iou_threshold <= 1:
        fail(f"{what}: iou_threshold must lie in [0, 1], not {iou_threshold}")
    if max_outputs is None:
        count = places.shape[-2]
        if not isinstance(count, int):
            fail(
                f"{what}: the number of boxes, {count}, is known only when called; "
                "max_outputs must say how many to return"
            )
        return places, values, count
    if max_outputs < 0:
        fail(f"{what}: max_outputs must not be negative, but is {max_outputs}")
    return places, values, max_outputs


def _suppress(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    steps: int,
    alive: Tensor,
    classes: Tensor | None,
) -> Tensor:
    """Return the picks of the greedy rule among the boxes that are ``alive``."""
    lead, n = scores.shape[:-1], scores.shape[-1]
    if n == 0 or steps == 0:
        return full((*lead, steps), NO_BOX, "int64")
    if isinstance(n, SymbolicDim):
        # A box that is never alive: there may be no other, and nothing has no maximum.
        boxes, scores, alive = (extended(x, len(lead)) for x in (boxes, scores, alive))
        classes = None if classes is None else extended(classes, len(lead))
        n = scores.shape[-1]
    # -inf ranks the boxes that are gone, so a score of -inf ranks as the least finite one.
    ranks = scores.clip(low=float(np.finfo(scores.dtype).min))
    numbers = iota((n,), 0)
    limit = _at_most(iou_threshold, boxes.dtype)

    def step(alive: Tensor, _: None) -> tuple[Tensor, Tensor]:
        pick = where(alive, ranks, -float("inf")).argmax(-1, keepdims=True)
        chosen = numbers == pick  # (..., n)
        best = where(chosen.expand_dims(-1), boxes, 0).sum(-2, keepdims=True)
        shared, union = intersection_and_union(boxes, best)
        covered = shared / union > limit  # 0/0 is not: empty boxes suppress nothing
        if classes is not None:
            own = where(chosen, classes, 0).sum(-1, keepdims=True)
            covered = covered & (classes == own)
        left = alive & ~(covered | chosen)
        return left, where(alive.any(-1), pick.squeeze(-1), NO_BOX)

    _, picks = scan(step, alive, length=steps)
    return moveaxis(picks, 0, -1)


def _at_most(limit: float, dtype: str) -> float:
    """Return the largest float of ``dtype`` that is not above ``limit``.

    ``x > limit`` with a double limit, as in torchvision, is ``x >`` this: an IoU of exactly 3/10
    is above 0.3 in float32, where 3/10 rounds up.
    """
    rounded = np.asarray(limit, dtype)
    if float(rounded) > limit:
        rounded = np.nextafter(rounded, np.asarray(-np.inf, dtype))
    return float(rounded)


def _alive(what: str, mask: object, scores: Tensor) -> Tensor:
    if mask is None:
        return full(scores.shape, True, "bool")
    alive = as_tensor(mask)
    if alive.dtype != "bool":
        fail(f"{what}: mask is bool, not {alive.dtype}", GraphTypeError)
    if alive.shape != scores.shape:
        fail(
            f"{what}: a mask of shape {format_shape(alive.shape)} does not fit scores of shape "
            f"{format_shape(scores.shape)}; the shapes must be equal"
        )
    return alive


def nms(
    boxes: object,
    scores: object,
    iou_threshold: float,
    max_outputs: int | None = None,
    mask: object = None,
) -> Tensor:
    """Return the boxes that no better one overlaps, best first; no gradient flows.

    Greedy: the best box is kept, all whose IoU with it is above ``iou_threshold`` are dropped, and
    so on.  Of equal scores the lower index comes first.

    Parameters
    ----------
    boxes : (..., n, 4)
        Leading axes are independent problems, such as the images of a batch.
    scores : float (..., n)
    iou_threshold : float
        In [0, 1].
    max_outputs : int, optional
        How many at most; by default n.
    mask : bool (..., n), optional
        Which of the boxes take part, for instance those whose score is high enough.

    Returns
    -------
    int64 (..., max_outputs)
        Indices of boxes, then -1 in the places that are left: ``index >= 0`` says which are boxes,
        its sum how many, and `take_boxes` takes rows by such indices.

    Raises
    ------
    GraphError, GraphTypeError
        Shapes, types or the threshold do not fit; n is symbolic and there is no ``max_outputs``.
    """
    places, values, steps = _checked("nms", boxes, scores, iou_threshold, max_outputs)
    alive = _alive("nms", mask, values)
    return _suppress(places, values, iou_threshold, steps, alive, None)


def batched_nms(
    boxes: object,
    scores: object,
    idxs: object,
    iou_threshold: float,
    max_outputs: int | None = None,
    mask: object = None,
) -> Tensor:
    """Return `nms` in which boxes suppress only those of their own class.

    ``idxs``: the classes, integers (..., n); the other arguments and the result as in `nms`.
    Classes are compared, not told apart by moving boxes, which would cost coordinates digits.
    """
    what = "batched_nms"
    places, values, steps = _checked(what, boxes, scores, iou_threshold, max_outputs)
    classes = as_tensor(idxs)
    if classes.dtype not in INTEGERS:
        fail(f"{what}: idxs are integers, not {classes.dtype}", GraphTypeError)
    if classes.shape != values.shape:
        fail(
            f"{what}: idxs of shape {format_shape(classes.shape)} do not fit scores of shape "
            f"{format_shape(values.shape)}; the shapes must be equal"
        )
    alive = _alive(what, mask, values)
    return _suppress(places, values, iou_threshold, steps, alive, classes)


class Detections(NamedTuple):
    """What a detector found: ``boxes`` (..., k, 4), ``scores`` (..., k), int64 ``labels`` (..., k).

    Best first; the label of an empty place is -1, its box and score are 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def select_detections(
    boxes: object,
    scores: object,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_outputs: int = 100,
) -> Detections:
    """Return the best detections of all classes, suppressed class by class.

    Parameters
    ----------
    boxes : (..., n, 4), or (..., n, classes, 4) where each class has boxes of its own
    scores : float (..., n, classes)
        One box may give detections of several classes.
    score_threshold : float
        Scores that are not above it are no detections.
    iou_threshold, max_outputs
        As in `batched_nms`.
    """
    what = "select_detections"
    places, values = boxes_of(boxes, what), as_tensor(scores)
    wide = (*values.shape, 4)
    if values.ndim < 2 or places.shape not in (wide, (*values.shape[:-1], 4)):
        fail(
            f"{what}: boxes of shape {format_shape(places.shape)} and scores of shape "
            f"{format_shape(values.shape)}; (..., n, 4) and (..., n, classes) would fit"
        )
    if places.shape != wide:
        places = places.expand_dims(-2).broadcast_to(wide)
    *lead, n, classes = values.shape
    flat = (*lead, n * classes)
    labels = iota(values.shape, values.ndim - 1).reshape(flat)
    places, values = places.reshape((*flat, 4)), values.reshape(flat)
    index = batched_nms(
        places, values, labels, iou_threshold, max_outputs, values > score_threshold
    )
    return Detections(
        take_boxes(places, index), take_boxes(values, index), take_boxes(labels, index, -1)
    )
