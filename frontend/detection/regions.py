"""Features of regions: RoIAlign and RoIPool, with the arguments and numerics of torchvision.

Gradients flow to the features, not to the boxes, as in torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import SymbolicDim, format_shape, product
from ...compiler.ir.types import FLOATS
from .. import contraction
from ..creation import iota
from ..elementwise import abs, ceil, floor, stop_gradient, where
from ..manipulation import concatenate, moveaxis, take, take_along_axis
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from ..windows import per_axis
from .boxes import boxes_of, join_boxes

#: Samples of an adaptive bin are more than half a pixel apart, or alone: at most five of them lie
#: within one pixel of a place; one more on each side covers rounding.
_NEAR_SAMPLES = 7
#: A place of the map in a product costs about a fourth of a sample that reads four places.
_PLACES_A_SAMPLE = 4


class _Regions(NamedTuple):
    """Regions in the coordinates of a feature map: one row each.

    ``image``: int64 (k,), checked when run.  ``corners``: x1, y1, x2, y2, each (k,).
    """

    features: Tensor
    image: Tensor
    corners: tuple[Tensor, ...]
    bins: tuple[int, int]

    @property
    def pixels(self) -> tuple[int, int]:
        """The height and width of the map."""
        height, width = self.features.shape[2:]
        assert isinstance(height, int) and isinstance(width, int)  # `_regions` refuses others
        return height, width


def _regions(
    what: str, features: object, boxes: object, output_size: int | Sequence[int], scale: float
) -> _Regions:
    x = as_tensor(features)
    if x.dtype not in FLOATS:
        fail(f"{what}: features are floats, not {x.dtype}", GraphTypeError)
    if x.ndim != 4:
        fail(
            f"{what}: features have the shape {format_shape(x.shape)}; (images, channels, height, "
            "width) would fit"
        )
    if any(isinstance(size, SymbolicDim) for size in x.shape[1:]):
        fail(f"{what}: only the number of images may be symbolic, not {format_shape(x.shape)}")
    rows, columns = per_axis(output_size, 2, "output_size", what)
    if not scale > 0:
        fail(f"{what}: spatial_scale must be positive, not {scale}")
    table = stop_gradient(numbered_boxes(what, boxes, x).astype(x.dtype))
    # Taking the number from 0, 1, … changes nothing and refuses one that names no image.
    image = take(iota((x.shape[0],), 0), table[:, 0].astype("int64"), 0)
    corners = tuple(table[:, i] * scale for i in range(1, 5))
    return _Regions(x, image, corners, (rows, columns))


def numbered_boxes(what: str, boxes: object, features: Tensor) -> Tensor:
    """Return boxes in any of the three forms as (k, 5), the number of the image in front."""
    if isinstance(boxes, (list, tuple)):
        images = features.shape[0]
        if len(boxes) != images and not isinstance(images, SymbolicDim):
            fail(f"{what}: {len(boxes)} lists of boxes for {images} images")
        return join_boxes(boxes, what)
    table = as_tensor(boxes)
    if table.ndim == 2 and table.shape[1] == 5:
        return table
    if table.ndim == 3 and table.shape[2] == 4 and table.shape[0] == features.shape[0]:
        images, count = table.shape[:2]
        number = iota((images, count, 1), 0).astype(features.dtype)
        joined = concatenate([number, boxes_of(table, what).astype(features.dtype)], -1)
        return joined.reshape((images * count, 5))
    fail(
        f"{what}: boxes of shape {format_shape(table.shape)} for features of shape "
        f"{format_shape(features.shape)}; (k, 5) with the image's number in front, "
        "(images, k, 4), or a list of (k, 4), one for each image, would fit"
    )


def _hat(position: Tensor, place: Tensor, size: int) -> Tensor:
    """Return the weight of ``place`` in the linear interpolation at ``position``.

    Up to one pixel outside of the map the border's value holds, beyond it 0.
    """
    inside = (position >= -1) & (position <= size)
    distance = abs(position.clip(0, size - 1) - place)
    return where(inside, (1.0 - distance).clip(low=0), 0.0)


def _bins(start: Tensor, length: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return where each of ``count`` bins begins, (k, count), and their length, (k, 1)."""
    step = (length / count).expand_dims(-1)
    return start.expand_dims(-1) + iota((count,), 0).astype(start.dtype) * step, step


