"""What each elementary function means, in SymPy, so that its derivatives follow.

Most meanings are SymPy's own functions.  Where SymPy's derivative is not defined at a kink, or
would be written in a form that overflows or cancels, the function is a class of ours whose
``fdiff`` states the convention:

* ``relu'(0) = 0``, ``|x|'(0) = 0``, ``sign' = floor' = 0``; comparisons have no derivative;
* ``maximum`` and ``minimum`` give each side one half at a tie, as PyTorch does;
* a choice differentiates inside its branches, so that a branch that is not taken cannot spoil the
  result with ``0 * inf``;
* ``sigmoid' = sigmoid(x) * sigmoid(-x)``, which keeps its relative precision in both tails.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import sympy
from sympy import Function, Integer, Rational

from ..errors import GraphError
from ..ir.scalars import Term, call, number, param, subterms

#: A SymPy expression; SymPy's own annotations are too partial to check against.
Expr: TypeAlias = Any

ZERO, ONE, HALF = Integer(0), Integer(1), Rational(1, 2)


class Elementary(Function):
    """Base of the functions that are ours: real, and printed by their elementary name."""

    elementary: str
    symbol: str | None = None

    def _eval_is_extended_real(self) -> bool:
        return True

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        name = self.symbol or rf"\operatorname{{{self.elementary}}}"
        args = ", ".join(printer._print(arg) for arg in self.args)
        power = f"^{{{exp}}}" if exp else ""
        return rf"{name}{power}\left({args}\right)"


def _function(
    name: str, partials: Callable[..., tuple[Expr, ...]] | None = None, symbol: str | None = None
) -> Any:
    """Return a class for ``name``; ``partials`` gives its partial derivatives (zero for None)."""

    def fdiff(self: Elementary, argindex: int = 1) -> Expr:
        return ZERO if partials is None else partials(*self.args)[argindex - 1]

    body = {"elementary": name, "symbol": symbol, "fdiff": fdiff}
    return type(name, (Elementary,), body)


class Where(Elementary):
    """``where(condition, a, b)``; the condition is a comparison below, not a SymPy Boolean."""

    elementary = "where"

    @classmethod
    def eval(cls, condition: Expr, a: Expr, b: Expr) -> Expr | None:  # type: ignore[override]
        return a if a == b else None

    def _eval_derivative(self, s: Expr) -> Expr:
        condition, a, b = self.args
        return Where(condition, a.diff(s), b.diff(s))

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        c, a, b = (printer._print(arg) for arg in self.args)
        return rf"\begin{{cases}} {a} & {c} \\ {b} & \text{{otherwise}} \end{{cases}}"


def _comparison(name: str, sign: str) -> type[Elementary]:
    def _latex(self: Elementary, printer: Any, exp: str | None = None) -> str:
        left, right = (printer._print(arg) for arg in self.args)
        return f"{left} {sign} {right}"

    return type(name, (_function(name),), {"_latex": _latex})


COMPARISONS = {
    name: _comparison(name, sign)
    for name, sign in {
        "lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne",
    }.items()
}  # fmt: skip
_PIECEWISE_CONSTANT = {
    name: _function(name)
    for name in (
        *("sign", "floor", "ceil", "trunc", "rint", "stop_gradient", "isnan", "isinf", "isfinite"),
        *("logical_not", "logical_and", "logical_or", "logical_xor"),
    )
}
_lt, _gt, _eq = COMPARISONS["lt"], COMPARISONS["gt"], COMPARISONS["eq"]
sign, floor = _PIECEWISE_CONSTANT["sign"], _PIECEWISE_CONSTANT["floor"]


class Relu(Elementary):
    """``max(x, 0)`` with slope 0 at 0."""

    elementary = "relu"

    def _eval_derivative(self, s: Expr) -> Expr:
        (x,) = self.args
        return Where(_gt(x, ZERO), x.diff(s), ZERO)


def _extremum(name: str, first: type[Elementary], symbol: str) -> type[Elementary]:
    def _eval_derivative(self: Elementary, s: Expr) -> Expr:
        a, b = self.args
        da, db = a.diff(s), b.diff(s)
        return Where(first(a, b), da, Where(_eq(a, b), (da + db) / 2, db))

    body = {"elementary": name, "symbol": symbol, "_eval_derivative": _eval_derivative}
    return type(name, (Elementary,), body)


maximum = _extremum("maximum", _gt, r"\max")
minimum = _extremum("minimum", _lt, r"\min")
absolute = _function("abs", lambda x: (sign(x),), r"\operatorname{abs}")
copysign = _function("copysign", lambda x, y: (sign(x) * copysign(ONE, y), ZERO))
sigmoid = _function("sigmoid", lambda x: (sigmoid(x) * sigmoid(-x),), r"\sigma")
softplus = _function("softplus", lambda x: (sigmoid(x),))
expm1 = _function("expm1", lambda x: (sympy.exp(x),))
log1p = _function("log1p", lambda x: (1 / (1 + x),))
exp2 = _function("exp2", lambda x: (sympy.log(2) * exp2(x),))
log2 = _function("log2", lambda x: (1 / (sympy.log(2) * x),), r"\log_2")
log10 = _function("log10", lambda x: (1 / (sympy.log(10) * x),), r"\log_{10}")
cbrt = _function("cbrt", lambda x: (1 / (3 * cbrt(x) ** 2),), r"\sqrt[3]")
rsqrt = _function("rsqrt", lambda x: (-HALF * rsqrt(x) ** 3,))
#: x**y of two variables.  d/dx is 0 where y is 0, and d/dy is 0 where x is 0 and y >= 0.
power = _function(
    "pow",
    lambda x, y: (
        y * power(x, y - 1) if y.is_number else Where(_eq(y, ZERO), ZERO, y * power(x, y - 1)),
        Where(
            COMPARISONS["ge"](y, ZERO),
            Where(_eq(x, ZERO), ZERO, power(x, y) * sympy.log(x)),
            power(x, y) * sympy.log(x),
        ),
    ),
)
#: Exponents up to this are SymPy powers, which SymPy may expand; larger ones it must not.
_LARGEST_EXPONENT = 16
#: SymPy computes powers of numbers exactly; from this on it must not either.
_LARGEST_BASE = 10**6


def raise_to(x: Expr, y: Expr) -> Expr:
    """Return ``x**y`` as SymPy's power where the exponent is a small number, else as ours."""
    small = y.is_Rational and abs(y) <= _LARGEST_EXPONENT
    if small and x.is_number:
        small = x.is_Rational and max(abs(x.p), x.q) < _LARGEST_BASE
    return x**y if small else power(x, y)


