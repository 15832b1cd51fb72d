"""Stable ways to compute a formula: Taylor polynomials where it is 0/0, tame exponentials.

Taylor coefficients come from Cauchy's integral on a circle around the point, in 60 digits: that
needs no symbolic series, and the coefficients of negative order tell a removable singularity from a
pole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mpmath
import sympy
from sympy import Symbol

from ..errors import GraphError
from ..ir.scalars import Formula, Term, call, number, param
from .formulas import (
    Elementary,
    Expr,
    from_sympy,
    in_plain_functions,
    is_small_polynomial,
    to_sympy,
)

_DIGITS = 60
_SAMPLES = 256
_NOISE = mpmath.mpf(10) ** -36
_NEGLIGIBLE = mpmath.mpf(10) ** -40
#: Candidates for singular points, beside the rational roots of polynomial denominators.
_LIKELY = (0, 1, -1)
_RADII = ("0.5", "0.25", "0.125")
_REACHES = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)
#: Expressions of more operations are computed as they stand.
_LARGEST = 300
#: Bits of the significand, and the longest polynomial that is worth its time.
_PRECISION = {"float32": (26, 26), "float64": (55, 34)}


def expand(formula: Formula, dtype: str) -> Term:
    """Return a term that computes ``formula`` stably in ``dtype``; its body if all is well."""
    try:
        expression = to_sympy(formula.body)
        far = tame_exponentials(expression)
        term = formula.body if far is None else far
    except GraphError:
        return formula.body
    if len(formula.params) != 1:
        return term
    (name,) = formula.params
    for point, coefficients in removable_singularities(expression):
        near = _polynomial(expression, point, coefficients, dtype)
        if near is not None:
            term = near.splice(term, name)
    return term


# -- removable singularities ----------------------------------------------------------------------


def removable_singularities(expression: Expr) -> list[tuple[Expr, list]]:
    """Return the rational points where ``expression`` is 0/0 but analytic, with its series."""
    if not is_small_polynomial(expression) or expression.count_ops() > _LARGEST:
        return []
    plain = in_plain_functions(expression)
    if len(plain.free_symbols) != 1 or plain.has(Elementary):
        return []
    (x,) = plain.free_symbols
    found = []
    for point in _singular_points(plain, x):
        coefficients = _taylor(plain, x, point)
        if coefficients is not None:
            found.append((point, coefficients))
    return found


def _singular_points(plain: Expr, x: Symbol) -> list[Expr]:
    points: set[Expr] = set()
    for power in plain.atoms(sympy.Pow):
        if not power.exp.is_number or not power.exp.is_negative or not power.base.has(x):
            continue
        base = power.base
        if base.is_polynomial(x) and sympy.Poly(base, x).degree() <= 4:
            points |= {r for r in sympy.roots(sympy.Poly(base, x)) if r.is_rational}
        else:
            points |= {sympy.Integer(p) for p in _LIKELY if base.subs(x, p).simplify() == 0}
    return sorted(points)


def _taylor(plain: Expr, x: Symbol, point: Expr) -> list | None:
    """Return Taylor coefficients at ``point``; None for a pole or a branch point."""
    with mpmath.workdps(_DIGITS):
        function = sympy.lambdify(x, plain, modules="mpmath")
        center = mpmath.mpf(point.p) / point.q
        for text in _RADII:
            radius = mpmath.mpf(text)
            unit = [mpmath.expjpi(mpmath.mpf(2 * k) / _SAMPLES) for k in range(_SAMPLES)]
            try:
                values = [function(center + radius * u) for u in unit]
            except (ZeroDivisionError, ValueError, TypeError, NameError):
                return None

            def coefficient(order: int, values: list = values, radius=radius, unit=unit):
                total = mpmath.fsum(v * unit[-order * k % _SAMPLES] for k, v in enumerate(values))
                return (total / _SAMPLES / radius**order).real

            if any(abs(coefficient(-k)) > _NEGLIGIBLE for k in range(1, 9)):
                continue
            tail = max(abs(coefficient(k)) * radius**k for k in (118, 119, 120))
            if tail < mpmath.mpf(10) ** -25:
                return [coefficient(k) for k in range(64)]
    return None


@dataclass(frozen=True)
class _Near:
    """A polynomial in ``x - point`` that holds for ``|x - point| < reach``."""

    point: Expr
    reach: float
    coefficients: list[float]
    stride: int  # 2 for an even or odd function
    odd: bool

    def splice(self, far: Term, name: str) -> Term:
        """Return the polynomial near the point, ``far`` elsewhere, never evaluated near it."""
        x = param(name)
        h = x if self.point == 0 else call("sub", x, number(float(self.point)))
        near = call("lt", call("abs", h), number(self.reach))
        step = call("square", h) if self.stride == 2 else h
        *rest, last = self.coefficients
        total = number(last)
        for c in reversed(rest):
            total = call("mul", total, step)
            total = call("add", total, number(c)) if c else total
        if self.odd:
            total = call("mul", total, h)
        safe = call("where", near, number(float(self.point) + self.reach), x)
        return call("where", near, total, _replace(far, name, safe))


def _replace(term: Term, name: str, by: Term) -> Term:
    if term.op == "param":
        return by if term.value == name else term
    return Term(term.op, tuple(_replace(a, name, by) for a in term.args)) if term.args else term


def _polynomial(expression: Expr, point: Expr, c: list, dtype: str) -> _Near | None:
    """Choose the widest reach whose polynomial is short enough: less cancellation outside it."""
    bits, longest = _PRECISION[dtype]
    scale = max(abs(v) for v in c[:8])
    even = all(abs(v) <= _NEGLIGIBLE * scale for v in c[1:32:2])
    odd = all(abs(v) <= _NEGLIGIBLE * scale for v in c[0:32:2])
    with mpmath.workdps(_DIGITS):
        for reach in _REACHES:
            sizes = [abs(v) * mpmath.mpf(reach) ** k for k, v in enumerate(c)]
            if sizes[60] + sizes[61] > mpmath.mpf(2) ** -(bits + 4) * max(sizes[:2]):
                continue
            tail, degree = mpmath.mpf(0), len(c) - 1
            smallest = min(
                abs(mpmath.polyval(c[::-1], mpmath.mpf(s) * reach)) or sizes[0] for s in (-1, 1)
            )
            while degree and tail + sizes[degree] < mpmath.mpf(2) ** -bits * smallest:
                tail += sizes[degree]
                degree -= 1
            if (degree // 2 if even or odd else degree) > longest:
                continue
            start, stride = (1 if odd else 0), (2 if even or odd else 1)
            noise = _NOISE * scale
            kept = [float(v) if abs(v) > noise else 0.0 for v in c[start : degree + 1 : stride]]
            return _Near(point, reach, kept or [0.0], stride, odd)
    return None


# -- exponentials ---------------------------------------------------------------------------------


def tame_exponentials(expression: Expr) -> Term | None:
    """Return a term for a rational expression of ``exp(u)`` that overflows only where it must."""
    if not is_small_polynomial(expression) or expression.count_ops() > _LARGEST:
        return None
    plain = expression.replace(
        lambda e: isinstance(e, Elementary) and e.elementary == "expm1",
        lambda e: sympy.exp(e.args[0]) - 1,
    )
    plain = plain.replace(sympy.sinh, lambda u: (sympy.exp(u) - sympy.exp(-u)) / 2)
    plain = plain.replace(sympy.cosh, lambda u: (sympy.exp(u) + sympy.exp(-u)) / 2)
    plain = sympy.expand(plain, power_exp=False, mul=False, log=False, multinomial=False)
    u = _common_argument(plain)
    if u is None:
        return None
    e = sympy.Dummy("e", positive=True)
    rational = plain.replace(sympy.exp, lambda a: e ** sympy.cancel(a / u))
    if rational.has(sympy.exp) or not rational.is_rational_function(e):
        return None
    top, bottom = sympy.fraction(sympy.together(rational))
    try:
        above, below = sympy.Poly(sympy.expand(top), e), sympy.Poly(sympy.expand(bottom), e)
    except sympy.PolynomialError:
        return None
    if below.degree() == 0 or len(below.monoms()) == 1:
        return _sum_of_exponentials(above, below, u)
    if above.degree() <= below.degree():
        return _quotient_of_exponentials(above, below, u)
    return None


def _common_argument(plain: Expr) -> Expr | None:
    """Return u where every exponential is ``exp(n*u)`` with an integer n."""
    arguments = [e.args[0] for e in plain.atoms(sympy.exp)]
    if not arguments:
        return None
    _, first = arguments[0].as_coeff_Mul()
    factors = []
    for argument in arguments:
        ratio = sympy.cancel(argument / first)
        if not ratio.is_Rational:
            return None
        factors.append(ratio)
    unit = sympy.Rational(math.gcd(*(f.p for f in factors)), math.lcm(*(f.q for f in factors)))
    return unit * first


def _horner(terms: list[tuple[int, Expr]], z: Term) -> Term:
    """Return ``sum(c * z**k)`` for ``terms`` of falling k, as nested products."""
    (power, c), *rest = terms
    total = from_sympy(_tidy(c))
    for k, c in [*rest, (0, None)]:
        for _ in range(power - k):
            total = z if total == number(1) else call("mul", total, z)
        power = k
        if c is not None:
            total = call("add", total, from_sympy(_tidy(c)))
    return total


def _tidy(c: Expr) -> Expr:
    return sympy.horner(c) if c.is_polynomial() and c.free_symbols else c


def _quotient_of_exponentials(above: sympy.Poly, below: sympy.Poly, u: Expr) -> Term:
    """Write the quotient in ``z = exp(-|u|)``: divided by the highest power of exp(u) for u > 0."""
    argument = from_sympy(u)
    z = call("exp", call("neg", call("abs", argument)))
    degree = below.degree()

    def side(polynomial: sympy.Poly, flip: bool) -> Term:
        terms = [(int(degree - k) if flip else k, c) for (k,), c in polynomial.terms()]
        return _horner(sorted(terms, key=lambda t: -t[0]), z)

    if above.is_zero:
        return number(0)
    negative = call("div", side(above, False), side(below, False))
    positive = call("div", side(above, True), side(below, True))
    return call("where", call("lt", argument, number(0)), negative, positive)


def _sum_of_exponentials(above: sympy.Poly, below: sympy.Poly, u: Expr) -> Term:
    """Return ``sum(c * exp(k*u))``, each term as ``(c * exp(k*u/2)) * exp(k*u/2)``."""
    (((shift,), divisor),) = below.terms()
    total: Term | None = None
    for (k,), c in above.terms():
        joined: Expr = sympy.together(sympy.expand(c / divisor))
        term = from_sympy(sympy.factor_terms(joined))
        if k != shift:
            half = call("exp", from_sympy(sympy.Rational(k - shift, 2) * u))
            term = call("mul", call("mul", term, half), half)
        total = term if total is None else call("add", total, term)
    return total if total is not None else number(0)
