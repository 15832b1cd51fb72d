"""NumPy-style functions of tensors: the names to import, and those that reduce or multiply.

Arguments named ``x`` are tensors or whatever `as_tensor` takes.  ``axis`` is an int, several, or
None for all; reduced axes are dropped unless ``keepdims``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.ir.types import FLOATS
from . import contraction
from .adaptive_pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    fractional_max_pool2d,
    fractional_max_pool3d,
)
from .attention import scaled_dot_product_attention
from .control_flow import cond, scan, while_loop
from .convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    fold,
    unfold,
)
from .creation import (
    arange,
    diag,
    eye,
    full,
    full_like,
    iota,
    linspace,
    one_hot,
    ones,
    ones_like,
    tri,
    tril,
    triu,
    zeros,
    zeros_like,
)
from .ctc import ctc_loss
from .detection import (
    batched_nms,
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    complete_box_iou,
    complete_box_iou_loss,
    decode_boxes,
    distance_box_iou,
    distance_box_iou_loss,
    encode_boxes,
    generalized_box_iou,
    generalized_box_iou_loss,
    masks_to_boxes,
    match_anchors,
    nms,
    remove_small_boxes,
    roi_align,
    roi_pool,
    sigmoid_focal_loss,
    take_boxes,
)
from .dropout import alpha_dropout, dropout
from .elementwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cast,
    cbrt,
    ceil,
    clip,
    copysign,
    cos,
    cosh,
    digamma,
    divide,
    equal,
    erf,
    erfc,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    greater,
    greater_equal,
    hypot,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    lgamma,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    multiply,
    negative,
    not_equal,
    power,
    reciprocal,
    round,
    rsqrt,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tan,
    tanh,
    trigamma,
    trunc,
    where,
)
from .embedding import embedding, embedding_bag
from .grid_sampling import affine_grid, grid_sample
from .manipulation import (
    broadcast_to,
    concatenate,
    expand_dims,
    flatten,
    flip,
    gather,
    moveaxis,
    pick,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    swapaxes,
    take,
    take_along_axis,
    tile,
    transpose,
)
from .normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
)
from .padding import pad, pad_last
from .pooling import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from .positions import alibi_bias, rotary_embedding, sinusoidal_encoding
from .resampling import channel_shuffle, interpolate, pixel_shuffle, pixel_unshuffle
from .shaping import Axes, normalize_axis
from .softmax import log_softmax, logsumexp, masked_softmax, softmax
from .tensor import Tensor, apply, as_tensor, floating
from .unpooling import max_unpool1d, max_unpool2d, max_unpool3d


def sum(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum over ``axis``; bools and integers give int64."""
    return as_tensor(x).sum(axis, keepdims)


