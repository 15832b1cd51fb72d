"""`Contract` by hand: view the operands, one batched matrix product, add into the output.

The operands are first seen with one axis for each index that they use (for a convolution these are
its windows, a strided view of the zero-padded image), so that what remains is a sum of products
over plain axes.
"""

from __future__ import annotations

import math

import numpy as np

from ..compiler.ir.ops import IndexMap

Sizes = tuple[int, ...]

# Sums along strided axes go through a contiguous copy from this length on: NumPy adds pairwise
# only along contiguous memory, and a naive float32 sum of n terms loses about sqrt(n) ULP.
_PAIRWISE_FROM = 1024


def contract(
    left: np.ndarray,
    right: np.ndarray,
    sizes: Sizes,
    maps: tuple[IndexMap, IndexMap],
    output_map: IndexMap,
    output_shape: Sizes,
) -> np.ndarray:
    """Return the contraction that `ops.Contract` defines, with every dimension known."""
    left, left_indices = _gather_operand(left, maps[0], sizes)
    right, right_indices = _gather_operand(right, maps[1], sizes)
    wanted = _indices_of(output_map)
    used = {*left_indices, *right_indices, *wanted}
    repeats = math.prod(size for i, size in enumerate(sizes) if i not in used)
    left, left_indices = _sum_out(left, left_indices, {*wanted, *right_indices})
    right, right_indices = _sum_out(right, right_indices, {*wanted, *left_indices})
    total, held = _multiply(left, left_indices, right, right_indices, wanted, sizes)
    total = total.transpose([held.index(i) for i in wanted if i in held])
    total = total.reshape([sizes[i] if i in held else 1 for i in wanted])
    total = np.broadcast_to(total, [sizes[i] for i in wanted])
    if repeats != 1:
        total = total * total.dtype.type(repeats)
    return _scatter_output(total, wanted, output_map, output_shape, sizes)


