"""Augmentations that move pixels: flips, affine maps and crops."""

from __future__ import annotations

import math

from .. import functional as F
from ..grid_sampling import affine_grid, grid_sample
from ..random import Generator
from ..tensor import Tensor
from ..tracing import fail
from .sampling import Range, draw, images_of, in_training, range_of, sometimes, static_field


def random_flip(
    x: object, axis: int = -1, p: float = 0.5, generator: Generator | None = None
) -> Tensor:
    """Return images of which a share ``p`` is mirrored along ``axis`` (-1: left to right)."""
    images = images_of("random_flip", x)
    if axis % 4 not in (2, 3) or not -4 <= axis < 4:
        fail(f"random_flip: axis {axis} is neither height (2) nor width (3)")
    return sometimes(images, F.flip(images, axis), p, generator, "random_flip")


def random_horizontal_flip(x: object, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """Return images of which a share ``p`` is mirrored left to right."""
    return random_flip(x, -1, p, generator)


def random_vertical_flip(x: object, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """Return images of which a share ``p`` is mirrored top to bottom."""
    return random_flip(x, -2, p, generator)


def random_affine(
    x: object,
    degrees: Range = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    shear: Range | tuple[float, float, float, float] = 0.0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return images moved by affine maps about their centres.

    A pixel goes from p to ``s R(a) H p + t``: sheared by H = [[1, tan u], [tan v, 1]], turned
    clockwise on the screen by a, scaled by s, shifted by t.

    Parameters
    ----------
    x
        ``(batch, channels, height, width)``, floats.
    degrees
        Range of a, or its greatest size.
    translate
        Greatest shift along width and height, as a share of each.
    scale
        Range of s.
    shear
        Range of u in degrees, or its greatest size; four numbers: the ranges of u and v.
    mode, padding_mode
        As for `grid_sample`.
    p
        The share of the images that are changed.

    Raises
    ------
    GraphError
        No images, or a range that is none.
    """
    what = "random_affine"
    images = images_of(what, x)
    turn = range_of(what, degrees)
    zoom = range_of(what, scale)
    if zoom[0] <= 0:
        fail(f"{what}: scales must be positive, not {zoom}")
    if not all(0 <= share <= 1 for share in translate):
        fail(f"{what}: shifts are shares of the size in [0, 1], not {translate}")
    if isinstance(shear, tuple) and len(shear) == 4:
        lean_x, lean_y = range_of(what, shear[:2]), range_of(what, shear[2:])
    else:
        lean_x, lean_y = range_of(what, shear), (0.0, 0.0)  # type: ignore[arg-type]
    if max(map(abs, (*lean_x, *lean_y))) >= 45 and (0.0, 0.0) not in (lean_x, lean_y):
        fail(f"{what}: shears of 45 degrees in both directions may leave a line of the image")
    radians = math.pi / 180
    angle = draw(images, turn[0] * radians, turn[1] * radians, generator)
    u = F.tan(draw(images, lean_x[0] * radians, lean_x[1] * radians, generator))
    v = F.tan(draw(images, lean_y[0] * radians, lean_y[1] * radians, generator))
    size = draw(images, *zoom, generator)
    # in units of half the image, in which the sampler wants its places
    shift = [draw(images, -2 * share, 2 * share, generator) for share in translate]
    theta = _inverse_map(images, angle, u, v, size, shift)
    moved = grid_sample(images, affine_grid(theta, images.shape), mode, padding_mode, False)
    return sometimes(images, moved, p, generator, what)


def _inverse_map(
    x: Tensor, angle: Tensor, u: Tensor, v: Tensor, size: Tensor, shift: list[Tensor]
) -> Tensor:
    """Return (batch, 2, 3): where the pixels of the result come from, in halves of the image."""
    height, width = x.shape[2:]
    tall = F.full((), 1.0, x.dtype) * height / width  # how many widths the height is
    cos, sin = F.cos(angle), F.sin(angle)
    factor = 1.0 / (size * (1.0 - u * v))
    # H⁻¹ R(-a) / s in pixels
    a, b = (cos + u * sin) * factor, (sin - u * cos) * factor
    c, d = (-v * cos - sin) * factor, (cos - v * sin) * factor
    b, c = b * tall, c / tall
    rows = [[a, b, -(a * shift[0] + b * shift[1])], [c, d, -(c * shift[0] + d * shift[1])]]
    return F.stack([F.stack(row, 1) for row in rows], 1)


def random_rotation(
    x: object,
    degrees: Range,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return images turned about their centres by an angle from ± ``degrees``, or a range."""
    return random_affine(x, degrees, mode=mode, padding_mode=padding_mode, p=p, generator=generator)


def random_translation(
    x: object,
    translate: tuple[float, float] = (0.1, 0.1),
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return images shifted by at most these shares of width and height."""
    return random_affine(
        x, 0.0, translate, mode=mode, padding_mode=padding_mode, p=p, generator=generator
    )


def random_scale(
    x: object,
    scale: tuple[float, float] = (0.8, 1.2),
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return images enlarged about their centres by a factor from ``scale``; the size stays."""
    return random_affine(
        x, scale=scale, mode=mode, padding_mode=padding_mode, p=p, generator=generator
    )


def random_shear(
    x: object,
    shear: Range | tuple[float, float, float, float],
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    p: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return images sheared about their centres by an angle from ± ``shear`` degrees."""
    return random_affine(
        x, shear=shear, mode=mode, padding_mode=padding_mode, p=p, generator=generator
    )


def random_crop(
    x: object,
    size: int | tuple[int, int],
    padding: int | tuple[int, int] = 0,
    fill: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return a window of ``size`` (height, width) of each image, at a place of its own.

    ``padding``: so many pixels of ``fill`` are put around before (vertically and horizontally).  In
    inference the window lies in the middle of the image itself, which is then padded only where it
    is too small.
    """
    images = images_of("random_crop", x)
    wanted = _pair(size)
    around = _pair(padding)
    field = static_field("random_crop", images)
    if min(around) < 0:
        fail(f"random_crop: padding must not be negative, but is {padding}")
    room = [n + 2 * pad - want for n, pad, want in zip(field, around, wanted, strict=True)]
    if min(room) < 0 or min(wanted) < 1:
        fail(
            f"random_crop: no window of {wanted} fits into images of {field} with padding {around}"
        )
    padded = F.pad(images, ((0, 0), (0, 0), (around[0],) * 2, (around[1],) * 2), value=fill)
    height, width = (int(n) for n in padded.shape[2:])  # type: ignore[arg-type]
    starts = [_whole_number(images, n, generator) for n in room]
    rows = starts[0].reshape((-1, 1, 1)) + F.iota((1, wanted[0], 1), 1)
    columns = starts[1].reshape((-1, 1, 1)) + F.iota((1, 1, wanted[1]), 2)
    batch, channels = images.shape[:2]
    index = (F.iota((batch, 1, 1), 0) * height + rows) * width + columns
    pixels = F.moveaxis(padded, 1, -1).reshape((batch * height * width, channels))
    return in_training(F.moveaxis(F.take(pixels, index, 0), -1, 1), _middle(images, wanted, fill))


def _pair(given: int | tuple[int, int]) -> tuple[int, int]:
    return (given, given) if isinstance(given, int) else (given[0], given[1])


def _whole_number(x: Tensor, most: int, generator: Generator | None) -> Tensor:
    """Return a number from 0 to ``most`` for each sample, int64."""
    # A rounded product may reach most + 1.
    found = F.floor(draw(x, 0.0, float(most + 1), generator)).astype("int64")
    return F.minimum(found, most)


def _middle(x: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    """Return the window of ``size`` in the middle of the images."""
    for axis, want in zip((2, 3), size, strict=True):
        have = int(x.shape[axis])  # type: ignore[arg-type]
        if want > have:
            before = (want - have) // 2
            width = [(0, 0)] * 4
            width[axis] = (before, want - have - before)
            x = F.pad(x, width, value=fill)
        elif want < have:
            start = (have - want) // 2
            x = x[(slice(None),) * axis + (slice(start, start + want),)]
    return x


def random_resized_crop(
    x: object,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    mode: str = "bilinear",
    generator: Generator | None = None,
) -> Tensor:
    """Return a window of each image, brought to ``size`` (Szegedy et al. 2015).

    ``scale``: the range of the window's share of the area; ``ratio``: of its width over its height
    in pixels, drawn on a logarithmic scale.  A window that would be larger than the image is cut to
    it.  In inference the whole image is brought to ``size``.
    """
    what = "random_resized_crop"
    images = images_of(what, x)
    wanted = _pair(size)
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        fail(f"{what}: scale {scale} or ratio {ratio} is no range of positive numbers")
    height, width = images.shape[2:]
    share = draw(images, *scale, generator)
    aspect = F.exp(draw(images, math.log(ratio[0]), math.log(ratio[1]), generator))
    aspect = aspect * height / width  # in shares of each side
    wide_share = F.minimum(F.sqrt(share * aspect), 1.0)
    tall_share = F.minimum(F.sqrt(share / aspect), 1.0)
    place = [draw(images, -1.0, 1.0, generator) for _ in range(2)]
    zero = F.zeros_like(share)
    rows = [
        [wide_share, zero, place[0] * (1.0 - wide_share)],
        [zero, tall_share, place[1] * (1.0 - tall_share)],
    ]
    theta = F.stack([F.stack(row, 1) for row in rows], 1)
    whole = F.full((images.shape[0], 2, 3), 1.0, images.dtype) * F.eye(2, 3, dtype=images.dtype)
    # One sampler serves both: the choice is between two maps, not between two pictures.
    chosen = in_training(theta, whole)
    grid = affine_grid(chosen, (*images.shape[:2], *wanted))
    return grid_sample(images, grid, mode, "border", False)
