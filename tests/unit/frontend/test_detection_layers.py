"""Deformable convolution against PyTorch's sampling, layers of detectors, the feature pyramid."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import detection as D
from chainrule import nn
from chainrule.compiler.errors import GraphError, GraphTypeError

torch = pytest.importorskip("torch", reason="compares with PyTorch")
TF = torch.nn.functional


def reference(x, offset, weight, bias, stride, padding, dilation, mask):
    """Each tap's samples by grid_sample, then one product."""
    n, channels, height, width = x.shape
    outputs, in_group, rows, columns = weight.shape
    taps, (oh, ow) = rows * columns, offset.shape[2:]
    offset_groups = offset.shape[1] // (2 * taps)
    moves = offset.reshape(n, offset_groups, taps, 2, oh, ow)
    samples = []
    for g, part in enumerate(x.chunk(offset_groups, 1)):
        for t in range(taps):
            y0 = torch.arange(oh)[:, None] * stride[0] - padding[0] + t // columns * dilation[0]
            x0 = torch.arange(ow) * stride[1] - padding[1] + t % columns * dilation[1]
            y, z = y0 + moves[:, g, t, 0], x0 + moves[:, g, t, 1]
            grid = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
            one = TF.grid_sample(part, grid.to(x.dtype), align_corners=True)
            if mask is not None:
                one = one * mask[:, g * taps + t, None]
            samples.append(one)
    stacked = torch.stack(samples, 0).reshape(offset_groups, taps, n, -1, oh, ow)
    columns_ = stacked.permute(2, 0, 3, 1, 4, 5).reshape(
        n, channels // in_group, in_group, taps, oh, ow
    )
    filters = weight.reshape(channels // in_group, -1, in_group, taps)
    result = torch.einsum("ngctyx,goct->ngoyx", columns_, filters).reshape(n, outputs, oh, ow)
    return result if bias is None else result + bias[:, None, None]


#: x, weight, groups of offsets, stride, padding, dilation, with mask, with bias
CASES = [
    ((2, 3, 6, 7), (4, 3, 3, 3), 1, (1, 1), (1, 1), (1, 1), False, True),
    ((2, 4, 6, 5), (6, 2, 3, 2), 2, (2, 1), (0, 1), (1, 2), True, False),
    ((1, 6, 5, 5), (2, 3, 1, 1), 3, (1, 2), (0, 0), (1, 1), True, True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_deformable_convolution(case, agrees) -> None:
    shape, weight, groups, stride, padding, dilation, masked, biased = case
    rng = np.random.default_rng(0)
    taps = weight[2] * weight[3]
    size = [
        (shape[a + 2] + 2 * padding[a] - dilation[a] * (weight[a + 2] - 1) - 1) // stride[a] + 1
        for a in (0, 1)
    ]
    arrays = [
        rng.normal(size=shape),
        rng.normal(size=(shape[0], groups * taps * 2, *size)) * 2,
        rng.normal(size=weight),
    ]
    if biased:
        arrays.append(rng.normal(size=weight[0]))
    if masked:
        arrays.append(rng.uniform(size=(shape[0], groups * taps, *size)))

    def split(extra):
        extra = list(extra)
        bias = extra.pop(0) if biased else None
        return bias, extra.pop(0) if masked else None

    def ours(x, offset, weight, *extra):
        bias, mask = split(extra)
        return D.deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)

    def theirs(x, offset, weight, *extra):
        bias, mask = split(extra)
        return reference(x, offset, weight, bias, stride, padding, dilation, mask)

    agrees(ours, theirs, *arrays, native=True, scale=10.0)


def test_offsets_of_nothing_are_a_convolution(evaluate) -> None:
    cr.manual_seed(0)
    layer = nn.DeformConv2d(4, 6, 3, stride=2, padding=1, groups=2)
    x = np.random.default_rng(1).normal(size=(2, 4, 7, 6)).astype("float32")
    plain = TF.conv2d(
        torch.tensor(x),
        torch.tensor(layer.weight.numpy()),
        torch.tensor(layer.bias.numpy()),
        2,
        1,
        groups=2,
    )
    offset = np.zeros((2, 18, 4, 3), "float32")
    np.testing.assert_allclose(evaluate(layer(x, offset)), plain, rtol=1e-5, atol=1e-5)
    half = np.full((2, 9, 4, 3), 0.5, "float32")
    halved = evaluate(layer(x, offset, half) - layer.bias.reshape((6, 1, 1)))
    bias = layer.bias.numpy().reshape(6, 1, 1)
    np.testing.assert_allclose(halved, (plain.numpy() - bias) / 2, rtol=1e-5, atol=1e-5)
    far = evaluate(layer(x, np.full_like(offset, 1e30)))  # outside: nothing but the bias
    np.testing.assert_allclose(far, np.broadcast_to(bias, far.shape), rtol=1e-6)


def test_layers_of_regions_call_their_functions(evaluate) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(2, 8, 6, 6)).astype("float32")
    boxes = np.array([[0, 1, 1, 8, 9], [1, 0, 2, 5, 11]], "float32")
    for layer, function in (
        (nn.RoIAlign(2, 0.5, 2, aligned=True), D.roi_align(features, boxes, 2, 0.5, 2, True)),
        (nn.RoIPool((2, 3), 0.5), D.roi_pool(features, boxes, (2, 3), 0.5)),
        (nn.PSRoIAlign(2, 0.5, -1), D.ps_roi_align(features, boxes, 2, 0.5)),
        (nn.PSRoIPool(2, 0.5), D.ps_roi_pool(features, boxes, 2, 0.5)),
    ):
        np.testing.assert_array_equal(evaluate(layer(features, boxes)), evaluate(function))
    assert "output_size=2, spatial_scale=0.5, sampling_ratio=2, aligned=True" in repr(
        nn.RoIAlign(2, 0.5, 2, True)
    )


class TorchPyramid(torch.nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        blocks = torch.nn.ModuleList
        self.inner_blocks = blocks(
            torch.nn.Sequential(torch.nn.Conv2d(c, outputs, 1)) for c in channels
        )
        self.layer_blocks = blocks(
            torch.nn.Sequential(torch.nn.Conv2d(outputs, outputs, 3, padding=1)) for _ in channels
        )

    def forward(self, maps):
        inner = [block(x) for block, x in zip(self.inner_blocks, maps, strict=True)]
        for i in range(len(inner) - 2, -1, -1):
            inner[i] = inner[i] + TF.interpolate(inner[i + 1], size=inner[i].shape[-2:])
        return [block(x) for block, x in zip(self.layer_blocks, inner, strict=True)]


def test_feature_pyramid(evaluate) -> None:
    ours, theirs = nn.FeaturePyramidNetwork([3, 5, 7], 4), TorchPyramid([3, 5, 7], 4)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(3)
    shapes = [(2, 3, 9, 11), (2, 5, 5, 6), (2, 7, 3, 3)]
    maps = [rng.normal(size=shape).astype("float32") for shape in shapes]
    wanted = theirs([torch.tensor(x) for x in maps])
    for found, one in zip(ours(maps), wanted, strict=True):
        np.testing.assert_allclose(evaluate(found), one.detach(), rtol=1e-4, atol=1e-5)
    named = ours(dict(zip("abc", maps, strict=True)))
    assert list(named) == ["a", "b", "c"]
    np.testing.assert_array_equal(evaluate(named["a"]), evaluate(ours(maps)[0]))


def test_regions_of_a_pyramid(evaluate) -> None:
    rng = np.random.default_rng(4)
    maps = {
        n: rng.normal(size=(2, 3, s, s)).astype("float32")
        for n, s in zip("abc", (16, 8, 4), strict=True)
    }
    # Sizes about 4, 8, 15.9, 16 and 60 of an image of 64: levels 2 (limited), 2, 2, 3 and 4.
    boxes = np.array(
        [
            [0, 1, 1, 5, 5],
            [1, 3, 2, 7, 18],
            [0, 8, 8, 23.9, 23.9],
            [1, 30, 20, 46, 36],
            [0, 2, 2, 62, 62],
        ],
        "float32",
    )
    layer = nn.MultiScaleRoIAlign("abc", 2, 2, canonical_scale=32, canonical_level=4)
    found = evaluate(layer(maps, boxes, (64, 64)))
    for row, box, name, level in zip(found, boxes, "aaabc", (2, 2, 2, 3, 4), strict=True):
        wanted = evaluate(D.roi_align(maps[name], box[None], 2, 0.5**level, 2))
        np.testing.assert_allclose(row, wanted[0], rtol=1e-6, atol=1e-6)
    several = evaluate(layer(maps, [boxes[::2, 1:], boxes[1::2, 1:]], [(64, 60), (50, 64)]))
    np.testing.assert_allclose(several, found[[0, 2, 4, 1, 3]], rtol=1e-6, atol=1e-6)
    assert evaluate(layer({"b": maps["b"]}, boxes, (64, 64))).shape == (5, 3, 2, 2)


X, W = np.zeros((1, 4, 5, 5), "float32"), np.zeros((2, 4, 3, 3), "float32")
OFFSET = np.zeros((1, 18, 3, 3), "float32")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: D.deform_conv2d(X[0], OFFSET, W), "x has the shape .*; four axes"),
        (lambda: D.deform_conv2d(X, OFFSET[:, :17], W), "17 channels of offsets for 9 taps"),
        (lambda: D.deform_conv2d(X, OFFSET[..., :2], W), r"\(1, 18, 3, 3\) would"),
        (lambda: D.deform_conv2d(X, OFFSET, W[:, :3]), "does not fit 4 channels"),
        (lambda: D.deform_conv2d(X, OFFSET, W, np.zeros(3)), r"bias of shape \(3,\) for 2"),
        (lambda: D.deform_conv2d(X, OFFSET, W, mask=OFFSET), r"\(1, 9, 3, 3\) would"),
        (lambda: D.deform_conv2d(X, OFFSET, W, stride=0), "stride must be at least 1"),
        (
            lambda: D.deform_conv2d(*(a.astype("int64") for a in (X, OFFSET, W))),
            "needs floats",
        ),
        (lambda: nn.DeformConv2d(4, 2, 3, padding="same")(X, OFFSET), "number of zeros"),
        (lambda: nn.FeaturePyramidNetwork([], 3), "all positive"),
        (lambda: nn.FeaturePyramidNetwork([4], 3)([X, X]), "2 maps, made for 1"),
        (lambda: nn.MultiScaleRoIAlign("a", 2, 2)({"b": X}, [X[0, 0, :, :4]], (5, 5)), "none of"),
        (lambda: nn.MultiScaleRoIAlign("a", 2, 2)({"a": X}, [X[0, 0, :, :4]], (5, 20)), "scales"),
    ],
)
def test_what_does_not_fit_is_refused(call, message) -> None:
    with pytest.raises((GraphError, GraphTypeError), match=message):
        call()