def sum_over(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the sum over ``axes`` in the array's own element type, pairwise where it is long."""
    length = math.prod(array.shape[axis] for axis in axes)
    if array.dtype.kind == "f" and length >= _PAIRWISE_FROM:
        last = tuple(range(-len(axes), 0))
        array = np.ascontiguousarray(np.moveaxis(array, axes, last))
        array, axes = array.reshape(*array.shape[: -len(axes)], length), (-1,)
    return np.asarray(np.sum(array, axis=axes, dtype=array.dtype))


def _indices_of(index_map: IndexMap) -> list[int]:
    return sorted({index for affine in index_map for index, _ in affine.terms})


def _plain_indices(index_map: IndexMap, shape: Sizes, sizes: Sizes) -> list[int] | None:
    """Return the index of each axis if the map walks every axis once and fully, else None."""
    plain: list[int] = []
    for affine, dim in zip(index_map, shape, strict=True):
        if affine.offset or len(affine.terms) != 1:
            return None
        ((index, coefficient),) = affine.terms
        if coefficient != 1 or sizes[index] != dim or index in plain:
            return None
        plain.append(index)
    return plain


def _reach(index_map: IndexMap, shape: Sizes, sizes: Sizes) -> list[tuple[int, int]]:
    """Return how many positions the map reaches below and above each axis."""
    reach = []
    for affine, dim in zip(index_map, shape, strict=True):
        ends = [sorted((0, c * (sizes[i] - 1))) for i, c in affine.terms]
        low = affine.offset + sum(end[0] for end in ends)
        high = affine.offset + sum(end[1] for end in ends)
        reach.append((max(0, -low), max(0, high - (dim - 1))))
    return reach


def _view(
    array: np.ndarray,
    index_map: IndexMap,
    indices: list[int],
    sizes: Sizes,
    reach: list[tuple[int, int]],
    at: dict[int, int],
) -> np.ndarray:
    """Return ``array``, which begins ``reach`` before the origin, with one axis for each index.

    ``at``: values of the indices that are not among ``indices``.  The view may overlap itself.
    """
    first = [
        affine.offset + low + sum(c * at.get(i, 0) for i, c in affine.terms)
        for affine, (low, _) in zip(index_map, reach, strict=True)
    ]
    steps = dict.fromkeys(indices, 0)
    for affine, stride in zip(index_map, array.strides, strict=True):
        for i, c in affine.terms:
            if i in steps:
                steps[i] += c * stride
    # a zero-size slice would lose its place, so the view begins at one element
    origin = array[tuple(slice(place, place + 1) for place in first)]
    return np.lib.stride_tricks.as_strided(
        origin, [sizes[i] for i in indices], [steps[i] for i in indices]
    )


def _gather_operand(
    array: np.ndarray, index_map: IndexMap, sizes: Sizes
) -> tuple[np.ndarray, list[int]]:
    """Return an operand with one axis for each index that it uses, zero where out of range."""
    plain = _plain_indices(index_map, array.shape, sizes)
    if plain is not None:
        return array, plain
    indices = _indices_of(index_map)
    if any(sizes[i] == 0 for i in indices):
        return np.zeros([sizes[i] for i in indices], array.dtype), indices
    reach = _reach(index_map, array.shape, sizes)
    if any(map(any, reach)):
        array = np.pad(array, reach)
    return _view(array, index_map, indices, sizes, reach, {}), indices


def _sum_out(array: np.ndarray, indices: list[int], kept: set[int]) -> tuple[np.ndarray, list[int]]:
    """Sum an operand over the indices that nothing else uses."""
    axes = tuple(axis for axis, i in enumerate(indices) if i not in kept)
    return (sum_over(array, axes) if axes else array), [i for i in indices if i in kept]


def _multiply(
    left: np.ndarray,
    left_indices: list[int],
    right: np.ndarray,
    right_indices: list[int],
    wanted: list[int],
    sizes: Sizes,
) -> tuple[np.ndarray, list[int]]:
    """Return the product, summed over the shared indices that are not wanted, and its indices."""
    shared = [i for i in left_indices if i in right_indices]
    batch = [i for i in shared if i in wanted]
    summed = [i for i in shared if i not in wanted]
    rows = [i for i in left_indices if i not in shared]
    columns = [i for i in right_indices if i not in shared]
    left = left.transpose([left_indices.index(i) for i in batch + rows + summed])
    right = right.transpose([right_indices.index(i) for i in batch + summed + columns])

    def extents(indices: list[int]) -> list[int]:
        return [sizes[i] for i in indices]

    def count(indices: list[int]) -> int:
        return math.prod(extents(indices))

    if summed:
        product = np.matmul(
            left.reshape(*extents(batch), count(rows), count(summed)),
            right.reshape(*extents(batch), count(summed), count(columns)),
        ).reshape(extents(batch + rows + columns))
    else:
        product = left.reshape(extents(batch + rows) + [1] * len(columns)) * right.reshape(
            extents(batch) + [1] * len(rows) + extents(columns)
        )
    return product, batch + rows + columns


def _scatter_output(
    total: np.ndarray, indices: list[int], output_map: IndexMap, shape: Sizes, sizes: Sizes
) -> np.ndarray:
    """Add every element of ``total`` where the output map sends it; drop those outside.

    Of the indices that share an axis, all but the longest are stepped through one by one; what is
    left sends no two elements to one place, and is added as a strided view.
    """
    plain = _plain_indices(output_map, shape, sizes)
    if plain is not None:
        return total.transpose([indices.index(i) for i in plain])
    output = np.zeros(shape, dtype=total.dtype)
    if total.size == 0:
        return output
    reach = _reach(output_map, shape, sizes)
    padded = np.pad(output, reach)
    stepped: set[int] = set()
    for affine in output_map:
        moving = {i for i, _ in affine.terms if sum(c for j, c in affine.terms if j == i)}
        longest = max(moving, key=lambda i: sizes[i], default=None)
        stepped |= {i for i, _ in affine.terms if i != longest}
    walked = [i for i in indices if i not in stepped]
    parts = total.transpose([indices.index(i) for i in [*sorted(stepped), *walked]])
    for point in np.ndindex(*parts.shape[: len(stepped)]):
        at = dict(zip(sorted(stepped), point, strict=True))
        view = _view(padded, output_map, walked, sizes, reach, at)
        np.add(view, parts[point], out=view)
    kept = (slice(low, low + dim) for (low, _), dim in zip(reach, shape, strict=True))
    output[...] = padded[tuple(kept)]
    return output
