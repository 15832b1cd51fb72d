"""The type of every primitive's result: one rule each, in one table.

A rule raises GraphError (shapes) or GraphTypeError (element types); the message names the user's
line, the operator, the shapes, and what would fit.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import GraphError, GraphTypeError, SourceLine, locate
from . import ops
from .dims import format_shape, product
from .scalars import SCALAR_FUNCTIONS, Formula, Term
from .types import FLOATS, INTEGERS, Dim, Shape, TensorType

Types = tuple[TensorType, ...]


class _Misfit(Exception):
    """A rule's complaint, before the operator and line are added."""

    def __init__(self, text: str, error: type[Exception] = GraphError) -> None:
        super().__init__(text)
        self.error = error


def infer_type(op: ops.Op, inputs: Types, source: SourceLine | None) -> TensorType:
    """Return the type of ``op`` over inputs of the given types."""
    try:
        return _RULES[type(op)](op, inputs)
    except _Misfit as misfit:
        given = ", ".join(map(str, inputs))
        message = f"{op.name}: {misfit}" + (f" (got {given})" if given else "")
        raise misfit.error(locate(message, source)) from None


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the NumPy broadcast of ``shapes``; raises ValueError where they do not fit.

    A symbolic dimension fits itself and 1.
    """
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Dim] = []
    for axis in range(-rank, 0):
        dims = [shape[axis] for shape in shapes if len(shape) >= -axis]
        wide = {dim for dim in dims if dim != 1}
        if len(wide) > 1:
            listed = " and ".join(format_shape(shape) for shape in shapes)
            raise ValueError(
                f"shapes {listed} do not broadcast: axis {axis} has "
                f"{' and '.join(sorted(map(str, wide)))}; equal sizes or 1 would fit"
            )
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def _broadcast(inputs: Types) -> Shape:
    try:
        return broadcast_shapes(*(t.shape for t in inputs))
    except ValueError as error:
        raise _Misfit(str(error)) from None


def _same_dtype(inputs: Types) -> str:
    dtypes = {t.dtype for t in inputs}
    if len(dtypes) != 1:
        raise _Misfit(
            f"element types {' and '.join(sorted(dtypes))} differ; cast one of them", GraphTypeError
        )
    return dtypes.pop()


def _require(dtype: str, allowed: frozenset[str], what: str) -> None:
    if dtype not in allowed:
        raise _Misfit(f"needs {what} elements, not {dtype}", GraphTypeError)


_NUMBERS = FLOATS | INTEGERS
_BOOL = frozenset({"bool"})


def _scalar_dtype(name: str, inputs: Types) -> str:
    row = SCALAR_FUNCTIONS[name]
    if len(inputs) != row.arity:
        raise _Misfit(f"takes {row.arity} inputs, not {len(inputs)}")
    if row.kind == "select":
        _require(inputs[0].dtype, _BOOL, "bool condition")
        return _same_dtype(inputs[1:])
    dtype = _same_dtype(inputs)
    match row.kind:
        case "arithmetic":
            _require(dtype, _NUMBERS, "numeric")
            return dtype
        case "float":
            _require(dtype, FLOATS, "floating-point")
            return dtype
        case "test":
            _require(dtype, FLOATS, "floating-point")
            return "bool"
        case "logic":
            _require(dtype, _BOOL, "bool")
            return "bool"
        case "bits":
            _require(dtype, INTEGERS, "integer")
            return dtype
        case _:
            return "bool"


def _term_dtype(term: Term, dtype: str) -> str:
    """Return ``dtype`` or "bool": the element type of a formula's body."""
    row = SCALAR_FUNCTIONS.get(term.op)
    if row is None:
        return dtype
    return "bool" if row.kind in {"compare", "logic", "test"} else dtype


def _map(op: ops.Map, inputs: Types) -> TensorType:
    if isinstance(op.function, Formula):
        if len(inputs) != len(op.function.params):
            names = ", ".join(op.function.params)
            raise _Misfit(f"takes {len(op.function.params)} inputs ({names}), not {len(inputs)}")
        dtype = _same_dtype(inputs)
        _require(dtype, FLOATS, "floating-point")
        dtype = _term_dtype(op.function.body, dtype)
    else:
        if op.function not in SCALAR_FUNCTIONS:
            raise _Misfit(f"no elementary function is called {op.function!r}")
        dtype = _scalar_dtype(op.function, inputs)
    return TensorType(dtype, _broadcast(inputs))


