"""Deformable convolution: a convolution whose taps lie where the data says."""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import divide_exactly, format_shape
from ...compiler.ir.types import FLOATS, Dim
from .. import contraction
from ..creation import iota
from ..elementwise import floor, where
from ..manipulation import take
from ..promotion import unify
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from ..windows import PerAxis, output_sizes, per_axis

_WHAT = "deform_conv2d"


def deform_conv2d(
    x: object,
    offset: object,
    weight: object,
    bias: object | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    mask: object | None = None,
) -> Tensor:
    """Return the convolution whose every tap is moved by its own ``offset``.

    Gradients flow to all operands.

    Parameters
    ----------
    x : float (batch, in_channels, height, width)
        Zero outside; between pixels by bilinear interpolation.
    offset : (batch, offset_groups · taps · 2, out_height, out_width)
        Down and across for each tap of the kernel, in row-major order; a group of offsets is for as
        many channels as any other.
    weight : (out_channels, in_channels / groups, kernel_height, kernel_width)
    bias : (out_channels,), optional
    stride, padding, dilation : int or (down, across)
    mask : (batch, offset_groups · taps, out_height, out_width), optional
        What each tap is multiplied by.

    Raises
    ------
    GraphError, GraphTypeError
        Shapes or types do not fit.

    Dai et al., "Deformable convolutional networks", ICCV 2017; with a mask Zhu et al., "Deformable
    ConvNets v2", CVPR 2019.  The numerics are torchvision's.
    """
    given = [x, offset, weight, *([] if mask is None else [mask])]
    tensors = [Tensor(node) for node in unify(*(as_tensor(value).node for value in given))]
    features, moves, kernel = tensors[:3]
    if features.dtype not in FLOATS:
        fail(f"{_WHAT}: needs floats, not {features.dtype}", GraphTypeError)
    batch = features.shape[0]
    channels, height, width = _sizes("x", features)
    _, rows, columns = _sizes("weight", kernel)
    strides = per_axis(stride, 2, "stride", _WHAT)
    pads = per_axis(padding, 2, "padding", _WHAT, least=0)
    dilations = per_axis(dilation, 2, "dilation", _WHAT)
    size = output_sizes(
        (height, width), (rows, columns), strides, [(p, p) for p in pads], dilations, _WHAT
    )
    taps = rows * columns
    offset_groups = _offset_groups(channels, _sizes("offset", moves)[0], taps)
    groups = _weight_groups(channels, kernel)
    expected = (batch, offset_groups * taps * 2, *size)
    if moves.shape != expected:
        fail(
            f"{_WHAT}: offsets of shape {format_shape(moves.shape)} do not fit; "
            f"{format_shape(expected)} would"
        )
    moves = moves.reshape((batch, offset_groups, taps, 2, *size))
    tap = iota((taps, 1, 1), 0)
    down = _places(tap // columns * dilations[0], size, 0, strides[0], pads[0]) + moves[:, :, :, 0]
    across = _places(tap % columns * dilations[1], size, 1, strides[1], pads[1]) + moves[:, :, :, 1]
    # Whole pixels are read, with the channels of a group of offsets together.
    per_group = channels // offset_groups
    pixels = features.reshape((batch * offset_groups, per_group, height * width)).swapaxes(1, 2)
    pixels = pixels.reshape((batch * offset_groups * height * width, per_group))
    plane = iota((batch * offset_groups,), 0).reshape((batch, offset_groups, 1, 1, 1))
    sampled: Tensor | None = None
    for row, row_weight in _corners(down, height):
        for column, column_weight in _corners(across, width):
            part = take(pixels, (plane * height + row) * width + column, 0)
            part = part * (row_weight * column_weight).expand_dims(-1)
            sampled = part if sampled is None else sampled + part
    assert sampled is not None
    if mask is not None:
        expected = (batch, offset_groups * taps, *size)
        if tensors[3].shape != expected:
            fail(
                f"{_WHAT}: a mask of shape {format_shape(tensors[3].shape)} does not fit; "
                f"{format_shape(expected)} would"
            )
        sampled = sampled * tensors[3].reshape((batch, offset_groups, taps, *size, 1))
    # (batch, offset groups, taps, y, x, channels) to channels in front, by groups of the weight
    taken = sampled.transpose(0, 1, 5, 2, 3, 4)
    in_group = channels // groups
    taken = taken.reshape((batch, groups, in_group, taps, *size))
    outputs = kernel.shape[0]
    filters = kernel.reshape((groups, outputs // groups, in_group, taps))
    result = Tensor(contraction.einsum("ngctyx,goct->ngoyx", [taken.node, filters.node]))
    result = result.reshape((batch, outputs, *size))
    if bias is None:
        return result
    shift = as_tensor(bias, dtype=result.dtype)
    if shift.shape != (outputs,):
        fail(f"{_WHAT}: a bias of shape {format_shape(shift.shape)} for {outputs} channels")
    return result + shift.reshape((outputs, 1, 1))


def _sizes(name: str, tensor: Tensor) -> tuple[int, int, int]:
    """Return the last three of four sizes."""
    if tensor.ndim != 4:
        fail(f"{_WHAT}: {name} has the shape {format_shape(tensor.shape)}; four axes would fit")
    a, b, c = tensor.shape[1:]
    if not (isinstance(a, int) and isinstance(b, int) and isinstance(c, int)):
        fail(f"{_WHAT}: only the batch may be symbolic, not {name} {format_shape(tensor.shape)}")
    return a, b, c


def _offset_groups(channels: int, moves: int, taps: int) -> int:
    groups = moves // (2 * taps)
    if groups == 0 or moves % (2 * taps) or channels % groups:
        fail(
            f"{_WHAT}: {moves} channels of offsets for {taps} taps and {channels} channels; "
            f"{2 * taps} for each group of offsets would fit, the groups dividing the channels"
        )
    return groups


def _weight_groups(channels: int, weight: Tensor) -> int:
    outputs, in_group = weight.shape[:2]
    groups = channels // in_group if isinstance(in_group, int) and in_group else 0
    if groups == 0 or groups * in_group != channels or divide_exactly(outputs, groups) is None:
        fail(
            f"{_WHAT}: a weight of shape {format_shape(weight.shape)} does not fit {channels} "
            "channels: its second axis divides these, its first by the quotient"
        )
    return groups


def _places(tap: Tensor, size: Sequence[Dim], axis: int, stride: int, pad: int) -> Tensor:
    """Return where the taps of every window lie along one axis: int64 (taps, y, x)."""
    return iota((1, *size), axis + 1) * stride + tap - pad


def _corners(position: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return the two places around ``position``, inside, and their weights, 0 for those outside."""
    low = floor(position)
    share = position - low
    # Limited before the conversion: a float may be larger than any integer.
    lower = low.clip(-2, size + 1).astype("int64")
    corners = []
    for place, weight in ((lower, 1.0 - share), (lower + 1, share)):
        inside = (place >= 0) & (place < size)
        corners.append((place.clip(0, size - 1), where(inside, weight, 0.0)))
    return corners
