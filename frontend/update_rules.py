"""Update rules: an optimizer as the lines of its paper, evaluated to graph nodes.

    rule       = name "=" expression
    expression = number | name | expression (+ - * / **) expression | -expression
               | expression (< <= > >= ==) expression | function(expression, …)

Names are hyperparameters, ``t`` (the step, from 1), ``p`` (the parameter), ``g`` (its gradient) and
names that earlier rules assigned.  A name that is read before it is assigned is a *slot*: it keeps
its value between steps.

What depends on numbers and 0-d values only is computed once a step as a 0-d float64 value, and
numbers alone are computed now; either is rounded to the parameter's element type where it first
meets an array.  So ``lr / (1 - beta1**t) * (m / (sqrt(v) + eps))`` costs an element one square
root, one division, an addition and a multiplication, however the line is written.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..compiler.errors import FormulaError
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, apply, constant, make


@dataclass(frozen=True)
class Rule:
    """One line: ``target = expression``."""

    text: str
    target: str
    expression: ast.expr


@dataclass(frozen=True)
class Scalar:
    """A 0-d float64 or bool node, computed once a step."""

    node: Node


@dataclass(frozen=True)
class Field:
    """A node of the parameter's shape and element type."""

    node: Node


Value = float | bool | Scalar | Field

#: Syntax -> (on numbers, elementary function).
_BINARY: dict[type, tuple[Callable, str]] = {
    ast.Add: (operator.add, "add"),
    ast.Sub: (operator.sub, "sub"),
    ast.Mult: (operator.mul, "mul"),
    ast.Div: (operator.truediv, "div"),
    ast.Pow: (operator.pow, "pow"),
    ast.Lt: (operator.lt, "lt"),
    ast.LtE: (operator.le, "le"),
    ast.Gt: (operator.gt, "gt"),
    ast.GtE: (operator.ge, "ge"),
    ast.Eq: (operator.eq, "eq"),
}

#: Function -> (on numbers, elementary function, number of arguments).
_FUNCTIONS: dict[str, tuple[Callable, str, int]] = {
    "sqrt": (math.sqrt, "sqrt", 1),
    "exp": (math.exp, "exp", 1),
    "log": (math.log, "log", 1),
    "tanh": (math.tanh, "tanh", 1),
    "abs": (abs, "abs", 1),
    "sign": (lambda x: float((x > 0) - (x < 0)), "sign", 1),
    "maximum": (max, "maximum", 2),
    "minimum": (min, "minimum", 2),
    "where": (lambda test, a, b: a if test else b, "where", 3),
}

#: Exponents with a cheaper elementary function than pow.
_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