def _contract(op: ops.Contract, inputs: Types) -> TensorType:
    dtype = _same_dtype(inputs)
    _require(dtype, _NUMBERS, "numeric")
    for operand, index_map in zip(inputs, op.maps, strict=True):
        if operand.rank != len(index_map):
            raise _Misfit(f"operand of rank {operand.rank} has an index map of {len(index_map)}")
    if len(op.output_map) != len(op.output_shape):
        raise _Misfit("output map and output shape differ in rank")
    return TensorType(dtype, op.output_shape)


def _flat_contract(op: ops.FlatContract, inputs: Types) -> TensorType:
    dtype = _same_dtype(inputs[:2])
    _require(dtype, FLOATS, "floating-point")
    *batch, m, n, k = op.sizes
    lengths = []
    for operand, extents in ((op.left, (m, k)), (op.right, (k, n))):
        if len(operand) not in (len(op.sizes), len(op.sizes) - 2):
            raise _Misfit(f"{format_shape(operand)} are no steps for {format_shape(op.sizes)}")
        lengths += extents if len(operand) < len(op.sizes) else ()
    for table, length in zip(inputs[2:], lengths, strict=True):
        if table != TensorType("int64", (length,)):
            raise _Misfit(f"a table is int64({length},)")
    return TensorType(dtype, (*batch, m, n))


def _reduce(op: ops.Reduce, inputs: Types) -> TensorType:
    (x,) = inputs
    if op.kind not in ops.REDUCTIONS:
        raise _Misfit(f"no reduction is called {op.kind!r}")
    if list(op.axes) != sorted(set(op.axes)) or any(not 0 <= a < x.rank for a in op.axes):
        raise _Misfit(f"axes {op.axes} do not fit rank {x.rank}")
    if op.kind in {"argmax", "argmin"} and len(op.axes) != 1:
        raise _Misfit("takes exactly one axis")
    if op.kind in {"max", "min", "argmax", "argmin"} and any(x.shape[a] == 0 for a in op.axes):
        raise _Misfit("has no value over an axis of size 0")
    if op.kind in {"sum", "prod"}:
        _require(x.dtype, _NUMBERS, "numeric")
    shape = tuple(dim for axis, dim in enumerate(x.shape) if axis not in op.axes)
    return TensorType("int64" if op.kind.startswith("arg") else x.dtype, shape)


def _reshape(op: ops.Reshape, inputs: Types) -> TensorType:
    (x,) = inputs
    if product(op.shape) != x.size:
        raise _Misfit(
            f"{format_shape(x.shape)} has {x.size} elements and cannot become "
            f"{format_shape(op.shape)} with {product(op.shape)}"
        )
    return TensorType(x.dtype, op.shape)


def _transpose(op: ops.Transpose, inputs: Types) -> TensorType:
    (x,) = inputs
    if sorted(op.permutation) != list(range(x.rank)):
        raise _Misfit(f"{op.permutation} is no permutation of the {x.rank} axes")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in op.permutation))


def _broadcast_to(op: ops.Broadcast, inputs: Types) -> TensorType:
    (x,) = inputs
    try:
        fits = broadcast_shapes(x.shape, op.shape) == op.shape
    except ValueError:
        fits = False
    if not fits:
        raise _Misfit(f"{format_shape(x.shape)} does not broadcast to {format_shape(op.shape)}")
    return TensorType(x.dtype, op.shape)


def _slice(op: ops.Slice, inputs: Types) -> TensorType:
    (x,) = inputs
    if not len(op.starts) == len(op.sizes) == len(op.steps) == x.rank:
        raise _Misfit(f"needs a start, size and step for each of the {x.rank} axes")
    for axis, (dim, start, size, step) in enumerate(
        zip(x.shape, op.starts, op.sizes, op.steps, strict=True)
    ):
        if step < 1:
            raise _Misfit(f"step {step} on axis {axis} is not positive; use flip to reverse")
        if (
            isinstance(dim, int)
            and isinstance(start, int)
            and isinstance(size, int)
            and size > 0
            and not 0 <= start <= start + (size - 1) * step < dim
        ):
            raise _Misfit(f"{start}:+{size}:{step} leaves axis {axis} of size {dim}")
    return TensorType(x.dtype, op.sizes)


