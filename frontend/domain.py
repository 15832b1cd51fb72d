"""Where a formula leaves its domain, or the range of float32, by interval arithmetic.

Every parameter ranges over the reals.  Intervals forget that two terms share a parameter, so a
warning may be too careful; a formula without warnings is safe.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.ir.scalars import Term, subterms

Interval = tuple[float, float]
_REALS = (-math.inf, math.inf)
#: exp(88.72) is the largest float32.
_LARGEST_EXPONENT = 88.72


def _product(a: Interval, b: Interval) -> Interval:
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _monotone(function: Callable[[float], float], low: float, high: float) -> Callable:
    """Return an interval rule for an increasing function of limits ``low`` and ``high``."""

    def end(x: float) -> float:
        if x == -math.inf:
            return low
        if x == math.inf:
            return high
        try:
            return function(x)
        except OverflowError:
            return high
        except ValueError:
            return low

    return lambda a: (end(a[0]), end(a[1]))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def _square(a: Interval) -> Interval:
    ends = (a[0] * a[0], a[1] * a[1])
    return (0.0 if a[0] <= 0 <= a[1] else min(ends)), max(ends)


def _absolute(a: Interval) -> Interval:
    ends = (abs(a[0]), abs(a[1]))
    return (0.0 if a[0] <= 0 <= a[1] else min(ends)), max(ends)


def _reciprocal(a: Interval) -> Interval:
    if a[0] <= 0 <= a[1]:
        return (0.0, math.inf) if a[0] == 0 else _REALS
    return 1 / a[1], 1 / a[0]


_RULES: dict[str, Callable[..., Interval]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _product,
    "div": lambda a, b: _product(a, _reciprocal(b)),
    "neg": lambda a: (-a[1], -a[0]),
    "square": _square,
    "abs": _absolute,
    "reciprocal": _reciprocal,
    "relu": lambda a: (max(a[0], 0.0), max(a[1], 0.0)),
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "where": lambda c, a, b: (min(a[0], b[0]), max(a[1], b[1])),
    "exp": _monotone(math.exp, 0.0, math.inf),
    "expm1": _monotone(math.expm1, -1.0, math.inf),
    "log": _monotone(math.log, -math.inf, math.inf),
    "log1p": _monotone(math.log1p, -math.inf, math.inf),
    "sqrt": _monotone(math.sqrt, 0.0, math.inf),
    "rsqrt": lambda a: (0.0, math.inf),
    "tanh": _monotone(math.tanh, -1.0, 1.0),
    "erf": _monotone(math.erf, -1.0, 1.0),
    "atan": _monotone(math.atan, -math.pi / 2, math.pi / 2),
    "sinh": _monotone(math.sinh, -math.inf, math.inf),
    "sigmoid": _monotone(_sigmoid, 0.0, 1.0),
    "softplus": _monotone(lambda x: math.log1p(math.exp(min(x, 700))), 0.0, math.inf),
    "sin": lambda a: (-1.0, 1.0),
    "cos": lambda a: (-1.0, 1.0),
    "cosh": lambda a: (1.0, math.inf),
    "erfc": lambda a: (0.0, 2.0),
    "sign": lambda a: (-1.0, 1.0),
}


def _never_zero(term: Term, interval: Interval) -> bool:
    return not interval[0] <= 0 <= interval[1] or (
        term.op in {"exp", "sigmoid", "softplus", "cosh"} and interval[0] >= 0
    )


def domain_warnings(term: Term) -> list[str]:
    """Return one sentence for each function of ``term`` that may leave its domain or range."""
    intervals: dict[int, Interval] = {}
    warnings: dict[str, None] = {}
    for item in subterms(term):
        args = [intervals[id(arg)] for arg in item.args]
        if item.op == "number":
            value = float(item.value)  # type: ignore[arg-type]
            intervals[id(item)] = (value, value)
            continue
        rule = _RULES.get(item.op)
        low, high = rule(*args) if rule and item.args else _REALS
        intervals[id(item)] = (
            -math.inf if math.isnan(low) else low,
            math.inf if math.isnan(high) else high,
        )
        if text := _complaint(item, args):
            warnings[text] = None
    return list(warnings)


def _complaint(term: Term, args: list[Interval]) -> str | None:
    last = term.args[-1] if term.args else None
    match term.op:
        case "log" | "log2" | "log10" | "lgamma" if args[0][0] <= 0:
            if _never_zero(term.args[0], args[0]):
                return None
            return f"{term.op}({last}) is defined where {last} > 0 only"
        case "log1p" if args[0][0] <= -1:
            return f"log1p({last}) is defined where {last} > -1 only"
        case "sqrt" if args[0][0] < 0:
            return f"sqrt({last}) is defined where {last} >= 0 only"
        case "rsqrt" if args[0][0] <= 0:
            return f"rsqrt({last}) is defined where {last} > 0 only"
        case "asin" | "acos" | "atanh" if args[0][0] < -1 or args[0][1] > 1:
            return f"{term.op}({last}) is defined where |{last}| <= 1 only"
        case "acosh" if args[0][0] < 1:
            return f"acosh({last}) is defined where {last} >= 1 only"
        case "div" | "reciprocal" if last is not None and not _never_zero(last, args[-1]):
            return f"division by {last}, which may be 0"
        case "exp" | "expm1" | "sinh" | "cosh" if args[0][1] > _LARGEST_EXPONENT:
            return f"{term.op}({last}) overflows float32 where {last} > {_LARGEST_EXPONENT}"
        case "pow" if args[0][0] < 0 and not _is_integer(term.args[1]):
            return f"pow is not real where {term.args[0]} < 0 and {term.args[1]} is no integer"
        case _:
            return None


def _is_integer(term: Term) -> bool:
    return term.op == "number" and float(term.value).is_integer()  # type: ignore[arg-type]