def prod(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the product over ``axis``; bools and integers give int64."""
    return as_tensor(x).prod(axis, keepdims)


def max(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the maximum over ``axis``."""
    return as_tensor(x).max(axis, keepdims)


def min(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the minimum over ``axis``."""
    return as_tensor(x).min(axis, keepdims)


def mean(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the mean over ``axis``; GraphError where there is surely no element."""
    return as_tensor(x).mean(axis, keepdims)


def var(x: object, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the variance over ``axis``: the sum of squares divided by the count - ``ddof``."""
    return as_tensor(x).var(axis, ddof, keepdims)


def std(x: object, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the standard deviation over ``axis``, the square root of `var`."""
    return as_tensor(x).std(axis, ddof, keepdims)


def argmax(x: object, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the int64 index of the first maximum along ``axis`` (None: of all elements)."""
    return as_tensor(x).argmax(axis, keepdims)


def argmin(x: object, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the int64 index of the first minimum along ``axis`` (None: of all elements)."""
    return as_tensor(x).argmin(axis, keepdims)


def any(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return whether any element over ``axis`` is not zero."""
    return as_tensor(x).any(axis, keepdims)


def all(x: object, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return whether every element over ``axis`` is not zero."""
    return as_tensor(x).all(axis, keepdims)


def norm(x: object, ord: float | str = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the vector norm (Σ|x|ᵖ)^(1/p) over ``axis``, p = ``ord``: a number, inf or -inf.

    The derivative of the 2-norm at the origin is 0, as in PyTorch.
    """
    tensor = floating(x)
    order = float(ord) if ord != "fro" else 2.0
    magnitude = abs(tensor)
    if order == float("inf"):
        return magnitude.max(axis, keepdims)
    if order == float("-inf"):
        return magnitude.min(axis, keepdims)
    if order == 0:
        return (tensor != 0).astype(tensor.dtype).sum(axis, keepdims)
    if order == 1:
        return magnitude.sum(axis, keepdims)
    if order == 2:
        return safe_sqrt(square(tensor).sum(axis, keepdims))
    return power(power(magnitude, order).sum(axis, keepdims), 1.0 / order)


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, with the derivative 0 at 0 instead of infinity."""
    zero = x == 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, x)))


def cumsum(x: object, axis: int = -1) -> Tensor:
    """Return the running sum along ``axis``.

    A product with a triangle of ones: n² operations for n elements, exact in order of summation
    up to rounding.  Infinities and NaN spread to the whole row.
    """
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "cumsum")
    if tensor.dtype not in FLOATS:
        tensor = tensor.astype("int64")
    size = tensor.shape[place]
    moved = moveaxis(tensor, place, -1)
    return moveaxis(matmul(moved, triu(ones((size, size), tensor.dtype))), -1, place)


def matmul(x: object, y: object) -> Tensor:
    """Return the matrix product of ``x`` (..., n, k) and ``y`` (..., k, m) by NumPy's rules."""
    return Tensor(contraction.matmul(as_tensor(x).node, as_tensor(y).node))


def dot(x: object, y: object) -> Tensor:
    """Return NumPy's dot: the sum over the last axis of ``x`` and the last but one of ``y``."""
    left, right = as_tensor(x), as_tensor(y)
    if 0 in (left.ndim, right.ndim):
        return left * right
    return tensordot(left, right, ((-1,), (-2 if right.ndim > 1 else -1,)))


def outer(x: object, y: object) -> Tensor:
    """Return the products of all pairs of elements of two flattened tensors; (n, m)."""
    return einsum("i,j->ij", as_tensor(x).ravel(), as_tensor(y).ravel())


def einsum(equation: str, *operands: object) -> Tensor:
    """Return the sum of products that ``equation`` describes, such as ``"bij,bjk->bik"``.

    ``...`` stands for axes that broadcast; without ``->`` the result has the labels that occur
    once, in alphabetical order.  Raises GraphError for an equation that does not fit.
    """
    return Tensor(contraction.einsum(equation, [as_tensor(x).node for x in operands]))


def tensordot(x: object, y: object, axes: int | Sequence[object] = 2) -> Tensor:
    """Return the sum over ``axes`` of both: a count, or a pair of axes or of sequences of axes."""
    return Tensor(contraction.tensordot(as_tensor(x).node, as_tensor(y).node, axes))


def cosine_similarity(x: object, y: object, axis: int = -1, eps: float = 1e-8) -> Tensor:
    """Return x·y / (max(|x|, eps) max(|y|, eps)) over ``axis``, as in PyTorch."""
    left, right = floating(x), floating(y)
    product = left * right  # the axis counts in what both broadcast to
    left, right = broadcast_to(left, product.shape), broadcast_to(right, product.shape)
    scale = norm(left, 2, axis).clip(eps) * norm(right, 2, axis).clip(eps)
    return product.sum(axis) / scale


def sigmoid(x: object) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    return apply("sigmoid", x)


__all__ = [
    "abs",
    "acos",
    "acosh",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "add",
    "affine_grid",
    "alibi_bias",
    "all",
    "alpha_dropout",
    "any",
    "arange",
    "argmax",
    "argmin",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "broadcast_to",
    "cast",
    "cbrt",
    "ceil",
    "channel_shuffle",
    "clip",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "concatenate",
    "cond",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "copysign",
    "cos",
    "cosh",
    "cosine_similarity",
    "ctc_loss",
    "cumsum",
    "decode_boxes",
    "diag",
    "digamma",
    "distance_box_iou",
    "distance_box_iou_loss",
    "divide",
    "dot",
    "dropout",
    "einsum",
    "embedding",
    "embedding_bag",
    "encode_boxes",
    "equal",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expand_dims",
    "expm1",
    "eye",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "fold",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "full",
    "full_like",
    "gather",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "greater",
    "greater_equal",
    "grid_sample",
    "group_norm",
    "hypot",
    "instance_norm",
    "interpolate",
    "iota",
    "isfinite",
    "isinf",
    "isnan",
    "layer_norm",
    "less",
    "less_equal",
    "lgamma",
    "linspace",
    "local_response_norm",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_softmax",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "masked_softmax",
    "masks_to_boxes",
    "match_anchors",
    "matmul",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mod",
    "moveaxis",
    "multiply",
    "negative",
    "nms",
    "norm",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "outer",
    "pad",
    "pad_last",
    "pick",
    "pixel_shuffle",
    "pixel_unshuffle",
    "power",
    "prod",
    "reciprocal",
    "remove_small_boxes",
    "repeat",
    "reshape",
    "rms_norm",
    "roi_align",
    "roi_pool",
    "roll",
    "rotary_embedding",
    "round",
    "rsqrt",
    "safe_sqrt",
    "scaled_dot_product_attention",
    "scan",
    "sigmoid",
    "sigmoid_focal_loss",
    "sign",
    "sin",
    "sinh",
    "sinusoidal_encoding",
    "softmax",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "stop_gradient",
    "subtract",
    "sum",
    "swapaxes",
    "take",
    "take_along_axis",
    "take_boxes",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "transpose",
    "tri",
    "trigamma",
    "tril",
    "triu",
    "trunc",
    "unfold",
    "var",
    "where",
    "while_loop",
    "zeros",
    "zeros_like",
]