def _pad(op: ops.Pad, inputs: Types) -> TensorType:
    (x,) = inputs
    if not len(op.low) == len(op.high) == len(op.interior) == x.rank:
        raise _Misfit(f"needs low, high and interior for each of the {x.rank} axes")
    shape = []
    for dim, low, high, interior in zip(x.shape, op.low, op.high, op.interior, strict=True):
        inner = dim if interior == 0 else (dim - 1) * (interior + 1) + 1
        shape.append(low + inner + high)
    return TensorType(x.dtype, tuple(shape))


def _flip(op: ops.Flip, inputs: Types) -> TensorType:
    (x,) = inputs
    if any(not 0 <= axis < x.rank for axis in op.axes):
        raise _Misfit(f"axes {op.axes} do not fit rank {x.rank}")
    return x


def _window(op: ops.Window, inputs: Types) -> TensorType:
    (x,) = inputs
    if len(op.map) != x.rank:
        raise _Misfit(f"operand of rank {x.rank} has an index map of {len(op.map)}")
    return TensorType(x.dtype, op.shape)


def _concat(op: ops.Concat, inputs: Types) -> TensorType:
    if not inputs:
        raise _Misfit("needs at least one input")
    dtype = _same_dtype(inputs)
    first = inputs[0]
    if not 0 <= op.axis < first.rank:
        raise _Misfit(f"axis {op.axis} does not fit rank {first.rank}")
    total: Dim = 0
    for x in inputs:
        if x.rank != first.rank or any(
            a != b
            for axis, (a, b) in enumerate(zip(x.shape, first.shape, strict=True))
            if axis != op.axis
        ):
            raise _Misfit(f"all axes but axis {op.axis} must be equal")
        total = x.shape[op.axis] + total
    shape = (*first.shape[: op.axis], total, *first.shape[op.axis + 1 :])
    return TensorType(dtype, shape)


def _gather(op: ops.Gather, inputs: Types) -> TensorType:
    x, indices = inputs
    if not 0 <= op.axis < x.rank:
        raise _Misfit(f"axis {op.axis} does not fit rank {x.rank}")
    _require(indices.dtype, INTEGERS, "integer index")
    shape = (*x.shape[: op.axis], *indices.shape, *x.shape[op.axis + 1 :])
    return TensorType(x.dtype, shape)


def _scatter_add(op: ops.ScatterAdd, inputs: Types) -> TensorType:
    updates, indices = inputs
    _require(indices.dtype, INTEGERS, "integer index")
    _require(updates.dtype, _NUMBERS, "numeric")
    end = op.axis + indices.rank
    if updates.shape[op.axis : end] != indices.shape:
        raise _Misfit(f"axes {op.axis} to {end - 1} of the updates must match the indices")
    return TensorType(updates.dtype, (*updates.shape[: op.axis], op.size, *updates.shape[end:]))


def _along(axis: int, x: TensorType) -> None:
    if not 0 <= axis < x.rank:
        raise _Misfit(f"axis {axis} does not fit rank {x.rank}")


def _arg_sort(op: ops.ArgSort, inputs: Types) -> TensorType:
    (x,) = inputs
    _along(op.axis, x)
    return TensorType("int64", x.shape)


def _linear_recurrence(op: ops.LinearRecurrence, inputs: Types) -> TensorType:
    a, b = inputs
    _require(_same_dtype(inputs), _NUMBERS, "numeric")
    if a.shape != b.shape:
        raise _Misfit("factors and summands must be of one shape")
    _along(op.axis, a)
    return b


def _running_extremum(op: ops.RunningExtremum, inputs: Types) -> TensorType:
    (x,) = inputs
    if op.kind not in {"max", "min"}:
        raise _Misfit(f"an extremum is max or min, not {op.kind!r}")
    _require(x.dtype, _NUMBERS, "numeric")
    _along(op.axis, x)
    return x


def _random_bits(op: ops.RandomBits, inputs: Types) -> TensorType:
    (state,) = inputs
    if state.rank != 0 or state.dtype != "int64":
        raise _Misfit("takes a 0-d int64 state")
    return TensorType("uint32", op.shape)


def _constant(op: ops.Constant, inputs: Types) -> TensorType:
    return TensorType(op.value.array.dtype.name, op.value.array.shape)


