"""Derivatives of scalar functions by SymPy, as terms; each is taken once.

The derivatives of the elementary functions are shipped in ``derivatives.json``, so that a network
of built-in operators never imports SymPy (it costs 0.4 s).  ``python -m
chainrule.compiler.autodiff.symbolic`` writes that file anew; a test holds it to what SymPy says.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import GraphError
from ..ir.scalars import SCALAR_FUNCTIONS, Formula, Term, parse_term
from ..ir.terms import parameters

TABLE = Path(__file__).with_name("derivatives.json")


@functools.cache
def _shipped() -> dict[str, dict[str, Any]]:
    if not TABLE.exists():
        return {"elementary": {}, "formulas": {}}
    return json.loads(TABLE.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=4096)
def derivative(function: str | Formula, index: int) -> Term:
    """Return the partial derivative of ``function`` with respect to argument ``index``.

    The parameters of an elementary function are called ``p0``, ``p1``, ...; a `Formula` keeps its
    own.  Raises GraphError for a function that has no derivative in the elementary vocabulary.
    """
    if isinstance(function, str):
        known = _shipped()["elementary"].get(function)
        text = known[index] if known else None
        if text is None:
            raise GraphError(f"{function} has no derivative among the elementary functions")
        return parse_term(text)
    rows = _shipped()["formulas"].get(str(function), {}).get("derivatives")
    if rows:
        return parse_term(rows[index])
    return differentiate(function.body, function.params[index])


def differentiate(term: Term, name: str) -> Term:
    """Return the derivative of ``term`` with respect to the parameter ``name``, by SymPy."""
    formulas = load_formulas()
    slope = formulas.to_sympy(term).diff(formulas.symbol(name))
    return formulas.from_sympy(simplify(slope))


def load_formulas() -> ModuleType:
    """Return the module of meanings; it imports SymPy, so it is loaded on first use."""
    from . import formulas

    return formulas


#: Above this many operations, simplification costs more than it saves.
_SIMPLIFY_LIMIT = 80


def simplify(expression: Any) -> Any:
    """Return the shortest of a few exact spellings of ``expression``.

    Common factors are taken out and fractions joined.  A numerator is expanded only where next to
    nothing is left of it: a long expanded sum is where cancellation comes from.
    """
    formulas = load_formulas()
    sympy = formulas.sympy
    if expression.count_ops() > _SIMPLIFY_LIMIT:
        return expression
    joined = sympy.together(expression)
    top, bottom = sympy.fraction(joined)
    candidates = [expression, sympy.factor_terms(expression), joined]
    if formulas.is_small_polynomial(top):
        expanded = sympy.expand(top)
        if len(sympy.Add.make_args(expanded)) <= 2:
            candidates.append(expanded / bottom)
    return min(candidates, key=lambda e: e.count_ops())


def elementary_derivatives(name: str) -> list[str | None]:
    """Return the partial derivatives of an elementary function as SymPy gives them, as text."""
    formulas = load_formulas()
    names = [f"p{i}" for i in range(SCALAR_FUNCTIONS[name].arity)]
    arguments = [formulas.symbol(n) for n in names]
    texts: list[str | None] = []
    for argument in arguments:
        try:
            slope = formulas.MEANINGS[name](*arguments).diff(argument)
            texts.append(str(formulas.from_sympy(slope)))
        except (KeyError, GraphError):
            texts.append(None)
    return texts


# -- stable lowering -----------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def stable_term(formula: Formula, dtype: str) -> Term:
    """Return a term that computes ``formula`` in ``dtype`` without overflow and cancellation.

    Near a removable singularity of a function of one parameter that is a Taylor polynomial;
    elsewhere quotients of exponentials are written in ``exp(-|u|)``, and ``c * exp(u)`` as
    ``(c * exp(u/2)) * exp(u/2)``, so that the product overflows only where it is out of range.
    """
    rows = _shipped()["formulas"].get(str(formula), {}).get(dtype)
    if rows:
        return parse_term(rows)
    return load_expansion().expand(formula, dtype)


def is_removable(formula: Formula) -> bool:
    """Return whether ``formula``, of one parameter, is 0/0 somewhere but analytic there."""
    expression = load_formulas().to_sympy(formula.body)
    return bool(load_expansion().removable_singularities(expression))


def load_expansion() -> ModuleType:
    """Return the module of expansions; it imports SymPy, so it is loaded on first use."""
    from . import expansion

    return expansion


#: Formulas that the stability rules make; their derivatives and expansions are shipped.
BUILT_IN = (
    *(
        (("x",), body)
        for body in (
            *("div(expm1(x), x)", "div(x, expm1(x))", "div(log1p(x), x)", "div(sin(x), x)"),
            *("div(x, sin(x))", "div(tan(x), x)", "div(atan(x), x)", "div(tanh(x), x)"),
            *("div(x, tanh(x))", "div(sinh(x), x)", "div(x, sinh(x))", "div(erf(x), x)"),
            "div(log(x), add(x, -1))",
            "div(mul(exp(x), add(exp(x), 2)), add(mul(exp(x), add(exp(x), 2)), 2))",
        )
    ),
    (("x", "c"), "sqrt(add(square(x), c))"),
    (("x", "c"), "div(x, sqrt(add(square(x), c)))"),
)
_ORDERS = 2


def _built_in_rows() -> dict[str, Any]:
    rows: dict[str, Any] = {}
    level = [Formula("f", params, parse_term(body)) for params, body in BUILT_IN]
    expansion = load_expansion()
    for order in range(_ORDERS + 1):
        following = []
        for formula in level:
            row: dict[str, Any] = {
                dtype: str(expansion.expand(formula, dtype)) for dtype in ("float32", "float64")
            }
            if order < _ORDERS:
                slopes = [differentiate(formula.body, name) for name in formula.params]
                row["derivatives"] = list(map(str, slopes))
                for slope in slopes:
                    used = tuple(name for name in formula.params if name in parameters(slope))
                    if slope.args:
                        following.append(Formula("f", used, slope))
            rows[str(formula)] = row
        level = following
    return rows


def regenerate() -> dict[str, Any]:
    """Return what ``derivatives.json`` must hold."""
    return {
        "elementary": {name: elementary_derivatives(name) for name in sorted(SCALAR_FUNCTIONS)},
        "formulas": _built_in_rows(),
    }


if __name__ == "__main__":
    TABLE.write_text(json.dumps(regenerate(), indent=1) + "\n", encoding="utf-8")
