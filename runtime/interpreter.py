"""The interpreter: the meaning of every primitive, written by hand with NumPy.

It runs a program after any graph stage, is what ``backend="numpy"`` executes, and is the oracle for
the native backends.  Nothing here is derived from the formulas or rewrites that it checks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..compiler.errors import CheckFailed, IndexRangeError, InputError, VerificationError, locate
from ..compiler.ir import ops
from ..compiler.ir.bodies import families, family
from ..compiler.ir.dims import evaluate, format_shape
from ..compiler.ir.graph import Node, Program, topological
from ..compiler.ir.scalars import Formula, subterms
from ..compiler.ir.types import Dim, Shape, TensorType
from ..compiler.loops.ir import NAN_FOUND
from .binding import InputBinder
from .contraction import contract, sum_over
from .philox import random_bits
from .requirements import check_requirements
from .scalar_functions import evaluate_function

Args = list[np.ndarray]


@dataclass(frozen=True)
class Context:
    """What an evaluation depends on besides its operands."""

    sizes: Mapping[str, int]
    promote: bool = False
    training: bool = False
    bodies: Mapping[ops.Body, _Evaluation] = field(default_factory=dict)
    check_nan: bool = False

    def size(self, dim: Dim) -> int:
        return dim if isinstance(dim, int) else evaluate(dim, self.sizes)

    def shape(self, shape: Shape) -> tuple[int, ...]:
        return tuple([self.size(dim) for dim in shape])

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(_promoted(name, self.promote))


def _promoted(dtype: str, promote: bool) -> str:
    return "float64" if promote and dtype == "float32" else dtype


class _Evaluation:
    """Nodes in the order of evaluation, and which values may go after each."""

    def __init__(
        self, order: list[Node], kept: Iterable[Node], bodies: dict[ops.Body, _Evaluation]
    ) -> None:
        self.order = order
        self.families = families(order)
        for op, _ in self.families:
            assert isinstance(op, ops.Nested)
            for body in op.bodies:
                if body not in bodies:
                    inside = topological((*body.formals, *body.results))
                    ends = (*body.formals, *body.results)
                    bodies[body] = _Evaluation(inside, ends, bodies)
        last_user = {x: node for node in order for x in node.inputs}
        alive = set(kept)
        self.dying: dict[Node, list[Node]] = {}
        for node, user in last_user.items():
            if node not in alive:
                self.dying.setdefault(user, []).append(node)

    def run(self, values: dict[Node, np.ndarray], context: Context) -> None:
        """Add the value of every node that is kept to ``values``, which holds the leaves."""
        for node in self.order:
            if node not in values:
                if isinstance(node.op, ops.Nested):
                    _evaluate_family(self.families[family(node)], values, context)
                else:
                    values[node] = _evaluate_node(node, values, context)
                    if context.check_nan:
                        _check_number(node, values[node])
            for dead in self.dying.get(node, ()):
                del values[dead]


def _check_number(node: Node, value: np.ndarray) -> None:
    """Raise CheckFailed where an operator has made a NaN; leaves are what they were given as."""
    if node.inputs and node.type.is_float and (bad := np.isnan(value)).any():
        message = (
            f"{NAN_FOUND} {node.op.name} gives nan at element {int(bad.argmax())} of {node.type}"
        )
        raise CheckFailed(locate(message, node.source))


class Interpreter:
    """A program prepared for repeated interpretation.

    Parameters
    ----------
    program
        What to run.
    promote
        Compute every float32 value in float64; inputs and states may then be float64 as well.
    training
        The value of `ops.Training`.
    check_nan
        Raise CheckFailed at the first operator that gives NaN.
    """

    def __init__(
        self,
        program: Program,
        promote: bool = False,
        training: bool = False,
        check_nan: bool = False,
    ) -> None:
        self.program = program
        self.check_nan = check_nan
        self.promote = promote
        self.training = training
        self.order = program.nodes()
        self.inputs = program.inputs()
        self.states = program.states()
        self.binder = InputBinder(
            [
                (n.op.label, TensorType(_promoted(n.dtype, promote), n.shape), n.source)
                for n in self.inputs
                if isinstance(n.op, ops.Input)
            ]
        )
        kept = (*program.roots, *(state for state, _ in program.updates))
        self._bodies: dict[ops.Body, _Evaluation] = {}
        self._evaluation = _Evaluation(self.order, kept, self._bodies)

    def run(
        self, inputs: Mapping[str, object], states: Mapping[Node, np.ndarray] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[Node, np.ndarray]]:
        """Return the outputs by name, and the new values of the updated states.

        Neither ``inputs`` nor ``states`` is written to, and no result shares memory with them.
        """
        arrays, sizes = self.binder.bind(inputs)
        known = dict(zip(self.binder.symbols, sizes, strict=True))
        context = Context(known, self.promote, self.training, self._bodies, self.check_nan)
        values: dict[Node, np.ndarray] = dict(zip(self.inputs, arrays, strict=True))
        named = dict(zip(self.binder.names, arrays, strict=True))
        check_requirements(self.program, named, context.sizes)
        for state in self.states:
            values[state] = _state_value(state, states or {}, context)
        with np.errstate(all="ignore"):
            self._evaluation.run(values, context)
        outputs = {name: _owned(values[node]) for name, node in self.program.outputs}
        updates = {state: _owned(values[new]) for state, new in self.program.updates}
        return outputs, updates


def run_program(
    program: Program,
    inputs: Mapping[str, object],
    states: Mapping[Node, np.ndarray] | None = None,
    promote: bool = False,
    training: bool = False,
) -> tuple[dict[str, np.ndarray], dict[Node, np.ndarray]]:
    """Run ``program`` once; see `Interpreter` and `Interpreter.run`."""
    return Interpreter(program, promote, training).run(inputs, states)


def _owned(value: np.ndarray) -> np.ndarray:
    return np.array(value, order="C", copy=True)


def _state_value(state: Node, states: Mapping[Node, np.ndarray], context: Context) -> np.ndarray:
    if state not in states:
        raise InputError(locate(f"state {state.op!r} has no value", state.source))
    value = np.asarray(states[state], dtype=context.dtype(state.dtype))
    if value.shape != context.shape(state.shape):
        raise InputError(
            locate(f"state {state.op!r}: got shape {format_shape(value.shape)}", state.source)
        )
    return value


def _evaluate_node(node: Node, values: Mapping[Node, np.ndarray], context: Context) -> np.ndarray:
    try:
        shape = context.shape(node.shape)
    except KeyError as missing:
        raise InputError(
            locate(f"{node.op.name}: no input determines the size {missing.args[0]!r}", node.source)
        ) from None
    value = _EVALUATORS[type(node.op)](node.op, node, [values[x] for x in node.inputs], context)
    return _checked(node, np.asarray(value), shape, context)


def _checked(node: Node, value: np.ndarray, shape: tuple[int, ...], context: Context) -> np.ndarray:
    if value.shape != shape or value.dtype != context.dtype(node.dtype):
        raise VerificationError(
            locate(
                f"{node!r} evaluated to {value.dtype}{format_shape(value.shape)} "
                f"where {format_shape(shape)} is expected",
                node.source,
            )
        )
    return value


# -- leaves ---------------------------------------------------------------------------------------


def _constant(op: ops.Constant, node: Node, args: Args, context: Context) -> np.ndarray:
    return op.value.array.astype(context.dtype(node.dtype), copy=False)


def _extent(op: ops.Extent, node: Node, args: Args, context: Context) -> np.ndarray:
    return np.asarray(context.size(op.dim), context.dtype(node.dtype))


def _iota(op: ops.Iota, node: Node, args: Args, context: Context) -> np.ndarray:
    shape, axis = context.shape(node.shape), op.axis
    along = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(along.astype(context.dtype(node.dtype)), shape)


def _random_bits(op: ops.RandomBits, node: Node, args: Args, context: Context) -> np.ndarray:
    return random_bits(int(args[0]), context.shape(node.shape), stream=op.stream, word=op.word)


# -- elementwise ----------------------------------------------------------------------------------


def _map(op: ops.Map, node: Node, args: Args, context: Context) -> np.ndarray:
    for position in _divisors(op.function):
        dim = _extent_behind(node.inputs[position])
        if dim is not None and context.size(dim) == 0:
            raise InputError(
                locate(f"mean over an axis of size 0: {dim} divides by zero", node.source)
            )
    result = evaluate_function(op.function, args)
    return np.broadcast_to(result, context.shape(node.shape))


def _divisors(function: str | Formula) -> list[int]:
    """Return which of a function's inputs it divides by as they are."""
    if isinstance(function, str):
        return {"div": [1], "reciprocal": [0]}.get(function, [])
    names = {
        str(term.args[-1].value)
        for term in subterms(function.body)
        if term.op in {"div", "reciprocal"} and term.args[-1].op == "param"
    }
    return [i for i, name in enumerate(function.params) if name in names]