def _check_arguments(body: ops.Body, given: Types, what: str) -> None:
    if len(body.formals) != len(given):
        raise _Misfit(f"{what} takes {len(body.formals)} values, not {len(given)}")
    for position, (formal, kind) in enumerate(zip(body.formals, given, strict=True)):
        if formal.type != kind:
            raise _Misfit(f"value {position} of {what} is {formal.type}, not {kind}")


def _check_carries(results: Types, carries: Types) -> None:
    for position, (kind, wanted) in enumerate(zip(results, carries, strict=True)):
        if kind != wanted:
            raise _Misfit(f"carry {position} begins as {wanted} and becomes {kind}")


def _output(op: ops.Nested, results: Types) -> TensorType:
    if not 0 <= op.output < len(results):
        raise _Misfit(f"has {len(results)} outputs and no output {op.output}")
    return results[op.output]


def _result_types(body: ops.Body) -> Types:
    return tuple(node.type for node in body.results)


def _scan(op: ops.Scan, inputs: Types) -> TensorType:
    first, last = op.carries, op.carries + op.sequences
    items = []
    for position, kind in enumerate(inputs[first:last]):
        if not kind.shape or kind.shape[0] != op.length:
            raise _Misfit(f"sequence {position} has no {op.length} items along its first axis")
        items.append(TensorType(kind.dtype, kind.shape[1:]))
    _check_arguments(op.body, (*inputs[:first], *items, *inputs[last:]), "the step")
    results = _result_types(op.body)
    _check_carries(results[:first], inputs[:first])
    stacked = (TensorType(kind.dtype, (op.length, *kind.shape)) for kind in results[first:])
    return _output(op, (*results[:first], *stacked))


def _cond(op: ops.Cond, inputs: Types) -> TensorType:
    predicate, *operands = inputs
    _require_predicate(predicate)
    for body, what in ((op.then, "the first branch"), (op.other, "the second branch")):
        _check_arguments(body, tuple(operands), what)
    then, other = map(_result_types, op.bodies)
    if then != other:
        listed = " and ".join("(" + ", ".join(map(str, kinds)) + ")" for kinds in (then, other))
        raise _Misfit(f"the branches give {listed}")
    return _output(op, then)


def _while(op: ops.While, inputs: Types) -> TensorType:
    for body, what in ((op.condition, "the condition"), (op.body, "the step")):
        _check_arguments(body, inputs, what)
    if len(op.condition.results) != 1:
        raise _Misfit("the condition has one result")
    _require_predicate(op.condition.results[0].type)
    results = _result_types(op.body)
    _check_carries(results, inputs[: len(results)])
    return _output(op, results)


def _require_predicate(kind: TensorType) -> None:
    if kind != TensorType("bool", ()):
        raise _Misfit(f"the condition is {kind}; it must be one bool", GraphTypeError)


def _custom_gradient(op: ops.CustomGradient, inputs: Types) -> TensorType:
    end = op.count + len(op.rule.results)
    values, arguments, rest = inputs[: op.count], inputs[op.count : end], inputs[end:]
    _check_arguments(op.rule, (*values, *rest), "the rule")
    results = _result_types(op.rule)
    if results != arguments:
        raise _Misfit("the rule gives cotangents of other types than its arguments'")
    return _output(op, values)


_RULES: dict[type, Callable[..., TensorType]] = {
    ops.Input: lambda op, _: op.type,
    ops.State: lambda op, _: op.type,
    ops.Constant: _constant,
    ops.Extent: lambda op, _: TensorType(op.dtype, ()),
    ops.Training: lambda op, _: TensorType("bool", ()),
    ops.Iota: lambda op, _: op.type,
    ops.RandomBits: _random_bits,
    ops.Map: _map,
    ops.Cast: lambda op, inputs: TensorType(op.dtype, inputs[0].shape),
    ops.Contract: _contract,
    ops.FlatContract: _flat_contract,
    ops.Reduce: _reduce,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Broadcast: _broadcast_to,
    ops.Slice: _slice,
    ops.Pad: _pad,
    ops.Flip: _flip,
    ops.Window: _window,
    ops.Concat: _concat,
    ops.Gather: _gather,
    ops.ScatterAdd: _scatter_add,
    ops.Scan: _scan,
    ops.Cond: _cond,
    ops.While: _while,
    ops.ArgSort: _arg_sort,
    ops.LinearRecurrence: _linear_recurrence,
    ops.RunningExtremum: _running_extremum,
    ops.CustomGradient: _custom_gradient,
}
