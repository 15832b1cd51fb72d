"""Bodies of loops and branches: making them closed and canonical, and running stages inside them.

The formals of a body are `ops.Input` nodes labelled by role and position (``%carry0``, ``%item1``,
``%outer0``), so that bodies that compute the same are equal.  A body knows
nothing of the graph around it: the formals of two nested bodies may be the same nodes.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from . import ops
from .construct import reshape
from .graph import Node, make, topological
from .types import Dim, TensorType

#: The roles of a scan's formals, in order.
SCAN_ROLES = ("carry", "item", "outer")
_fresh = itertools.count()


def placeholder(kind: TensorType) -> Node:
    """Return a new leaf of a type, to build a body with; `make_body` replaces it by a formal."""
    return make(ops.Input(f"%fresh{next(_fresh)}", kind))


def substitute(roots: Sequence[Node], values: Mapping[Node, Node]) -> list[Node]:
    """Return ``roots`` with the nodes that are keys of ``values`` replaced, all at once."""
    done: dict[Node, Node] = dict(values)
    for node in topological(roots):
        if node not in done:
            done[node] = rebuilt(node, tuple(done[x] for x in node.inputs))
    return [done[root] for root in roots]


def rebuilt(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Return ``node`` over other inputs."""
    return node if inputs == node.inputs else make(node.op, *inputs, source=node.source)


def make_body(groups: Iterable[tuple[str, Sequence[Node]]], results: Sequence[Node]) -> ops.Body:
    """Return the body whose formals, a role and leaves a group, are canonical."""
    canonical: dict[Node, Node] = {}
    for role, leaves in groups:
        for position, leaf in enumerate(leaves):
            label = f"%{role}{position}"
            canonical[leaf] = make(ops.Input(label, leaf.type), source=leaf.source)
    return ops.Body(tuple(canonical.values()), tuple(substitute(results, canonical)))


def make_scan_body(
    carries: Sequence[Node], items: Sequence[Node], outer: Sequence[Node], results: Sequence[Node]
) -> ops.Body:
    """Return the body of a scan; see `make_body`."""
    return make_body(zip(SCAN_ROLES, (carries, items, outer), strict=True), results)


def make_branch(formals: Sequence[Node], results: Sequence[Node]) -> ops.Body:
    """Return the body of a branch or of a while loop; see `make_body`."""
    return make_body([("value", formals)], results)


def family(node: Node) -> tuple[ops.Op, tuple[Node, ...]]:
    """Return what the nodes of one computation have in common: operator family and inputs."""
    assert isinstance(node.op, ops.Nested)
    return node.op.family, node.inputs


def families(nodes: Iterable[Node]) -> dict[tuple[ops.Op, tuple[Node, ...]], list[Node]]:
    """Return the loops and branches among ``nodes``, those of one computation together."""
    found: dict[tuple[ops.Op, tuple[Node, ...]], list[Node]] = {}
    for node in nodes:
        if isinstance(node.op, ops.Nested):
            found.setdefault(family(node), []).append(node)
    return found


def dependent_on(roots: Sequence[Node], leaves: Iterable[Node]) -> set[Node]:
    """Return the nodes that ``roots`` need and that depend on one of ``leaves``, those included."""
    found = set(leaves)
    for node in topological(roots):
        if any(x in found for x in node.inputs):
            found.add(node)
    return found


def captured_by(roots: Sequence[Node], dependent: set[Node]) -> list[Node]:
    """Return the largest pieces that ``roots`` need and that do not depend on the formals.

    Pieces made of constants alone stay where they are: rewrites want to see them.
    """
    order = topological(roots)
    variable = set(dependent)  # what is more than constants
    for node in order:
        leaf = isinstance(node.op, (ops.Input, ops.State))
        if leaf or any(x in variable for x in node.inputs):
            variable.add(node)
    users = {x for node in order if node in dependent for x in node.inputs} | set(roots)
    return [node for node in order if node in users and node in variable and node not in dependent]


def contract_steps(
    node: Node, operands: Sequence[Node], moving: Sequence[bool], length: Dim, along: bool
) -> Node:
    """Return the contraction ``node`` of all steps at once.

    ``operands`` stand for the inputs of ``node``; those ``moving`` have a first axis of steps.  The
    result is a sum over the steps, or has such an axis, too, with ``along``.
    """
    op = node.op
    assert isinstance(op, ops.Contract)
    if all(moving) and not along and (depth := _leading_depth(op, operands)) is not None:
        # steps and the first axis of both operands are one axis: nothing need be moved in memory
        sizes = tuple(length * n if i == depth else n for i, n in enumerate(op.sizes))
        merged = [reshape(x, (length * x.shape[1], *x.shape[2:])) for x in operands]
        return make(replace(op, sizes=sizes), *merged, source=node.source)
    step = ops.Affine(((len(op.sizes), 1),))
    left, right = (
        (step, *index_map) if moves else index_map
        for index_map, moves in zip(op.maps, moving, strict=True)
    )
    lead, shape = ((step,), (length,)) if along else ((), ())
    whole = ops.Contract(
        (*op.sizes, length), (left, right), (*lead, *op.output_map), (*shape, *op.output_shape)
    )
    return make(whole, *operands, source=node.source)


