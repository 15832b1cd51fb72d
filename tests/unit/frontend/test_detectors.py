"""YOLO, SSD and Faster R-CNN against loops in NumPy over the same raw predictions."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import detection as D
from chainrule import models, nn
from chainrule.compiler.errors import GraphError, GraphTypeError, InputError
from chainrule.frontend.detection.average_precision import pairwise_iou

BACKENDS = ("numpy", "native")
BOXES = np.array([[[3, 2, 9, 10], [8, 8, 14, 15]], [[1, 1, 6, 5], [4, 4, 4, 4]]], "float32")
LABELS = np.array([[2, 0], [1, 1]])
MASK = np.array([[True, True], [True, False]])


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def inputs(size=16):
    return (
        cr.input("images", ("batch", 3, size, size)),
        cr.input("boxes", ("batch", 2, 4)),
        cr.input("labels", ("batch", 2), "int64"),
        cr.input("mask", ("batch", 2), "bool"),
    )


def feed(seed=0, size=16):
    images = np.random.default_rng(seed).normal(size=(2, 3, size, size)).astype("float32")
    return {"images": images, "boxes": BOXES, "labels": LABELS, "mask": MASK}


def small_backbone(channels=6):
    """Features of a quarter of the size, unlike at every place."""
    return nn.Sequential(nn.Conv2d(3, channels, 4, 4), nn.Tanh())


def softplus(x):
    return np.logaddexp(0.0, x)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# -- YOLO -----------------------------------------------------------------------------------------


def test_yolo_is_its_rules_written_out(backend, evaluate) -> None:
    cr.manual_seed(3)
    anchors = np.array([[5.0, 5.0], [9.0, 6.0]])
    model = models.YOLO(small_backbone(), 6, 3, anchors, stride=4)
    found, losses = model(inputs()[0]), model.losses(*inputs(), ignore=0.3)
    raw = model.head(model.backbone(inputs()[0]))
    values = cr.compile({"raw": raw, **losses}, backend=backend)(**feed())
    boxes, objectness, logits = cr.compile(list(found), backend=backend)(images=feed()["images"])
    # The raw output by cell, row by row, then by anchor.
    cells = values["raw"].reshape(2, 2, 8, 4, 4).transpose(0, 3, 4, 1, 2)
    total = {"objectness": 0.0, "box": 0.0, "class": 0.0}
    for i in range(2):
        decoded = []
        for row in range(4):
            for column in range(4):
                for a in range(2):
                    t = cells[i, row, column, a].astype("float64")
                    centre = (1 / (1 + np.exp(-t[:2])) + [column, row]) * 4
                    size = anchors[a] * np.exp(t[2:4])
                    decoded.append([*(centre - size / 2), *(centre + size / 2), *t[4:]])
        decoded = np.array(decoded)
        np.testing.assert_allclose(boxes[i], decoded[:, :4], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(objectness[i], decoded[:, 4], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits[i], decoded[:, 5:], rtol=1e-4, atol=1e-5)
        answers = np.zeros(32, bool)
        for box, label, real in zip(BOXES[i], LABELS[i], MASK[i], strict=True):
            if not real:
                continue
            column, row = ((box[:2] + box[2:]) / 2 // 4).astype(int)
            side = box[2:] - box[:2]
            shared = np.minimum(side, anchors).prod(-1)
            a = (shared / (side.prod() + anchors.prod(-1) - shared)).argmax()
            k = (row * 4 + column) * 2 + a
            answers[k] = True
            distance = evaluate(D.complete_box_iou_loss(decoded[k, :4], box.astype("float64")))
            total["box"] += distance / 3
            total["class"] -= log_softmax(decoded[k, 5:])[label] / 3
        near = pairwise_iou(decoded[:, :4], BOXES[i][MASK[i]]).max(1) > 0.3
        assert (near & ~answers).any() or i == 1  # so that the rule shows
        x = decoded[:, 4]
        entropy = np.where(answers, softplus(-x), softplus(x))
        total["objectness"] += entropy[answers | ~near].sum() / 3
    for name, wanted in total.items():
        np.testing.assert_allclose(values[name], wanted, rtol=1e-4, err_msg=name)


# -- SSD ------------------------------------------------------------------------------------------


class Maps(nn.Module):
    def __init__(self):
        self.fine, self.coarse = nn.Conv2d(3, 5, 4, 4), nn.Conv2d(5, 6, 2, 2)

    def forward(self, images):
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


def test_ssd_is_its_rules_written_out(backend, evaluate) -> None:
    cr.manual_seed(4)
    model = models.SSD(Maps(), (5, 6), 3, (16, 16), (0.3, 0.45, 0.7), ((2.0,), ()))
    logits, offsets, anchors = model(inputs()[0])
    assert anchors.shape == (16 * 4 + 4 * 2, 4)
    results = {"logits": logits, "offsets": offsets, **model.losses(*inputs(), ratio=2.0)}
    values = cr.compile(results, backend=backend)(**feed())
    total = {"class": 0.0, "box": 0.0}
    claimed = 0
    for i in range(2):
        real = BOXES[i][MASK[i]]
        overlaps = pairwise_iou(anchors, real)
        owner = np.where(overlaps.max(1) >= 0.5, overlaps.argmax(1), -1)
        owner[overlaps.argmax(0)] = np.arange(len(real))
        positive = owner >= 0
        claimed += positive.sum()
        label = np.where(positive, LABELS[i][owner] + 1, 0)
        log_p = log_softmax(values["logits"][i].astype("float64"))
        entropy = -np.take_along_axis(log_p, label[:, None], 1)[:, 0]
        total["class"] += entropy[positive].sum()
        total["class"] += np.sort(entropy[~positive])[::-1][: 2 * positive.sum()].sum()
        weights = (10, 10, 5, 5)
        own = D.encode_boxes(real[owner[positive]], anchors[positive], weights)
        d = np.abs(values["offsets"][i][positive] - evaluate(own))
        total["box"] += np.where(d < 1, d**2 / 2, d - 0.5).sum()
    for name, wanted in total.items():
        np.testing.assert_allclose(values[name], wanted / claimed, rtol=1e-4, err_msg=name)


def test_the_hardest_negatives_count(backend) -> None:
    loss, positive = cr.input("loss", ("batch", 6)), cr.input("positive", ("batch", 6), "bool")
    allowed = cr.input("allowed", ("batch", 6), "bool")
    chosen = D.hard_negatives(loss, positive, ratio=1.5)
    limited = D.hard_negatives(loss, positive, allowed, ratio=1.5)
    values = np.array([[5, 1, 4, 4, 2, 9], [3, 3, 3, 3, 3, 3], [1, 2, 3, 4, 5, 6]], "float32")
    found = np.array([[0, 0, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0], [0] * 6], bool)
    may = np.array([[0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [1] * 6], bool)
    a, b = cr.compile([chosen, limited], backend=backend)(loss=values, positive=found, allowed=may)
    # Three for the two positives; two for one (ranks 0 and 1 are below 1.5); none for none.
    wanted = [[1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 0, 0], [0] * 6]
    assert a.astype(int).tolist() == wanted
    assert b.astype(int).tolist() == [[0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0] * 6]


# -- Faster R-CNN ---------------------------------------------------------------------------------


def faster_rcnn():
    return models.FasterRCNN(small_backbone(), 6, 3, sizes=(4, 7), proposals=5, bins=2, hidden=8)


def test_proposals_are_the_best_regions_that_overlap_little(backend) -> None:
    cr.manual_seed(5)
    model = faster_rcnn()
    logits, offsets, anchors = model.rpn(model.backbone(inputs()[0]))
    assert anchors.shape == (16 * 6, 4)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(centres[:7], [[2, 2]] * 6 + [[6, 2]], atol=1e-5)
    regions, valid = model.propose(logits, offsets, anchors, (16, 16))
    boxes = D.clip_boxes_to_image(D.decode_boxes(offsets, anchors), (16, 16))
    found = cr.compile([logits, boxes, regions, valid], backend=backend)(images=feed()["images"])
    for scores, places, kept, there in zip(*found, strict=True):
        assert there.all()  # of 96 anchors, enough lie apart
        best = []
        for k in np.argsort(-scores, kind="stable"):
            wide = (places[k, 2:] - places[k, :2] >= 1).all()
            apart = all(pairwise_iou(places[[k]], places[[j]])[0, 0] <= 0.7 for j in best)
            if wide and apart:
                best.append(k)
        np.testing.assert_array_equal(kept, places[best[:5]])


def test_the_second_stage_does_not_move_the_proposals() -> None:
    cr.manual_seed(6)
    model = faster_rcnn()
    losses = model.losses(*inputs())
    assert sorted(losses) == ["box", "class", "objectness", "rpn box"]
    second = losses["class"] + losses["box"]
    offsets, backbone, head = cr.grad(
        second, [model.rpn.offsets.weight, model.backbone[0].weight, model.box_offsets.weight]
    )
    values = cr.compile([offsets, backbone, head], backend="numpy")(**feed())
    assert (values[0] == 0).all()
    assert np.abs(values[1]).max() > 0
    assert np.abs(values[2]).max() > 0


def test_backends_agree_on_all_detectors() -> None:
    cr.manual_seed(7)
    for model in (
        faster_rcnn(),
        models.YOLO(small_backbone(), 6, 3),
        models.SSD(Maps(), (5, 6), 3, (16, 16), (0.3, 0.45, 0.7), ((2.0,), ())),
    ):
        results = [*model.losses(*inputs()).values(), *model.detect(inputs()[0], 0.1)]
        oracle, found = (cr.compile(results, backend=b, seed=1)(**feed()) for b in BACKENDS)
        for wanted, value in zip(oracle, found, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=2e-4, atol=2e-4)
        # An empty batch and images without objects have losses too.
        nothing = {"mask": np.zeros((2, 2), bool)}
        assert all(np.isfinite(v).all() for v in cr.compile(results)(**feed() | nothing))


# -- what is found --------------------------------------------------------------------------------


def test_detections_of_classes(backend) -> None:
    apart, near = [0, 0, 4, 4], [0, 0, 4, 3.8]
    boxes = np.array([[apart, near, [10, 10, 12, 12]]], "float32")
    scores = np.array([[[0.9, 0.2], [0.8, 0.7], [0.01, 0.3]]], "float32")
    s = cr.input("s", (1, 3, 2))
    found = D.select_detections(boxes, s, 0.25, 0.5, 4)
    own = D.select_detections(np.stack([boxes, boxes + 50], 2), s, 0.25, 0.5, 4)
    *one, own_boxes = cr.compile([*found, own.boxes], backend=backend)(s=scores)
    # (0.9, class 0), (0.7, class 1), (0.3, class 1); 0.8 is suppressed, 0.2 and 0.01 are too low.
    np.testing.assert_array_equal(one[0][0], [boxes[0, 0], boxes[0, 1], boxes[0, 2], [0] * 4])
    np.testing.assert_allclose(one[1], [[0.9, 0.7, 0.3, 0]])
    assert one[2].tolist() == [[0, 1, 1, -1]]
    np.testing.assert_array_equal(own_boxes[0, :3], [apart, boxes[0, 1] + 50, boxes[0, 2] + 50])
    (image,) = D.detections_by_image(*one)
    assert image["labels"].tolist() == [0, 1, 1]
    assert image["boxes"].shape == (3, 4)


def test_scenes_are_what_they_say() -> None:
    data = cr.data.scenes(40, size=32, max_objects=3, noise=0.0, seed=3)
    again = cr.data.scenes(40, size=32, max_objects=3, noise=0.0, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(data, again, strict=True))
    assert data.images.shape == (40, 3, 32, 32)
    assert data.images.dtype == "float32"
    assert set(data.mask.sum(1)) == {1, 2, 3}
    assert set(data.labels[data.mask]) == {0, 1, 2}
    for image, boxes, mask, labels in zip(*(data[i] for i in (0, 1, 3, 2)), strict=True):
        assert (boxes[~mask] == 0).all()
        overlaps = pairwise_iou(boxes[mask], boxes[mask])
        assert (overlaps[~np.eye(len(overlaps), dtype=bool)] < 0.2).all()
        # The last object drawn lies on top: the pixels in it that are not ground span its box.
        x1, y1, x2, y2 = boxes[mask][-1].astype(int)
        middle = image[:, (y1 + y2) // 2, (x1 + x2) // 2]
        ys, xs = np.nonzero((image == middle[:, None, None]).all(0))
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x1, y1, x2, y2)
        covered = len(xs) / ((x2 - x1) * (y2 - y1))
        low, high = ((1, 1), (0.7, 0.85), (0.4, 0.65))[labels[mask][-1]]
        assert low <= covered <= high
    assert len(data.targets()[0]["boxes"]) == data.mask[0].sum()


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: D.hard_negatives(np.zeros(3), np.zeros(3)), "positive is bool"),
        (lambda: D.hard_negatives(np.zeros(3), np.zeros(2, bool)), "does not fit the loss"),
        (lambda: D.hard_negatives(np.zeros(3), np.zeros(3, bool), ratio=-1), "ratio"),
        (lambda: D.select_detections(np.zeros((3, 4)), np.zeros(3)), "would fit"),
        (lambda: D.select_detections(np.zeros((3, 4)), np.zeros((2, 2))), "would fit"),
        (lambda: models.SSD(Maps(), (5,), 3, (16, 16), (0.3, 0.45), ()), "one more scale"),
        (lambda: models.YOLO(small_backbone(), 6, 3).losses(*inputs(14)), "stride of 4"),
        (lambda: cr.data.scenes(1, size=8), "<= 8 does not hold"),
    ],
)
def test_what_does_not_fit_is_refused(call, message) -> None:
    with pytest.raises((GraphError, GraphTypeError, InputError), match=message):
        call()
