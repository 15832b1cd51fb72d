"""Convolution, transposed convolution, unfold and fold: each one contraction with affine maps.

A window's element lies at ``stride * position + dilation * tap - padding``.  A contraction counts
elements outside an operand as zero and drops those outside the result, so zero padding is nothing
but the offset; and the gradients, which exchange two maps, are contractions again.

Shapes and arguments are PyTorch's.  The batch axis may be missing or symbolic, sizes may be
symbolic where the stride is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import divide_exactly, format_shape, product
from ..compiler.ir.ops import Affine
from ..compiler.ir.types import Dim, Shape
from .promotion import constant_node, unify
from .tensor import Tensor, as_tensor
from .tracing import build, fail
from .windows import PerAxis, batched, output_sizes, per_axis

Pads = tuple[tuple[int, int], ...]


def _weighted(x: object, weight: object, bias: object | None, what: str) -> list[Tensor]:
    """Return the operands in one element type."""
    given = [as_tensor(x), as_tensor(weight), *([] if bias is None else [as_tensor(bias)])]
    tensors = [Tensor(node) for node in unify(*(t.node for t in given))]
    if tensors[0].dtype == "bool":
        fail(f"{what}: needs numbers, not bool", GraphTypeError)
    return tensors


def _padding(
    padding: PerAxis | str,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    what: str,
) -> Pads:
    """Return the zeros before and after each axis."""
    if not isinstance(padding, str):
        return tuple((p, p) for p in per_axis(padding, len(kernel), "padding", what, least=0))
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding != "same":
        fail(f"{what}: padding is 'same', 'valid' or ints, not {padding!r}")
    if any(s != 1 for s in stride):
        fail(f"{what}: padding='same' goes with stride 1, not {tuple(stride)}")
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((t // 2, t - t // 2) for t in total)


def _maps(rank: int, grouped: bool) -> tuple[list[Affine], list[Affine], list[Affine]]:
    """Return the indices of the axes before the spatial ones: of x, of the weight, of the result.

    The index space is (n, [g,] o, *positions, c, *taps).
    """
    n, g, o = Affine(((0, 1),)), Affine(((1, 1),)), Affine(((1 + grouped, 1),))
    c = Affine(((2 + grouped + rank, 1),))
    if grouped:
        return [n, g, c], [g, o, c], [n, g, o]
    return [n, c], [o, c], [n, o]


def _window(
    position: int, tap: int, stride: Sequence[int], dilation: Sequence[int], pads: Pads
) -> list[Affine]:
    return [
        Affine(((position + a, s), (tap + a, d)), -low)
        for a, (s, d, (low, _)) in enumerate(zip(stride, dilation, pads, strict=True))
    ]


def _axes(first: int, rank: int) -> list[Affine]:
    return [Affine(((first + a, 1),)) for a in range(rank)]


def _add_bias(result: Tensor, bias: Sequence[Tensor], channels: Dim, what: str) -> Tensor:
    if not bias:
        return result
    if bias[0].shape != (channels,):
        fail(
            f"{what}: a bias of shape {format_shape(bias[0].shape)} does not fit; "
            f"{format_shape((channels,))} would"
        )
    return result + bias[0].reshape((-1, *(1,) * (result.ndim - 2)))


def _check_weight(weight: Tensor, rank: int, groups: int, axes: str, what: str) -> None:
    if weight.ndim != rank + 2 or 0 in weight.shape[2:]:
        fail(
            f"{what}: a weight of shape {format_shape(weight.shape)} does not fit; ({axes}, "
            f"kernel) with {rank} kernel {'size' if rank == 1 else 'sizes'} would"
        )
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        fail(f"{what}: groups must be a positive int, not {groups!r}")
    if divide_exactly(weight.shape[0], groups) is None:
        fail(
            f"{what}: {groups} groups do not divide the {weight.shape[0]} channels of axis 0 of "
            f"a weight of shape {format_shape(weight.shape)}"
        )


def _static(weight: Tensor, what: str) -> tuple[int, ...]:
    kernel = weight.shape[2:]
    if not all(isinstance(k, int) for k in kernel):
        fail(f"{what}: the kernel's sizes {format_shape(kernel)} must be known", GraphTypeError)
    return kernel  # type: ignore[return-value]


def _convolve(
    rank: int,
    x: object,
    weight: object,
    bias: object | None,
    stride: PerAxis,
    padding: PerAxis | str,
    dilation: PerAxis,
    groups: int,
) -> Tensor:
    what = f"conv{rank}d"
    image, kernel, *rest = _weighted(x, weight, bias, what)
    image, single = batched(image, rank, what)
    _check_weight(kernel, rank, groups, "out_channels, in_channels/groups", what)
    sizes = _static(kernel, what)
    strides = per_axis(stride, rank, "stride", what)
    dilations = per_axis(dilation, rank, "dilation", what)
    pads = _padding(padding, sizes, strides, dilations, what)
    batch, channels, *field = image.shape
    outer, inner = kernel.shape[:2]
    if inner * groups != channels:
        fail(
            f"{what}: an input of shape {format_shape(image.shape)} with {channels} channels does "
            f"not fit a weight of shape {format_shape(kernel.shape)} in {groups} "
            f"{'group' if groups == 1 else 'groups'}: {inner * groups} channels would"
        )
    out = output_sizes(field, sizes, strides, pads, dilations, what)
    lead: Shape = (batch, outer)
    if groups > 1:
        image = image.reshape((batch, groups, inner, *field))
        kernel = kernel.reshape((groups, -1, inner, *sizes))
        lead = (batch, groups, kernel.shape[1])
    position = len(lead)
    tap = position + rank + 1
    of_x, of_weight, of_result = _maps(rank, groups > 1)
    op = ops.Contract(
        (*lead, *out, inner, *sizes),
        (
            (*of_x, *_window(position, tap, strides, dilations, pads)),
            (*of_weight, *_axes(tap, rank)),
        ),
        (*of_result, *_axes(position, rank)),
        (*lead, *out),
    )
    result = Tensor(build(op, image.node, kernel.node)).reshape((batch, outer, *out))
    result = _add_bias(result, rest, outer, what)
    return result.squeeze(0) if single else result


def conv1d(
    x: object,
    weight: object,
    bias: object | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the cross-correlation of ``x`` (batch, channels, length) with ``weight``.

    Parameters
    ----------
    x
        (batch, in_channels, length), or without the batch.
    weight
        (out_channels, in_channels/groups, kernel).
    bias
        (out_channels,), or None.
    stride, dilation
        The distance between windows, and between the elements of one.
    padding
        Zeros at both ends, ``"valid"`` (none), or ``"same"`` (as many as keep the size, the odd
        one at the end).
    groups
        Channels are split into so many groups that do not see each other.

    Raises
    ------
    GraphError
        Sizes do not fit, or the kernel is larger than the padded input.
    """
    return _convolve(1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: object,
    weight: object,
    bias: object | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the cross-correlation of ``x`` (batch, channels, height, width) with ``weight``.

    ``weight``: (out_channels, in_channels/groups, height, width); the rest as in `conv1d`.
    """
    return _convolve(2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: object,
    weight: object,
    bias: object | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the cross-correlation of ``x`` (batch, channels, depth, height, width) with a weight.

    ``weight``: (out_channels, in_channels/groups, depth, height, width); the rest as in `conv1d`.
    """
    return _convolve(3, x, weight, bias, stride, padding, dilation, groups)


def _convolve_transposed(
    rank: int,
    x: object,
    weight: object,
    bias: object | None,
    stride: PerAxis,
    padding: PerAxis,
    output_padding: PerAxis,
    groups: int,
    dilation: PerAxis,
) -> Tensor:
    what = f"conv_transpose{rank}d"
    image, kernel, *rest = _weighted(x, weight, bias, what)
    image, single = batched(image, rank, what)
    _check_weight(kernel, rank, groups, "in_channels, out_channels/groups", what)
    sizes = _static(kernel, what)
    strides = per_axis(stride, rank, "stride", what)
    dilations = per_axis(dilation, rank, "dilation", what)
    crops = per_axis(padding, rank, "padding", what, least=0)
    extra = per_axis(output_padding, rank, "output_padding", what, least=0)
    for e, s, d in zip(extra, strides, dilations, strict=True):
        if e >= max(s, d):
            fail(
                f"{what}: output_padding {e} must be smaller than the stride {s} or the "
                f"dilation {d}"
            )
    batch, channels, *field = image.shape
    inner, outer = kernel.shape[:2]
    if inner != channels:
        fail(
            f"{what}: an input of shape {format_shape(image.shape)} with {channels} channels does "
            f"not fit a weight of shape {format_shape(kernel.shape)}: {inner} channels would"
        )
    out: list[Dim] = []
    for size, s, p, k, d, e in zip(field, strides, crops, sizes, dilations, extra, strict=True):
        length = (size - 1) * s + (d * (k - 1) + 1 - 2 * p + e)
        if isinstance(length, int) and length < 0:
            fail(f"{what}: padding {p} leaves a size of {length} on an axis of size {size}")
        out.append(length)
    lead: Shape = (batch, outer)
    if groups > 1:
        image = image.reshape((batch, groups, -1, *field))
        kernel = kernel.reshape((groups, -1, outer, *sizes))
        kernel, inner = kernel.swapaxes(1, 2), kernel.shape[1]
        lead = (batch, groups, outer)
    else:
        kernel = kernel.swapaxes(0, 1)
    position = len(lead)
    tap = position + rank + 1
    of_x, of_weight, of_result = _maps(rank, groups > 1)
    pads = tuple((p, p) for p in crops)
    op = ops.Contract(
        (*lead, *field, inner, *sizes),
        ((*of_x, *_axes(position, rank)), (*of_weight, *_axes(tap, rank))),
        (*of_result, *_window(position, tap, strides, dilations, pads)),
        (*lead, *out),
    )
    result = Tensor(build(op, image.node, kernel.node)).reshape((batch, outer * groups, *out))
    result = _add_bias(result, rest, outer * groups, what)
    return result.squeeze(0) if single else result


def conv_transpose1d(
    x: object,
    weight: object,
    bias: object | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Tensor:
    """Return what `conv1d` with this weight maps cotangents to: an upsampling convolution.

    Parameters
    ----------
    x
        (batch, in_channels, length), or without the batch.
    weight
        (in_channels, out_channels/groups, kernel).
    bias
        (out_channels,), or None.
    stride, dilation
        The distance between the results of neighbouring elements, and of neighbouring weights.
    padding
        What is cut off at both ends of the result.
    output_padding
        What is added at the end of the result; smaller than stride or dilation.
    groups
        Channels are split into so many groups that do not see each other.

    Raises
    ------
    GraphError
        Sizes do not fit, or the result would have a negative size.
    """
    return _convolve_transposed(
        1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    x: object,
    weight: object,
    bias: object | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Tensor:
    """Return the transposed convolution of ``x`` (batch, channels, height, width).

    ``weight``: (in_channels, out_channels/groups, height, width); see `conv_transpose1d`.
    """
    return _convolve_transposed(
        2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    x: object,
    weight: object,
    bias: object | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Tensor:
    """Return the transposed convolution of ``x`` (batch, channels, depth, height, width).

    ``weight``: (in_channels, out_channels/groups, depth, height, width); see `conv_transpose1d`.
    """
    return _convolve_transposed(
        3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def unfold(
    x: object,
    kernel_size: PerAxis,
    dilation: PerAxis = 1,
    padding: PerAxis = 0,
    stride: PerAxis = 1,
) -> Tensor:
    """Return every window of an image as a column: (batch, channels * taps, windows).

    ``x``: (batch, channels, height, width), or without the batch.  Raises GraphError where the
    kernel is larger than the padded image.
    """
    image, single = batched(as_tensor(x), 2, "unfold")
    kernel = per_axis(kernel_size, 2, "kernel_size", "unfold")
    strides = per_axis(stride, 2, "stride", "unfold")
    dilations = per_axis(dilation, 2, "dilation", "unfold")
    pads = _padding(padding, kernel, strides, dilations, "unfold")
    batch, channels, *field = image.shape
    out = output_sizes(field, kernel, strides, pads, dilations, "unfold")
    shape = (batch, channels, *kernel, *out)
    maps = (*_axes(0, 2), *_window(4, 2, strides, dilations, pads))
    op = ops.Contract(shape, (maps, ()), tuple(_axes(0, 6)), shape)
    one = constant_node(1, image.dtype)
    columns = Tensor(build(op, image.node, one))
    columns = columns.reshape((batch, channels * product(kernel), product(out)))
    return columns.squeeze(0) if single else columns


def fold(
    x: object,
    output_size: PerAxis,
    kernel_size: PerAxis,
    dilation: PerAxis = 1,
    padding: PerAxis = 0,
    stride: PerAxis = 1,
) -> Tensor:
    """Return the image whose windows sum up the columns of ``x``: the adjoint of `unfold`.

    ``x``: (batch, channels * taps, windows), or without the batch.  Raises GraphError where the
    columns or rows of ``x`` are not those of `unfold` with these arguments.
    """
    columns = as_tensor(x)
    single = columns.ndim == 2
    if single:
        columns = columns.expand_dims(0)
    if columns.ndim != 3:
        fail(
            f"fold: an input of shape {format_shape(columns.shape)} does not fit; (batch, "
            "channels * taps, windows) or (channels * taps, windows) would"
        )
    size = per_axis(output_size, 2, "output_size", "fold")
    kernel = per_axis(kernel_size, 2, "kernel_size", "fold")
    strides = per_axis(stride, 2, "stride", "fold")
    dilations = per_axis(dilation, 2, "dilation", "fold")
    pads = _padding(padding, kernel, strides, dilations, "fold")
    windows = output_sizes(size, kernel, strides, pads, dilations, "fold")
    taps = kernel[0] * kernel[1]
    batch, rows, count = columns.shape
    channels = divide_exactly(rows, taps)
    if channels is None:
        fail(f"fold: the {taps} taps of kernel {kernel} do not divide the {rows} rows of the input")
    if count != product(windows):
        fail(
            f"fold: an input with {count} columns does not fit an output of {size}, which has "
            f"{' x '.join(map(str, windows))} windows: {product(windows)} columns would"
        )
    shape = (batch, channels, *kernel, *windows)
    maps = (*_axes(0, 2), *_window(4, 2, strides, dilations, pads))
    op = ops.Contract(shape, (tuple(_axes(0, 6)), ()), maps, (batch, channels, *size))
    one = constant_node(1, columns.dtype)
    image = Tensor(build(op, columns.reshape(shape).node, one))
    return image.squeeze(0) if single else image


__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "unfold",
]
