"""The adjoints of loops and branches, and of values with a rule of their own.

The adjoint of a scan is a scan in the other direction whose carries are the cotangents of the
carries.  What it needs of the forward pass it reads from stacked results: the carry before each
step, and values that are costly to compute again; cheap ones are computed again.  The cotangent of
a value that every step uses is a sum over the steps: where a step's part is a contraction, its
operands are stacked and contracted once after the loop, so that the gradient of a weight is one
matrix product over steps and batch; other parts are added up in a carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..analysis.cuts import cheapest_values
from ..errors import GraphError, locate
from ..ir import construct, ops
from ..ir.bodies import (
    contract_steps,
    dependent_on,
    make_branch,
    make_scan_body,
    placeholder,
    substitute,
)
from ..ir.dims import evaluate
from ..ir.graph import Node, make, topological
from ..ir.scalars import COSTLY, Formula
from ..ir.types import ITEM_BYTES, TensorType

Cotangents = list[Node | None]
Gradient = Callable[[Sequence[Node], Sequence[Node], Sequence[Node]], list[Node]]


def loop_adjoint(
    node: Node, cotangents: Mapping[int, Node], wanted: Sequence[bool], gradient: Gradient
) -> Cotangents:
    """Return the cotangents of the inputs of a loop or branch; only those ``wanted`` are built.

    ``cotangents`` maps outputs to the cotangents of their values; ``gradient`` is the chain rule,
    for the bodies.
    """
    match node.op:
        case ops.Scan():
            return _ScanAdjoint(node, cotangents, wanted, gradient).cotangents()
        case ops.Cond():
            return _cond(node, cotangents, wanted, gradient)
        case ops.CustomGradient():
            return _custom_gradient(node, cotangents)
        case _:
            message = (
                "gradient of while_loop: how many steps it takes is not known, so there is no room "
                "for what the gradient needs of each; use scan with a fixed length, or "
                "stop_gradient"
            )
            raise GraphError(locate(message, node.source))


def _cond(
    node: Node, cotangents: Mapping[int, Node], wanted: Sequence[bool], gradient: Gradient
) -> Cotangents:
    """Return a branch over the adjoints of the branches; each computes its forward pass again."""
    op = node.op
    assert isinstance(op, ops.Cond)
    predicate, *operands = node.inputs
    outputs = sorted(cotangents)
    seeds = [placeholder(cotangents[k].type) for k in outputs]
    bodies = []
    for body in op.bodies:
        wrt = [x for x, flag in zip(body.formals, wanted[1:], strict=True) if flag]
        grads = gradient([body.results[k] for k in outputs], wrt, seeds)
        bodies.append(make_branch([*body.formals, *seeds], grads))
    inputs = (predicate, *operands, *(cotangents[k] for k in outputs))
    parts = (
        make(ops.Cond(bodies[0], bodies[1], k), *inputs, source=node.source)
        for k in range(sum(wanted[1:]))
    )
    return [None, *(next(parts) if flag else None for flag in wanted[1:])]


def _custom_gradient(node: Node, cotangents: Mapping[int, Node]) -> Cotangents:
    """Return what the rule makes of the cotangents; an output that nothing uses has zero."""
    op = node.op
    assert isinstance(op, ops.CustomGradient)
    end = op.count + len(op.rule.results)
    given = [
        cotangents.get(k, construct.full(0, value.type))
        for k, value in enumerate(node.inputs[: op.count])
    ]
    values = dict(zip(op.rule.formals, (*given, *node.inputs[end:]), strict=True))
    parts = substitute(op.rule.results, values)
    return [*[None] * op.count, *parts, *[None] * (len(node.inputs) - end)]


def _is_costly(node: Node) -> bool:
    """Whether the forward pass keeps a value rather than the backward pass computing it again."""
    match node.op:
        case ops.Contract() | ops.Reduce() | ops.ScatterAdd() | ops.RandomBits() | ops.Nested():
            return True
        case ops.Map(function):
            return isinstance(function, Formula) or function in COSTLY
        case _:
            return False


class _NominalSizes(dict):
    """A size for every symbol, where values are only compared with each other."""

    def __missing__(self, symbol: str) -> int:
        return 64


class _ScanAdjoint:
    """One scan's adjoint while it is put together.

    Values of one step, nodes over the forward body's formals and the seeds, are called *inside*;
    what becomes of them in the graph around the loop, *outside*.
    """

    def __init__(
        self,
        node: Node,
        cotangents: Mapping[int, Node],
        wanted: Sequence[bool],
        gradient: Gradient,
    ) -> None:
        op = node.op
        assert isinstance(op, ops.Scan)
        self.op, self.node, self.wanted, self.gradient = op, node, wanted, gradient
        self.given = cotangents
        first, last = op.carries, op.carries + op.sequences
        formals = op.body.formals
        self.carries, self.items, self.outer = formals[:first], formals[first:last], formals[last:]
        self.varying = dependent_on(op.body.results, (*self.carries, *self.items))
        self.outside: dict[Node, Node] = dict(zip(self.outer, node.inputs[last:], strict=True))
        #: Inside value -> the sequence outside whose items it is.
        self.sequences: dict[Node, Node] = dict(
            zip(self.items, node.inputs[first:last], strict=True)
        )
        self.residuals: list[Node] = []  # forward values that the forward loop must stack
        self.stacked: dict[Node, Node] = {}  # result of a backward step -> leaf outside
        self.sums: dict[Node, Node] = {}  # part added up in a carry -> leaf outside
        self.seeds: dict[int, Node] = {}
        self.late: set[Node] = set()  # what depends on cotangents

    # -- the plan ---------------------------------------------------------------------------------

    def cotangents(self) -> Cotangents:
        op, results = self.op, self.op.body.results
        live = self.live_carries()
        stacks = [k for k in self.given if k >= op.carries]
        roots = [*live, *stacks]
        for k in roots:
            self.seeds[k] = placeholder(results[k].type)
        for k in stacks:
            self.sequences[self.seeds[k]] = self.given[k]
        seeds = [self.seeds[k] for k in roots]
        self.varying |= set(seeds)
        wrt = [self.carries[j] for j in live]
        wrt += [x for x, flag in zip(self.op.body.formals, self.wanted, strict=True) if flag]
        wrt = list(dict.fromkeys(wrt))
        found = self.gradient([results[k] for k in roots], wrt, seeds)
        grads = dict(zip(wrt, found, strict=True))
        self.varying |= dependent_on(found, self.varying)
        self.late = dependent_on(found, seeds)
        parts = self.parts(grads)
        return self.assemble(grads, live, parts)

    def live_carries(self) -> list[int]:
        """Return the carries through which a cotangent flows back."""
        op, results = self.op, self.op.body.results
        active = {x for x, flag in zip(op.body.formals, self.wanted, strict=True) if flag}
        while True:
            reached = dependent_on(results, active)
            more = {
                carry
                for carry, result in zip(self.carries, results, strict=False)
                if result in reached and carry.type.is_float
            }
            if more <= active:
                break
            active |= more
        live = {k for k in self.given if k < op.carries and self.carries[k] in active}
        while True:
            roots = [results[k] for k in {*live, *(k for k in self.given if k >= op.carries)}]
            needed = set(topological(roots))
            more = {j for j, c in enumerate(self.carries) if c in needed and c in active}
            if more <= live:
                return sorted(live)
            live |= more

    def parts(self, grads: Mapping[Node, Node]) -> dict[Node, Node]:
        """Return, outside, what becomes of the gradients of items and outer values.

        Contractions come first: what they stack need not be stacked or added up again.
        """
        wanted = [x for x in (*self.outer, *self.items) if x in grads and self.is_wanted(x)]
        wanted.sort(key=lambda x: not _ends_in_contraction(grads[x]))
        outer = set(self.outer)
        return {
            x: self.total(grads[x]) if x in outer else self.stack(grads[x])
            for x in wanted
            if not construct.is_number(grads[x], 0)
        }

    def is_wanted(self, formal: Node) -> bool:
        return self.wanted[self.op.body.formals.index(formal)]

    # -- from one step to all ---------------------------------------------------------------------

    def invariant(self, x: Node) -> Node:
        """Return, outside, a value that is the same in every step."""
        return substitute([x], self.outside)[0]

    def total(self, x: Node) -> Node:
        """Return, outside, the sum of ``x`` over the steps."""
        op, length = x.op, self.op.length
        if x not in self.varying:
            return construct.mul(self.invariant(x), construct.extent(length, x.dtype))
        match op:
            case ops.Map("add" | "sub" | "neg") if _ends_in_contraction(x):
                totals = [construct.broadcast_to(self.total(y), x.shape) for y in x.inputs]
                return make(op, *totals, source=x.source)
            case ops.Map("mul") if any(y not in self.varying for y in x.inputs):
                fixed = 0 if x.inputs[0] not in self.varying else 1
                total = self.total(x.inputs[1 - fixed])
                return construct.broadcast_to(
                    construct.mul(total, self.invariant(x.inputs[fixed])), x.shape
                )
            case ops.Transpose() | ops.Reshape() | ops.Broadcast() | ops.Pad() | ops.Slice():
                return make(op, self.total(x.inputs[0]), source=x.source)
            case ops.Contract():
                return self.contract(x, along=False)
            case ops.Reduce("sum", axes) if self.is_stacked(x.inputs[0]):
                operand = self.stack(x.inputs[0])
                return construct.reduce_sum(operand, [0, *(axis + 1 for axis in axes)])
            case ops.ScatterAdd(0, size):
                updates, indices = (self.stack(y) for y in x.inputs)
                return make(ops.ScatterAdd(0, size), updates, indices, source=x.source)
        if x not in self.sums:
            self.sums[x] = placeholder(x.type)
        return self.sums[x]

    def contract(self, x: Node, along: bool) -> Node:
        """Return, outside, a contraction over all steps: summed, or ``along`` a leading axis."""
        moving = [operand in self.varying for operand in x.inputs]
        operands = [
            self.stack(operand) if moves else self.invariant(operand)
            for operand, moves in zip(x.inputs, moving, strict=True)
        ]
        return contract_steps(x, operands, moving, self.op.length, along)

    def stack(self, x: Node) -> Node:
        """Return, outside, the values of ``x`` of all steps along a new first axis."""
        if x not in self.varying:
            fixed = self.invariant(x)
            return construct.broadcast_to(fixed, (self.op.length, *fixed.shape))
        if x in self.carries:
            self.keep(x)
        if x in self.sequences:
            return self.sequences[x]
        if x in self.stacked:
            return self.stacked[x]
        match x.op:
            case ops.Reshape(shape):
                return construct.reshape(self.stack(x.inputs[0]), (self.op.length, *shape))
            case ops.Transpose(permutation):
                moved = (0, *(axis + 1 for axis in permutation))
                return construct.transpose(self.stack(x.inputs[0]), moved)
            case ops.Contract() if self.is_ready(x):
                return self.contract(x, along=True)
        if x not in self.late:
            self.keep(x)
            return self.sequences[x]
        self.stacked[x] = placeholder(self.sequence_type(x))
        return self.stacked[x]

    def is_stacked(self, x: Node) -> bool:
        """Whether `stack` of ``x`` adds no result to a loop."""
        while isinstance(x.op, (ops.Reshape, ops.Transpose)):
            x = x.inputs[0]
        return x not in self.varying or x in self.sequences or x in self.stacked

    def is_ready(self, contraction: Node) -> bool:
        """Whether all steps of a contraction can be one, with a fixed operand, after the loop."""
        varying = [x for x in contraction.inputs if x in self.varying]
        return len(varying) == 1 and (varying[0] in self.stacked or varying[0] in self.sequences)

    def keep(self, x: Node) -> None:
        """Have the forward loop stack one of its values."""
        if x not in self.sequences:
            self.residuals.append(x)
            self.sequences[x] = placeholder(self.sequence_type(x))

    def sequence_type(self, x: Node) -> TensorType:
        return TensorType(x.dtype, (self.op.length, *x.shape))

    # -- the loop ---------------------------------------------------------------------------------

    def assemble(
        self, grads: Mapping[Node, Node], live: Sequence[int], parts: Mapping[Node, Node]
    ) -> Cotangents:
        op = self.op
        cotangents = [self.seeds[j] for j in live]
        partial = [placeholder(x.type) for x in self.sums]
        roots = [grads[self.carries[j]] for j in live]
        roots += [construct.add(a, x) for a, x in zip(partial, self.sums, strict=True)]
        roots += list(self.stacked)
        self.varying |= dependent_on(roots, {*self.varying, *partial})
        items = self.leaves_of(roots, {*cotangents, *partial})
        stand_ins = {x: placeholder(x.type) for x in items}
        results = substitute(roots, stand_ins)
        used = set(topological(results))
        outer = [x for x in self.outer if x in used]
        body = make_scan_body(
            [*cotangents, *partial], [stand_ins[x] for x in items], outer, results
        )
        begin = [
            self.given.get(j) or construct.full(0, seed.type)
            for j, seed in zip(live, cotangents, strict=True)
        ]
        begin += [construct.full(0, x.type) for x in self.sums]
        inputs = [*begin, *(self.sequences[x] for x in items), *(self.outside[x] for x in outer)]
        known = self.forward_values()
        inputs = substitute(inputs, known)
        backward = ops.Scan(body, len(begin), len(items), op.length, not op.reverse, 0)

        def output(k: int) -> Node:
            return make(replace(backward, output=k), *inputs, source=self.node.source)

        for k, outside in enumerate((*self.sums.values(), *self.stacked.values())):
            known[outside] = output(len(live) + k)
        ends = {self.carries[j]: output(k) for k, j in enumerate(live)}
        ends |= dict(zip(parts, substitute(list(parts.values()), known), strict=True))
        return [
            ends.get(x) if flag else None
            for x, flag in zip(op.body.formals, self.wanted, strict=True)
        ]

    def leaves_of(self, roots: Sequence[Node], carried: set[Node]) -> list[Node]:
        """Return the values that the backward loop takes as items.

        Those of the forward loop are chosen so that few bytes are kept and nothing costly is
        computed again.
        """
        late = self.late | dependent_on(roots, {*self.late, *carried})
        items: dict[Node, None] = {}
        needed: dict[Node, None] = {}
        for node in topological(roots):
            inputs = node.inputs if node in late else ()
            for x in (*inputs, *([node] if node in roots else ())):
                if x in self.varying and x not in late:
                    needed[x] = None
            if node in late and node in self.sequences:
                items[node] = None
        ready = {*self.sequences, *self.op.body.results[self.op.carries :]}

        def cost(x: Node) -> int:
            if x in ready:
                return 0
            size = evaluate(x.type.size, _NominalSizes())
            return size * ITEM_BYTES[x.dtype]

        def fixed(x: Node) -> bool:
            return x in self.carries or x in self.items or _is_costly(x)

        for x in cheapest_values(needed, cost, fixed, lambda x: x in self.varying):
            self.keep(x)
            items[x] = None
        return list(items)

    def forward_values(self) -> dict[Node, Node]:
        """Return the outputs of the forward loop that stand for the sequences that it keeps."""
        op = self.op
        body = ops.Body(op.body.formals, (*op.body.results, *self.residuals))
        start = len(op.body.results)
        return {
            self.sequences[x]: make(
                replace(op, body=body, output=start + k), *self.node.inputs, source=self.node.source
            )
            for k, x in enumerate(self.residuals)
        }


def _ends_in_contraction(x: Node) -> bool:
    """Whether a cotangent is a contraction, up to views and sums."""
    pending = [x]
    while pending:
        x = pending.pop()
        match x.op:
            case ops.Contract():
                return True
            case ops.Map("add" | "sub" | "neg"):
                pending.extend(x.inputs)
            case ops.Transpose() | ops.Reshape() | ops.Broadcast() | ops.Pad():
                pending.extend(x.inputs)
    return False
