"""The normal form of a contraction: its output axes pick indices, its operands are read in range.

Out-of-range operand elements become explicit zeros.  Where two indices add up to one coordinate of
the output (``out[s*y + d*r - p]``: transposed convolutions, gradients by a convolution's input),
the coordinate itself becomes an index and the operand that had ``y`` is read at ``p - d*r``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from ..ir import ops
from ..ir.construct import reshape, transpose
from ..ir.dims import product
from ..ir.graph import Node, make
from ..ir.ops import Affine, IndexMap
from ..ir.types import Dim
from ..ir.views import is_trivial_reshape


@dataclass(frozen=True)
class OutputAxis:
    """An axis of the output: ``scale * q + offset`` where ``indices`` are the digits of ``q``.

    ``flipped`` counts the single digit down.
    """

    indices: tuple[int, ...]
    scale: int = 1
    offset: Dim = 0
    flipped: bool = False


@dataclass(frozen=True)
class Term:
    """An operand: ``node`` at ``map``, one affine function of the indices for each axis."""

    node: Node
    map: IndexMap

    def uses(self, index: int) -> bool:
        return any(index == i for affine in self.map for i, _ in affine.terms)

    def has_plain(self, index: int) -> bool:
        """Whether each axis that depends on ``index`` is that index and nothing else."""
        return all(
            affine == Affine(((index, 1),)) for affine in self.map if index in _indices(affine)
        )


@dataclass(frozen=True)
class ContractionForm:
    """``out[axes] = sum of left[map] * right[map]`` over the box ``sizes``, all in range."""

    sizes: tuple[Dim, ...]
    terms: tuple[Term, Term]
    axes: tuple[OutputAxis, ...]

    @property
    def output(self) -> list[int]:
        """The indices that the output keeps, in its order."""
        return [i for axis in self.axes for i in axis.indices]


def normalize_contraction(node: Node) -> ContractionForm | None:
    """Return the normal form of a Contract, or None where its maps admit none."""
    op = node.op
    assert isinstance(op, ops.Contract)
    left, right = (
        Term(x, tuple(_without_single(affine, op.sizes) for affine in index_map))
        for x, index_map in zip(node.inputs, op.maps, strict=True)
    )
    form = ContractionForm(op.sizes, (left, right), ())
    pending = [_without_single(affine, op.sizes) for affine in op.output_map]
    mentioned = [i for affine in pending for i in _indices(affine)]
    if len(set(mentioned)) != len(mentioned):
        return None
    for affine, dim in zip(pending, op.output_shape, strict=True):
        axis = _digits(affine, form.sizes)
        if axis is not None:
            form = replace(form, axes=(*form.axes, axis))
            continue
        gathered = _gather_form(form, affine, dim)
        if gathered is None:
            return None
        form = gathered
    sizes = form.sizes
    terms = []
    for term in form.terms:
        lean = tuple(_without_single(affine, sizes) for affine in term.map)
        inside = _in_range(Term(term.node, lean), sizes)
        if inside is None:
            return None
        terms.append(inside)
    return ContractionForm(sizes, (terms[0], terms[1]), form.axes)


def _indices(affine: Affine) -> list[int]:
    return [i for i, _ in affine.terms]


def _without_single(affine: Affine, sizes: tuple[Dim, ...]) -> Affine:
    """Leave out the indices that are always zero."""
    return Affine(tuple((i, c) for i, c in affine.terms if sizes[i] != 1 and c), affine.offset)


def _digits(affine: Affine, sizes: tuple[Dim, ...]) -> OutputAxis | None:
    """Return an output axis whose indices are digits of one number, else None."""
    if len(affine.terms) == 1:
        ((index, c),) = affine.terms
        if c < 0:
            return OutputAxis((index,), -c, (sizes[index] - 1) * c + affine.offset, True)
    digits = sorted(affine.terms, key=lambda term: -term[1])
    for (_, high), (index, low) in pairwise(digits):
        if low <= 0 or sizes[index] * low != high:
            return None
    scale = digits[-1][1] if digits else 1
    return OutputAxis(tuple(i for i, _ in digits), scale, affine.offset)


# -- from scattering to gathering -----------------------------------------------------------------


def _gather_form(form: ContractionForm, affine: Affine, dim: Dim) -> ContractionForm | None:
    """Return ``form`` with an axis ``affine`` of ``dim`` elements as an index of its own.

    One index of the sum becomes the coordinate; it must be an axis of some operand, which then
    keeps it in range.
    """
    for index, stride in sorted(affine.terms, key=lambda t: _likely_size(form.sizes[t[0]])):
        users = [term for term in form.terms if term.uses(index)]
        if users and all(_can_substitute(term, index, form.sizes) for term in users):
            rest = [(i, c) for i, c in affine.terms if i != index]
            phased = _split_phases(form, (index, stride), rest, affine.offset, dim)
            if phased is not None:
                return phased
            return _substitute(form, (index, stride), rest, affine.offset, dim)
    return None


def _can_substitute(term: Term, index: int, sizes: tuple[Dim, ...]) -> bool:
    """Whether the operand itself keeps ``index`` below its size, perhaps after a crop."""
    size = sizes[index]
    return term.has_plain(index) and all(
        dim == size or (isinstance(dim, int) and isinstance(size, int))
        for dim, affine in zip(term.node.shape, term.map, strict=True)
        if index in _indices(affine)
    )


def _likely_size(size: Dim) -> tuple[int, int]:
    """Sort symbolic sizes first, then the large ones: a coordinate replaces a window's place."""
    return (1, -size) if isinstance(size, int) else (0, 0)