def _extent_behind(node: Node) -> Dim | None:
    """Return the dimension whose size ``node`` repeats, else None."""
    while isinstance(node.op, (ops.Cast, ops.Broadcast, ops.Reshape)):
        node = node.inputs[0]
    return node.op.dim if isinstance(node.op, ops.Extent) else None


def _cast(op: ops.Cast, node: Node, args: Args, context: Context) -> np.ndarray:
    return args[0].astype(context.dtype(op.dtype), copy=False)


# -- contraction and reduction --------------------------------------------------------------------


def _contract(op: ops.Contract, node: Node, args: Args, context: Context) -> np.ndarray:
    return contract(
        args[0],
        args[1],
        context.shape(op.sizes),
        op.maps,
        op.output_map,
        context.shape(op.output_shape),
    )


def _flat_contract(op: ops.FlatContract, node: Node, args: Args, context: Context) -> np.ndarray:
    """Collect both operands as matrices, then multiply."""
    *batch, m, n, k = context.shape(op.sizes)
    tables = iter(args[2:])
    matrices = []
    for x, steps, shape in ((args[0], op.left, (m, k)), (args[1], op.right, (k, n))):
        offset, *strides = context.shape(steps)
        if len(strides) == len(batch):
            along = [next(tables), next(tables)]
        else:
            along = [np.arange(size) * step for size, step in zip(shape, strides[-2:], strict=True)]
        places = offset + along[0][:, None] + along[1]
        for size, step in zip(reversed(batch), reversed(strides[: len(batch)]), strict=True):
            whole = (-1, *[1] * places.ndim)
            places = (np.arange(size) * step).reshape(whole) + places
        if places.size and not 0 <= places.min() <= places.max() < x.size:
            raise VerificationError(locate(f"{node!r} reads beyond an operand", node.source))
        matrices.append(x.reshape(-1)[places])
    return np.matmul(*matrices)


