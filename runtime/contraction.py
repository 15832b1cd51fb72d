"""`Contract` by hand: gather the operands, one batched matrix product, scatter the output.

The operands are first laid out with one axis for each index that they use (for a convolution this
is im2col), so that what remains is a sum of products over plain axes.
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


def _positions(
    index_map: IndexMap, shape: Sizes, indices: list[int], sizes: Sizes
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return where each point of the index space lands on every axis, and whether it is inside."""
    grid = [sizes[i] for i in indices]
    inside = np.ones(grid, dtype=bool)
    positions = []
    for affine, dim in zip(index_map, shape, strict=True):
        position = np.full([1] * len(indices), affine.offset, dtype=np.int64)
        for index, coefficient in affine.terms:
            along = [-1 if i == index else 1 for i in indices]
            position = position + coefficient * np.arange(sizes[index]).reshape(along)
        inside &= (position >= 0) & (position < dim)
        positions.append(np.broadcast_to(position, grid))
    return positions, inside


def _gather_operand(
    array: np.ndarray, index_map: IndexMap, sizes: Sizes
) -> tuple[np.ndarray, list[int]]:
    """Return an operand with one axis for each index that it uses, zero where out of range."""
    plain = _plain_indices(index_map, array.shape, sizes)
    if plain is not None:
        return array, plain
    indices = _indices_of(index_map)
    positions, inside = _positions(index_map, array.shape, indices, sizes)
    gathered = np.zeros(inside.shape, dtype=array.dtype)
    gathered[inside] = array[tuple(position[inside] for position in positions)]
    return gathered, indices


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
    """Add every element of ``total`` where the output map sends it; drop those outside."""
    plain = _plain_indices(output_map, shape, sizes)
    if plain is not None:
        return total.transpose([indices.index(i) for i in plain])
    positions, inside = _positions(output_map, shape, indices, sizes)
    output = np.zeros(shape, dtype=total.dtype)
    np.add.at(output, tuple(position[inside] for position in positions), total[inside])
    return output