def _adaptive_weights(start: Tensor, length: Tensor, count: int, size: int) -> Tensor:
    """Return how much each place counts in each bin with ceil(bin) samples: (k, count, size).

    Of a bin's samples only those near a place have a weight there, so these alone are summed: the
    number of samples, which depends on values, is no size of the graph.
    """
    begin, length = _bins(start, length, count)
    begin, length = begin.expand_dims((-1, -2)), length.expand_dims((-1, -2))
    samples = ceil(length)
    step = where(samples > 1, length / samples.clip(low=1), 1.0)
    place = iota((size, 1), 0).astype(start.dtype)
    first = ceil((place - 1.0 - begin) / step - 0.5) - 1.0
    number = first + iota((_NEAR_SAMPLES,), 0).astype(start.dtype)
    position = begin + (number + 0.5) * (length / samples.clip(low=1))
    counted = (number >= 0) & (number < samples)
    weights = where(counted, _hat(position, place, size), 0.0).sum(-1)
    return weights / samples.squeeze(-1).clip(low=1)


def _sample_positions(start: Tensor, length: Tensor, count: int, samples: int) -> Tensor:
    """Return where the samples of each bin lie: (k, count, samples)."""
    begin, length = _bins(start, length, count)
    offset = (iota((samples,), 0).astype(start.dtype) + 0.5) / samples
    return begin.expand_dims(-1) + offset * length.expand_dims(-1)


def _weights(start: Tensor, length: Tensor, count: int, size: int, samples: int) -> Tensor:
    """Return how much each place counts in the mean of each bin's samples: (k, count, size)."""
    if samples <= 0:
        return _adaptive_weights(start, length, count, size)
    position = _sample_positions(start, length, count, samples).expand_dims(-2)
    return _hat(position, iota((size, 1), 0).astype(start.dtype), size).mean(-1)