_REDUCERS: dict[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]] = {
    "sum": sum_over,
    "prod": lambda x, axes: np.prod(x, axis=axes, dtype=x.dtype),
    "max": lambda x, axes: np.max(x, axis=axes),
    "min": lambda x, axes: np.min(x, axis=axes),
    "argmax": lambda x, axes: np.argmax(x, axis=axes[0]).astype(np.int64),
    "argmin": lambda x, axes: np.argmin(x, axis=axes[0]).astype(np.int64),
}


def _reduce(op: ops.Reduce, node: Node, args: Args, context: Context) -> np.ndarray:
    (x,) = args
    if not op.axes:
        return x
    if op.kind not in {"sum", "prod"} and any(x.shape[axis] == 0 for axis in op.axes):
        raise InputError(locate(f"{op.kind} over an axis of size 0 has no value", node.source))
    return _REDUCERS[op.kind](x, op.axes)


# -- views ----------------------------------------------------------------------------------------


def _reshape(op: ops.Reshape, node: Node, args: Args, context: Context) -> np.ndarray:
    return args[0].reshape(context.shape(node.shape))


def _slice(op: ops.Slice, node: Node, args: Args, context: Context) -> np.ndarray:
    (x,) = args
    cuts = []
    for axis, (start, size, step) in enumerate(zip(op.starts, op.sizes, op.steps, strict=True)):
        first, count = context.size(start), context.size(size)
        last = first + (count - 1) * step
        if count < 0 or (count and not 0 <= first <= last < x.shape[axis]):
            raise InputError(
                locate(
                    f"slice: {count} elements from {first} in steps of {step} leave "
                    f"axis {axis} of size {x.shape[axis]}",
                    node.source,
                )
            )
        cuts.append(slice(first, last + 1, step) if count else slice(0, 0))
    return x[tuple(cuts)]


