"""Suppression, RoIAlign and RoIPool against loops in NumPy, and average precision by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import detection as D
from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError, InputError

BACKENDS = ("numpy", "native")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def draw_boxes(rng, *lead, spread=10.0, dtype="float32"):
    corner = rng.uniform(0, spread, (*lead, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 6, (*lead, 2))], -1).astype(dtype)


# -- suppression ----------------------------------------------------------------------------------


def greedy(boxes, scores, threshold, alive=None, classes=None):
    """The rule of torchvision's nms, box by box in float32."""
    order = [i for i in np.argsort(-scores, kind="stable") if alive is None or alive[i]]
    kept = []
    for i in order:
        clear = True
        for j in kept:
            if classes is not None and classes[i] != classes[j]:
                continue
            side = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            shared = np.prod(side.clip(0))
            areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
            clear = clear and not float(shared / (areas[0] + areas[1] - shared)) > threshold
        if clear:
            kept.append(i)
    return kept


def padded(kept, count):
    return [*kept, *[-1] * count][:count]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("outputs", [3, 16, 30])
def test_suppression_is_the_greedy_rule(threshold, outputs, backend) -> None:
    rng = np.random.default_rng(0)
    boxes, scores = draw_boxes(rng, 4, 20), rng.normal(size=(4, 20)).astype("float32")
    scores = scores.round(1)  # so that some are equal
    classes, alive = rng.integers(0, 3, (4, 20)), rng.random((4, 20)) < 0.7
    b, s = cr.input("b", ("batch", 20, 4)), cr.input("s", ("batch", 20))
    c, a = cr.input("c", ("batch", 20), "int64"), cr.input("a", ("batch", 20), "bool")
    found = cr.compile(
        [
            D.nms(b, s, threshold, outputs),
            D.batched_nms(b, s, c, threshold, outputs),
            D.nms(b, s, threshold, outputs, a),
        ],
        backend=backend,
    )(b=boxes, s=scores, c=classes, a=alive)
    for i in range(4):
        one = (boxes[i], scores[i], threshold)
        assert found[0][i].tolist() == padded(greedy(*one), outputs)
        assert found[1][i].tolist() == padded(greedy(*one, classes=classes[i]), outputs)
        assert found[2][i].tolist() == padded(greedy(*one, alive=alive[i]), outputs)


def suppressed(boxes, scores, threshold, backend="numpy", **arguments):
    b, s = np.asarray(boxes, "float32"), np.asarray(scores, "float32")
    x, y = cr.input("x", b.shape), cr.input("y", s.shape)
    return cr.compile(D.nms(x, y, threshold, **arguments), backend=backend)(x=b, y=s).tolist()


def test_equal_scores_come_in_the_order_of_boxes(backend) -> None:
    apart = [[i * 10, 0, i * 10 + 5, 5] for i in range(4)]
    assert suppressed(apart, [1, 2, 2, 1], 0.5, backend) == [1, 2, 0, 3]
    assert suppressed([apart[0]] * 3, [1, 1, 1], 0.5, backend) == [0, -1, -1]


def test_scores_of_infinity_and_nan(backend) -> None:
    apart = [[i * 10, 0, i * 10 + 5, 5] for i in range(4)]
    assert suppressed(apart, [-np.inf, np.inf, -np.inf, 0], 0.5, backend) == [1, 3, 0, 2]
    assert suppressed(apart, [1, np.nan, 3, 2], 0.5, backend) == [1, 2, 3, 0]  # as torch sorts


def test_an_overlap_of_the_threshold_itself_stays_and_is_compared_in_double(backend) -> None:
    half = [[0, 0, 4, 4], [0, 0, 4, 2]]
    assert suppressed(half, [2, 1], 0.5, backend) == [0, 1]
    assert suppressed(half, [2, 1], 0.499, backend) == [0, -1]
    three_tenths = [[0, 0, 10, 1], [0, 0, 3, 1]]  # 3/10 in float32 is above 0.3
    assert suppressed(three_tenths, [2, 1], 0.3, backend) == [0, -1]


def test_no_boxes_and_empty_boxes(backend) -> None:
    nothing = D.nms(np.zeros((0, 4)), np.zeros(0), 0.5, max_outputs=3)
    assert cr.compile(nothing, backend=backend)().tolist() == [-1, -1, -1]
    assert suppressed(np.zeros((2, 4)), [1, 2], 0.5, backend) == [1, 0]
    none = cr.constant(np.zeros(4, bool))
    boxes = draw_boxes(np.random.default_rng(1), 4)
    assert suppressed(boxes, np.ones(4), 0.5, backend, mask=none) == [-1] * 4
    assert cr.compile(D.nms(boxes, np.ones(4), 0.5, 0), backend=backend)().tolist() == []