def parse_rules(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Parse ``name = expression`` lines; raises FormulaError that shows the line at fault."""
    return tuple(_parse_rule(line) for line in lines)


def _parse_rule(text: str) -> Rule:
    try:
        (statement,) = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError(f"update rule {text!r} cannot be read: {error}") from None
    if not (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
    ):
        raise FormulaError(f"update rule {text!r} is not of the form 'name = expression'")
    for node in ast.walk(statement.value):
        if not isinstance(node, _ALLOWED):
            raise FormulaError(
                f"update rule {text!r} uses {type(node).__name__}; numbers, names, + - * / **, "
                f"comparisons and {', '.join(_FUNCTIONS)} are known"
            )
    return Rule(text.strip(), statement.targets[0].id, statement.value)


_ALLOWED = (
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.BinOp,
    ast.operator,
    ast.UnaryOp,
    ast.USub,
    ast.Compare,
    ast.cmpop,
    ast.Call,
)


def names_in(expression: ast.expr) -> list[str]:
    """Return the names that an expression reads, functions aside, each once, in order."""
    functions = {id(n.func) for n in ast.walk(expression) if isinstance(n, ast.Call)}
    found = (n for n in ast.walk(expression) if isinstance(n, ast.Name) and id(n) not in functions)
    return list(dict.fromkeys(name.id for name in found))


def slots_of(rules: Iterable[Rule], known: Iterable[str]) -> list[str]:
    """Return the names that rules assign but read before that: what lives between steps."""
    rules = list(rules)
    assigned_somewhere = {rule.target for rule in rules}
    available = set(known)
    slots: dict[str, None] = {}
    for rule in rules:
        for name in names_in(rule.expression):
            if name not in available:
                if name not in assigned_somewhere:
                    raise FormulaError(
                        f"update rule {rule.text!r} reads {name!r}, which is unknown"
                    )
                slots[name] = None
        available.add(rule.target)
    return list(slots)


class RuleEvaluator:
    """Evaluates rules for one parameter of element type ``dtype``."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def run(self, rules: Iterable[Rule], environment: Mapping[str, Value]) -> dict[str, Value]:
        """Return ``environment`` with the value of every target after the last rule."""
        values = dict(environment)
        for rule in rules:
            try:
                values[rule.target] = self._evaluate(rule.expression, values)
            except (ArithmeticError, ValueError, RecursionError) as error:
                raise FormulaError(f"update rule {rule.text!r}: {error}") from None
        return values

    def field(self, value: Value) -> Node:
        """Return ``value`` as a node of the parameter's element type (bool stays bool)."""
        if isinstance(value, Field):
            return value.node
        if isinstance(value, Scalar):
            if value.node.dtype in (self.dtype, "bool"):
                return value.node
            return make(ops.Cast(self.dtype), value.node)
        return constant(value, "bool" if isinstance(value, bool) else self.dtype)

    def scalar(self, value: Value) -> Node:
        """Return a number or 0-d value as a 0-d float64 node."""
        if isinstance(value, Scalar):
            return value.node
        if isinstance(value, Field):
            raise ValueError("a 0-d value cannot be computed from an array")
        return constant(value, "bool" if isinstance(value, bool) else "float64")

    def _evaluate(self, expression: ast.expr, values: Mapping[str, Value]) -> Value:
        match expression:
            case ast.Constant(value=number) if isinstance(number, (int, float)):
                return float(number)
            case ast.Name(id=name):
                return values[name]
            case ast.UnaryOp(operand=operand):
                return self._apply(operator.neg, "neg", self._evaluate(operand, values))
            case ast.BinOp(left=left, op=op, right=right):
                a, b = self._evaluate(left, values), self._evaluate(right, values)
                return self._binary(type(op), a, b)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
                a, b = self._evaluate(left, values), self._evaluate(right, values)
                return self._apply(*_BINARY[type(op)], a, b)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                on_numbers, elementary, arity = _FUNCTIONS[name]
                if len(args) != arity:
                    raise ValueError(f"{name} takes {arity} arguments, not {len(args)}")
                return self._apply(
                    on_numbers, elementary, *(self._evaluate(arg, values) for arg in args)
                )
        raise ValueError(f"{ast.unparse(expression)!r} is not part of the language of rules")

    def _binary(self, op: type, a: Value, b: Value) -> Value:
        if op not in _BINARY:
            raise ValueError(f"operator {op.__name__} is not part of the language of rules")
        if op is ast.Pow and isinstance(b, float) and b in _POWERS and not isinstance(a, float):
            return self._apply(_BINARY[op][0], _POWERS[b], a)
        if op is ast.Div and isinstance(a, Field) and not isinstance(b, Field):
            # One division a step in float64, not one an element.
            return self._binary(ast.Mult, a, self._binary(ast.Div, 1.0, b))
        return self._apply(*_BINARY[op], a, b)

    def _apply(self, on_numbers: Callable, elementary: str, *args: Value) -> Value:
        if any(isinstance(arg, Field) for arg in args):
            return Field(apply(elementary, *map(self.field, args)))
        if any(isinstance(arg, Scalar) for arg in args):
            return Scalar(apply(elementary, *map(self.scalar, args)))
        result = on_numbers(*args)
        return result if isinstance(result, bool) else float(result)


_LATEX_NAMES = {
    "lr": r"\eta",
    "p": r"\theta",
    "g": "g",
    "t": "t",
    "eps": r"\epsilon",
    "alpha": r"\alpha",
    "rho": r"\rho",
    "momentum": r"\mu",
    "dampening": r"\tau",
    "weight_decay": r"\lambda",
    "momentum_decay": r"\psi",
}
_GREEK = ("alpha", "beta", "gamma", "rho", "mu")
_PRECEDENCE = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.Div: 4, ast.Pow: 3}
_COMPARISONS = {ast.Lt: "<", ast.LtE: r"\le", ast.Gt: ">", ast.GtE: r"\ge", ast.Eq: "="}


