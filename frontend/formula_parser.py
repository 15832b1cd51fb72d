"""A parser for formulas: tokens, precedence climbing, and errors that point at the place.

comparison = sum [("<" | "<=" | ">" | ">=" | "==" | "!=") sum]
sum        = product {("+" | "-") product}
product    = unary {("*" | "/") unary}
unary      = ("-" | "+") unary | power
power      = atom [("**" | "^") unary]
atom       = number | name | name "(" comparison {"," comparison} ")" | "(" comparison ")"
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..compiler.errors import FormulaError
from ..compiler.ir.scalars import SCALAR_FUNCTIONS, Term, call, number, param

#: Longer, deeper or larger formulas than these are refused.
MAX_LENGTH, MAX_DEPTH, MAX_NODES = 4000, 40, 1000

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>\*\*|<=|>=|==|!=|[-+*/^(),<>]))"
)
_CONSTANTS = {"pi": math.pi, "e": math.e}
_ALIASES = {
    "ln": "log",
    "max": "maximum",
    "min": "minimum",
    "logistic": "sigmoid",
    "expit": "sigmoid",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arctan2": "atan2",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "power": "pow",
    "ceiling": "ceil",
    "round": "rint",
    "heaviside": "step",
}
#: Functions of real arguments; the condition of ``where`` is a comparison.
FUNCTIONS = {
    name: row.arity
    for name, row in SCALAR_FUNCTIONS.items()
    if row.kind in {"arithmetic", "float", "select"}
}
_COMPARISONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": math.pow,
    "neg": lambda a: -a,
    "square": lambda a: a * a,
    **{
        name: getattr(math, name)
        for name in (
            *("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "asin"),
            *("acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc"),
            *("lgamma", "floor", "ceil", "trunc", "atan2", "copysign"),
        )
    },
}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse_formula(text: str, params: Sequence[str] | None = None) -> Term:
    """Return the term that ``text`` denotes; a name in ``params`` is always a parameter.

    Raises FormulaError, with a caret at the place.
    """
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"the formula has {len(text)} characters; {MAX_LENGTH} are allowed")
    return _Parser(text, frozenset(params or ()), params is not None).parse()


class _Parser:
    def __init__(self, text: str, params: frozenset[str], closed: bool) -> None:
        self.text = text
        self.params = params
        self.closed = closed
        self.tokens = self._tokens()
        self.position = 0
        self.depth = 0
        self.nodes = 0

    def fail(self, message: str, at: int, cause: Exception | None = None) -> FormulaError:
        start = max(0, at - 60)
        shown = "".join(c if c.isprintable() else "?" for c in self.text[start : at + 40])
        return FormulaError(f"{message}\n  {shown}\n  {' ' * (at - start)}^")

    def _tokens(self) -> list[_Token]:
        tokens, at = [], 0
        end = len(self.text.rstrip())
        while at < end:
            match = _TOKEN.match(self.text, at)
            if match is None:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                raise self.fail(f"{self.text[at]!r} has no place in a formula", at)
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "", end)]

    @property
    def next(self) -> _Token:
        return self.tokens[self.position]

    def take(self) -> _Token:
        token = self.next
        self.position += 1
        return token

    def accept(self, *marks: str) -> _Token | None:
        if self.next.kind == "mark" and self.next.text in marks:
            return self.take()
        return None

    def expect(self, mark: str) -> None:
        if not self.accept(mark):
            found = f"{self.next.text!r}" if self.next.text else "the end"
            raise self.fail(f"expected {mark!r}, found {found}", self.next.at)

    def parse(self) -> Term:
        term = self.comparison()
        if self.next.kind != "end":
            raise self.fail(f"unexpected {self.next.text!r}", self.next.at)
        if _is_truth(term):
            raise self.fail("a comparison is no number; use where(condition, a, b)", 0)
        return term

    def node(self, at: int, function: str, *args: Term) -> Term:
        """Return ``function`` of ``args``; of numbers, the number."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fail(f"the formula has more than {MAX_NODES} operations", at)
        condition = args[:1] if function == "where" else ()
        for arg in condition:
            if not _is_truth(arg):
                raise self.fail("the condition of where must be a comparison", at)
        for arg in args[len(condition) :]:
            if _is_truth(arg):
                raise self.fail("a comparison is no number; use where(condition, a, b)", at)
        if function in _FOLDED and all(arg.op == "number" for arg in args):
            try:
                value = float(_FOLDED[function](*(float(arg.value) for arg in args)))  # type: ignore[arg-type]
            except (ArithmeticError, ValueError):
                value = math.nan
            if not math.isfinite(value):
                raise self.fail(f"{function} of these numbers is no finite number", at)
            return _number(value)
        return call(function, *args)

    def deeper(self, at: int) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(f"the formula is nested deeper than {MAX_DEPTH} levels", at)

    def comparison(self) -> Term:
        self.deeper(self.next.at)
        left = self.sum()
        if token := self.accept(*_COMPARISONS):
            left = self.node(token.at, _COMPARISONS[token.text], left, self.sum())
        if token := self.accept(*_COMPARISONS):
            raise self.fail("comparisons do not chain", token.at)
        self.depth -= 1
        return left

    def sum(self) -> Term:
        return self._chain(self.product, {"+": "add", "-": "sub"}, "add")

    def product(self) -> Term:
        return self._chain(self.unary, {"*": "mul", "/": "div"}, "mul")

    def _chain(self, part: Callable[[], Term], names: dict[str, str], joins: str) -> Term:
        left = part()
        length = 0
        while token := self.accept(*names):
            left = self.node(token.at, names[token.text], left, part())
            length += 1
            if length > MAX_DEPTH * 4:
                raise self.fail(f"more than {MAX_DEPTH * 4} operands in a row", token.at)
        return left

    def unary(self) -> Term:
        if token := self.accept("-", "+"):
            self.deeper(token.at)
            operand = self.unary()
            self.depth -= 1
            return self.node(token.at, "neg", operand) if token.text == "-" else operand
        return self.power()

    def power(self) -> Term:
        base = self.atom()
        if token := self.accept("**", "^"):
            self.deeper(token.at)
            exponent = self.unary()
            self.depth -= 1
            if exponent.op == "number" and exponent.value == 2 and base.op != "number":
                return self.node(token.at, "square", base)
            return self.node(token.at, "pow", base, exponent)
        return base

    def atom(self) -> Term:
        token = self.take()
        if token.kind == "number":
            value = float(token.text)
            if not math.isfinite(value):
                raise self.fail("the number is too large", token.at)
            return _number(value)
        if token.kind == "name":
            if self.accept("("):
                return self.application(token)
            return self.name(token)
        if token.text == "(":
            inner = self.comparison()
            self.expect(")")
            return inner
        raise self.fail(
            f"expected a number, a name or '(', found {token.text!r}"
            if token.text
            else "the formula ends too early",
            token.at,
        )

    def name(self, token: _Token) -> Term:
        if token.text in self.params:
            return param(token.text)
        if token.text in _CONSTANTS:
            return number(_CONSTANTS[token.text])
        if token.text in FUNCTIONS or token.text in _ALIASES:
            raise self.fail(f"{token.text} is a function; write {token.text}(…)", token.at)
        if self.closed:
            known = ", ".join(sorted(self.params))
            hint = _suggest(token.text, [*self.params, *_CONSTANTS])
            message = f"{token.text} is not among the parameters {known}{hint}"
            raise self.fail(message, token.at)
        return param(token.text)

    def application(self, token: _Token) -> Term:
        args = []
        if not self.accept(")"):
            args.append(self.comparison())
            while self.accept(","):
                args.append(self.comparison())
            self.expect(")")
        name = _ALIASES.get(token.text, token.text)
        if name == "step" and len(args) == 1:
            positive = self.node(token.at, "gt", args[0], number(0))
            return self.node(token.at, "where", positive, number(1), number(0))
        if name not in FUNCTIONS:
            hint = _suggest(token.text, [*FUNCTIONS, *_ALIASES])
            raise self.fail(f"no function is called {token.text}{hint}", token.at)
        if name in {"maximum", "minimum"} and len(args) > 2:
            total = args[0]
            for arg in args[1:]:
                total = self.node(token.at, name, total, arg)
            return total
        if len(args) != FUNCTIONS[name]:
            plural = "argument" if FUNCTIONS[name] == 1 else "arguments"
            message = f"{token.text} takes {FUNCTIONS[name]} {plural}, not {len(args)}"
            raise self.fail(message, token.at)
        return self.node(token.at, name, *args)


def _suggest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:40], known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _is_truth(term: Term) -> bool:
    row = SCALAR_FUNCTIONS.get(term.op)
    return row is not None and row.kind in {"compare", "logic", "test"}


def _number(value: float) -> Term:
    return number(int(value) if value.is_integer() and abs(value) < 2**53 else value)