def test_a_symbolic_number_of_boxes(backend) -> None:
    rng = np.random.default_rng(2)
    b, s = cr.input("b", ("n", 4)), cr.input("s", ("n",))
    c = cr.input("c", ("n",), "int64")
    keep = cr.compile([D.nms(b, s, 0.4, 5), D.batched_nms(b, s, c, 0.4, 5)], backend=backend)
    for n in (0, 1, 6, 40):
        boxes, scores = draw_boxes(rng, n), rng.normal(size=n).astype("float32")
        classes = rng.integers(0, 2, n)
        found = keep(b=boxes, s=scores, c=classes)
        assert found[0].tolist() == padded(greedy(boxes, scores, 0.4), 5)
        assert found[1].tolist() == padded(greedy(boxes, scores, 0.4, classes=classes), 5)


def test_rows_at_padded_indices(backend) -> None:
    values = np.arange(12.0, dtype="float32").reshape(2, 3, 2)
    index = np.array([[2, -1], [0, 2]])
    x, i = cr.input("x", ("batch", 3, 2)), cr.input("i", ("batch", 2), "int64")
    rows, scores = cr.compile(
        [D.take_boxes(x, i, fill=-1), D.take_boxes(x[..., 0], i)], backend=backend
    )(x=values, i=index)
    assert rows.tolist() == [[[4, 5], [-1, -1]], [[6, 7], [10, 11]]]
    assert scores.tolist() == [[4, 0], [6, 10]]


# -- features of regions --------------------------------------------------------------------------


def bilinear(plane, y, x):
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    a, b = y - top, x - left
    upper = plane[top, left] * (1 - b) + plane[top, right] * b
    lower = plane[down, left] * (1 - b) + plane[down, right] * b
    return upper * (1 - a) + lower * a


def align_by_loops(features, boxes, size, scale, ratio, aligned):
    rows, columns = size
    result = np.zeros((len(boxes), features.shape[1], rows, columns))
    for k, (image, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = np.array(corners) * scale - (0.5 if aligned else 0.0)
        tall, wide = y2 - y1, x2 - x1
        if not aligned:
            tall, wide = max(tall, 1.0), max(wide, 1.0)
        a, b = tall / rows, wide / columns
        p = ratio if ratio > 0 else math.ceil(a)
        q = ratio if ratio > 0 else math.ceil(b)
        for c in range(features.shape[1]):
            plane = features[int(image), c]
            for i in range(rows):
                for j in range(columns):
                    samples = [
                        bilinear(plane, y1 + (i + (s + 0.5) / p) * a, x1 + (j + (t + 0.5) / q) * b)
                        for s in range(p)
                        for t in range(q)
                    ]
                    result[k, c, i, j] = sum(samples) / max(len(samples), 1)
    return result


def pool_by_loops(features, boxes, size, scale):
    def away(x):
        return math.copysign(math.floor(abs(x) + 0.5), x)

    rows, columns = size
    height, width = features.shape[2:]
    result = np.zeros((len(boxes), features.shape[1], rows, columns))
    slopes = np.zeros((*result.shape, *features.shape))
    for k, (image, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (away(v * scale) for v in corners)
        a, b = max(y2 - y1 + 1, 1) / rows, max(x2 - x1 + 1, 1) / columns
        for i in range(rows):
            top = min(max(math.floor(i * a) + int(y1), 0), height)
            bottom = min(max(math.ceil((i + 1) * a) + int(y1), 0), height)
            for j in range(columns):
                left = min(max(math.floor(j * b) + int(x1), 0), width)
                right = min(max(math.ceil((j + 1) * b) + int(x1), 0), width)
                if top >= bottom or left >= right:
                    continue
                for c in range(features.shape[1]):
                    part = features[int(image), c, top:bottom, left:right]
                    y, x = np.unravel_index(part.argmax(), part.shape)
                    result[k, c, i, j] = part[y, x]
                    slopes[k, c, i, j, int(image), c, top + y, left + x] = 1
    return result, slopes


#: The image's number and a box: inside, tiny, inverted, partly and wholly outside, large.
REGIONS = np.array(
    [
        [0, 1.3, 2.1, 9.7, 8.2],
        [1, 4.0, 4.0, 4.6, 4.3],
        [1, 6.0, 7.0, 5.0, 3.0],
        [0, -6.0, -5.0, 5.5, 6.5],
        [1, 10.0, 3.0, 40.0, 30.0],
        [0, 60.0, 60.0, 70.0, 70.0],
        [1, -3.0, -3.0, 90.0, 45.0],
        [0, 0.0, 0.0, 16.0, 12.0],
    ]
)


def gradient_is_the_transpose(function, features, boxes, backend, loops):
    """Check f, which is linear, and the gradient v of ⟨g, f(x)⟩: ⟨v, z⟩ = ⟨g, f(z)⟩."""
    rng = np.random.default_rng(9)
    x = cr.input("x", ("images", *features.shape[1:]), "float64")
    r = cr.input("r", boxes.shape, "float64")
    y = function(x, r)
    wanted = loops(features)
    g = rng.normal(size=wanted.shape)
    slope, box_slope = cr.grad((y * g).sum(), [x, r])
    value, found, none = cr.compile([y, slope, box_slope], backend=backend)(x=features, r=boxes)
    np.testing.assert_allclose(value, wanted, rtol=1e-10, atol=1e-10)
    assert (none == 0).all()
    other = rng.normal(size=features.shape)
    np.testing.assert_allclose((found * other).sum(), (g * loops(other)).sum(), rtol=1e-9)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 1, 2, 3])
