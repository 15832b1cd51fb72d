"""Constants: what is known at compile time is computed at compile time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..ir import ops
from ..ir.graph import Node, Program, constant
from ..ir.rewrite import OnFire, Rule, apply_rules, replace_nodes

#: A constant of more elements than this is left to run time: programs stay small.
LARGEST = 256


def _from_math(function: Callable[[float], float]) -> Callable[..., np.ndarray]:
    def apply(x: np.ndarray) -> np.ndarray:
        return np.vectorize(function, otypes=[x.dtype])(x)

    return apply


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


#: Elementary functions that NumPy computes as their names say; the rest are not folded.
_FOLDED: dict[str, Callable[..., np.ndarray]] = {
    **{
        name: getattr(np, name)
        for name in (
            *("sign", "square", "minimum", "maximum", "reciprocal", "sqrt", "cbrt", "copysign"),
            *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "floor", "ceil", "trunc"),
            *("sin", "cos", "tan", "sinh", "cosh", "tanh", "rint", "isnan", "isinf", "isfinite"),
            *("logical_not", "logical_and", "logical_or", "logical_xor", "where"),
        )
    },
    "neg": np.negative,
    "abs": np.abs,
    "relu": lambda x: np.maximum(x, 0),
    "stop_gradient": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "erf": _from_math(math.erf),
    "erfc": _from_math(math.erfc),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def _arrays(node: Node) -> list[np.ndarray] | None:
    if any(not isinstance(x.op, ops.Constant) for x in node.inputs):
        return None
    if not isinstance(node.type.size, int) or node.type.size > LARGEST:
        return None
    return [x.op.value.array for x in node.inputs]  # type: ignore[attr-defined]


def _fold_map(node: Node) -> Node | None:
    arrays = _arrays(node)
    if arrays is None or node.op.function not in _FOLDED:  # type: ignore[attr-defined]
        return None
    with np.errstate(all="ignore"):
        value = _FOLDED[node.op.function](*arrays)  # type: ignore[attr-defined]
    return constant(value, node.dtype, node.source)


def _fold_cast(node: Node) -> Node | None:
    arrays = _arrays(node)
    if arrays is None:
        return None
    with np.errstate(all="ignore"):
        return constant(arrays[0].astype(node.dtype), node.dtype, node.source)


def _fold_view(node: Node) -> Node | None:
    arrays = _arrays(node)
    if arrays is None:
        return None
    if isinstance(node.op, ops.Transpose):
        value = arrays[0].transpose(node.op.permutation)
    else:
        value = arrays[0].reshape(node.shape)
    return constant(value, node.dtype, node.source)


_WHY = "the same function of the same element type, once"

RULES = (
    Rule("fold_function", "f(constants)", "constant", _WHY, root=ops.Map, replace=_fold_map),
    Rule("fold_cast", "cast(constant)", "constant", _WHY, root=ops.Cast, replace=_fold_cast),
    Rule("fold_reshape", "reshape(constant)", "constant", _WHY, root=ops.Reshape,
         replace=_fold_view),
    Rule("fold_transpose", "transpose(constant)", "constant", _WHY, root=ops.Transpose,
         replace=_fold_view),
)  # fmt: skip


def fold_constants(program: Program, on_fire: OnFire | None = None) -> Program:
    """Return ``program`` with functions of small constants computed."""
    return apply_rules(program, RULES, on_fire)


def specialize_mode(program: Program, training: bool) -> Program:
    """Return ``program`` with `ops.Training` replaced by ``training``.

    `canonicalize` then drops the branches that are not taken.
    """

    def substitute(node: Node) -> Node | None:
        return constant(training, "bool") if isinstance(node.op, ops.Training) else None

    return program.with_roots(replace_nodes(program.roots, substitute))


def drop_gradient_rules(program: Program) -> Program:
    """Return ``program`` with values in place of `ops.CustomGradient`: all gradients are taken."""

    def substitute(node: Node) -> Node | None:
        return node.inputs[node.op.output] if isinstance(node.op, ops.CustomGradient) else None

    return program.with_roots(replace_nodes(program.roots, substitute))


def drop_idle_updates(program: Program) -> Program:
    """Return ``program`` without the updates that give a state its own old value back.

    Inference leaves such updates behind, of random states and running statistics.
    """
    kept = tuple((state, value) for state, value in program.updates if value is not state)
    return replace(program, updates=kept)
