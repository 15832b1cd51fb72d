"""Compiled loops and branches: `scan`, `cond` and `while_loop`.

A step function is called once, with tensors that stand for any step's values; what it returns
becomes the body of a loop.  Compile time and code size do not depend on the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.bodies import (
    captured_by,
    dependent_on,
    make_branch,
    make_scan_body,
    placeholder,
    substitute,
)
from ..compiler.ir.dims import format_shape
from ..compiler.ir.graph import Node, constant, make, topological
from ..compiler.ir.types import Dim, TensorType
from .checks import checks_reaching, register_range_check
from .shaping import nonnegative_shape
from .state import effects_at, register_effect
from .structure import describe, leaves_of, map_leaves, ordered_like, rebuild, same_structure
from .tensor import Tensor, as_tensor
from .tracing import build, fail

_ITERATION = TensorType("int64", ())


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: Dim | str | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Return the carry after the last step and the stacked results of all steps.

    One compiled loop of ``carry, y = step(carry, x)``; what ``step`` uses of the tensors around it
    is passed along.  Random numbers drawn in ``step`` differ from step to step.

    Parameters
    ----------
    step : callable
        ``step(carry, x) -> (carry, y)``, traced once.
    init : tensor, None, or nested tuples, lists and dicts of these
        The carry before the first step; every step keeps its structure, shapes and element types.
    xs : the same, optional
        Sequences: step ``t`` gets ``x[t]`` of each.  Their first axes are of one size, which may be
        symbolic.
    length : int or dimension, optional
        The number of steps; needed where there are no ``xs``.
    reverse : bool
        Begin with the last items; ``ys[t]`` still belongs to ``xs[t]``.

    Returns
    -------
    carry, ys
        ``ys`` has the structure of the results ``y``, each with a new first axis.

    Raises
    ------
    GraphError, GraphTypeError
        The carry changes its structure, a shape or an element type; sequences differ in length, or
        nothing tells the length.
    """
    carry = map_leaves(as_tensor, init)
    items = map_leaves(as_tensor, xs)
    steps = _length(items, length)
    mark = placeholder(_ITERATION)
    held, taken = _tensors(carry), _tensors(items)
    carries = [placeholder(x.type) for x in held]
    slots = [placeholder(TensorType(x.dtype, x.shape[1:])) for x in taken]
    returned = step(_like(carry, carries), _like(items, slots))
    if not isinstance(returned, tuple) or len(returned) != 2:
        fail(f"scan: step returns (carry, y), not {describe(returned)}", GraphTypeError)
    results = _checked_carry("scan", carry, returned[0])
    ys = map_leaves(as_tensor, returned[1])
    results = [*results, *_tensors(ys)]
    body = _Closure(results, [*carries, *slots], mark, iteration=placeholder(_ITERATION))
    sequences, slots = list(taken), list(slots)
    if body.draws:
        sequences.append(make(ops.Iota(TensorType("int64", (steps,)), 0)))
        slots.append(body.iteration)
    op = ops.Scan(
        make_scan_body(carries, slots, body.inside, body.results),
        len(carries),
        len(slots),
        steps,
        bool(reverse),
        0,
    )
    inputs = (*held, *sequences, *body.outside)
    values = _outputs(op, len(results), inputs)
    body.move_checks(dict(zip(slots, sequences, strict=True)), values)
    return _like(carry, values[: len(carries)]), _like(ys, values[len(carries) :])