@pytest.mark.parametrize(("size", "scale"), [((2, 3), 0.5), ((3, 1), 1.0)])
def test_roi_align_is_the_mean_of_bilinear_samples(aligned, ratio, size, scale, backend) -> None:
    features = np.random.default_rng(3).normal(size=(2, 2, 6, 8))
    arguments = (size, scale, ratio, aligned)
    gradient_is_the_transpose(
        lambda x, r: D.roi_align(x, r, *arguments),
        features,
        REGIONS,
        backend,
        lambda x: align_by_loops(x, REGIONS, *arguments),
    )


def test_roi_align_on_a_map_much_larger_than_the_samples(backend) -> None:
    arguments = ((2, 2), 0.5, 2, True)
    gradient_is_the_transpose(
        lambda x, r: D.roi_align(x, r, *arguments),
        np.random.default_rng(7).normal(size=(2, 3, 17, 21)),
        REGIONS,
        backend,
        lambda x: align_by_loops(x, REGIONS, *arguments),
    )


@pytest.mark.parametrize(("size", "scale"), [((2, 3), 0.5), ((1, 1), 1.0), ((4, 4), 0.25)])
def test_roi_pool_is_the_largest_of_each_bin(size, scale, backend) -> None:
    features = np.random.default_rng(4).integers(-5, 3, (2, 2, 6, 8)).astype("float64")  # ties
    x = cr.input("x", ("images", 2, 6, 8), "float64")
    r = cr.input("r", REGIONS.shape, "float64")
    y = D.roi_pool(x, r, size, scale)
    g = np.random.default_rng(5).normal(size=(len(REGIONS), 2, *size))
    slope = cr.grad((y * g).sum(), [x])[0]
    value, found = cr.compile([y, slope], backend=backend)(x=features, r=REGIONS)
    wanted, slopes = pool_by_loops(features, REGIONS, size, scale)
    np.testing.assert_array_equal(value, wanted)
    np.testing.assert_allclose(found, np.tensordot(g, slopes, 4), atol=1e-12)


def own_channels_by_loops(boxes, size, pooled):
    """Of ``pooled``, one map for each channel, the channel that belongs to each bin."""
    rows, columns = size
    result = pooled.reshape(len(boxes), -1, rows, columns, rows, columns)
    i, j = np.arange(rows)[:, None], np.arange(columns)
    return result[:, :, i, j, i, j]


def mean_by_loops(features, boxes, size, scale):
    rows, columns = size
    height, width = features.shape[2:]
    result = np.zeros((len(boxes), features.shape[1], rows, columns))
    for k, (image, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(v * scale) + 0.5), v)) for v in corners)
        a, b = max(y2 - y1, 1) / rows, max(x2 - x1, 1) / columns
        for i in range(rows):
            top = min(max(math.floor(i * a) + y1, 0), height - 1)
            bottom = min(max(math.ceil((i + 1) * a) + y1, 0), height - 1)
            for j in range(columns):
                left = min(max(math.floor(j * b) + x1, 0), width - 1)
                right = min(max(math.ceil((j + 1) * b) + x1, 0), width - 1)
                if top < bottom and left < right:
                    part = features[int(image), :, top:bottom, left:right]
                    result[k, :, i, j] = part.mean((1, 2))
    return result


