"""Formulas as text: ``cr.formula("x / (1 + exp(-b*x))")`` is an operator of tensors.

The text is read by a parser of our own: nothing in it is ever evaluated as Python, and its length,
nesting and numbers are bounded.  The formula is made numerically stable once, and SymPy takes its
derivatives, exact and of any order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ..compiler.autodiff.symbolic import derivative, is_removable, load_formulas
from ..compiler.errors import FormulaError
from ..compiler.ir import ops
from ..compiler.ir.graph import apply, make
from ..compiler.ir.scalars import Formula, Term, subterms
from ..compiler.ir.terms import extract_term, inline_formula, parameters
from ..compiler.ir.types import TensorType
from ..compiler.rewrites.stability import stabilize_nodes
from .domain import domain_warnings
from .formula_parser import parse_formula
from .promotion import unify
from .tensor import Tensor, operand_of


def formula(
    text: object, params: Sequence[str] | str | None = None, name: str | None = None
) -> FormulaOperator:
    """Return the operator that computes a formula elementwise.

    Parameters
    ----------
    text : str or sympy.Expr
        Numbers, parameters, ``+ - * / ** ^``, comparisons, ``where(condition, a, b)``, ``pi``,
        ``e`` and the elementary functions (``exp``, ``log``, ``tanh``, ``sigmoid``, ``erf``, ...).
    params : sequence of str, optional
        The parameters in the order of the call; by default in order of first appearance.
    name : str, optional
        What the operator is called in printed graphs; by default the text.

    Raises
    ------
    FormulaError
        The text is no formula; the message points at the place and suggests names.
    """
    if isinstance(params, str):
        params = params.replace(",", " ").split()
    if isinstance(text, str):
        term = parse_formula(text, params)
    else:
        term = _from_sympy(text)
    found = parameters(term)
    order = tuple(params) if params is not None else found
    if len(set(order)) != len(order):
        raise FormulaError(f"a parameter is named twice: {', '.join(order)}")
    for parameter in order:
        if not parameter.isidentifier() or not parameter.isascii():
            raise FormulaError(f"a parameter is named like a Python variable, not {parameter!r}")
    unknown = [p for p in found if p not in order]
    if unknown:
        raise FormulaError(f"{', '.join(unknown)} is not among the parameters {', '.join(order)}")
    return FormulaOperator(Formula(name or str(text), order, term))


def _from_sympy(expression: object) -> Term:
    if type(expression).__module__.split(".")[0] != "sympy":
        raise FormulaError(f"a formula is a string or a SymPy expression, not {expression!r}")
    try:
        return load_formulas().from_foreign(expression)
    except Exception as error:
        raise FormulaError(f"{expression} has no form in elementary functions: {error}") from None


class FormulaOperator:
    """A scalar formula as an operator of tensors, elementwise and broadcasting.

    Calling it gives a `Tensor`; integers and bools become float32.  Parameters may be given by
    position or by name.
    """

    __slots__ = ("_formula",)

    def __init__(self, scalar: Formula) -> None:
        self._formula = scalar

    @property
    def params(self) -> tuple[str, ...]:
        """The parameters, in the order of the call."""
        return self._formula.params

    @property
    def name(self) -> str:
        """What the operator is called in printed graphs."""
        return self._formula.name

    @property
    def scalar(self) -> Formula:
        """The formula as the compiler sees it, as it was written."""
        return self._formula

    @property
    def stable(self) -> Formula:
        """The formula after the stability rules."""
        return Formula(self.name, self.params, _stable_body(self._formula))

    def __call__(self, *values: object, **named: object) -> Tensor:
        """Return the formula of tensors, arrays and numbers."""
        operands = self._bind(values, named)
        nodes = unify(*map(operand_of, operands), floating=True)
        stable = self.stable
        if not nodes:
            raise FormulaError(f"{self} has no parameters; write the number itself")
        if _is_kept_whole(stable):
            return Tensor(apply(stable, *nodes))
        return Tensor(inline_formula(self._formula, tuple(nodes)))

    def _bind(self, values: Sequence[object], named: dict[str, object]) -> list[object]:
        rest = list(self.params[len(values) :])
        if len(values) > len(self.params) or sorted(rest) != sorted(named):
            given = [*("…" for _ in values), *(f"{k}=…" for k in named)]
            raise FormulaError(
                f"{self.name} takes ({', '.join(self.params)}), not ({', '.join(given)})"
            )
        return [*values, *(named[p] for p in rest)]

    def derivative(self, name: str | None = None) -> FormulaOperator:
        """Return the partial derivative with respect to the parameter ``name``.

        ``name`` may be left out where there is one parameter.
        """
        if name is None and len(self.params) == 1:
            (name,) = self.params
        if name not in self.params:
            raise FormulaError(f"{name!r} is not among the parameters {', '.join(self.params)}")
        slope = derivative(self.stable, self.params.index(name))
        return FormulaOperator(Formula(f"d({self.name})/d{name}", self.params, slope))

    def latex(self) -> str:
        """Return the formula as LaTeX."""
        formulas = load_formulas()
        return formulas.sympy.latex(formulas.to_sympy(self._formula.body))

    def domain_warnings(self) -> list[str]:
        """Return where the formula leaves its domain or the range of float32, over the reals."""
        return domain_warnings(_stable_body(self._formula))

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) ↦ {infix(self._formula.body)}"

    def __repr__(self) -> str:
        notes = "".join(f"\n  {warning}" for warning in self.domain_warnings())
        return f"formula({str(self)!r})" + notes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FormulaOperator):
            return NotImplemented
        return (self.params, self._formula.body) == (other.params, other._formula.body)

    def __hash__(self) -> int:
        return hash((self.params, self._formula.body))


@functools.lru_cache(maxsize=1024)
def _stable_body(scalar: Formula) -> Term:
    """Return the body after the stability rules, applied to a graph of 0-d inputs."""
    if not scalar.params:
        return scalar.body
    leaves = {p: make(ops.Input(p, TensorType("float64", ()))) for p in scalar.params}
    node = inline_formula(scalar, tuple(leaves.values()))
    if node.dtype == "bool":
        return scalar.body
    (node,) = stabilize_nodes([node])
    return extract_term(node, {leaf: p for p, leaf in leaves.items()})


@functools.lru_cache(maxsize=1024)
def _is_kept_whole(stable: Formula) -> bool:
    """Return whether the compiler should see one formula: it has a removable singularity, or a
    quotient of exponentials that no rule made one function of.

    Everything else is inlined, so that the rules and common subexpressions see through it.
    """
    divisors = []
    for item in subterms(stable.body):
        if item.op in {"div", "reciprocal"}:
            divisors.append(item.args[-1])
        elif item.op == "pow" and item.args[1].op == "number" and _is_negative(item.args[1]):
            divisors.append(item.args[0])
    divisors = [d for d in divisors if parameters(d)]
    if any(t.op in {"exp", "expm1", "sinh", "cosh"} for d in divisors for t in subterms(d)):
        return True
    return bool(divisors) and len(stable.params) == 1 and is_removable(stable)


def _is_negative(constant: Term) -> bool:
    return float(constant.value or 0) < 0


# -- printing -------------------------------------------------------------------------------------

_INFIX: dict[str, tuple[str, int]] = {
    "lt": ("<", 1), "le": ("<=", 1), "gt": (">", 1), "ge": (">=", 1), "eq": ("==", 1),
    "ne": ("!=", 1), "add": ("+", 2), "sub": ("-", 2), "mul": ("*", 3), "div": ("/", 3),
    "pow": ("**", 5),
}  # fmt: skip


def infix(term: Term) -> str:
    """Return ``term`` as text that `formula` reads."""
    return _infix(term)[0]


def _infix(term: Term) -> tuple[str, int]:
    if term.op == "param":
        return str(term.value), 9
    if term.op == "number":
        value = term.value
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
            value = int(value)
        return repr(value), 9 if value >= 0 else 4  # type: ignore[operator]
    if term.op == "neg":
        return "-" + _wrap(term.args[0], 3), 2
    if term.op == "square":
        return _wrap(term.args[0], 6) + "**2", 5
    if term.op == "reciprocal":
        return "1/" + _wrap(term.args[0], 4), 3
    if term.op in _INFIX:
        sign, level = _INFIX[term.op]
        left, right = term.args
        if term.op == "pow":
            return _wrap(left, 6) + "**" + _wrap(right, 6), 5
        space = "" if term.op in {"mul", "div"} else " "
        return _wrap(left, level) + f"{space}{sign}{space}" + _wrap(right, level + 1), level
    return f"{term.op}({', '.join(_infix(arg)[0] for arg in term.args)})", 9


def _wrap(term: Term, level: int) -> str:
    text, own = _infix(term)
    return text if own >= level else f"({text})"