def _pad(op: ops.Pad, node: Node, args: Args, context: Context) -> np.ndarray:
    """Negative padding crops, as the adjoint of a slice that leaves a remainder needs."""
    (x,) = args
    shape = context.shape(node.shape)
    if min(shape, default=0) < 0:
        raise InputError(locate(f"pad: the result has shape {format_shape(shape)}", node.source))
    kept, placed = [], []
    for axis, (low, interior) in enumerate(zip(op.low, op.interior, strict=True)):
        position = context.size(low) + np.arange(x.shape[axis]) * (interior + 1)
        inside = np.flatnonzero((position >= 0) & (position < shape[axis]))
        kept.append(inside)
        placed.append(position[inside])
    result = np.zeros(shape, dtype=x.dtype)
    if x.ndim:
        result[np.ix_(*placed)] = x[np.ix_(*kept)]
    else:
        result[...] = x
    return result


def _window(op: ops.Window, node: Node, args: Args, context: Context) -> np.ndarray:
    (x,) = args
    shape = context.shape(op.shape)
    places = []
    for affine, dim in zip(op.map, x.shape, strict=True):
        place = np.full([1] * len(shape), affine.offset, np.int64)
        for index, coefficient in affine.terms:
            along = [-1 if axis == index else 1 for axis in range(len(shape))]
            place = place + coefficient * np.arange(shape[index]).reshape(along)
        if 0 not in shape and not 0 <= place.min() <= place.max() < dim:
            raise VerificationError(locate(f"{node!r} reads beyond its operand", node.source))
        places.append(np.broadcast_to(place, shape))
    return x[tuple(places)] if places else np.broadcast_to(x, shape)


# -- indexing -------------------------------------------------------------------------------------