@pytest.mark.parametrize(("size", "scale"), [((2, 3), 0.5), ((3, 2), 1.0)])
def test_position_sensitive_regions(size, scale, backend) -> None:
    features = np.random.default_rng(8).normal(size=(2, 12, 6, 8))
    for ratio in (-1, 2):
        gradient_is_the_transpose(
            lambda x, r, ratio=ratio: D.ps_roi_align(x, r, size, scale, ratio),
            features,
            REGIONS,
            backend,
            lambda x, ratio=ratio: own_channels_by_loops(
                REGIONS, size, align_by_loops(x, REGIONS, size, scale, ratio, True)
            ),
        )
    gradient_is_the_transpose(
        lambda x, r: D.ps_roi_pool(x, r, size, scale),
        features,
        REGIONS,
        backend,
        lambda x: own_channels_by_loops(REGIONS, size, mean_by_loops(x, REGIONS, size, scale)),
    )


def test_boxes_of_regions_in_three_forms(evaluate) -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(size=(2, 3, 6, 6)).astype("float32")
    boxes = draw_boxes(rng, 2, 3, spread=3.0)
    table = np.concatenate([np.repeat([[0], [1]], 3, 0), boxes.reshape(6, 4)], 1).astype("float32")
    one = evaluate(D.roi_align(features, table, 2, sampling_ratio=2))
    np.testing.assert_array_equal(one, evaluate(D.roi_align(features, boxes, 2, sampling_ratio=2)))
    several = evaluate(D.roi_align(features, [boxes[0], boxes[1]], 2, sampling_ratio=2))
    np.testing.assert_array_equal(one, several)


def test_a_region_of_no_image_is_refused(backend) -> None:
    x, r = cr.input("x", (2, 1, 4, 4)), cr.input("r", (1, 5))
    for function in (D.roi_align, D.roi_pool):
        call = cr.compile(function(x, r, 2), backend=backend)
        for image in (2, -1):
            with pytest.raises(IndexRangeError, match=f"index {image} .*axis.* of size 2"):
                call(x=np.zeros((2, 1, 4, 4), "f"), r=np.array([[image, 0, 0, 2, 2]], "f"))


BOXES, SCORES = np.zeros((3, 4), "float32"), np.zeros(3, "float32")
FEATURES = np.zeros((2, 1, 4, 4), "float32")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: D.nms(np.zeros((3, 5)), SCORES, 0.5), r"\(..., 4\) would fit"),
        (lambda: D.nms(np.zeros(4), 1.0, 0.5), r"\(..., n, 4\) would fit"),
        (lambda: D.nms(BOXES, SCORES[:2], 0.5), r"\(3,\) would fit"),
        (lambda: D.nms(BOXES, SCORES.astype("int64"), 0.5), "scores are floats"),
        (lambda: D.nms(BOXES, SCORES, 1.5), r"\[0, 1\], not 1.5"),
        (lambda: D.nms(BOXES, SCORES, -0.1), r"\[0, 1\], not -0.1"),
        (lambda: D.nms(BOXES, SCORES, float("nan")), r"\[0, 1\], not nan"),
        (lambda: D.nms(BOXES, SCORES, 0.5, -1), "max_outputs must not be negative"),
        (lambda: D.nms(BOXES, SCORES, 0.5, mask=SCORES), "mask is bool"),
        (
            lambda: D.nms(cr.input("b", ("n", 4)), cr.input("s", ("n",)), 0.5),
            "max_outputs must say how many",
        ),
        (lambda: D.batched_nms(BOXES, SCORES, SCORES, 0.5), "idxs are integers"),
        (lambda: D.batched_nms(BOXES, SCORES, np.zeros(2, int), 0.5), "idxs of shape"),
        (lambda: D.take_boxes(BOXES, np.zeros((2, 3), int)), "does not fit values"),
        (lambda: D.roi_align(FEATURES[0], BOXES, 2), r"\(images, channels, height, width\)"),
        (lambda: D.roi_align(FEATURES.astype("int64"), BOXES, 2), "features are floats"),
        (lambda: D.roi_align(FEATURES, BOXES, 2), r"boxes of shape \(3, 4\).*\(k, 5\)"),
        (lambda: D.roi_align(FEATURES, [BOXES], 2), "1 lists of boxes for 2 images"),
        (lambda: D.roi_align(FEATURES, [BOXES, SCORES], 2), r"boxes\[1\] have the shape"),
        (lambda: D.roi_align(FEATURES, np.zeros((1, 5)), 0), "output_size must be at least 1"),
        (lambda: D.roi_pool(FEATURES, np.zeros((1, 5)), 2, 0.0), "spatial_scale"),
        (lambda: D.ps_roi_align(FEATURES, np.zeros((1, 5)), 2), "do not divide into groups of 2"),
    ],
)
def test_what_does_not_fit_is_refused(call, message) -> None:
    with pytest.raises((GraphError, GraphTypeError), match=message):
        call()


