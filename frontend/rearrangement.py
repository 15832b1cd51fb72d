"""Taking tensors apart and putting them together: chunks, windows, diagonals, grids, turns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..compiler.ir import ops
from ..compiler.ir.dims import divide_exactly, format_shape, product
from ..compiler.ir.infer import broadcast_shapes
from ..compiler.ir.types import Dim
from . import shaping
from .creation import eye, full, iota
from .elementwise import where
from .manipulation import concatenate, flip, moveaxis, repeat, split, stack, take
from .promotion import unify
from .shaping import normalize_axis
from .tensor import Tensor, as_tensor, operand_of
from .tracing import build, fail


def movedim(x: object, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Return `moveaxis`."""
    return moveaxis(x, source, destination)


def permute(x: object, axes: Sequence[int]) -> Tensor:
    """Return ``x`` with its axes in the order of ``axes``."""
    return as_tensor(x).transpose(tuple(axes))


def narrow(x: object, axis: int, start: int, length: Dim) -> Tensor:
    """Return ``length`` elements of ``axis`` from ``start`` on."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "narrow")
    size = tensor.shape[place]
    if start < 0 and isinstance(size, int):
        start += size
    inside = not isinstance(size, int) or not isinstance(length, int) or start + length <= size
    if start < 0 or (isinstance(length, int) and length < 0) or not inside:
        fail(f"narrow: {length} elements from {start} leave axis {axis} of size {size}")
    return tensor[*(slice(None),) * place, slice(start, start + length)]


def select(x: object, axis: int, index: int) -> Tensor:
    """Return slice ``index`` of ``axis``, which is dropped."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "select")
    return tensor[*(slice(None),) * place, index]


