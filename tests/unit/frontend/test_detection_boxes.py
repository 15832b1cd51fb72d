"""Boxes, anchors and the focal loss: against formulas written with PyTorch, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import detection as D
from chainrule.compiler.errors import GraphError, GraphTypeError

torch = pytest.importorskip("torch", reason="compares with PyTorch")


def draw_boxes(rng, *lead, dtype="float64"):
    corner = rng.uniform(0, 8, (*lead, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 6, (*lead, 2))], -1).astype(dtype)


# -- what torchvision.ops defines, written with PyTorch -------------------------------------------


def reference_overlap(a, b, kind, eps=1e-7, guard=0.0):
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)

    def area(x):
        return (x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1])

    union = area(a) + area(b) - shared
    iou = shared / (union + guard)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    if kind == "generalized":
        whole = hull.prod(-1)
        return iou - (whole - union) / (whole + guard)
    centres = (a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2
    distance = (centres**2).sum(-1) / ((hull**2).sum(-1) + eps)
    if kind == "distance":
        return iou - distance
    if kind == "complete":
        sizes = [x[..., 2:] - x[..., :2] for x in (a, b)]
        angles = [torch.atan(s[..., 0] / s[..., 1]) for s in sizes]
        v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
        with torch.no_grad():
            alpha = v / (1 - iou + v + eps)
        return iou - distance - alpha * v
    return iou


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (D.box_iou, "plain"),
        (D.generalized_box_iou, "generalized"),
        (D.distance_box_iou, "distance"),
        (D.complete_box_iou, "complete"),
    ],
)
@pytest.mark.parametrize("lead", [(), (2,)])
def test_overlaps_of_all_pairs(ours, kind, lead, agrees) -> None:
    rng = np.random.default_rng(0)
    agrees(
        ours,
        lambda a, b: reference_overlap(a[..., :, None, :], b[..., None, :, :], kind),
        draw_boxes(rng, *lead, 5),
        draw_boxes(rng, *lead, 3),
        native=True,
    )


@pytest.mark.parametrize("kind", ["generalized", "distance", "complete"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_of_overlaps(kind, reduction, agrees) -> None:
    rng = np.random.default_rng(1)

    def theirs(a, b):
        loss = 1 - reference_overlap(a, b, kind, guard=1e-7)
        return loss if reduction == "none" else getattr(loss, reduction)()

    agrees(
        lambda a, b: getattr(D, f"{kind}_box_iou_loss")(a, b, reduction),
        theirs,
        draw_boxes(rng, 7),
        draw_boxes(rng, 7),
        native=reduction == "mean",
    )


def test_overlaps_by_hand(evaluate) -> None:
    a = [[0.0, 0, 2, 2]]
    b = [[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]]
    np.testing.assert_allclose(evaluate(D.box_iou(a, b)), [[1 / 7, 1, 0]], rtol=1e-6)
    value = evaluate(D.generalized_box_iou(a, b))
    np.testing.assert_allclose(value, [[1 / 7 - 2 / 9, 1, -31 / 36]], rtol=1e-6)
    assert np.isnan(evaluate(D.box_iou(np.zeros((1, 4)), np.zeros((1, 4))))).all()
    assert evaluate(D.box_iou(np.zeros((0, 4)), b)).shape == (0, 3)


@pytest.mark.parametrize("form", ["xywh", "cxcywh"])
def test_forms_of_boxes_are_inverse(form, evaluate) -> None:
    boxes = draw_boxes(np.random.default_rng(2), 2, 3)
    there = D.box_convert(boxes, "xyxy", form)
    np.testing.assert_allclose(evaluate(D.box_convert(there, form, "xyxy")), boxes, rtol=1e-12)
    size = boxes[..., 2:] - boxes[..., :2]
    corner = boxes[..., :2] if form == "xywh" else (boxes[..., :2] + boxes[..., 2:]) / 2
    np.testing.assert_allclose(evaluate(there), np.concatenate([corner, size], -1), rtol=1e-12)
    np.testing.assert_allclose(evaluate(D.box_area(boxes)), size.prod(-1), rtol=1e-12)


def test_boxes_of_integers_stay_integers(evaluate) -> None:
    boxes = np.array([[-3, 2, 40, 9]])
    clipped = evaluate(D.clip_boxes_to_image(boxes, (8, 32)))
    assert clipped.dtype == "int64"
    assert clipped.tolist() == [[0, 2, 32, 8]]
    assert evaluate(D.box_area(boxes)).tolist() == [301]
    assert evaluate(D.remove_small_boxes(boxes, 7)).tolist() == [True]
    assert evaluate(D.remove_small_boxes(boxes, 7.5)).tolist() == [False]


def test_boxes_around_masks(evaluate) -> None:
    masks = np.zeros((3, 5, 6), bool)
    masks[0, 1:4, 2:5] = True
    masks[1, 4, 0] = True
    assert evaluate(D.masks_to_boxes(masks)).tolist() == [[2, 1, 4, 3], [0, 4, 0, 4], [0] * 4]


def test_deltas_lead_from_references_to_boxes(agrees, evaluate) -> None:
    rng = np.random.default_rng(3)
    boxes, references = draw_boxes(rng, 4), draw_boxes(rng, 4)
    weights = (10.0, 10.0, 5.0, 5.0)

    def encode(b, r):
        size, to = b[..., 2:] - b[..., :2], r[..., 2:] - r[..., :2]
        move = (b[..., :2] + size / 2 - r[..., :2] - to / 2) / to
        return torch.cat([move * 10, torch.log(size / to) * 5], -1)

    agrees(lambda b, r: D.encode_boxes(b, r, weights), encode, boxes, references, native=True)
    back = D.decode_boxes(D.encode_boxes(boxes, references, weights), references, weights)
    np.testing.assert_allclose(evaluate(back), boxes, rtol=1e-12)
    wild = evaluate(D.decode_boxes([[0.0, 0, 1e4, 1e4]], [[0.0, 0, 16, 16]]))
    np.testing.assert_allclose(wild, [[-492, -492, 508, 508]], rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.25, -1.0])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_loss(alpha, gamma, agrees) -> None:
    rng = np.random.default_rng(4)
    targets = (rng.random((3, 5)) < 0.3).astype("float64")

    def theirs(x):
        y = torch.tensor(targets, dtype=x.dtype)
        p = torch.sigmoid(x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
        loss = loss * (1 - (p * y + (1 - p) * (1 - y))) ** gamma
        return loss * (alpha * y + (1 - alpha) * (1 - y)) if alpha >= 0 else loss

    agrees(
        lambda x: D.sigmoid_focal_loss(x, targets, alpha, gamma),
        theirs,
        rng.normal(0, 3, (3, 5)),
        native=True,
    )


def test_focal_loss_of_sure_predictions_is_finite(evaluate) -> None:
    x = cr.input("x", (4,))
    loss = D.sigmoid_focal_loss(x, [1.0, 0.0, 1.0, 0.0], gamma=0.5, reduction="sum")
    given = np.array([60, -60, -200, 200], "float32")
    assert np.isfinite(evaluate(loss, x=given))
    assert np.isfinite(evaluate(cr.grad(loss, [x])[0], x=given)).all()


# -- anchors --------------------------------------------------------------------------------------


def test_anchors_by_hand() -> None:
    cell = D.generate_anchors((16,), (0.5, 1.0, 2.0))
    assert cell.tolist() == [[-11, -6, 11, 6], [-8, -8, 8, 8], [-6, -11, 6, 11]]
    make = D.AnchorGenerator(((16,), (32,)), ((1.0,), (1.0,)))
    anchors = make((32, 48), [(2, 3), (1, 1)])
    assert anchors.shape == (7, 4)
    assert anchors[4].tolist() == [8, 8, 24, 24]  # row 1, column 1: moved by 16 both ways
    assert anchors[2].tolist() == [24, -8, 40, 8]  # row 0, column 2
    assert anchors[6].tolist() == [-16, -16, 16, 16]
    assert make.num_anchors_per_location() == [1, 1]


def test_default_boxes_by_hand() -> None:
    boxes = D.default_boxes((10, 20), [(1, 2)], (0.25, 1.0), [(4.0,)])
    assert boxes.shape == (8, 4)
    centre = [5, 5, 5, 5]  # of the first cell, in pixels
    sizes = [(5, 2.5), (10, 5), (10, 1.25), (2.5, 5)]
    wanted = [[c + s / 2 * m for c, s, m in zip(centre, (w, h, w, h), (-1, -1, 1, 1), strict=True)]
              for w, h in sizes]  # fmt: skip
    np.testing.assert_allclose(boxes[:4], wanted, rtol=1e-6)
    np.testing.assert_allclose(boxes[4:] - boxes[:4], [[10, 0, 10, 0]] * 4, atol=1e-6)


ANCHORS = np.array([[0, 0, 4, 4], [1, 0, 5, 4], [0, 0, 2, 2], [9, 9, 12, 12]], "float32")
OBJECTS = np.array([[0, 0, 4, 4], [9, 9, 10, 10], [0, 0, 4, 4]], "float32")
REAL = np.array([True, True, False])
#: IoU with object 0: 1, 0.6, 0.25, 0; with object 1: 0, 0, 0, 1/9.


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"force_best": False}, [0, 0, -1, -1]),
        ({"force_best": False, "high_threshold": 0.7}, [0, -1, -1, -1]),
        (
            {"force_best": False, "high_threshold": 0.7, "low_threshold": 0.2},
            [0, -2, -2, -1],
        ),
        ({"high_threshold": 0.7}, [0, -1, -1, 1]),
        (
            {"force_best": False, "high_threshold": 1.0, "allow_low_quality_matches": True},
            [0, -1, -1, 1],
        ),
    ],
)
def test_which_object_an_anchor_answers_for(arguments, wanted, evaluate) -> None:
    found = D.match_anchors(ANCHORS, OBJECTS, REAL, **arguments)
    assert evaluate(found.matched).tolist() == wanted
    np.testing.assert_allclose(evaluate(found.overlap), [1, 0.6, 0.25, 1 / 9], rtol=1e-6)
    taken = evaluate(found.take(np.array([7, 8, 9]), background=-5))
    assert taken.tolist() == [{0: 7, 1: 8}.get(i, -5) for i in wanted]
    assert evaluate(found.positive).tolist() == [i >= 0 for i in wanted]
    assert evaluate(found.negative).tolist() == [i == -1 for i in wanted]


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_matching_of_a_batch_with_different_numbers_of_objects(backend) -> None:
    boxes, mask = cr.input("boxes", ("batch", 3, 4)), cr.input("mask", ("batch", 3), "bool")
    found = D.match_anchors(ANCHORS, boxes, mask, 0.7)
    result = cr.compile([found.matched, found.take(boxes)], backend=backend)
    many = np.stack([OBJECTS, OBJECTS[::-1], OBJECTS])
    masks = np.array([[True, True, False], [True, True, True], [False] * 3])
    index, taken = result(boxes=many, mask=masks)
    # Of two equal objects in the second image the anchors above the threshold take the first, but
    # the last one forces its best anchor.
    assert index.tolist() == [[0, -1, -1, 1], [2, -1, -1, 1], [-1] * 4]
    assert taken[0].tolist() == [OBJECTS[0].tolist(), [0] * 4, [0] * 4, OBJECTS[1].tolist()]


def test_empty_boxes_and_no_boxes_match_nothing(evaluate) -> None:
    empty = D.match_anchors(np.zeros((2, 4)), np.zeros((1, 4)), force_best=False)
    assert evaluate(empty.matched).tolist() == [-1, -1]
    none = D.match_anchors(ANCHORS, np.zeros((0, 4)))
    assert evaluate(none.matched).tolist() == [-1] * 4
    assert evaluate(none.take(np.zeros((0, 4)), 7)).tolist() == [[7] * 4] * 4


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_symbolic_number_of_objects(backend) -> None:
    boxes = cr.input("boxes", ("objects", 4))
    found = D.match_anchors(ANCHORS, boxes, high_threshold=0.7)
    match = cr.compile([found.matched, found.take(boxes, -1), found.overlap], backend=backend)
    matched, taken, overlap = match(boxes=OBJECTS[:2])
    assert matched.tolist() == [0, -1, -1, 1]
    assert taken.tolist() == [OBJECTS[0].tolist(), [-1] * 4, [-1] * 4, OBJECTS[1].tolist()]
    matched, taken, overlap = match(boxes=np.zeros((0, 4), "float32"))
    assert matched.tolist() == [-1] * 4
    assert (taken == -1).all()
    assert (overlap == 0).all()


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: D.box_iou(np.zeros((3, 5)), np.zeros((3, 4))), r"boxes1 have the shape \(3, 5\)"),
        (lambda: D.box_iou(np.zeros(4), np.zeros((3, 4))), r"lists of boxes \(..., n, 4\)"),
        (lambda: D.box_area(1.0), r"\(..., 4\) would fit"),
        (lambda: D.box_convert(np.zeros((1, 4)), "xyxy", "yxyx"), "'yxyx' is not one of"),
        (lambda: D.clip_boxes_to_image(np.zeros((1, 4)), 5), "height, width"),
        (
            lambda: D.complete_box_iou_loss(np.zeros((2, 4)), np.zeros((3, 4))),
            "must be equal",
        ),
        (
            lambda: D.generalized_box_iou_loss(np.zeros((2, 4)), np.zeros((2, 4)), "avg"),
            "'avg' is not one of",
        ),
        (lambda: D.encode_boxes(np.ones((1, 4)), np.ones((1, 4)), (1, 1, 0, 1)), "four positive"),
        (lambda: D.match_anchors(ANCHORS, OBJECTS, REAL, 0.3, 0.5), "0 ≤ low ≤ high ≤ 1"),
        (lambda: D.match_anchors(ANCHORS, OBJECTS, REAL, 1.5), "0 ≤ low ≤ high ≤ 1"),
        (lambda: D.match_anchors(ANCHORS, OBJECTS, REAL[:2]), r"\(3,\) would fit"),
        (lambda: D.match_anchors(ANCHORS, OBJECTS, REAL.astype("f4")), "mask is bool"),
        (lambda: D.generate_anchors((0,), (1,)), "positive"),
        (lambda: D.AnchorGenerator(((1,), (2,)), ((1,),)), "2 feature maps"),
        (lambda: D.AnchorGenerator()((8, 8), [(1, 1), (2, 2)]), "2 feature maps, made for 1"),
        (lambda: D.default_boxes((8, 8), [(1, 1)], (0.5,), [()]), "one more scale"),
        (lambda: D.sigmoid_focal_loss(np.zeros(3), np.zeros(4)), "must be equal"),
        (lambda: D.sigmoid_focal_loss(np.zeros(3), np.zeros(3), alpha=2), "share"),
        (lambda: D.sigmoid_focal_loss(np.zeros(3), np.zeros(3), gamma=-1), "gamma"),
    ],
)
def test_what_does_not_fit_is_refused(call, message) -> None:
    with pytest.raises((GraphError, GraphTypeError), match=message):
        call()