digamma = _function("digamma", lambda x: (trigamma(x),), r"\psi")
trigamma = type("trigamma", (Elementary,), {"elementary": "trigamma", "symbol": r"\psi_1"})
lgamma = _function("lgamma", lambda x: (digamma(x),), r"\log\Gamma")

#: Elementary name -> its meaning.  Names without an entry have no derivative (bit operations).
MEANINGS: dict[str, Callable[..., Expr]] = {
    "neg": lambda x: -x,
    "abs": absolute,
    "square": lambda x: raise_to(x, Integer(2)),
    "relu": Relu,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "minimum": minimum,
    "maximum": maximum,
    "floordiv": lambda x, y: floor(x / y),
    "mod": lambda x, y: x - y * floor(x / y),
    "reciprocal": lambda x: 1 / x,
    "sqrt": sympy.sqrt,
    "rsqrt": rsqrt,
    "cbrt": cbrt,
    "exp": sympy.exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": sympy.log,
    "log2": log2,
    "log10": log10,
    "log1p": log1p,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "asinh": sympy.asinh,
    "acosh": sympy.acosh,
    "atanh": sympy.atanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "erf": sympy.erf,
    "erfc": sympy.erfc,
    "lgamma": lgamma,
    "digamma": digamma,
    "trigamma": trigamma,
    "pow": raise_to,
    "atan2": sympy.atan2,
    "copysign": copysign,
    "where": Where,
    **COMPARISONS,
    **_PIECEWISE_CONSTANT,
}

