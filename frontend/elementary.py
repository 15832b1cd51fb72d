"""Elementwise functions of nodes and scalars: promotion, then one `Map`."""

from __future__ import annotations

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.graph import Node
from ..compiler.ir.scalars import SCALAR_FUNCTIONS
from ..compiler.ir.types import FLOATS
from .promotion import Operand, common_dtype, convert, unify
from .tracing import build, fail

_EXACT_IN_INTEGERS = frozenset({"floor", "ceil", "trunc", "rint", "stop_gradient"})
_BITS = {"logical_and": "bit_and", "logical_or": "bit_or", "logical_xor": "bit_xor"}
_BOOL_EXTREMES = {"maximum": "logical_or", "minimum": "logical_and"}


def apply(function: str, *operands: Operand) -> Node:
    """Return the elementary function called ``function`` of ``operands``, promoted and broadcast.

    Raises GraphTypeError for element types that the function does not take, GraphError for shapes
    that do not broadcast.
    """
    match SCALAR_FUNCTIONS[function].kind:
        case "select":
            nodes = [*unify(operands[0]), *unify(*operands[1:])]
            nodes[0] = convert(nodes[0], "bool")
        case "float" | "test":
            if function in _EXACT_IN_INTEGERS and common_dtype(operands) not in FLOATS:
                return unify(*operands, numeric=True)[0]
            nodes = unify(*operands, floating=True)
        case "arithmetic":
            dtype = common_dtype(operands)
            if function in _EXACT_IN_INTEGERS and dtype not in FLOATS:
                return unify(*operands)[0]
            if dtype == "bool" and function in _BOOL_EXTREMES:
                function = _BOOL_EXTREMES[function]
                nodes = unify(*operands)
            else:
                nodes = unify(*operands, numeric=True)
        case "logic":
            nodes = [convert(unify(operand)[0], "bool") for operand in operands]
        case _:
            nodes = unify(*operands)
    return build(ops.Map(function), *nodes)


def logical(function: str, *operands: Operand) -> Node:
    """Return ``& | ^``: logical of bools, bitwise of integers; GraphTypeError for floats."""
    nodes = unify(*operands)
    if nodes[0].dtype in FLOATS:
        fail(f"{function}: & | ^ take bools or integers, not {nodes[0].dtype}", GraphTypeError)
    if nodes[0].dtype != "bool":
        function = _BITS[function]
    return build(ops.Map(function), *nodes)


def invert(x: Node) -> Node:
    """Return ``~x``: logical of bools, bitwise of integers; GraphTypeError for floats."""
    if x.dtype in FLOATS:
        fail(f"~ takes bools or integers, not {x.dtype}", GraphTypeError)
    return apply("logical_not" if x.dtype == "bool" else "bit_not", x)


def clip(x: Operand, low: Operand | None, high: Operand | None) -> Node:
    """Return ``x`` limited to ``[low, high]``; None leaves a side open.

    NaN stays NaN, and the derivative at a bound itself is 1, as in PyTorch.
    """
    result = x
    if low is not None:
        result = apply("where", apply("lt", result, low), low, result)
    if high is not None:
        result = apply("where", apply("gt", result, high), high, result)
    return unify(result)[0]


#: Constant exponent -> elementary functions, innermost first.
_POWERS = {
    1.0: (),
    2.0: ("square",),
    4.0: ("square", "square"),
    0.5: ("sqrt",),
    -0.5: ("rsqrt",),
    -1.0: ("reciprocal",),
    -2.0: ("square", "reciprocal"),
}


def power(base: Operand, exponent: Operand) -> Node:
    """Return ``base ** exponent``; small constant powers become products and roots, as in PyTorch.

    Integers to a non-negative constant integer stay integers; other integer powers raise
    GraphTypeError.
    """
    fixed = exponent if isinstance(exponent, (int, float, np.number)) else None
    dtype = common_dtype((base, exponent), numeric=True)
    if dtype not in FLOATS:
        if isinstance(fixed, (int, np.integer)) and fixed >= 0:
            return _integer_power(unify(base, dtype=dtype)[0], int(fixed))
        if fixed is None:
            return _integer_powers(*unify(base, exponent, dtype=dtype))
        fail(
            "power: an integer to a negative integer power; cast one to float32",
            GraphTypeError,
        )
    if fixed == 3:
        return apply("mul", power(base, 2), *unify(base, dtype=dtype))
    functions = _POWERS.get(float(fixed)) if fixed is not None else None
    if functions is None:
        return apply("pow", base, exponent)
    (result,) = unify(base, dtype=dtype)
    for function in functions:
        result = apply(function, result)
    return result


def _integer_powers(base: Node, exponent: Node) -> Node:
    """Return powers of integers, bit by bit; to a negative power 1, -1 and, of others, 0."""
    magnitude = apply("abs", base)
    odd = apply("eq", apply("mod", exponent, 2), 1)
    sign = apply("where", odd, base, magnitude)
    unit = apply("where", apply("eq", magnitude, 1), sign, 0)
    result: Operand = 1
    for bit in range(6):  # any other base overflows long before 2**6
        taken = apply("eq", apply("mod", apply("floordiv", exponent, 1 << bit), 2), 1)
        result = apply("where", taken, apply("mul", result, base), result)
        base = apply("mul", base, base)
    small = apply("le", magnitude, 1)
    zeroth = apply("where", apply("eq", exponent, 0), 1, unit)
    outside = logical("logical_or", small, apply("lt", exponent, 0))
    return apply("where", outside, zeroth, result)


def _integer_power(base: Node, exponent: int) -> Node:
    """Return a power by repeated squaring."""
    result = apply("add", apply("mul", base, 0), 1)
    first = True
    while exponent:
        if exponent & 1:
            result = base if first else apply("mul", result, base)
            first = False
        exponent >>= 1
        if exponent:
            base = apply("square", base)
    return result