def _checked_indices(node: Node, indices: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Return ``indices`` as int64; raises IndexRangeError at the first one outside ``axis``."""
    wide = indices.astype(np.int64)
    outside = np.argwhere((wide < 0) | (wide >= size))
    if len(outside):
        position = tuple(int(i) for i in outside[0])
        holder = node.inputs[1].op
        label = f" of {holder.label!r}" if isinstance(holder, (ops.Input, ops.State)) else ""
        at = f" at position {position}{label}" if position else label
        fits = f"0 to {size - 1} would fit" if size else "no index fits"
        raise IndexRangeError(
            locate(
                f"{node.op.name}: index {wide[position]}{at} is outside axis {axis} "
                f"of size {size}; {fits}",
                node.source,
            )
        )
    return wide


def _gather(op: ops.Gather, node: Node, args: Args, context: Context) -> np.ndarray:
    x, indices = args
    axis = op.axis
    return np.take(x, _checked_indices(node, indices, axis, x.shape[axis]), axis=axis)


def _scatter_add(op: ops.ScatterAdd, node: Node, args: Args, context: Context) -> np.ndarray:
    """Add the updates one after another, in the row-major order of the indices."""
    updates, indices = args
    axis, size = op.axis, context.size(op.size)
    flat = _checked_indices(node, indices, axis, size).reshape(-1)
    before, after = updates.shape[:axis], updates.shape[axis + indices.ndim :]
    rows = np.moveaxis(updates.reshape(*before, flat.size, *after), axis, 0)
    result = np.zeros((size, *before, *after), dtype=updates.dtype)
    np.add.at(result, flat, rows)
    return np.moveaxis(result, 0, axis)


# -- loops and branches ---------------------------------------------------------------------------


def _evaluate_family(nodes: list[Node], values: dict[Node, np.ndarray], context: Context) -> None:
    """Run a loop or branch once, and give each of its nodes its value."""
    op, inputs = nodes[0].op, nodes[0].inputs
    assert isinstance(op, ops.Nested)
    results = _LOOPS[type(op)](op, [values[x] for x in inputs], context)
    for node in nodes:
        assert isinstance(node.op, ops.Nested)
        value = np.asarray(results[node.op.output])
        values[node] = _checked(node, value, context.shape(node.shape), context)


def _run_body(body: ops.Body, args: Args, context: Context) -> Args:
    values = dict(zip(body.formals, args, strict=True))
    context.bodies[body].run(values, context)
    return [values[node] for node in body.results]


def _scan(op: ops.Scan, args: Args, context: Context) -> Args:
    """One step after the other; a step's results are kept where its items came from."""
    first, last = op.carries, op.carries + op.sequences
    carries, sequences, outer = args[:first], args[first:last], args[last:]
    length = context.size(op.length)
    stacked = [
        np.empty((length, *context.shape(node.shape)), context.dtype(node.dtype))
        for node in op.body.results[first:]
    ]
    for step in reversed(range(length)) if op.reverse else range(length):
        results = _run_body(op.body, [*carries, *(s[step] for s in sequences), *outer], context)
        carries = results[:first]
        for stack, value in zip(stacked, results[first:], strict=True):
            stack[step] = value
    return [*carries, *stacked]


def _cond(op: ops.Cond, args: Args, context: Context) -> Args:
    return _run_body(op.then if args[0] else op.other, args[1:], context)


def _while(op: ops.While, args: Args, context: Context) -> Args:
    count = len(op.body.results)
    carries, outer = args[:count], args[count:]
    while _run_body(op.condition, [*carries, *outer], context)[0]:
        carries = _run_body(op.body, [*carries, *outer], context)
    return carries


_LOOPS: dict[type[ops.Op], Callable[..., Args]] = {
    ops.Scan: _scan,
    ops.Cond: _cond,
    ops.While: _while,
    ops.CustomGradient: lambda op, args, context: args[: op.count],
}


def _arg_sort(op: ops.ArgSort, node: Node, args: Args, context: Context) -> np.ndarray:
    """Descending: sort backwards and turn round, so that equals keep their order and NaN leads."""
    (x,) = args
    if not op.descending:
        return np.argsort(x, axis=op.axis, kind="stable")
    backwards = np.argsort(np.flip(x, op.axis), axis=op.axis, kind="stable")
    return x.shape[op.axis] - 1 - np.flip(backwards, op.axis)


# -- running values -------------------------------------------------------------------------------


def _linear_recurrence(
    op: ops.LinearRecurrence, node: Node, args: Args, context: Context
) -> np.ndarray:
    a, b = (np.moveaxis(x, op.axis, 0) for x in args)
    result = np.array(b)
    order = range(len(b))[:: -1 if op.reverse else 1]
    for before, here in itertools.pairwise(order):
        result[here] = a[here] * result[before] + b[here]
    return np.moveaxis(result, 0, op.axis)


def _running_extremum(
    op: ops.RunningExtremum, node: Node, args: Args, context: Context
) -> np.ndarray:
    (x,) = args
    accumulate = {"max": np.maximum, "min": np.minimum}[op.kind].accumulate
    if op.reverse:
        return np.flip(accumulate(np.flip(x, op.axis), axis=op.axis), op.axis)
    return accumulate(x, axis=op.axis)


_EVALUATORS: dict[type[ops.Op], Callable[..., np.ndarray]] = {
    ops.Constant: _constant,
    ops.Extent: _extent,
    ops.Training: lambda op, node, args, context: np.asarray(context.training),
    ops.Iota: _iota,
    ops.RandomBits: _random_bits,
    ops.Map: _map,
    ops.Cast: _cast,
    ops.Contract: _contract,
    ops.FlatContract: _flat_contract,
    ops.Reduce: _reduce,
    ops.Reshape: _reshape,
    ops.Transpose: lambda op, node, args, context: args[0].transpose(op.permutation),
    ops.Broadcast: lambda op, node, args, context: np.broadcast_to(
        args[0], context.shape(node.shape)
    ),
    ops.Slice: _slice,
    ops.Pad: _pad,
    ops.Window: _window,
    ops.Flip: lambda op, node, args, context: np.flip(args[0], op.axes),
    ops.Concat: lambda op, node, args, context: np.concatenate(args, axis=op.axis),
    ops.Gather: _gather,
    ops.ScatterAdd: _scatter_add,
    ops.ArgSort: _arg_sort,
    ops.LinearRecurrence: _linear_recurrence,
    ops.RunningExtremum: _running_extremum,
}