#: SymPy class -> elementary name, for functions that mean the same.
NAMES: dict[Any, str] = {
    **{
        MEANINGS[name]: name
        for name in (
            *("exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "erf", "erfc"),
            *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
        )
    },
    sympy.loggamma: "lgamma",
    sympy.Max: "maximum",
    sympy.Min: "minimum",
    sympy.Abs: "abs",
    sympy.sign: "sign",
    sympy.floor: "floor",
    sympy.ceiling: "ceil",
}

#: The functions of ours that other functions define, for series and limits.
PLAIN: dict[type, Callable[..., Expr]] = {
    sigmoid: lambda x: 1 / (1 + sympy.exp(-x)),
    softplus: lambda x: sympy.log(1 + sympy.exp(x)),
    expm1: lambda x: sympy.exp(x) - 1,
    log1p: lambda x: sympy.log(1 + x),
    exp2: lambda x: sympy.exp(x * sympy.log(2)),
    log2: lambda x: sympy.log(x) / sympy.log(2),
    log10: lambda x: sympy.log(x) / sympy.log(10),
    rsqrt: lambda x: 1 / sympy.sqrt(x),
    power: lambda x, y: x**y,
}


def in_plain_functions(expression: Expr) -> Expr:
    """Return ``expression`` in terms of exp, log and powers, for SymPy's series and limits."""
    for function, meaning in PLAIN.items():
        expression = expression.replace(function, meaning)
    return expression


#: An expansion to more terms than about this takes longer than it is worth.
_EXPANSION_LIMIT = 24


def is_small_polynomial(expression: Expr) -> bool:
    """Return whether ``sympy.expand`` of ``expression`` is cheap: its degree is low.

    Powers of sums of powers can have more terms than memory holds.
    """
    return _degree(expression) <= _EXPANSION_LIMIT


def _degree(e: Expr) -> int:
    if e.is_Add:
        return max(map(_degree, e.args))
    if e.is_Mul:
        return sum(map(_degree, e.args))
    if e.is_Pow and e.exp.is_number:
        return _degree(e.base) * max(1, abs(int(e.exp)))
    return 0 if e.is_number else 1


# -- terms and SymPy expressions ------------------------------------------------------------------


def symbol(name: str) -> sympy.Symbol:
    """Return the SymPy symbol of a parameter: real."""
    return sympy.Symbol(name, real=True)


_IRRATIONAL = {
    float(exact): exact
    for exact in (
        *(sympy.log(2), sympy.log(10), 1 / sympy.log(2), 1 / sympy.log(10), sympy.pi, sympy.E),
        *(
            sympy.pi / 2,
            2 * sympy.pi,
            sympy.sqrt(2),
            sympy.sqrt(sympy.pi),
            sympy.sqrt(2 / sympy.pi),
        ),
        *(2 / sympy.sqrt(sympy.pi), 1 / sympy.sqrt(sympy.pi), 1 / sympy.sqrt(2), 1 / sympy.pi),
    )
}


def to_number(value: float | int) -> Expr:
    """Return the number that a decimal stands for: 0.1 is 1/10, 0.333…3 is 1/3, 3.14…93 is π."""
    if isinstance(value, int):
        return Integer(value)
    if value != value:
        return sympy.nan
    if value in (float("inf"), float("-inf")):
        return sympy.oo if value > 0 else -sympy.oo
    if abs(value) in _IRRATIONAL:
        return _IRRATIONAL[abs(value)] * (1 if value > 0 else -1)
    near = Fraction(value).limit_denominator(1000)
    if float(near) == value:
        return Rational(near.numerator, near.denominator)
    return Rational(repr(value))


def to_sympy(term: Term) -> Expr:
    """Return ``term`` as a SymPy expression; raises GraphError for a bit operation."""
    built: dict[int, Expr] = {}
    for item in subterms(term):
        if item.op == "param":
            value = symbol(str(item.value))
        elif item.op == "number":
            value = to_number(item.value)  # type: ignore[arg-type]
        elif item.op in MEANINGS:
            value = MEANINGS[item.op](*(built[id(arg)] for arg in item.args))
        else:
            raise GraphError(f"{item.op} has no meaning as a real function")
        built[id(item)] = value
    return built[id(term)]


def from_sympy(expression: Expr) -> Term:
    """Return ``expression`` as a term of elementary functions.

    Quotients are divided one factor at a time, so that ``a / b**2`` does not overflow where
    ``b**2`` does, and ``1 - x**2`` becomes ``(1 - x) * (1 + x)``, which keeps its precision near 1.
    Raises GraphError where a function has no elementary counterpart (a derivative of trigamma).
    """
    return _Writer().write(expression)


class _Writer:
    """One conversion; equal subexpressions become one term object."""

    def __init__(self) -> None:
        self.done: dict[Expr, Term] = {}

    def write(self, e: Expr) -> Term:
        if e not in self.done:
            self.done[e] = self._write(e)
        return self.done[e]

    def _write(self, e: Expr) -> Term:
        if e.is_Symbol:
            return param(e.name)
        if e.is_number:
            return _number(e)
        if e.is_Add:
            return self._sum(e)
        if e.is_Mul or e.is_Pow:
            return self._product(e)
        if isinstance(e, Elementary):
            return call(e.elementary, *map(self.write, e.args))
        if type(e) in NAMES:
            return call(NAMES[type(e)], *map(self.write, e.args))
        raise GraphError(f"{e} has no form in elementary functions")

    def _sum(self, e: Expr) -> Term:
        if len(e.args) == 2 and ONE in e.args:
            square = -(e - 1)
            if square.is_Pow and square.exp == 2 and not isinstance(square.base, sympy.tanh):
                root = self.write(square.base)
                return call("mul", call("sub", number(1), root), call("add", number(1), root))
        terms = sorted(e.as_ordered_terms(), key=lambda t: bool(t.could_extract_minus_sign()))
        total = self.write(terms[0])
        for term in terms[1:]:
            if term.could_extract_minus_sign():
                total = call("sub", total, self.write(-term))
            else:
                total = call("add", total, self.write(term))
        return total

    def _product(self, e: Expr) -> Term:
        coefficient, above, below = ONE, [], []
        for factor in sympy.Mul.make_args(e):
            base, exponent = factor.as_base_exp()
            if isinstance(factor, sympy.exp):
                base, exponent = factor, ONE
            if factor.is_number:
                coefficient *= factor
            elif exponent.is_number and exponent.is_negative:
                below.append((base, -exponent))
            else:
                above.append((base, exponent))
        negative = bool(coefficient.is_negative)
        if negative:
            coefficient = -coefficient
        term: Term | None = None if coefficient == 1 else _number(coefficient)
        for base, exponent in above:
            factor = self._power(base, exponent)
            term = factor if term is None else call("mul", term, factor)
        if term is None:
            term = self._reciprocal(below)
        else:
            for divisor in self._divisors(below):
                term = call("div", term, divisor)
        return call("neg", term) if negative else term

    def _power(self, base: Expr, exponent: Expr) -> Term:
        x = self.write(base)
        if exponent == 1:
            return x
        if not exponent.is_number:
            return call("pow", x, self.write(exponent))
        if exponent == HALF:
            return call("sqrt", x)
        if exponent == 2:
            return call("square", x)
        if exponent.is_Integer and 2 < exponent <= 8:
            half = self._power(base, exponent // 2)
            whole = call("square", half)
            return call("mul", whole, x) if exponent % 2 else whole
        if exponent.is_Rational and exponent.q == 2 and 1 < exponent < 4:
            return call("mul", self._power(base, exponent - HALF), call("sqrt", x))
        return call("pow", x, _number(exponent))

    def _divisors(self, below: list[tuple[Expr, Expr]]) -> list[Term]:
        divisors: list[Term] = []
        for base, exponent in below:
            whole = int(exponent) if exponent <= 4 else 0
            divisors += [self.write(base)] * whole
            if exponent != whole:
                divisors.append(self._power(base, exponent - whole))
        return divisors

    def _reciprocal(self, below: list[tuple[Expr, Expr]]) -> Term:
        (base, exponent), *rest = below
        if exponent == HALF:
            term = call("rsqrt", self.write(base))
        else:
            term = call("reciprocal", self.write(base))
            if exponent.is_Integer and exponent <= 4:
                for bit in bin(int(exponent))[3:]:
                    term = call("square", term)
                    if bit == "1":
                        term = call("div", term, self.write(base))
            elif exponent != 1:
                term = call("pow", self.write(base), _number(-exponent))
        for divisor in self._divisors(rest):
            term = call("div", term, divisor)
        return term


def _number(e: Expr) -> Term:
    if e.is_Integer:
        return number(int(e))
    if e is sympy.nan:
        return number(float("nan"))
    try:
        return number(float(e.evalf(30)))
    except (OverflowError, TypeError):
        raise GraphError(f"the number {str(e)[:60]} does not fit a float") from None


def from_foreign(expression: Expr) -> Term:
    """Return a user's SymPy expression as a term; its symbols become the parameters."""
    real = {s: symbol(s.name) for s in expression.free_symbols}
    return from_sympy(expression.xreplace(real))
