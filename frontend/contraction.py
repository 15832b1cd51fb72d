"""Sums of products over labelled axes: matmul, einsum and tensordot as `Contract` nodes."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import SymbolicDim, format_shape
from ..compiler.ir.graph import Node
from ..compiler.ir.types import Dim
from . import shaping
from .promotion import constant_node, unify
from .reductions import reduce
from .shaping import normalize_axis
from .tracing import build, fail

Labels = tuple[str, ...]

#: What a symbolic dimension counts as when a contraction order is chosen.
_TYPICAL_SIZE = 128


def contract(
    left: Node, left_labels: Labels, right: Node, right_labels: Labels, output: Labels, what: str
) -> Node:
    """Return the sum over all labels that ``output`` does not name of ``left * right``.

    An axis of size 1 stretches to the size that its label has elsewhere.  A label that an operand
    names twice takes its diagonal.  Raises GraphError where the sizes of a label differ.
    """
    left, right = unify(left, right, numeric=True)
    sizes = _label_sizes(((left, left_labels), (right, right_labels)), what)
    left, left_labels = _prepare(left, left_labels, {*right_labels, *output}, sizes)
    right, right_labels = _prepare(right, right_labels, {*left_labels, *output}, sizes)
    order = list(dict.fromkeys((*output, *left_labels, *right_labels)))
    place = {label: i for i, label in enumerate(order)}

    def index_map(labels: Labels) -> ops.IndexMap:
        return tuple(ops.Affine(((place[label], 1),)) for label in labels)

    return build(
        ops.Contract(
            tuple(sizes[label] for label in order),
            (index_map(left_labels), index_map(right_labels)),
            index_map(output),
            tuple(sizes[label] for label in output),
        ),
        left,
        right,
    )


def _label_sizes(operands: Sequence[tuple[Node, Labels]], what: str) -> dict[str, Dim]:
    sizes: dict[str, Dim] = {}
    for node, labels in operands:
        for label, dim in zip(labels, node.shape, strict=True):
            known = sizes.setdefault(label, dim)
            if known == 1:
                sizes[label] = dim
            elif dim not in (1, known):
                shapes = " and ".join(format_shape(node.shape) for node, _ in operands)
                fail(
                    f"{what}: shapes {shapes} do not fit: one axis has {known} where the other "
                    f"has {dim}; equal sizes or 1 would fit"
                )
    return sizes


def _prepare(
    x: Node, labels: Labels, needed: set[str], sizes: dict[str, Dim]
) -> tuple[Node, Labels]:
    """Drop stretched axes, and sum over labels that nothing else needs."""
    stretched = [a for a, label in enumerate(labels) if x.shape[a] == 1 and sizes[label] != 1]
    if stretched:
        x = shaping.squeeze(x, stretched)
        labels = tuple(label for a, label in enumerate(labels) if a not in stretched)
    alone = [
        a for a, label in enumerate(labels) if label not in needed and labels.count(label) == 1
    ]
    if alone:
        x = reduce("sum", x, alone, False)
        labels = tuple(label for a, label in enumerate(labels) if a not in alone)
    return x, labels


def matmul(left: Node, right: Node) -> Node:
    """Return the matrix product by NumPy's rules.

    ``left`` (..., n, k) and ``right`` (..., k, m) give (..., n, m), leading axes broadcast; a
    vector is a row on the left, a column on the right, and its axis is dropped.
    """
    ranks = left.type.rank, right.type.rank
    if 0 in ranks:
        fail("matmul: takes no scalars; use *", GraphTypeError)
    inner = left.shape[-1], right.shape[-2 if ranks[1] > 1 else -1]
    if inner[0] != inner[1]:
        fail(
            f"matmul: shapes {format_shape(left.shape)} and {format_shape(right.shape)} do not "
            f"fit: the first one's last axis has {inner[0]} and the second one's "
            f"{'last but one' if ranks[1] > 1 else 'only'} axis has {inner[1]}; they must be equal"
        )
    batch = max(ranks[0], ranks[1], 2) - 2
    names = tuple(f"b{i}" for i in range(batch))

    def labels(rank: int, matrix: Labels) -> Labels:
        return names[batch - (rank - 2) :] + matrix if rank > 1 else ("k",)

    output = names + (("n",) if ranks[0] > 1 else ()) + (("m",) if ranks[1] > 1 else ())
    return contract(
        left, labels(ranks[0], ("n", "k")), right, labels(ranks[1], ("k", "m")), output, "matmul"
    )


def tensordot(left: Node, right: Node, axes: int | Sequence[object]) -> Node:
    """Return the sum over ``axes`` of both: a count, or a pair of axes or of sequences of axes."""
    ranks = left.type.rank, right.type.rank
    if isinstance(axes, int):
        if not 0 <= axes <= min(ranks):
            fail(f"tensordot: {axes} axes do not fit ranks {ranks[0]} and {ranks[1]}")
        pairs = [(ranks[0] - axes + i, i) for i in range(axes)]
    else:
        first, second = ((side,) if isinstance(side, int) else tuple(side) for side in axes)  # type: ignore[union-attr,arg-type]
        if len(first) != len(second):
            fail(f"tensordot: {len(first)} axes on the left, {len(second)} on the right")
        pairs = [
            (normalize_axis(a, ranks[0], "tensordot"), normalize_axis(b, ranks[1], "tensordot"))
            for a, b in zip(first, second, strict=True)
        ]
    left_labels = [f"l{i}" for i in range(ranks[0])]
    right_labels = [f"r{i}" for i in range(ranks[1])]
    for a, b in pairs:
        if left.shape[a] != right.shape[b]:
            fail(
                f"tensordot: shapes {format_shape(left.shape)} and {format_shape(right.shape)} do "
                f"not fit: axis {a} has {left.shape[a]} and axis {b} has {right.shape[b]}"
            )
        right_labels[b] = left_labels[a]
    summed = {left_labels[a] for a, _ in pairs}
    output = tuple(x for x in (*left_labels, *right_labels) if x not in summed)
    return contract(left, tuple(left_labels), right, tuple(right_labels), output, "tensordot")


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """Return the labels of each operand and of the result of an einsum equation."""
    text = equation.replace(" ", "")
    inputs, arrow, result = text.partition("->")
    parts = inputs.split(",")
    if len(parts) != len(ranks):
        fail(f"einsum: {equation!r} names {len(parts)} operands, {len(ranks)} were given")

    def read(part: str, rank: int | None) -> Labels:
        before, dots, after = part.partition("...")
        if not (before + after).isalpha() and before + after:
            fail(f"einsum: {part!r} in {equation!r} is not letters and at most one '...'")
        if rank is None:
            extra = width if dots else 0
        else:
            extra = rank - len(before) - len(after)
            if extra < 0 or (extra and not dots):
                fail(f"einsum: {part!r} in {equation!r} does not fit an operand of rank {rank}")
        return (*before, *(f".{i}" for i in range(width - extra, width)), *after)

    width = max(
        (
            rank - len(part.replace("...", ""))
            for part, rank in zip(parts, ranks, strict=True)
            if "..." in part
        ),
        default=0,
    )
    labels = [read(part, rank) for part, rank in zip(parts, ranks, strict=True)]
    flat = [label for one in labels for label in one]
    if arrow:
        output = read(result, None)
    else:
        dots = sorted({label for label in flat if label[0] == "."}, key=lambda x: int(x[1:]))
        output = (*dots, *sorted(x for x in set(flat) if flat.count(x) == 1 and x[0] != "."))
    missing = set(output) - set(flat)
    if missing or len(set(output)) != len(output):
        fail(f"einsum: the result of {equation!r} names an unknown label, or one label twice")
    return labels, output


def einsum(equation: str, nodes: Sequence[Node]) -> Node:
    """Return the sum of products that ``equation`` describes (``"ij,jk->ik"``).

    More than two operands are contracted in pairs, in an order that opt_einsum chooses; symbolic
    dimensions count as 128 there.  Raises GraphError where equation and operands do not fit.
    """
    if not nodes:
        fail("einsum: needs at least one operand")
    labels, output = _parse(equation, [node.type.rank for node in nodes])
    terms = list(zip(nodes, labels, strict=True))
    _label_sizes(terms, f"einsum {equation!r}")
    what = f"einsum {equation!r}"
    for chosen in _contraction_order(terms, output):
        taken = [terms[i] for i in chosen]
        terms = [term for i, term in enumerate(terms) if i not in chosen]
        needed = {label for _, one in terms for label in one} | set(output)
        while len(taken) > 1:
            (left, a), (right, b) = taken[:2]
            rest = {label for _, one in taken[2:] for label in one} | needed
            kept = tuple(dict.fromkeys(label for label in (*a, *b) if label in rest))
            if not terms and len(taken) == 2:
                kept = output
            taken[:2] = [(contract(left, a, right, b, kept, what), kept)]
        terms += taken
    return _arrange(*terms[0], output, what)


def _contraction_order(terms: list[tuple[Node, Labels]], output: Labels) -> list[tuple[int, ...]]:
    if len(terms) <= 2:
        return [tuple(range(len(terms)))]
    import opt_einsum  # loads on use

    letters: dict[str, str] = {}
    for _, one in terms:
        for label in one:
            letters.setdefault(label, opt_einsum.get_symbol(len(letters)))
    sides = ["".join(letters[label] for label in one) for _, one in terms]
    equation = ",".join(sides) + "->" + "".join(letters[label] for label in output)
    shapes = [
        tuple(_TYPICAL_SIZE if isinstance(dim, SymbolicDim) else dim for dim in node.shape)
        for node, _ in terms
    ]
    path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True)
    return [tuple(sorted(step)) for step in path]


def _arrange(x: Node, labels: Labels, output: Labels, what: str) -> Node:
    """Return one operand summed, and its axes ordered, as ``output`` says."""
    if labels == output:
        return x
    if len(set(labels)) != len(labels):
        return contract(x, labels, constant_node(1, x.dtype), (), output, what)
    summed = [axis for axis, label in enumerate(labels) if label not in output]
    if summed:
        x = reduce("sum", x, summed, False)
        labels = tuple(label for label in labels if label in output)
    return shaping.transpose(x, [labels.index(label) for label in output])