def _leading_depth(op: ops.Contract, operands: Sequence[Node]) -> int | None:
    """Return the summed index that is the first axis of both operands and nothing else."""
    if not all(op.maps):
        return None
    first = op.maps[0][0]
    if first != op.maps[1][0] or len(first.terms) != 1 or first.offset or first.terms[0][1] != 1:
        return None
    index = first.terms[0][0]
    rest = (*op.maps[0][1:], *op.maps[1][1:], *op.output_map)
    alone = not any(index == i for affine in rest for i, _ in affine.terms)
    whole = all(x.shape[1] == op.sizes[index] for x in operands)
    return index if alone and whole else None


Stage = Callable[[Sequence[Node]], Sequence[Node]]


def through_bodies(roots: Sequence[Node], stage: Stage) -> list[Node]:
    """Return ``roots`` with ``stage`` applied to every body, inner ones first, then to themselves.

    Of a body the stage gets the formals as well, so that it may change their types.
    """
    return _Descent(stage).apply(roots)


class _Descent:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.done: dict[ops.Body, ops.Body] = {}

    def apply(self, roots: Sequence[Node]) -> list[Node]:
        nested = [node for node in topological(roots) if isinstance(node.op, ops.Nested)]
        if nested:
            changed: dict[Node, Node] = {}
            for node in nested:
                op = node.op
                assert isinstance(op, ops.Nested)
                bodies = tuple(self.body(body) for body in op.bodies)
                inputs = substitute(node.inputs, changed)
                changed[node] = make(op.with_bodies(bodies), *inputs, source=node.source)
            roots = substitute(roots, changed)
        return list(self.stage(roots))

    def body(self, body: ops.Body) -> ops.Body:
        found = self.done.get(body)
        if found is None:
            ends = self.apply((*body.formals, *body.results))
            count = len(body.formals)
            found = self.done[body] = ops.Body(tuple(ends[:count]), tuple(ends[count:]))
        return found


# -- loops that are one ---------------------------------------------------------------------------


def merge_loops(roots: Sequence[Node]) -> list[Node]:
    """Return ``roots`` with scans of the same carries made one scan, of all their stacked results.

    A gradient needs more results of a loop than the loss does; this makes them one loop again.
    """
    while True:
        merged = _merge_once(roots)
        if merged is None:
            return list(roots)
        roots = merged


def _merge_once(roots: Sequence[Node]) -> list[Node] | None:
    scans = [
        (members, _OpenScan(members[0]))
        for members in families(topological(roots)).values()
        if isinstance(members[0].op, ops.Scan)
    ]
    alike: dict[object, list[tuple[list[Node], _OpenScan]]] = {}
    for members, scan in scans:
        alike.setdefault(scan.recurrence, []).append((members, scan))
    for group in alike.values():
        if len(group) < 2:
            continue
        replaced = _united(group)
        inputs = next(iter(replaced.values())).inputs
        if not dependent_on(inputs, replaced).isdisjoint(inputs):
            continue  # one of them works on results of another
        return substitute(roots, replaced)
    return None


_stand_ins: weakref.WeakKeyDictionary[Node, dict[str, Node]] = weakref.WeakKeyDictionary()


def _stand_in(role: str, value: Node, kind: TensorType) -> Node:
    """Return the leaf that stands for an item or whole of ``value`` in every body that uses it."""
    known = _stand_ins.setdefault(value, {})
    if role not in known:
        known[role] = placeholder(kind)
    return known[role]


class _OpenScan:
    """A scan whose body is written over leaves that tell which inputs they stand for."""

    def __init__(self, node: Node) -> None:
        op = node.op
        assert isinstance(op, ops.Scan)
        first, last = op.carries, op.carries + op.sequences
        self.op, self.inits = op, node.inputs[:first]
        formals = op.body.formals
        self.carries = formals[:first]
        self.items: dict[Node, Node] = {}  # stand-in -> sequence
        self.outer: dict[Node, Node] = {}  # stand-in -> value
        values: dict[Node, Node] = {}
        for position in range(first, len(formals)):
            formal, value = formals[position], node.inputs[position]
            role, known = ("item", self.items) if position < last else ("outer", self.outer)
            values[formal] = _stand_in(role, value, formal.type)
            known[values[formal]] = value
        self.results = substitute(op.body.results, values)
        self.recurrence = (self.inits, op.length, op.reverse, tuple(self.results[:first]))


def _united(group: Sequence[tuple[list[Node], _OpenScan]]) -> dict[Node, Node]:
    """Return the outputs of one scan that replace those of all scans of ``group``."""
    first = group[0][1]
    items = {leaf: x for _, scan in group for leaf, x in scan.items.items()}
    outer = {leaf: x for _, scan in group for leaf, x in scan.outer.items()}
    count = first.op.carries
    stacked = dict.fromkeys(x for _, scan in group for x in scan.results[count:])
    results = [*first.results[:count], *stacked]
    place = {x: count + k for k, x in enumerate(stacked)}
    body = make_scan_body(first.carries, list(items), list(outer), results)
    op = replace(first.op, body=body, sequences=len(items))
    inputs = (*first.inits, *items.values(), *outer.values())
    replaced = {}
    for members, scan in group:
        for node in members:
            assert isinstance(node.op, ops.Scan)
            k = node.op.output
            output = k if k < count else place[scan.results[k]]
            replaced[node] = make(replace(op, output=output), *inputs, source=node.source)
    return replaced