def _substitute(
    form: ContractionForm,
    eliminated: tuple[int, int],
    rest: list[tuple[int, int]],
    offset: int,
    dim: Dim,
) -> ContractionForm:
    """Let ``p = stride * i + rest + offset`` be an index in the place of ``i``.

    The operand gets ``|stride| - 1`` zeros between its elements, so that it can be read where ``p``
    is no multiple.
    """
    index, stride = eliminated
    sign = 1 if stride > 0 else -1
    place = Affine(((index, sign), *((i, -sign * c) for i, c in rest)), -sign * offset)
    terms = []
    for term in form.terms:
        node = term.node
        affected = [axis for axis, affine in enumerate(term.map) if index in _indices(affine)]
        if affected:
            node = _keep_first(node, affected, form.sizes[index])
            interior = [abs(stride) - 1 if a in affected else 0 for a in range(node.type.rank)]
            none = (0,) * node.type.rank
            node = pad(node, none, none, tuple(interior))
        index_map = [place if axis in affected else a for axis, a in enumerate(term.map)]
        terms.append(Term(node, tuple(index_map)))
    sizes = tuple(dim if i == index else size for i, size in enumerate(form.sizes))
    return ContractionForm(sizes, (terms[0], terms[1]), (*form.axes, OutputAxis((index,))))


def _keep_first(node: Node, axes: list[int], count: Dim) -> Node:
    """Return the first ``count`` elements along ``axes``: an index does not reach the others."""
    extra = [
        dim - count
        if axis in axes and isinstance(dim, int) and isinstance(count, int) and dim > count
        else 0
        for axis, dim in enumerate(node.shape)
    ]
    none = (0,) * node.type.rank
    return pad(node, none, tuple(-surplus for surplus in extra), none)