def cond(
    predicate: object,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    *operands: Any,
) -> Any:
    """Return ``true_fn(*operands)`` where ``predicate`` holds, else ``false_fn(*operands)``.

    Only one of them is computed (`where` computes both).  The gradient is a branch as well.

    Parameters
    ----------
    predicate : tensor ``()``, bool
        What decides.
    true_fn, false_fn : callable
        Functions of the operands with results of one structure, shape and element type.  They may
        use tensors around them.
    operands : tensors, or nested tuples, lists and dicts of these

    Raises
    ------
    GraphError, GraphTypeError
        The predicate is not one bool, or the branches' results differ in type.
    """
    decides = as_tensor(predicate).node
    if decides.type != TensorType("bool", ()):
        fail(f"cond: the predicate is one bool, not {decides.type}", GraphTypeError)
    given = map_leaves(as_tensor, list(operands))
    passed = _tensors(given)
    mark = placeholder(_ITERATION)
    slots = [placeholder(x.type) for x in passed]
    first = map_leaves(as_tensor, true_fn(*_like(given, slots)))
    second = map_leaves(as_tensor, false_fn(*_like(given, slots)))
    if not same_structure(first, second):
        fail(
            f"cond: true_fn gives {describe(first)} and false_fn {describe(second)}; the branches "
            "must give the same structure"
        )
    second = ordered_like(second, first)
    paths = [path for path, _ in leaves_of(first)]
    branches = _tensors(first), _tensors(second)
    for path, a, b in zip(paths, *branches, strict=True):
        if a.type != b.type:
            fail(f"cond: result{path} is {a.type} from true_fn and {b.type} from false_fn")
    count = len(paths)
    both = _Closure([*branches[0], *branches[1]], slots, mark)
    formals = [*slots, *both.inside]
    op = ops.Cond(
        make_branch(formals, both.results[:count]), make_branch(formals, both.results[count:]), 0
    )
    values = _outputs(op, count, (decides, *passed, *both.outside))
    return _like(first, values)


def while_loop(cond_fn: Callable[[Any], object], body_fn: Callable[[Any], Any], init: Any) -> Any:
    """Return the first of ``init``, ``body_fn(init)``, … for which ``cond_fn`` does not hold.

    Forward only: the number of steps is not known, so there is no gradient.

    Parameters
    ----------
    cond_fn : callable
        ``cond_fn(carry)`` gives a bool tensor ``()``.
    body_fn : callable
        ``body_fn(carry)`` gives the next carry, of the same structure, shapes and element types.
    init : tensor, or nested tuples, lists and dicts of these
        The first carry.

    Raises
    ------
    GraphError, GraphTypeError
        The condition is not one bool, or the carry changes its structure or a type.
    """
    carry = map_leaves(as_tensor, init)
    held = _tensors(carry)
    mark = placeholder(_ITERATION)
    carries = [placeholder(x.type) for x in held]
    decides = as_tensor(cond_fn(_like(carry, carries))).node
    if decides.type != TensorType("bool", ()):
        fail(f"while_loop: cond_fn gives one bool, not {decides.type}", GraphTypeError)
    results = _checked_carry("while_loop", carry, body_fn(_like(carry, carries)))
    count = placeholder(_ITERATION)
    both = _Closure([decides, *results], carries, mark, iteration=count)
    decides, *results = both.results
    begin = list(held)
    if both.draws:
        carries = [*carries, count]
        results = [*results, make(ops.Map("add"), count, constant(1, "int64"))]
        begin.append(constant(0, "int64"))
    formals = [*carries, *both.inside]
    op = ops.While(make_branch(formals, [decides]), make_branch(formals, results), 0)
    values = _outputs(op, len(held), (*begin, *both.outside))
    return _like(carry, values)


# -- trees ----------------------------------------------------------------------------------------


def _tensors(tree: Any) -> list[Node]:
    return [leaf.node for _, leaf in leaves_of(tree)]  # type: ignore[attr-defined]


def _like(tree: Any, nodes: Sequence[Node]) -> Any:
    return rebuild(tree, iter([Tensor(node) for node in nodes]))


def _outputs(op: Any, count: int, inputs: Sequence[Node]) -> list[Node]:
    return [build(replace(op, output=k), *inputs) for k in range(count)]


def _length(items: Any, length: Dim | str | None) -> Dim:
    """Return the number of steps that the sequences and ``length`` agree on."""
    known: Dim | None = None
    origin = ""
    if length is not None:
        (known,) = nonnegative_shape(length, "scan: length")
        origin = f"length is {known}"
    for path, leaf in leaves_of(items):
        shape = leaf.shape  # type: ignore[attr-defined]
        if not shape:
            fail(f"scan: xs{path} is 0-d; a sequence has a first axis, of steps")
        if known is None:
            known, origin = shape[0], f"xs{path} has {shape[0]} items"
        elif shape[0] != known:
            fail(
                f"scan: {origin} and xs{path} has {shape[0]} (shape {format_shape(shape)}); the "
                "first axes of all sequences are the steps"
            )
    if known is None:
        fail("scan: without xs, length must say how many steps to take")
    return known