def _neighbours(position: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return the two places around ``position`` and their weights, which are 0 far outside."""
    inside = (position >= -1) & (position <= size)
    held = where(inside, position.clip(0, size - 1), 0.0)
    low = floor(held)
    share = held - low
    lower = low.astype("int64")
    upper = (lower + 1).clip(high=size - 1)
    return [
        (lower, where(inside, 1.0 - share, 0.0)),
        (upper, where(inside, share, 0.0)),
    ]


def _mean_of_samples(regions: _Regions, y: Tensor, x: Tensor) -> Tensor:
    """Return the mean of the features at the samples ``y`` (k, i, s) and ``x`` (k, j, t).

    Reads whole pixels, so that a region costs what its samples cost, however large the map;
    (k, i, j, channels).
    """
    images, channels = regions.features.shape[:2]
    height, width = regions.pixels
    pixels = moveaxis(regions.features, 1, -1).reshape((images * height * width, channels))
    first = regions.image.expand_dims((1, 2, 3, 4)) * (height * width)
    total: Tensor | None = None
    for row, row_weight in _neighbours(y, height):
        for column, column_weight in _neighbours(x, width):
            # (k, i, s, 1, 1) beside (k, 1, 1, j, t)
            place = first + row[..., None, None] * width + column[:, None, None]
            weight = row_weight[..., None, None] * column_weight[:, None, None]
            part = take(pixels, place, 0) * weight.expand_dims(-1)
            total = part if total is None else total + part
    assert total is not None
    return total.mean((2, 4))


def _extent(low: Tensor, high: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    """Return where a region begins and how long it is along one axis."""
    if aligned:
        low, high = low - 0.5, high - 0.5  # before the difference, which rounds as torchvision's
        return low, high - low
    return low, (high - low).clip(low=1.0)


def roi_align(
    features: object,
    boxes: object,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Return the mean of bilinear samples in each bin of each box; (k, channels, rows, columns).

    Gradients flow to the features only.

    Parameters
    ----------
    features : float (images, channels, height, width)
        The number of images may be symbolic.
    boxes : (k, 5), (images, k, 4), or a list of (k, 4), one for each image
        In the coordinates of the image; of the five numbers the first is the image's.
    output_size : int or (rows, columns)
        The bins of a box.
    spatial_scale : float
        Pixels of the map for a pixel of the image.
    sampling_ratio : int
        Samples of a bin along each axis; 0 or less takes as many as the bin has pixels, rounded up.
    aligned : bool
        Pixels are centred at half integers, and boxes may be smaller than a pixel.

    Raises
    ------
    GraphError, GraphTypeError
        Shapes or types do not fit.
    IndexRangeError
        A box names no image (when run).

    He et al., "Mask R-CNN", ICCV 2017, section 3.
    """
    regions = _regions("roi_align", features, boxes, output_size, spatial_scale)
    x1, y1, x2, y2 = regions.corners
    rows, columns = regions.bins
    top, tall = _extent(y1, y2, aligned)
    left, wide = _extent(x1, x2, aligned)
    height, width = regions.pixels
    samples = rows * columns * sampling_ratio**2 if sampling_ratio > 0 else 0
    if height * width > _PLACES_A_SAMPLE * samples > 0:
        y = _sample_positions(top, tall, rows, sampling_ratio)
        x = _sample_positions(left, wide, columns, sampling_ratio)
        return moveaxis(_mean_of_samples(regions, y, x), -1, 1)
    # Interpolation goes axis by axis, and so does the mean: two products with sparse matrices.
    down = _weights(top, tall, rows, height, sampling_ratio)
    across = _weights(left, wide, columns, width, sampling_ratio)
    maps = take(regions.features, regions.image, 0)
    narrow = contraction.einsum("kchw,kjw->kchj", [maps.node, across.node])
    return Tensor(contraction.einsum("kchj,kih->kcij", [narrow, down.node]))


def _round_half_away(x: Tensor) -> Tensor:
    return where(x >= 0, floor(x + 0.5), -floor(0.5 - x))


def _pixel_bins(start: Tensor, length: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first place of each bin and the one after its last: (k, count, 1)."""
    step = (length / count).expand_dims(-1)
    number = iota((count,), 0).astype(start.dtype)
    first = floor(number * step) + start.expand_dims(-1)
    last = ceil((number + 1.0) * step) + start.expand_dims(-1)
    return first.expand_dims(-1), last.expand_dims(-1)


def _in_bin(low: Tensor, high: Tensor, count: int, size: int) -> Tensor:
    """Return which places lie in which bin of the pixels ``low`` to ``high``: (k, count, size)."""
    start, end = _round_half_away(low), _round_half_away(high)
    first, last = _pixel_bins(start, (end - start + 1.0).clip(low=1.0), count)
    place = iota((size,), 0).astype(low.dtype)
    return (place >= first) & (place < last)


def _mean_of_pixels(low: Tensor, high: Tensor, count: int, size: int) -> Tensor:
    """Return how much each place counts in the mean of each bin: (k, count, size).

    As in torchvision, whose bounds of bins stay below ``size``, the last place is in no bin.
    """
    start, end = _round_half_away(low), _round_half_away(high)
    first, last = _pixel_bins(start, (end - start).clip(low=1.0), count)
    place = iota((size,), 0).astype(low.dtype)
    inside = ((place >= first) & (place < last.clip(high=size - 1))).astype(low.dtype)
    return inside / inside.sum(-1, keepdims=True).clip(low=1)


def roi_pool(
    features: object,
    boxes: object,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Return the largest feature in each bin of each box, 0 where a bin is empty.

    Boxes are rounded to pixels and bins overlap where pixels do not divide.  Arguments and result
    as in `roi_align`; the gradient goes to the first maximum of a bin, row by row.  (Girshick,
    "Fast R-CNN", ICCV 2015, section 2.1.)
    """
    regions = _regions("roi_pool", features, boxes, output_size, spatial_scale)
    x1, y1, x2, y2 = regions.corners
    (rows, columns), (height, width) = regions.bins, regions.pixels
    down = _in_bin(y1, y2, rows, height)  # (k, i, h)
    across = _in_bin(x1, x2, columns, width)  # (k, j, w)
    maps = take(stop_gradient(regions.features), regions.image, 0)  # (k, c, h, w)
    nothing = -float("inf")
    # The largest of each row in each column of bins, then of each of these the largest row: of
    # equal ones the first is the first of the rows' firsts.
    masked = where(across[:, None, None], maps.expand_dims(3), nothing)  # (k, c, h, j, w)
    best, column = masked.max(-1), masked.argmax(-1)  # (k, c, h, j)
    tall = where(down[:, None, :, :, None], best.expand_dims(2), nothing)  # (k, c, i, h, j)
    row = tall.argmax(3)  # (k, c, i, j)
    column = take_along_axis(column, row, 2)
    filled = (down.any(-1).expand_dims(-1) & across.any(-1).expand_dims(-2)).expand_dims(1)
    channels = regions.features.shape[1]
    plane = regions.image.expand_dims(-1) * channels + iota((channels,), 0)  # (k, c)
    place = (plane.expand_dims((-1, -2)) * height + row) * width + column
    flat = regions.features.reshape((product(regions.features.shape),))
    return where(filled, take(flat, place, 0), 0.0)


def _check_sensitive(what: str, regions: _Regions) -> int:
    """Return the channels of the result of position-sensitive pooling."""
    channels = regions.features.shape[1]
    bins = regions.bins[0] * regions.bins[1]
    assert isinstance(channels, int)  # `_regions` refuses others
    if channels % bins:
        fail(
            f"{what}: {channels} channels do not divide into groups of "
            f"{regions.bins[0]} × {regions.bins[1]}, one channel for each bin"
        )
    return channels // bins


def _own_channel(regions: _Regions, down: Tensor, across: Tensor, channels: int) -> Tensor:
    """Return each bin's weighted sum over its own channel: weights (k, i, h) and (k, j, w)."""
    images = regions.features.shape[0]
    shape = (images, channels, *regions.bins, *regions.pixels)
    maps = take(regions.features.reshape(shape), regions.image, 0)
    narrow = contraction.einsum("kcijhw,kjw->kcijh", [maps.node, across.node])
    return Tensor(contraction.einsum("kcijh,kih->kcij", [narrow, down.node]))


def ps_roi_align(
    features: object,
    boxes: object,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Return `roi_align`, aligned, in which every bin has channels of its own.

    ``features`` (images, channels · rows · columns, height, width), bins in row-major order within
    a channel; (k, channels, rows, columns).  (Dai et al., "R-FCN", NeurIPS 2016, equation 1, with
    samples instead of pixels.)
    """
    what = "ps_roi_align"
    regions = _regions(what, features, boxes, output_size, spatial_scale)
    x1, y1, x2, y2 = regions.corners
    (rows, columns), (height, width) = regions.bins, regions.pixels
    channels = _check_sensitive(what, regions)
    down = _weights(*_extent(y1, y2, True), rows, height, sampling_ratio)
    across = _weights(*_extent(x1, x2, True), columns, width, sampling_ratio)
    return _own_channel(regions, down, across, channels)


def ps_roi_pool(
    features: object,
    boxes: object,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Return the mean of the pixels of each bin, in which every bin has channels of its own.

    Arguments as in `ps_roi_align`; boxes are rounded to pixels, and an empty bin gives 0.  (Dai et
    al., "R-FCN", NeurIPS 2016, equation 1.)
    """
    what = "ps_roi_pool"
    regions = _regions(what, features, boxes, output_size, spatial_scale)
    x1, y1, x2, y2 = regions.corners
    (rows, columns), (height, width) = regions.bins, regions.pixels
    channels = _check_sensitive(what, regions)
    down = _mean_of_pixels(y1, y2, rows, height)
    across = _mean_of_pixels(x1, x2, columns, width)
    return _own_channel(regions, down, across, channels)
