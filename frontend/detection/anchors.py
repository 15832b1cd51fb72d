"""Anchors: boxes laid over feature maps, and which of them answers for which object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import SymbolicDim, format_shape
from ..creation import iota
from ..elementwise import stop_gradient, where
from ..tensor import Tensor, as_tensor, floating
from ..tracing import fail
from .boxes import boxes_of, extended, intersection_and_union, sides, take_boxes

#: What `match_anchors` gives where no object answers.
BACKGROUND, IGNORED = -1, -2


def generate_anchors(
    sizes: Sequence[float], aspect_ratios: Sequence[float], rounded: bool = True
) -> np.ndarray:
    """Return boxes around the origin, float32 (ratios × sizes, 4), the sizes of a ratio together.

    ``sizes`` are square roots of areas, ``aspect_ratios`` heights over widths.  ``rounded``: to
    whole numbers, halves to even, as torchvision does (Ren et al., "Faster R-CNN", 2015).
    """
    scales = np.asarray(sizes, "float32").reshape(-1)
    ratios = np.asarray(aspect_ratios, "float32").reshape(-1)
    if not scales.size or not ratios.size or (scales <= 0).any() or (ratios <= 0).any():
        fail(
            "generate_anchors: sizes and aspect ratios are positive, one or more of each, not "
            f"{list(sizes)} and {list(aspect_ratios)}"
        )
    tall = np.sqrt(ratios)[:, None]
    widths, heights = (scales / tall).ravel(), (scales * tall).ravel()
    boxes = np.stack([-widths, -heights, widths, heights], 1) / np.float32(2)
    return np.round(boxes) if rounded else boxes


def grid_anchors(
    grid_size: Sequence[int], stride: float | Sequence[float], cell_anchors: np.ndarray
) -> np.ndarray:
    """Return ``cell_anchors`` (a, 4) moved to every cell; float32 (rows × columns × a, 4).

    ``grid_size``: (rows, columns).  ``stride``: pixels from cell to cell, or (down, across).  The
    anchors of a cell are together, the cells row-major: the order of a channels-last feature map.
    """
    rows, columns = grid_size
    down, across = (stride, stride) if isinstance(stride, (int, float)) else stride
    y, x = np.meshgrid(np.arange(rows) * down, np.arange(columns) * across, indexing="ij")
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shifts + cell_anchors).reshape(-1, 4).astype("float32")


class AnchorGenerator:
    """Anchors of several feature maps; the arguments are torchvision's.

    Parameters
    ----------
    sizes : sequence of sequences of numbers
        For each feature map the sizes of its anchors, in pixels.
    aspect_ratios : sequence of sequences of numbers
        For each feature map, heights over widths.
    rounded : bool
        As in `generate_anchors`.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]] = ((128, 256, 512),),
        aspect_ratios: Sequence[Sequence[float]] = ((0.5, 1.0, 2.0),),
        rounded: bool = True,
    ) -> None:
        if not all(isinstance(group, Sequence) for group in sizes):
            sizes = tuple((size,) for size in sizes)  # type: ignore[assignment]
        if not all(isinstance(group, Sequence) for group in aspect_ratios):
            aspect_ratios = (aspect_ratios,) * len(sizes)  # type: ignore[assignment]
        if len(sizes) != len(aspect_ratios):
            fail(
                f"AnchorGenerator: sizes for {len(sizes)} feature maps, aspect ratios for "
                f"{len(aspect_ratios)}"
            )
        self.sizes, self.aspect_ratios = tuple(sizes), tuple(aspect_ratios)
        self.cell_anchors = [
            generate_anchors(s, r, rounded) for s, r in zip(sizes, aspect_ratios, strict=True)
        ]

    def num_anchors_per_location(self) -> list[int]:
        """Return for each feature map how many anchors a cell has."""
        return [len(anchors) for anchors in self.cell_anchors]

    def __call__(
        self, image_size: Sequence[int], grid_sizes: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """Return the anchors of all maps, one map after the other; float32 (anchors, 4).

        ``image_size``: (height, width) in pixels; ``grid_sizes``: (rows, columns) of each map.  The
        strides are their quotients, rounded down.
        """
        if len(grid_sizes) != len(self.cell_anchors):
            fail(
                f"AnchorGenerator: {len(grid_sizes)} feature maps, made for "
                f"{len(self.cell_anchors)}"
            )
        parts = []
        for grid, cell in zip(grid_sizes, self.cell_anchors, strict=True):
            stride = (image_size[0] // grid[0], image_size[1] // grid[1])
            parts.append(grid_anchors(grid, stride, cell))
        return np.concatenate(parts)


def default_boxes(
    image_size: Sequence[int],
    grid_sizes: Sequence[Sequence[int]],
    scales: Sequence[float],
    aspect_ratios: Sequence[Sequence[float]],
    clip: bool = True,
) -> np.ndarray:
    """Return SSD's default boxes of all maps, in pixels; float32 (boxes, 4).

    A cell of map k has a square of the side ``scales[k]`` (relative to the image), one of the
    geometric mean of ``scales[k]`` and ``scales[k + 1]``, and for every further ratio r one √r
    times as wide and one √r times as high.  ``scales`` has one more entry than there are maps.
    ``clip`` limits centres and sizes to the image.  (Liu et al., "SSD", ECCV 2016, section 2.2.)
    """
    if len(scales) != len(grid_sizes) + 1 or len(aspect_ratios) != len(grid_sizes):
        fail(
            f"default_boxes: {len(grid_sizes)} feature maps need as many lists of aspect ratios "
            f"(got {len(aspect_ratios)}) and one more scale (got {len(scales)})"
        )
    height, width = image_size
    parts = []
    for k, (rows, columns) in enumerate(grid_sizes):
        side = scales[k]
        shapes = [(side, side), (math.sqrt(side * scales[k + 1]),) * 2]
        for ratio in aspect_ratios[k]:
            root = math.sqrt(ratio)
            shapes += [(side * root, side / root), (side / root, side * root)]
        sizes = np.array(shapes)
        sizes = sizes.clip(0, 1) if clip else sizes
        y, x = np.meshgrid(
            (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij"
        )
        centres = np.stack([x, y], -1).reshape(-1, 1, 2)
        corners = [centres - sizes / 2, centres + sizes / 2]
        parts.append(np.concatenate(corners, -1).reshape(-1, 4))
    return (np.concatenate(parts) * (width, height, width, height)).astype("float32")


class AnchorMatches(NamedTuple):
    """What `match_anchors` found for every anchor.

    ``matched``: int64 (..., anchors), the object that the anchor answers for, `BACKGROUND` (-1) or
    `IGNORED` (-2).  ``overlap``: (..., anchors), the anchor's largest IoU with an object.
    """

    matched: Tensor
    overlap: Tensor

    @property
    def positive(self) -> Tensor:
        """Whether an object answers; bools (..., anchors)."""
        return self.matched >= 0

    @property
    def negative(self) -> Tensor:
        """Whether the anchor is background; bools (..., anchors)."""
        return self.matched == BACKGROUND

    def take(self, values: object, background: float = 0) -> Tensor:
        """Return for each anchor its object's row of ``values``, else ``background``.

        ``values``: (..., objects), or (..., objects, n) such as boxes; (..., anchors[, n]).
        """
        return take_boxes(values, self.matched, background)


def match_anchors(
    anchors: object,
    boxes: object,
    mask: object = None,
    high_threshold: float = 0.5,
    low_threshold: float | None = None,
    force_best: bool = True,
    allow_low_quality_matches: bool = False,
) -> AnchorMatches:
    """Return which object each anchor answers for; no gradient flows.

    An anchor answers for the object that it overlaps most (the first at a tie) where the IoU is at
    least ``high_threshold``; below ``low_threshold`` it is background, between the two ignored.

    Parameters
    ----------
    anchors : (n, 4) or (..., n, 4)
    boxes : (..., m, 4)
        The objects; leading axes are images.  Boxes without an area are none.
    mask : bool (..., m), optional
        Which of the boxes are objects, where images have different numbers of them.
    high_threshold, low_threshold : float
        In [0, 1]; ``low_threshold`` defaults to ``high_threshold``.
    force_best : bool
        Every object gets the anchor that overlaps it most, whatever else that would answer for
        (SSD, section 2.2).  Where objects want the same, the last wins, as in torchvision.
    allow_low_quality_matches : bool
        Anchors that overlap some object as much as any anchor does answer for the object that they
        themselves overlap most, however little (Faster R-CNN, section 3.1.2).

    Raises
    ------
    GraphError
        Shapes or thresholds do not fit.
    """
    what = "match_anchors"
    low = high_threshold if low_threshold is None else low_threshold
    if not 0 <= low <= high_threshold <= 1:
        fail(f"{what}: thresholds need 0 ≤ low ≤ high ≤ 1, got low {low} and high {high_threshold}")
    places = stop_gradient(floating(boxes_of(anchors, what, "anchors")))
    objects = stop_gradient(floating(boxes_of(boxes, what)))
    if objects.ndim < 2 or places.ndim < 2:
        fail(
            f"{what}: anchors {format_shape(places.shape)} and boxes "
            f"{format_shape(objects.shape)}; (..., n, 4) and (..., m, 4) would fit"
        )
    real = _objects_mask(mask, objects, what)
    if objects.shape[-2] == 0 or isinstance(objects.shape[-2], SymbolicDim):
        # A box that is no object: there may be no other, and nothing has no maximum.
        objects, real = extended(objects, objects.ndim - 2), extended(real, real.ndim - 1)
    shared, union = intersection_and_union(places.expand_dims(-2), objects.expand_dims(-3))
    overlaps = where(union > 0, shared / where(union > 0, union, 1.0), 0.0)  # (..., n, m)
    n, count = overlaps.shape[-2:]
    # Masked boxes may be anything: they come after every object, which overlaps by 0 or more.
    overlaps = where(real.expand_dims(-2), overlaps, -1.0)
    best = overlaps.max(-1)
    chosen = overlaps.argmax(-1)
    index = where(best >= high_threshold, chosen, where(best >= low, IGNORED, BACKGROUND))
    if allow_low_quality_matches:
        top = overlaps.max(-2, keepdims=True)
        restored = ((overlaps == top) & (top > 0)).any(-1)
        index = where(restored, chosen, index)
    if force_best:
        wanted = overlaps.argmax(-2)  # (..., m)
        wants = (wanted.expand_dims(-2) == iota((n, 1), 0)) & real.expand_dims(-2)
        last = where(wants, iota((count,), 0), -1).max(-1)
        index = where(last >= 0, last, index)
    return AnchorMatches(index, best.clip(low=0.0))


def _objects_mask(mask: object, objects: Tensor, what: str) -> Tensor:
    """Return which of the boxes are objects."""
    x1, y1, x2, y2 = sides(objects)
    solid = (x2 > x1) & (y2 > y1)
    if mask is None:
        return solid
    real = as_tensor(mask)
    if real.dtype != "bool":
        fail(f"{what}: mask is bool, not {real.dtype}", GraphTypeError)
    if real.shape != objects.shape[:-1]:
        fail(
            f"{what}: a mask of shape {format_shape(real.shape)} does not fit boxes of shape "
            f"{format_shape(objects.shape)}; {format_shape(objects.shape[:-1])} would fit"
        )
    return real & solid