def _split_phases(
    form: ContractionForm,
    eliminated: tuple[int, int],
    rest: list[tuple[int, int]],
    offset: int,
    dim: Dim,
) -> ContractionForm | None:
    """Return the form in which ``p = s * y + r + …`` is ``s * q + phase``, else None.

    With ``r = s * r1 + phase`` the coordinate ``q = y + r1 + …`` of each phase is gathered without
    zeros in between: a strided convolution's gradient does no more work than the convolution.
    """
    index, stride = eliminated
    loose = [(i, c) for i, c in rest if c % stride]
    if stride < 2 or len(loose) != 1 or loose[0][1] != 1:
        return None
    (window, _), width = loose[0], form.sizes[loose[0][0]]
    users = [term for term in form.terms if term.uses(window)]
    ends = all(
        node_dim == width
        for term in users
        for node_dim, affine in zip(term.node.shape, term.map, strict=True)
        if window in _indices(affine)
    )
    if not users or not ends or not all(term.has_plain(window) for term in users):
        return None
    if not isinstance(width, int):
        return None
    phase = len(form.sizes)
    sizes = [*form.sizes, stride]
    sizes[window] = -(-width // stride)
    digits = Affine(((window, stride), (phase, 1)))
    terms = []
    for term in form.terms:
        index_map = tuple(digits if a == Affine(((window, 1),)) else a for a in term.map)
        terms.append(Term(term.node, index_map))
    first = -offset // stride
    count = (dim + (-1 - offset)) // stride + (1 - first)
    split = ContractionForm(tuple(sizes), (terms[0], terms[1]), form.axes)
    coarse = [(i, c // stride) for i, c in rest if i != window and c]
    coarse.append((window, 1))
    split = _substitute(split, (index, 1), coarse, -first, count)
    axis = OutputAxis((index, phase), 1, first * stride + offset)
    return replace(split, axes=(*form.axes, axis))


# -- in range -------------------------------------------------------------------------------------


def pad(x: Node, low: tuple[Dim, ...], high: tuple[Dim, ...], interior: tuple[int, ...]) -> Node:
    """Return ``x`` with zeros around and between; one operator where ``x`` has zeros already."""
    if not any((*low, *high, *interior)):
        return x
    op = x.op
    if isinstance(op, ops.Pad) and not any(interior):
        inner = (*op.low, *op.high)
        grows = all(isinstance(p, int) and p >= 0 for p in inner)
        if grows or not any(inner):
            low = tuple(a + b for a, b in zip(op.low, low, strict=True))
            high = tuple(a + b for a, b in zip(op.high, high, strict=True))
            return pad(x.inputs[0], low, high, op.interior)
    if not any(interior) and all(isinstance(p, int) and p <= 0 for p in (*low, *high)):
        starts = tuple(-p for p in low)
        sizes = tuple(d + a + b for d, a, b in zip(x.shape, low, high, strict=True))
        return make(ops.Slice(starts, sizes, (1,) * x.type.rank), x, source=x.source)
    return make(ops.Pad(low, high, interior), x, source=x.source)


def _bounds(affine: Affine, sizes: tuple[Dim, ...]) -> tuple[Dim, Dim]:
    """Return the least and the greatest value of ``affine`` over the box."""
    low: Dim = affine.offset
    high: Dim = affine.offset
    for index, c in affine.terms:
        reach = (sizes[index] - 1) * c
        low, high = (low, high + reach) if c > 0 else (low + reach, high)
    return low, high


def _is_inside(affine: Affine, dim: Dim, sizes: tuple[Dim, ...]) -> bool:
    low, high = _bounds(affine, sizes)
    left = dim - 1 - high
    return isinstance(low, int) and low >= 0 and isinstance(left, int) and left >= 0


def _in_range(term: Term, sizes: tuple[Dim, ...]) -> Term | None:
    """Return ``term`` with zeros added where its map leaves the operand; views are looked through.

    A crop is not worth a copy, but where sizes are symbolic the zeros wanted may be negative.
    None where it depends on a symbolic size how many zeros come first.
    """
    term = _peel(term, sizes)
    low: list[int] = []
    high: list[Dim] = []
    moved: list[Affine] = []
    for affine, dim in zip(term.map, term.node.shape, strict=True):
        least, most = _bounds(affine, sizes)
        if not isinstance(least, int):
            return None
        below, above = max(0, -least), most - dim + 1
        low.append(below)
        high.append(max(0, above) if isinstance(above, int) else above)
        moved.append(Affine(affine.terms, affine.offset + below))
    return Term(pad(term.node, tuple(low), tuple(high), (0,) * len(low)), tuple(moved))


def _peel(term: Term, sizes: tuple[Dim, ...]) -> Term:
    """Follow views to the array behind them, as long as the zeros outside stay where they are."""
    while True:
        node, index_map = term.node, term.map
        inside = [_is_inside(a, d, sizes) for a, d in zip(index_map, node.shape, strict=True)]
        match node.op:
            case ops.Transpose(permutation):
                moved = [index_map[permutation.index(a)] for a in range(len(permutation))]
            case ops.Broadcast():
                (source,) = node.inputs
                lead = node.type.rank - source.type.rank
                stretched = [
                    axis < lead or (source.shape[axis - lead] == 1 and dim != 1)
                    for axis, dim in enumerate(node.shape)
                ]
                if not all(i for i, wide in zip(inside, stretched, strict=True) if wide):
                    return term
                moved = [
                    Affine(()) if wide else affine
                    for affine, wide in zip(index_map, stretched, strict=True)
                ][lead:]
            case ops.Reshape() if is_trivial_reshape(node):
                single = [dim == 1 for dim in node.shape]
                if not all(i for i, one in zip(inside, single, strict=True) if one):
                    return term
                wide = iter([a for a, one in zip(index_map, single, strict=True) if not one])
                moved = [Affine(()) if d == 1 else next(wide) for d in node.inputs[0].shape]
            case ops.Slice(starts, _, steps) if all(isinstance(s, int) for s in starts):
                if not all(inside):
                    return term
                moved = [
                    Affine(
                        tuple((i, c * step) for i, c in affine.terms),
                        affine.offset * step + start,  # type: ignore[operator]
                    )
                    for affine, start, step in zip(index_map, starts, steps, strict=True)
                ]
            case ops.Pad(low, high, interior) if not any(interior):
                if not all(isinstance(p, int) and p >= 0 for p in (*low, *high)):
                    return term
                moved = [
                    Affine(a.terms, a.offset - p)  # type: ignore[operator]
                    for a, p in zip(index_map, low, strict=True)
                ]
            case _:
                return term
        term = Term(node.inputs[0], tuple(moved))


# -- the output -----------------------------------------------------------------------------------


def arrange_output(
    result: Node, order: list[int], form: ContractionForm, shape: tuple[Dim, ...]
) -> Node:
    """Return ``result``, whose axes are the indices in ``order``, as the output of ``shape``.

    What has to move in memory moves first: a transpose comes last, where it is only a view.
    """
    axes = form.axes
    first = {number: order.index(a.indices[0]) for number, a in enumerate(axes) if a.indices}
    along = sorted(range(len(axes)), key=lambda number: first.get(number, len(order)))
    digits = [i for number in along for i in axes[number].indices]
    result = transpose(result, [order.index(i) for i in digits])
    sizes: list[Dim] = [product(tuple(form.sizes[i] for i in axes[n].indices)) for n in along]
    result = reshape(result, tuple(sizes))
    flipped = tuple(position for position, n in enumerate(along) if axes[n].flipped)
    if flipped:
        result = make(ops.Flip(flipped), result, source=result.source)
    low: list[Dim] = []
    high: list[Dim] = []
    interior: list[int] = []
    for number, size in zip(along, sizes, strict=True):
        axis, dim = axes[number], shape[number]
        span = size if axis.scale == 1 else (size - 1) * axis.scale + 1
        low.append(axis.offset)
        high.append(dim - axis.offset - span)
        interior.append(axis.scale - 1)
    result = pad(result, tuple(low), tuple(high), tuple(interior))
    return transpose(result, [along.index(number) for number in range(len(axes))])
