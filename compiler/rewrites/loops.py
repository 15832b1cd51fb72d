"""Loops and branches do only what must be done in them.

Scans of the same carries become one; what no one reads goes; what is the same in every step is
computed once, before the loop; contractions of items alone, or of results alone, become one
contraction over all steps before or after the loop; a branch whose predicate is known is chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ..ir import construct, ops
from ..ir.bodies import (
    captured_by,
    contract_steps,
    dependent_on,
    families,
    family,
    make_branch,
    make_scan_body,
    merge_loops,
    placeholder,
    rebuilt,
    substitute,
    through_bodies,
)
from ..ir.graph import Node, Program, make, scalar_value, topological
from ..ir.types import TensorType

_VIEWS = (ops.Broadcast, ops.Reshape, ops.Transpose, ops.Slice, ops.Flip)
#: Constants of at most this many elements are put into bodies, where rewrites see them.
LARGEST = 256


def tidy_loops(program: Program) -> Program:
    """Return ``program`` with its loops and branches united, pruned and emptied of fixed work."""
    if not any(isinstance(node.op, ops.Nested) for node in program.nodes()):
        return program
    return program.with_roots(through_bodies(program.roots, _tidy))


def _tidy(roots: Sequence[Node]) -> list[Node]:
    roots = merge_loops(roots)
    order = topological(roots)
    alike = families(order)
    done: dict[Node, Node] = {}
    for node in order:
        if node in done:
            continue
        inputs = tuple(done[x] for x in node.inputs)
        if isinstance(node.op, ops.Nested):
            members = alike[family(node)]
            used = {member.op.output for member in members}  # type: ignore[attr-defined]
            outputs = _SIMPLIFIERS[type(node.op)](node, inputs, used)
            for member in members:
                done[member] = outputs[member.op.output]  # type: ignore[attr-defined]
        else:
            done[node] = rebuilt(node, inputs)
    return [done[root] for root in roots]


def _is_known(node: Node) -> bool:
    """Whether a value is made of numbers alone, few enough to stand in a body."""
    while isinstance(node.op, _VIEWS) and scalar_value(node) is None:
        (node,) = node.inputs
    if isinstance(node.op, ops.Extent) or scalar_value(node) is not None:
        return True
    return isinstance(node.op, ops.Constant) and node.op.value.array.size <= LARGEST


def _united(values: dict[Node, Node]) -> dict[Node, Node]:
    """Return, for formals that stand for the same value, the first of them; drop the others."""
    first: dict[Node, Node] = {}
    found = {}
    for formal, value in list(values.items()):
        kept = first.setdefault(value, formal)
        if kept is not formal:
            found[formal] = kept
            del values[formal]
    return found


# -- scans ----------------------------------------------------------------------------------------


@dataclass
class _Carry:
    formal: Node
    init: Node
    result: Node


class _Scan:
    """A scan taken apart: formals with what they stand for, results by their numbers."""

    def __init__(self, node: Node, inputs: tuple[Node, ...], used: Collection[int]) -> None:
        op = node.op
        assert isinstance(op, ops.Scan)
        self.op, self.source = op, node.source
        first, last = op.carries, op.carries + op.sequences
        formals, results = op.body.formals, op.body.results
        triples = zip(formals[:first], inputs[:first], results[:first], strict=True)
        self.carries = {k: _Carry(*triple) for k, triple in enumerate(triples)}
        self.items = dict(zip(formals[first:last], inputs[first:last], strict=True))
        self.outer = dict(zip(formals[last:], inputs[last:], strict=True))
        self.finals = {k for k in used if k < first}
        self.stacked = {k: results[k] for k in sorted(used) if k >= first}
        #: Results that are known outside of the loop, over leaves that stand for its results.
        self.known: dict[int, Node] = {}
        self.parts: dict[Node, Node] = {}  # result of a step -> leaf for its stack

    @property
    def results(self) -> list[Node]:
        carried = [carry.result for carry in self.carries.values()]
        return [*carried, *self.stacked.values(), *self.parts]

    def replace(self, values: dict[Node, Node]) -> None:
        """Replace nodes of the body."""
        if not values:
            return
        results = iter(substitute(self.results, values))
        for carry in self.carries.values():
            carry.result = next(results)
        self.stacked = {k: next(results) for k in self.stacked}
        parts: dict[Node, Node] = {}
        same = {leaf: parts.setdefault(next(results), leaf) for leaf in self.parts.values()}
        self.parts = parts
        self.known = dict(zip(self.known, substitute(list(self.known.values()), same), strict=True))

    def simplify(self) -> None:
        before = None
        while before != (state := self.state()):
            before = state
            self.drop_dead()
            self.inline_known()
            self.settle_carries()
            self.hoist_fixed()
            self.hoist_contractions()
            self.sink_contractions()
            self.settle_stacks()

    def state(self) -> tuple:
        return (tuple(self.results), tuple(self.carries), tuple(self.items), tuple(self.outer))

    def varying(self) -> set[Node]:
        leaves = [*(carry.formal for carry in self.carries.values()), *self.items]
        return dependent_on(self.results, leaves)

    def drop_dead(self) -> None:
        live = set(self.finals)
        while True:
            roots = [self.carries[k].result for k in live if k in self.carries]
            needed = set(topological([*roots, *self.stacked.values(), *self.parts]))
            more = live | {k for k, carry in self.carries.items() if carry.formal in needed}
            if more == live:
                break
            live = more
        self.carries = {k: carry for k, carry in self.carries.items() if k in live}
        needed = set(topological(self.results))
        self.items = {formal: x for formal, x in self.items.items() if formal in needed}
        self.outer = {formal: x for formal, x in self.outer.items() if formal in needed}

    def inline_known(self) -> None:
        """Numbers go into the body; a sequence of equal items is one outer value."""
        values: dict[Node, Node] = {}
        for formal, sequence in list(self.items.items()):
            item = _repeated_item(sequence)
            if item is not None:
                del self.items[formal]
                values[formal] = placeholder(item.type)
                self.outer[values[formal]] = item
        self.replace(values)
        values = {formal: value for formal, value in self.outer.items() if _is_known(value)}
        self.outer = {formal: x for formal, x in self.outer.items() if formal not in values}
        self.replace(values | _united(self.items) | _united(self.outer))

    def settle_carries(self) -> None:
        """A carry that no step changes is an outer value."""
        for k, carry in list(self.carries.items()):
            if carry.result is carry.formal:
                del self.carries[k]
                self.outer[carry.formal] = carry.init
                if k in self.finals:
                    self.finals.remove(k)
                    self.known[k] = carry.init

    def hoist_fixed(self) -> None:
        """What is the same in every step is computed before the loop."""
        values: dict[Node, Node] = {}
        for node in captured_by(self.results, self.varying()):
            while isinstance(node.op, _VIEWS):
                (node,) = node.inputs
            if node not in self.outer and node not in values:
                values[node] = placeholder(node.type)
                self.outer[values[node]] = substitute([node], self.outer)[0]
        self.replace(values)

    def hoist_contractions(self) -> None:
        """A contraction of an item and an outer value is one of all items before the loop."""
        varying = self.varying()
        values: dict[Node, Node] = {}
        for node in topological(self.results):
            if isinstance(node.op, ops.Contract) and node in varying:
                operands = [self.whole(x, varying) for x in node.inputs]
                moving = [x in varying for x in node.inputs]
                if all(operands) and sum(moving) == 1:
                    whole = contract_steps(node, operands, moving, self.op.length, along=True)  # type: ignore[arg-type]
                    values[node] = placeholder(node.type)
                    self.items[values[node]] = whole
        self.replace(values)

    def whole(self, x: Node, varying: set[Node]) -> Node | None:
        """Return the values of ``x`` of all steps, where it is an item or fixed."""
        if x not in varying:
            return substitute([x], self.outer)[0]
        if x in self.items:
            return self.items[x]
        if isinstance(x.op, (ops.Reshape, ops.Transpose)):
            inner = self.whole(x.inputs[0], varying)
            return None if inner is None else _over_steps(x.op, inner)
        return None

    def sink_contractions(self) -> None:
        """A stacked contraction of a carry and an outer value is one of all carries after it."""
        varying = self.varying()
        carried = {carry.result for carry in self.carries.values()}
        for k, node in list(self.stacked.items()):
            others = [x for j, x in self.stacked.items() if j != k]
            rest = [*carried, *others, *self.parts]
            if not isinstance(node.op, ops.Contract) or node in topological(rest):
                continue
            moving = [x in varying for x in node.inputs]
            if sum(moving) != 1:
                continue
            part = node.inputs[moving.index(True)]
            if part not in carried and part not in self.stacked.values():
                continue
            kind = TensorType(part.dtype, (self.op.length, *part.shape))
            leaf = self.parts.setdefault(part, placeholder(kind))
            operands = [leaf if x is part else substitute([x], self.outer)[0] for x in node.inputs]
            self.known[k] = contract_steps(node, operands, moving, self.op.length, along=True)
            del self.stacked[k]

    def settle_stacks(self) -> None:
        """A stack of items is their sequence, one of equal values a broadcast."""
        varying = self.varying()
        for k, node in list(self.stacked.items()):
            if node in self.items:
                self.known[k] = self.items[node]
            elif node not in varying:
                fixed = substitute([node], self.outer)[0]
                self.known[k] = construct.broadcast_to(fixed, (self.op.length, *fixed.shape))
            else:
                continue
            del self.stacked[k]

    def outputs(self) -> dict[int, Node]:
        """Return the results by number, built anew."""
        carries = list(self.carries.values())
        stacks = list(dict.fromkeys([*self.stacked.values(), *self.parts]))
        body = make_scan_body(
            [carry.formal for carry in carries],
            list(self.items),
            list(self.outer),
            [*(carry.result for carry in carries), *stacks],
        )
        inputs = (*(c.init for c in carries), *self.items.values(), *self.outer.values())
        op = replace(self.op, body=body, carries=len(carries), sequences=len(self.items))

        def output(k: int) -> Node:
            return make(replace(op, output=k), *inputs, source=self.source)

        place = {node: len(carries) + k for k, node in enumerate(stacks)}
        leaves = {leaf: output(place[node]) for node, leaf in self.parts.items()}
        found = dict(zip(self.known, substitute(list(self.known.values()), leaves), strict=True))
        for position, k in enumerate(self.carries):
            if k in self.finals:
                found[k] = output(position)
        return found | {k: output(place[node]) for k, node in self.stacked.items()}


def _repeated_item(sequence: Node) -> Node | None:
    """Return the item where all items of a sequence are the same by construction."""
    if not isinstance(sequence.op, ops.Broadcast):
        return None
    (x,) = sequence.inputs
    shape = sequence.shape[1:]
    if x.type.rank < sequence.type.rank:
        return construct.broadcast_to(x, shape)
    if x.shape[0] == 1 and sequence.shape[0] != 1:
        return construct.broadcast_to(construct.reshape(x, x.shape[1:]), shape)
    return None


def _over_steps(op: ops.Reshape | ops.Transpose, x: Node) -> Node:
    """Return a view of every item of ``x``."""
    if isinstance(op, ops.Reshape):
        return construct.reshape(x, (x.shape[0], *op.shape))
    return construct.transpose(x, (0, *(axis + 1 for axis in op.permutation)))


def _simplify_scan(node: Node, inputs: tuple[Node, ...], used: Collection[int]) -> dict[int, Node]:
    scan = _Scan(node, inputs, used)
    scan.simplify()
    return scan.outputs()


# -- branches and while loops ---------------------------------------------------------------------


def _simplify_cond(node: Node, inputs: tuple[Node, ...], used: Collection[int]) -> dict[int, Node]:
    op = node.op
    assert isinstance(op, ops.Cond)
    predicate, *operands = inputs
    chosen = scalar_value(predicate)
    if chosen is not None:
        body = op.then if chosen else op.other
        values = dict(zip(body.formals, operands, strict=True))
        results = [body.results[k] for k in used]
        return dict(zip(used, substitute(results, values), strict=True))
    numbers = sorted(used)
    formals = dict(zip(op.then.formals, operands, strict=True))
    results = [body.results[k] for body in op.bodies for k in numbers]
    results = _without_known(formals, results)
    branches = results[: len(numbers)], results[len(numbers) :]
    then, other = (make_branch(list(formals), part) for part in branches)
    inputs = (predicate, *formals.values())
    return {
        k: make(ops.Cond(then, other, position), *inputs, source=node.source)
        for position, k in enumerate(numbers)
    }


def _simplify_while(node: Node, inputs: tuple[Node, ...], used: Collection[int]) -> dict[int, Node]:
    op = node.op
    assert isinstance(op, ops.While)
    count = len(op.body.results)
    carries = op.body.formals[:count]
    outer = dict(zip(op.body.formals[count:], inputs[count:], strict=True))
    results = _without_known(outer, [*op.condition.results, *op.body.results])
    formals = [*carries, *outer]
    condition, body = make_branch(formals, results[:1]), make_branch(formals, results[1:])
    values = (*inputs[:count], *outer.values())
    return {k: make(ops.While(condition, body, k), *values, source=node.source) for k in used}


def _without_known(formals: dict[Node, Node], results: list[Node]) -> list[Node]:
    """Put numbers into ``results`` and drop formals that are numbers, equal, or not needed."""
    values = {formal: value for formal, value in formals.items() if _is_known(value)}
    for formal in values:
        del formals[formal]
    results = substitute(results, values | _united(formals))
    needed = set(topological(results))
    for formal in [formal for formal in formals if formal not in needed]:
        del formals[formal]
    return results


_SIMPLIFIERS = {
    ops.Scan: _simplify_scan,
    ops.Cond: _simplify_cond,
    ops.While: _simplify_while,
}