# -- average precision ----------------------------------------------------------------------------


def image(boxes, labels, scores=None, **more):
    found = {"boxes": np.array(boxes, float).reshape(-1, 4), "labels": np.array(labels, int)}
    return found | ({} if scores is None else {"scores": np.array(scores, float)}) | more


A, B, FAR = [0, 0, 4, 4], [10, 10, 14, 14], [50, 50, 52, 52]


def test_perfect_detections_have_the_precision_one() -> None:
    targets = [image([A, B], [0, 1]), image([A], [1])]
    found = [image([B, A], [1, 0], [0.3, 0.9]), image([A], [1], [0.1])]
    for method in ("area", "11 points", "101 points"):
        m = D.mean_average_precision(found, targets, np.arange(0.5, 1.0, 0.05), method)
        assert m["map"] == m["recall"] == 1
        assert m["per_class"] == {0: 1.0, 1: 1.0}


def test_average_precision_by_hand() -> None:
    # Best first: right, wrong, right; of three objects one is missed.
    targets = [image([A, B, [20, 20, 30, 30]], [0, 0, 0])]
    found = [image([A, FAR, B], [0, 0, 0], [0.9, 0.8, 0.7])]
    m = D.mean_average_precision(found, targets)
    assert m["map"] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert m["recall"] == pytest.approx(2 / 3)
    # Recall 0, 0.1, 0.2, 0.3 at precision 1; 0.4, 0.5, 0.6 at 2/3.
    eleven = D.mean_average_precision(found, targets, method="11 points")
    assert eleven["map"] == pytest.approx((4 + 3 * 2 / 3) / 11)


def test_a_second_detection_of_an_object_is_false() -> None:
    targets = [image([A, B], [0, 0])]
    found = [image([A, A, B], [0, 0, 0], [0.9, 0.8, 0.7])]
    assert D.mean_average_precision(found, targets)["map"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_classes_and_thresholds_are_told_apart() -> None:
    targets = [image([A, B], [0, 1])]
    found = [image([[0, 0, 4, 3], B], [0, 0], [0.9, 0.8])]  # overlaps of 0.75, and a wrong class
    m = D.mean_average_precision(found, targets, (0.5, 0.8))
    assert m["per_class"] == {0: pytest.approx(0.5), 1: 0.0}
    assert m["per_threshold"] == {0.5: pytest.approx(0.5), 0.8: 0.0}
    assert m["map"] == pytest.approx(0.25)


def test_difficult_objects_do_not_count() -> None:
    targets = [image([A, B], [0, 0], difficult=[False, True])]
    found = [image([B, B, A], [0, 0, 0], [0.9, 0.8, 0.7])]
    assert D.mean_average_precision(found, targets)["map"] == 1


def test_images_without_objects_or_detections() -> None:
    nothing = image([], [])
    none = image([], [], [])
    assert np.isnan(D.mean_average_precision([none], [nothing])["map"])
    assert D.mean_average_precision([none], [image([A], [3])])["map"] == 0
    false = [image([A], [0], [0.9]), image([A], [0], [0.8])]
    m = D.mean_average_precision(false, [nothing, image([A], [0])])
    assert m["map"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [image([A], [0])]), "0 images with predictions, 1 with targets"),
        (([{"boxes": []}], [image([A], [0])]), "no scores and no labels"),
        (([image([A], [0], [1, 2])], [image([A], [0])]), "1 boxes and 2 scores"),
        (([image([A], [0], [1])], [{"boxes": [1, 2, 3], "labels": []}]), r"\(n, 4\) would fit"),
        (([], [], 1.5), "iou_thresholds"),
        (([], [], 0.5, "12 points"), "12 points"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        D.mean_average_precision(*arguments)