def rules_to_latex(rules: Iterable[Rule]) -> str:
    r"""Return the rules as a LaTeX ``aligned`` block, ``\leftarrow`` for each assignment."""
    lines = (rf"{_latex_name(r.target)} &\leftarrow {_latex(r.expression)[0]}" for r in rules)
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _latex_name(name: str) -> str:
    if name in _LATEX_NAMES:
        return _LATEX_NAMES[name]
    for letter in _GREEK:
        if name.startswith(letter) and (rest := name.removeprefix(letter).strip("_")):
            return (
                rf"\{letter}_{{{rest}}}" if rest.isdigit() else rf"\{letter}_{{\mathrm{{{rest}}}}}"
            )
    if name in _GREEK:
        return rf"\{name}"
    return name if len(name) == 1 else rf"\mathrm{{{name}}}".replace("_", r"\_")


def _latex(expression: ast.expr) -> tuple[str, int]:
    """Return LaTeX and the precedence of its outermost operator (5: none)."""

    def part(item: ast.expr, at_least: int) -> str:
        text, precedence = _latex(item)
        return text if precedence >= at_least else rf"\left({text}\right)"

    match expression:
        case ast.Constant(value=number):
            return f"{number:g}" if isinstance(number, float) else str(number), 5
        case ast.Name(id=name):
            return _latex_name(name), 5
        case ast.UnaryOp(operand=operand):
            return f"-{part(operand, 2)}", 1
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return rf"\frac{{{_latex(left)[0]}}}{{{_latex(right)[0]}}}", 4
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"{part(left, 5)}^{{{_latex(right)[0]}}}", 3
        case ast.BinOp(left=left, op=op, right=right):
            level = _PRECEDENCE[type(op)]
            sign = {ast.Add: " + ", ast.Sub: " - ", ast.Mult: r" \, "}[type(op)]
            return part(left, level) + sign + part(right, level + (type(op) is ast.Sub)), level
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return f"{part(left, 1)} {_COMPARISONS[type(op)]} {part(right, 1)}", 0
        case ast.Call(func=ast.Name(id=name), args=args):
            inner = [_latex(arg)[0] for arg in args]
            return _LATEX_CALLS[name](*inner), 5
    return ast.unparse(expression), 0


_LATEX_CALLS: dict[str, Callable[..., str]] = {
    "sqrt": lambda x: rf"\sqrt{{{x}}}",
    "exp": lambda x: rf"\exp\left({x}\right)",
    "log": lambda x: rf"\log\left({x}\right)",
    "tanh": lambda x: rf"\tanh\left({x}\right)",
    "abs": lambda x: rf"\left|{x}\right|",
    "sign": lambda x: rf"\operatorname{{sign}}\left({x}\right)",
    "maximum": lambda a, b: rf"\max\left({a}, {b}\right)",
    "minimum": lambda a, b: rf"\min\left({a}, {b}\right)",
    "where": lambda test, a, b: (
        rf"\begin{{cases}} {a} & {test} \\ {b} & \text{{else}} \end{{cases}}"
    ),
}