def unbind(x: object, axis: int = 0) -> list[Tensor]:
    """Return the slices along ``axis``, which is dropped; its size must be known."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "unbind")
    size = tensor.shape[place]
    if not isinstance(size, int):
        fail(f"unbind: the size {size} of axis {axis} is not known")
    return [select(tensor, place, i) for i in range(size)]


def chunk(x: object, chunks: int, axis: int = 0) -> list[Tensor]:
    """Return parts of equal size along ``axis``, the last one smaller, at most ``chunks`` many."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "chunk")
    if chunks < 1:
        fail(f"chunk: needs one part or more, not {chunks}")
    size = tensor.shape[place]
    part = -(-size // chunks) if isinstance(size, int) else divide_exactly(size, chunks)
    if part is None:
        fail(f"chunk: the size {size} of axis {axis} does not divide into {chunks} parts")
    if part == 0:
        return [tensor] * chunks
    count = -(-size // part) if isinstance(size, int) and isinstance(part, int) else chunks
    rows = (slice(None),) * place
    return [tensor[*rows, slice(part * i, part * (i + 1))] for i in range(count)]


def tensor_split(x: object, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Return ``sections`` parts along ``axis``, the first ones one longer, or those at cuts."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "tensor_split")
    size = tensor.shape[place]
    if isinstance(sections, int):
        if sections < 1 or not isinstance(size, int):
            fail(f"tensor_split: cannot cut axis {axis} of size {size} in {sections} parts")
        short, longer = divmod(size, sections)
        sections = [short * i + min(i, longer) for i in range(1, sections)]
    cuts = [0, *sections, None]
    rows = (slice(None),) * place
    return [tensor[*rows, slice(a, b)] for a, b in itertools.pairwise(cuts)]


def unflatten(x: object, axis: int, sizes: Sequence[Dim]) -> Tensor:
    """Return ``x`` with ``axis`` cut into axes of ``sizes``, one of which may be -1."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "unflatten")
    parts = list(sizes)
    if -1 in parts:
        known = product(tuple(d for d in parts if d != -1))
        rest = divide_exactly(tensor.shape[place], known)
        if rest is None:
            fail(f"unflatten: {tensor.shape[place]} elements do not divide by {known}")
        parts = [rest if d == -1 else d for d in parts]
    return tensor.reshape((*tensor.shape[:place], *parts, *tensor.shape[place + 1 :]))


def ravel(x: object) -> Tensor:
    """Return the elements, row-major, in one axis."""
    return as_tensor(x).ravel()


def fliplr(x: object) -> Tensor:
    """Return ``x`` with its second axis reversed."""
    return flip(x, 1)


def flipud(x: object) -> Tensor:
    """Return ``x`` with its first axis reversed."""
    return flip(x, 0)


def rot90(x: object, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """Return ``x`` turned by ``k`` quarters from the first of ``axes`` towards the second."""
    tensor = as_tensor(x)
    first, second = (normalize_axis(axis, tensor.ndim, "rot90") for axis in axes)
    if first == second:
        fail(f"rot90: needs two axes, not {tuple(axes)}")
    match k % 4:
        case 0:
            return tensor
        case 1:
            return flip(tensor, second).swapaxes(first, second)
        case 2:
            return flip(tensor, (first, second))
        case _:
            return flip(tensor.swapaxes(first, second), second)


def sliding_window(x: object, axis: int, size: int, step: int = 1) -> Tensor:
    """Return the windows of ``size`` along ``axis``, ``step`` apart, in a new last axis.

    PyTorch's ``Tensor.unfold``.
    """
    tensor = as_tensor(x)
    place = shaping.axis_of_elements(axis, tensor.ndim, "sliding_window")
    if tensor.ndim == 0:
        tensor = tensor.reshape(1)
        if size in (0, 1):
            return tensor[:size]
    extent = tensor.shape[place]
    if size < 0 or step < 1 or (isinstance(extent, int) and size > extent):
        fail(f"sliding_window: size {size}, step {step} do not fit axis {axis} of size {extent}")
    count = (extent - size) // step + 1
    if size == 0:
        return full((*tensor.shape[:place], count, *tensor.shape[place + 1 :], 0), 0, tensor.dtype)
    parts = []
    for offset in range(size):
        starts = tuple(offset if a == place else 0 for a in range(tensor.ndim))
        sizes = tuple(count if a == place else d for a, d in enumerate(tensor.shape))
        steps = tuple(step if a == place else 1 for a in range(tensor.ndim))
        parts.append(Tensor(shaping.slice_axes(tensor.node, starts, sizes, steps)))
    return stack(parts, -1)


def meshgrid(*lines: object, indexing: str = "xy") -> list[Tensor]:
    """Return each of ``lines`` spread over the grid of all; ``xy`` exchanges the first two axes.

    NumPy's default is ``xy``, PyTorch's ``ij``.
    """
    if indexing not in {"xy", "ij"}:
        fail(f"meshgrid: indexing is xy or ij, not {indexing!r}")
    tensors = [as_tensor(x) for x in lines]
    for tensor in tensors:
        if tensor.ndim > 1:
            fail(f"meshgrid: takes lines, not {format_shape(tensor.shape)}")
    tensors = [x.reshape(1) if x.ndim == 0 else x for x in tensors]
    rank = len(tensors)
    order = list(range(rank))
    if indexing == "xy" and rank > 1:
        order[0], order[1] = 1, 0
    shape = tuple(tensors[order[a]].shape[0] for a in range(rank))
    grids = []
    for position, tensor in enumerate(tensors):
        place = order.index(position)
        line = tensor.reshape(tuple(tensor.shape[0] if a == place else 1 for a in range(rank)))
        grids.append(line.broadcast_to(shape))
    return grids


# -- diagonals ------------------------------------------------------------------------------------


def diagonal(x: object, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return the diagonals over two axes in a last axis, ``offset`` above the main one."""
    tensor = as_tensor(x)
    first = normalize_axis(axis1, tensor.ndim, "diagonal")
    second = normalize_axis(axis2, tensor.ndim, "diagonal")
    if first == second:
        fail(f"diagonal: needs two axes, not {axis1} twice")
    moved = moveaxis(tensor, (first, second), (-2, -1))
    rows, columns = moved.shape[-2:]
    if isinstance(rows, int) and isinstance(columns, int):
        down, right = max(-offset, 0), max(offset, 0)
        count: Dim = max(0, min(rows - down, columns - right))
        if count == 0:
            return full((*moved.shape[:-2], 0), 0, moved.dtype)
    elif rows == columns and offset == 0:
        count, down, right = rows, 0, 0
    else:
        fail(f"diagonal: of axes of sizes {rows} and {columns} no diagonal {offset} is known")
    # elements of a diagonal are columns + 1 apart in memory: a gather of known places
    flat = moved.reshape((*moved.shape[:-2], rows * columns))
    if isinstance(count, int) and isinstance(columns, int):
        start = down * columns + right
        stop = start + (count - 1) * (columns + 1) + 1
        return flat[..., start : stop : columns + 1]
    return take(flat, iota((count,), 0) * (columns + 1), -1)


def trace(x: object) -> Tensor:
    """Return the sum of the main diagonal of a matrix."""
    tensor = as_tensor(x)
    if tensor.ndim != 2:
        fail(f"trace: takes a matrix, not {format_shape(tensor.shape)}")
    return diagonal(tensor).sum()


def diag_embed(x: object, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Tensor:
    """Return matrices over two new axes with the last axis of ``x`` on diagonal ``offset``."""
    tensor = as_tensor(x)
    if tensor.ndim == 0:
        fail("diag_embed: takes one axis or more, not a scalar")
    rank = tensor.ndim + 1
    first = normalize_axis(axis1, rank, "diag_embed")
    second = normalize_axis(axis2, rank, "diag_embed")
    if first == second:
        fail(f"diag_embed: needs two axes, not {axis1} twice")
    size = tensor.shape[-1] + abs(offset)
    low = tuple(max(-offset, 0) if a == tensor.ndim - 1 else 0 for a in range(tensor.ndim))
    high = tuple(max(offset, 0) if a == tensor.ndim - 1 else 0 for a in range(tensor.ndim))
    padded = Tensor(build(ops.Pad(low, high, (0,) * tensor.ndim), tensor.node))
    # row i holds element i - below of the line, at column i + offset
    square = where(eye(size, size, offset, "bool"), padded.expand_dims(-1), 0)
    return moveaxis(square, (-2, -1), (first, second))


def diagflat(x: object, offset: int = 0) -> Tensor:
    """Return the square matrix with the elements of ``x`` on diagonal ``offset``."""
    return diag_embed(as_tensor(x).ravel(), offset)


def block_diag(*blocks: object) -> Tensor:
    """Return the matrix with ``blocks`` along its diagonal and zeros elsewhere."""
    tensors = []
    for block in blocks:
        tensor = as_tensor(block)
        if tensor.ndim > 2:
            fail(f"block_diag: takes matrices, not {format_shape(tensor.shape)}")
        tensors.append(tensor.reshape((1, -1)) if tensor.ndim == 1 else tensor)
    tensors = [x.reshape((1, 1)) if x.ndim == 0 else x for x in tensors]
    nodes = [Tensor(node) for node in unify(*(operand_of(x) for x in tensors))]
    width = nodes[0].shape[1]
    for node in nodes[1:]:
        width = width + node.shape[1]
    rows, before = [], 0
    for node in nodes:
        after = width - before - node.shape[1]
        rows.append(Tensor(build(ops.Pad((0, before), (0, after), (0, 0)), node.node)))
        before = node.shape[1] + before
    return concatenate(rows, 0)


# -- joining --------------------------------------------------------------------------------------


def atleast_1d(x: object) -> Tensor:
    """Return ``x`` with one axis or more."""
    tensor = as_tensor(x)
    return tensor if tensor.ndim else tensor.reshape(1)


def atleast_2d(x: object) -> Tensor:
    """Return ``x`` with two axes or more, new ones in front."""
    tensor = atleast_1d(x)
    return tensor if tensor.ndim > 1 else tensor.expand_dims(0)


def atleast_3d(x: object) -> Tensor:
    """Return ``x`` with three axes or more, the third one behind."""
    tensor = atleast_2d(x)
    return tensor if tensor.ndim > 2 else tensor.expand_dims(-1)


def hstack(tensors: Sequence[object]) -> Tensor:
    """Return ``tensors`` joined along the second axis, vectors along the first."""
    parts = [atleast_1d(x) for x in tensors]
    return concatenate(parts, 0 if parts and parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[object]) -> Tensor:
    """Return ``tensors`` joined along the first axis, vectors as rows."""
    return concatenate([atleast_2d(x) for x in tensors], 0)


def dstack(tensors: Sequence[object]) -> Tensor:
    """Return ``tensors`` joined along the third axis."""
    return concatenate([atleast_3d(x) for x in tensors], 2)


def column_stack(tensors: Sequence[object]) -> Tensor:
    """Return vectors as columns, and matrices, side by side."""
    parts = [atleast_1d(x) for x in tensors]
    return concatenate([x.expand_dims(1) if x.ndim == 1 else x for x in parts], 1)


def repeat_interleave(x: object, repeats: int, axis: int | None = None) -> Tensor:
    """Return `repeat`: each element ``repeats`` times in a row."""
    return repeat(x, repeats, axis)


def broadcast_tensors(*tensors: object) -> list[Tensor]:
    """Return ``tensors`` broadcast against each other."""
    given = [as_tensor(x) for x in tensors]
    try:
        shape = broadcast_shapes(*(x.shape for x in given))
    except ValueError as error:
        fail(f"broadcast_tensors: {error}")
    return [x.broadcast_to(shape) for x in given]


def hsplit(x: object, sections: int | Sequence[int]) -> list[Tensor]:
    """Return `split` along the second axis, of a vector along the first."""
    tensor = as_tensor(x)
    return split(tensor, sections, 0 if tensor.ndim == 1 else 1)


def vsplit(x: object, sections: int | Sequence[int]) -> list[Tensor]:
    """Return `split` along the first axis."""
    return split(x, sections, 0)


def dsplit(x: object, sections: int | Sequence[int]) -> list[Tensor]:
    """Return `split` along the third axis."""
    return split(x, sections, 2)


def cartesian_prod(*lines: object) -> Tensor:
    """Return all combinations of elements of ``lines`` as rows, the last one fastest."""
    if len(lines) == 1:
        return as_tensor(lines[0])
    grids = meshgrid(*lines, indexing="ij")
    return stack([grid.ravel() for grid in grids], -1)


def select_scatter(x: object, source: object, axis: int, index: int) -> Tensor:
    """Return ``x`` with slice ``index`` of ``axis`` replaced by ``source``."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "select_scatter")
    given = as_tensor(source, dtype=tensor.dtype).expand_dims(place)
    return slice_scatter(tensor, given, place, index, None if index == -1 else index + 1)


def slice_scatter(
    x: object,
    source: object,
    axis: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> Tensor:
    """Return ``x`` with ``start:stop:step`` along ``axis`` replaced by ``source``."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "slice_scatter")
    size = tensor.shape[place]
    if not isinstance(size, int) or step < 1:
        fail(f"slice_scatter: a step of {step} does not fit axis {axis} of size {size}")
    first, last, _ = slice(start, stop, step).indices(size)
    count = max(0, -(-(last - first) // step))
    wanted = (*tensor.shape[:place], count, *tensor.shape[place + 1 :])
    given = as_tensor(source, dtype=tensor.dtype)
    if given.shape != wanted:
        fail(f"slice_scatter: {format_shape(given.shape)} is not {format_shape(wanted)}")
    if count == 0:
        return tensor
    after = size - (first + (count - 1) * step + 1)
    low, high, interior = (
        tuple(value if a == place else 0 for a in range(tensor.ndim))
        for value in (first, after, step - 1)
    )
    spread = Tensor(build(ops.Pad(low, high, interior), given.node))
    position = iota((size, *(1,) * (tensor.ndim - place - 1)), 0)
    inside = (position >= first) & (position < last) & ((position - first) % step == 0)
    return where(inside, spread, tensor)


def diagonal_scatter(
    x: object, source: object, offset: int = 0, axis1: int = 0, axis2: int = 1
) -> Tensor:
    """Return ``x`` with the diagonals over two axes replaced by ``source``; see `diagonal`."""
    tensor = as_tensor(x)
    first = normalize_axis(axis1, tensor.ndim, "diagonal_scatter")
    second = normalize_axis(axis2, tensor.ndim, "diagonal_scatter")
    moved = moveaxis(tensor, (first, second), (-2, -1))
    rows, columns = moved.shape[-2:]
    given = as_tensor(source, dtype=tensor.dtype)
    wanted = diagonal(tensor, offset, axis1, axis2).shape
    if given.shape != wanted:
        fail(f"diagonal_scatter: {format_shape(given.shape)} is not {format_shape(wanted)}")
    if not isinstance(rows, int):
        fail("diagonal_scatter: the sizes of the axes must be known")
    down, length = max(-offset, 0), wanted[-1]
    low = tuple(down if a == given.ndim - 1 else 0 for a in range(given.ndim))
    high = tuple(rows - down - length if a == given.ndim - 1 else 0 for a in range(given.ndim))
    padded = Tensor(build(ops.Pad(low, high, (0,) * given.ndim), given.node))
    written = where(eye(rows, columns, offset, "bool"), padded.expand_dims(-1), moved)
    return moveaxis(written, (-2, -1), (first, second))


__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "broadcast_tensors",
    "cartesian_prod",
    "chunk",
    "column_stack",
    "diag_embed",
    "diagflat",
    "diagonal",
    "diagonal_scatter",
    "dsplit",
    "dstack",
    "fliplr",
    "flipud",
    "hsplit",
    "hstack",
    "meshgrid",
    "movedim",
    "narrow",
    "permute",
    "ravel",
    "repeat_interleave",
    "rot90",
    "select",
    "select_scatter",
    "slice_scatter",
    "sliding_window",
    "tensor_split",
    "trace",
    "unbind",
    "unflatten",
    "vsplit",
    "vstack",
]
