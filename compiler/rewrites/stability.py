"""Numerical stability: what a user writes naively is computed without overflow or cancellation.

The phase runs before differentiation, so that the gradient is that of the stable form, and after.
Each ``why`` says what the left side loses.  The identities hold wherever the left side is defined;
no rule makes a number of what is NaN by definition.

``whole`` rules make one formula of a function with a removable singularity or a cancelling
derivative, so that SymPy differentiates it as a whole; ``autodiff/expand.py`` lowers such formulas,
and their derivatives, to a Taylor polynomial near the singular point and a closed form elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import construct, ops
from ..ir.graph import Node, Program, apply, constant, make
from ..ir.rewrite import OnFire, Rule, apply_rules, rewrite_nodes, strip
from ..ir.scalars import Formula, call, param, parse_term
from .algebraic import RULES as ALGEBRAIC

_TAIL = "1 - p loses the tail: sigmoid(-x) keeps its relative precision"
_OVERFLOW = "exp overflows although the value is in range"
_CANCEL = "the difference cancels near 0"
_INVERSE = "the exponential overflows or underflows before the logarithm"


def _is_sum_of_exponentials(node: Node) -> bool:
    node = strip(node)
    while isinstance(node.op, ops.Reshape):
        node = strip(node.inputs[0])
    return isinstance(node.op, ops.Reduce) and node.op.kind == "sum" and _is(node.inputs[0], "exp")


def _is(node: Node, function: str) -> bool:
    node = strip(node)
    return isinstance(node.op, ops.Map) and node.op.function == function


EXPONENTIALS = (
    Rule("log_of_one_plus_exp_to_softplus", "log(exp(x) + 1)", "softplus(x)", _OVERFLOW),
    Rule("log1p_of_exp_to_softplus", "log1p(exp(x))", "softplus(x)", _OVERFLOW),
    Rule("one_over_one_plus_exp_to_sigmoid", "1 / (exp(x) + 1)", "sigmoid(-x)", _OVERFLOW),
    Rule("exp_over_one_plus_exp_to_sigmoid", "exp(x) / (exp(x) + 1)", "sigmoid(x)",
         "inf / inf for large x"),
    Rule("expm1_over_exp_plus_one", "expm1(x) / (exp(x) + 1)", "tanh(x * 0.5)",
         "inf / inf for large x"),
    Rule("quotient_by_one_plus_exp", "a / (exp(x) + 1)", "a * sigmoid(-x)", _OVERFLOW),
    Rule("exp_times_opposite_sigmoid", "exp(x) * sigmoid(-x)", "sigmoid(x)", "inf * 0 for large x"),
    Rule("one_minus_sigmoid", "1 - sigmoid(x)", "sigmoid(-x)", _TAIL),
    Rule("sigmoid_minus_one", "sigmoid(x) - 1", "-sigmoid(-x)", _TAIL),
    Rule("difference_of_opposite_sigmoids", "sigmoid(-x) - sigmoid(x)", "-tanh(x * 0.5)", _CANCEL),
    Rule("weighted_opposite_sigmoids", "sigmoid(-x) * p - sigmoid(x) * p", "-(tanh(x * 0.5) * p)",
         _CANCEL),
    Rule("weighted_opposite_sigmoids_twice", "h * sigmoid(-x) * p - h * sigmoid(x) * p",
         "-(tanh(x * 0.5) * h * p)", _CANCEL),
    Rule("log_of_sigmoid", "log(sigmoid(x))", "-softplus(-x)", "sigmoid underflows to 0"),
    Rule("log1p_of_minus_sigmoid", "log1p(-sigmoid(x))", "-softplus(x)", _TAIL),
    Rule("softplus_minus_argument", "softplus(x) - x", "softplus(-x)", _CANCEL),
    Rule("argument_minus_softplus", "x - softplus(x)", "-softplus(-x)", _CANCEL),
    Rule("exp_of_softplus", "exp(softplus(x))", "exp(x) + 1", "exact"),
    Rule("exp_of_minus_softplus", "exp(-softplus(x))", "sigmoid(-x)", "one function, not two"),
    Rule("log_of_exp", "log(exp(x))", "x", _INVERSE),
    Rule("log1p_of_expm1", "log1p(expm1(x))", "x", _INVERSE),
    Rule("expm1_of_log1p", "expm1(log1p(x))", "where(x >= -1, x, nan)", "NaN below -1 is kept"),
    Rule("exp_of_log", "exp(log(x))", "where(x >= 0, x, nan)", "NaN below 0 is kept"),
    Rule("exp_minus_one", "exp(x) - 1", "expm1(x)", _CANCEL),
    Rule("one_minus_exp", "1 - exp(x)", "-expm1(x)", _CANCEL),
    Rule("log_of_one_plus", "log(x + 1)", "log1p(x)", "1 + x rounds x away near 0"),
    Rule("log_of_one_minus", "log(1 - x)", "log1p(-x)", "1 - x rounds x away near 0"),
    Rule("log_of_one_minus_exp", "log(-expm1(x))",
         "where(x > -0.6931471805599453, log(expm1(-x)) + x, log1p(-exp(x)))",
         "1 - exp(x) rounds to 1 for x far below 0 (Mächler, 2012)"),
    Rule("root_of_exp", "sqrt(exp(x))", "exp(x * 0.5)", _OVERFLOW),
    Rule("square_of_exp", "square(exp(x))", "exp(x * 2)", "exp(2x) has the range of the result"),
    Rule("reciprocal_of_exp", "1 / exp(x)", "exp(-x)", _OVERFLOW),
    Rule("quotient_by_exp", "a / exp(x)", "a * exp(-x)", _OVERFLOW,
         lambda b: not _is(b["a"], "exp")),
    Rule("quotient_of_exps", "exp(a) / exp(b)", "exp(a - b)", "inf / inf for large arguments"),
    Rule("difference_of_opposite_exps", "exp(x) - exp(-x)", "sinh(x) * 2", _CANCEL),
    Rule("sum_of_opposite_exps", "exp(x) + exp(-x)", "cosh(x) * 2", "one function instead of two"),
    Rule("ratio_of_opposite_exps", "(sinh(x) * 2) / (cosh(x) * 2)", "tanh(x)",
         "inf / inf for large x"),
    Rule("sinh_over_cosh", "sinh(x) / cosh(x)", "tanh(x)", "inf / inf for large x"),
    Rule("log_of_exp_times", "log(exp(x) * a)", "x + log(a)", _INVERSE),
    Rule("log_of_exp_over", "log(exp(x) / a)", "x - log(a)",
         "log(softmax): the quotient underflows to 0"),
    Rule("log_of_sum_over", "log(a / b)", "log(a) - log(b)", "logarithm of a mean of exponentials",
         lambda b: _is_sum_of_exponentials(b["a"])),
    Rule("log_of_sum_times", "log(a * c)", "log(a) + log(c)",
         "logarithm of a mean of exponentials",
         lambda b: _is_sum_of_exponentials(b["a"])),
)  # fmt: skip

ROOTS_AND_ERRORS = (
    Rule("root_of_square", "sqrt(square(x))", "abs(x)", "the square over- and underflows"),
    Rule("one_minus_erf", "1 - erf(x)", "erfc(x)", "1 - erf loses the tail"),
    Rule("one_minus_erfc", "1 - erfc(x)", "erf(x)", _CANCEL),
    Rule("one_minus_cos", "1 - cos(x)", "square(sin(x * 0.5)) * 2", _CANCEL),
    Rule("cos_minus_one", "cos(x) - 1", "square(sin(x * 0.5)) * -2", _CANCEL),
    Rule("log_of_reciprocal", "log(1 / x)", "-log(x)", "1 / x over- and underflows"),
)

#: Functions with a removable singularity or a derivative that cancels: one formula each.
WHOLE = tuple(
    Rule(name, before, after, why, lambda b: not _is(b["x"], "where"), whole=True)
    for name, before, after, why in (
        ("expm1_over_argument", "expm1(x) / x", "expm1(x) / x", "0/0 at 0"),
        ("argument_over_expm1", "x / expm1(x)", "x / expm1(x)", "0/0 at 0"),
        ("log1p_over_argument", "log1p(x) / x", "log1p(x) / x", "0/0 at 0"),
        ("sine_over_argument", "sin(x) / x", "sin(x) / x", "0/0 at 0"),
        ("argument_over_sine", "x / sin(x)", "x / sin(x)", "0/0 at 0"),
        ("tangent_over_argument", "tan(x) / x", "tan(x) / x", "0/0 at 0"),
        ("arctangent_over_argument", "atan(x) / x", "atan(x) / x", "0/0 at 0"),
        ("tanh_over_argument", "tanh(x) / x", "tanh(x) / x", "0/0 at 0"),
        ("argument_over_tanh", "x / tanh(x)", "x / tanh(x)", "0/0 at 0"),
        ("sinh_over_argument", "sinh(x) / x", "sinh(x) / x", "0/0 at 0"),
        ("argument_over_sinh", "x / sinh(x)", "x / sinh(x)", "0/0 at 0"),
        ("erf_over_argument", "erf(x) / x", "erf(x) / x", "0/0 at 0"),
        (
            "log_over_argument_minus_one",
            "log(x) / (x - 1)",
            "log(x) / (x - 1)",
            "0/0 at 1",
        ),
        (
            "tanh_of_softplus",
            "tanh(softplus(x))",
            "exp(x) * (exp(x) + 2) / (exp(x) * (exp(x) + 2) + 2)",
            "1 - tanh² in the derivative loses the tail",
        ),
        (
            "root_of_square_plus_constant",
            "sqrt(square(x) + c)",
            "sqrt(square(x) + c)",
            "the second derivative cancels to c / s³ for large x",
        ),
    )
)


def _over_root_of_square(node: Node) -> Node | None:
    x, root = node.inputs
    if not isinstance(root.op, ops.Map) or root.op.function != _ROOT or root.inputs[0] is not x:
        return None
    return apply(_RATIO, *root.inputs)


_ROOT_BODY = parse_term("sqrt(add(square(x), c))")
_ROOT = Formula("sqrt(square(x) + c)", ("x", "c"), _ROOT_BODY)
_RATIO = Formula("x / sqrt(square(x) + c)", ("x", "c"), call("div", param("x"), _ROOT_BODY))
OVER_ROOT = (
    Rule("argument_over_root_of_square_plus_constant", "x / sqrt(square(x) + c)",
         "x / sqrt(square(x) + c), whole", "the derivative cancels to c / s³ for large x",
         root="div", replace=_over_root_of_square),
)  # fmt: skip


# -- sums of exponentials -------------------------------------------------------------------------


def _shift_of(x: Node, axes: tuple[int, ...]) -> Node:
    """Return the maximum of ``x`` over ``axes``, without gradient, 0 where it is not finite."""
    largest = apply("stop_gradient", make(ops.Reduce("max", axes), x, source=x.source))
    zero = constant(0, x.dtype)
    finite = construct.where(apply("isfinite", largest), largest, zero)
    return construct.keep_axes(finite, axes, x.shape)


def _is_shifted(x: Node) -> bool:
    """Return whether ``x`` is a difference from something that holds its own maximum.

    However the difference is spelled: ``-x - max(-x)`` may have become ``min(x) - x``.
    """
    terms = _signed_terms(x)
    for sign, term in terms:
        extremum = _extremum_of(term)
        if extremum is None or sign != (-1 if extremum.op.kind == "max" else 1):
            continue
        rest = list(terms)
        rest.remove((sign, term))
        if _same_terms(rest, [(-sign * s, t) for s, t in _signed_terms(extremum.inputs[0])]):
            return True
    return False


def _signed_terms(x: Node, sign: int = 1) -> list[tuple[int, Node]]:
    """Return the terms of a sum with their signs."""
    x = strip(x)
    if _is(x, "neg"):
        return _signed_terms(x.inputs[0], -sign)
    if _is(x, "add") or _is(x, "sub"):
        first, second = x.inputs
        return [
            *_signed_terms(first, sign),
            *_signed_terms(second, sign if _is(x, "add") else -sign),
        ]
    return [(sign, x)]


def _same_terms(some: list[tuple[int, Node]], others: list[tuple[int, Node]]) -> bool:
    return sorted((s, t.serial) for s, t in some) == sorted((s, t.serial) for s, t in others)


def _extremum_of(x: Node) -> Node | None:
    """Return the reduction to a maximum or minimum that ``x`` is the finite value of, if any."""
    for _ in range(8):
        if isinstance(x.op, ops.Reduce):
            return x if x.op.kind in {"max", "min"} else None
        if not x.inputs:
            return None
        x = strip(x.inputs[1 if _is(x, "where") else 0])
    return None


def _sum_of_exp(node: Node) -> tuple[Node, Node] | None:
    """Return ``(sum, x)`` where ``node`` is a sum of exponentials of an unshifted ``x``."""
    total = strip(node)
    while isinstance(total.op, ops.Reshape):
        total = strip(total.inputs[0])
    if not isinstance(total.op, ops.Reduce) or total.op.kind != "sum":
        return None
    terms = total.inputs[0]
    if not _is(terms, "exp"):
        return None
    x = strip(terms).inputs[0]
    if x.shape != terms.shape or _is_shifted(x) or any(terms.shape[a] == 0 for a in total.op.axes):
        return None
    return total, x


def _log_sum_exp(node: Node) -> Node | None:
    found = _sum_of_exp(node.inputs[0])
    if found is None:
        return None
    total, x = found
    shift = _shift_of(x, total.op.axes)
    shifted = apply("exp", construct.elementwise("sub", x, shift))
    summed = make(ops.Reduce("sum", total.op.axes), shifted, source=node.source)
    result = construct.add(apply("log", summed), construct.reshape(shift, total.shape))
    return _viewed_like(node.inputs[0], total, result)


def _viewed_like(outer: Node, inner: Node, value: Node) -> Node:
    """Return ``value`` under the reshapes and broadcasts that lead from ``inner`` to ``outer``."""
    views = []
    while outer is not inner:
        views.append(outer.op)
        outer = outer.inputs[0]
    for op in reversed(views):
        value = make(op, value)
    return value


def _softmax(node: Node) -> Node | None:
    top, bottom = node.inputs
    found = _sum_of_exp(bottom)
    if found is None or not _is(top, "exp"):
        return None
    total, x = found
    if strip(top).inputs[0] is not x:
        return None
    shift = _shift_of(x, total.op.axes)
    shifted = apply("exp", construct.elementwise("sub", x, shift))
    summed = make(ops.Reduce("sum", total.op.axes), shifted, source=node.source)
    over = construct.div(shifted, _viewed_like(bottom, total, summed))
    return construct.broadcast_to(over, node.shape)


_INDEXING = (ops.Gather, ops.Slice, ops.Reshape, ops.Transpose)


def _log_of_indexed(node: Node) -> Node | None:
    """``log(softmax(x)[i]) → log(softmax(x))[i]``: the logarithm meets its exponential."""
    views, inner = [], node.inputs[0]
    while isinstance(inner.op, _INDEXING):
        views.append(inner)
        inner = inner.inputs[0]
    if not views or not _is_softmax(inner):
        return None
    value = apply("log", inner)
    for view in reversed(views):
        value = make(view.op, value, *view.inputs[1:], source=node.source)
    return value


def _is_softmax(node: Node) -> bool:
    return (_is(node, "div") and _is(node.inputs[0], "exp")) or _is(node, "sigmoid")


REDUCTIONS = (
    Rule("log_of_sum_of_exp", "log(sum(exp(x)))", "m + log(sum(exp(x - m))), m = max(x)",
         "exp overflows; m is 0 where max(x) is not finite, so that inf - inf does not arise",
         root="log", replace=_log_sum_exp),
    Rule("softmax_of_shifted", "exp(x) / sum(exp(x))", "exp(x - m) / sum(exp(x - m)), m = max(x)",
         "inf / inf for large x", root="div", replace=_softmax),
    Rule("log_of_indexed_softmax", "log(softmax(x)[i])", "log(softmax(x))[i]",
         "the probability underflows to 0 before the logarithm",
         root="log", replace=_log_of_indexed),
)  # fmt: skip

RULES = (*REDUCTIONS, *EXPONENTIALS, *ROOTS_AND_ERRORS, *WHOLE, *OVER_ROOT, *ALGEBRAIC)


def stabilize(program: Program, on_fire: OnFire | None = None) -> Program:
    """Return ``program`` in a numerically stable form; algebra and spelling are settled on the way.

    Raises nothing: a program without unstable patterns comes back in canonical spelling.
    """
    return apply_rules(program, RULES, on_fire)


def stabilize_nodes(roots: Sequence[Node], on_fire: OnFire | None = None) -> list[Node]:
    """Return ``roots`` in a numerically stable form; see `stabilize`."""
    return rewrite_nodes(roots, RULES, on_fire)