def _checked_carry(what: str, carry: Any, returned: Any) -> list[Node]:
    """Return the leaves of the carry that a step gives; refuse another structure or type."""
    returned = map_leaves(as_tensor, returned)
    if not same_structure(carry, returned):
        fail(
            f"{what}: the carry begins as {describe(carry)} and the step gives "
            f"{describe(returned)}; every step must keep its structure"
        )
    returned = ordered_like(returned, carry)
    before, after = _tensors(carry), _tensors(returned)
    for (path, _), a, b in zip(leaves_of(carry), before, after, strict=True):
        if a.type == b.type:
            continue
        where = f"carry{path}"
        if a.dtype != b.dtype:
            fail(
                f"{what}: {where} begins as {a.type} and the step gives {b.type}; begin with a "
                f"{b.dtype} value, or give .astype({a.dtype!r})",
                GraphTypeError,
            )
        fail(f"{what}: {where} begins as {a.type} and the step gives {b.type}; shapes must agree")
    return after


# -- what a body takes along ----------------------------------------------------------------------


class _Closure:
    """Traced results made independent of the graph around: what they use of it becomes formals.

    ``inside`` are the new leaves, ``outside`` what they stand for.  Draws of random numbers made
    while tracing (those younger than ``mark``) get a state that differs from step to step: a draw
    of stream ``s`` in a body uses the state ``(w0 << 32 | w1) + iteration``, where ``w0, w1`` are
    the two words that stream ``s`` gives outside for the generator's own state.
    """

    def __init__(
        self,
        results: Sequence[Node],
        formals: Sequence[Node],
        mark: Node,
        iteration: Node | None = None,
    ) -> None:
        self.iteration = placeholder(_ITERATION) if iteration is None else iteration
        self.traced = list(results)
        order = topological(results)
        dependent = dependent_on(results, formals)
        self.draws: list[Node] = [
            node
            for node in order
            if isinstance(node.op, ops.RandomBits)
            and node.serial > mark.serial
            and node.inputs[0] not in dependent
        ]
        self._refuse_effects(order, dependent, mark)
        renewed: dict[Node, Node] = {}
        for node in self.draws:
            folded = self._folded(node)
            state = folded
            if iteration is not None:
                state = make(ops.Map("add"), folded, iteration, source=node.source)
            renewed[node] = make(node.op, state, source=node.source)
        results = substitute(results, renewed)
        varying = [*formals, self.iteration]
        dependent = dependent_on(results, varying)
        self.outside = captured_by(results, dependent)
        self.inside = [placeholder(node.type) for node in self.outside]
        self.results = substitute(results, dict(zip(self.outside, self.inside, strict=True)))

    def _folded(self, draw: Node) -> Node:
        """Return a state of the draw's own, which moves on with the generator's."""
        words = []
        for word in (0, 1):
            bits = make(ops.RandomBits((), draw.op.stream, word), *draw.inputs, source=draw.source)  # type: ignore[attr-defined]
            for effect in effects_at(draw):
                register_effect(
                    effect.state, bits, effect.update, effect.once, effect.training_only
                )
            words.append(make(ops.Cast("int64"), bits))
        high = make(ops.Map("shift_left"), words[0], constant(32, "int64"))
        return make(ops.Map("bit_or"), high, words[1])

    def _refuse_effects(self, order: list[Node], dependent: set[Node], mark: Node) -> None:
        for node in order:
            if node not in dependent and node.serial < mark.serial:
                continue
            for effect in effects_at(node):
                if effect.state.role != "random":
                    fail(
                        f"a step or branch changes {effect.state.role} {effect.state.name!r}; "
                        "inside a compiled loop state does not change: carry it along, or use a "
                        "layer without running statistics"
                    )

    def move_checks(self, sequences: dict[Node, Node], users: Sequence[Node]) -> None:
        """Require of whole sequences what the step requires of their items."""
        for node, check in checks_reaching(self.traced):
            source = node
            while isinstance(source.op, (ops.Cast, ops.Reshape, ops.Broadcast, ops.Transpose)):
                source = source.inputs[0]
            if source in sequences:
                for user in users:
                    register_range_check(
                        sequences[source], check.low, check.high, check.ignore, check.message, user
                    )
