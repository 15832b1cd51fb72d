"""The elementary scalar functions, and scalar formulas built of them.

This is the vocabulary of `Map`: an elementary function by name, or a `Formula`, a small tree of
elementary functions over named parameters.  The table says how many arguments each takes and how
its result type follows; what each *means* is written in the interpreter (by hand), in
``autodiff/formulas.py`` (for differentiation) and in ``loops/`` (for machine code).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ScalarFunction:
    """One row of the table: ``kind`` selects the rule for the result's element type."""

    name: str
    arity: int
    kind: str  # arithmetic | float | compare | logic | bits | select | test


_ROWS = {
    "arithmetic": {
        1: "neg abs sign square relu stop_gradient",
        2: "add sub mul minimum maximum floordiv mod",
    },
    "float": {
        1: "reciprocal sqrt rsqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos"
        " atan sinh cosh tanh asinh acosh atanh sigmoid softplus erf erfc lgamma digamma trigamma"
        " floor ceil trunc rint",
        2: "div pow atan2 copysign",
    },
    "compare": {2: "lt le gt ge eq ne"},
    "logic": {1: "logical_not", 2: "logical_and logical_or logical_xor"},
    "bits": {1: "bit_not", 2: "bit_and bit_or bit_xor shift_left shift_right"},
    "select": {3: "where"},
    "test": {1: "isnan isinf isfinite"},
}

#: Name -> row, for every elementary function.
SCALAR_FUNCTIONS: dict[str, ScalarFunction] = {
    name: ScalarFunction(name, arity, kind)
    for kind, by_arity in _ROWS.items()
    for arity, names in by_arity.items()
    for name in names.split()
}


_COSTLY = """
    exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh
    acosh atanh sigmoid softplus erf erfc lgamma digamma trigamma pow atan2 div reciprocal
    sqrt rsqrt cbrt floordiv mod
"""
#: Functions that cost more than reading a stored value back.
COSTLY = frozenset(_COSTLY.split())


@dataclass(frozen=True)
class Term:
    """A node of a formula: an elementary function of terms, a parameter or a number.

    ``op`` is an elementary name, ``"param"`` (``value`` is its name) or ``"number"``.
    """

    op: str
    args: tuple[Term, ...] = ()
    value: str | float | int | None = None

    def __str__(self) -> str:
        if self.op == "param":
            return str(self.value)
        if self.op == "number":
            return repr(self.value)
        return f"{self.op}({', '.join(map(str, self.args))})"


def param(name: str) -> Term:
    """Return the parameter called ``name``."""
    return Term("param", (), name)


def number(value: float | int) -> Term:
    """Return a constant."""
    return Term("number", (), value)


def call(name: str, *args: Term) -> Term:
    """Return the application of an elementary function, its arity checked."""
    row = SCALAR_FUNCTIONS[name]
    if len(args) != row.arity:
        raise ValueError(f"{name} takes {row.arity} arguments, not {len(args)}")
    return Term(name, args)


@dataclass(frozen=True)
class Formula:
    """A scalar function of named parameters, ``name(params) = body``.

    ``name`` is for printing; two formulas of the same parameters and body are the same function.
    """

    name: str
    params: tuple[str, ...]
    body: Term

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> {self.body}"


def subterms(term: Term) -> Iterator[Term]:
    """Yield every distinct subterm, arguments before the functions that use them."""
    seen: set[int] = set()
    stack: list[tuple[Term, bool]] = [(term, False)]
    while stack:
        item, expanded = stack.pop()
        if expanded:
            yield item
        elif id(item) not in seen:
            seen.add(id(item))
            stack.append((item, True))
            stack.extend((arg, False) for arg in reversed(item.args))


_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:inf|nan|\d+\.?\d*(?:e[+-]?\d+)?))|(?P<name>[A-Za-z_]\w*)|(?P<mark>[(),]))"
)


def parse_term(text: str) -> Term:
    """Parse what ``str(term)`` prints."""
    position = 0

    def next_token() -> tuple[str, str]:
        nonlocal position
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"cannot read {text[position:]!r}")
        position = match.end()
        kind = match.lastgroup or ""
        return kind, match.group(kind)

    def read() -> Term:
        nonlocal position
        kind, word = next_token()
        if kind == "number":
            return number(int(word) if word.lstrip("-").isdigit() else float(word))
        if kind != "name":
            raise ValueError(f"unexpected {word!r} in {text!r}")
        if not text.startswith("(", position):
            return param(word)
        position += 1
        args = [read()]
        while True:
            _, mark = next_token()
            if mark == ")":
                return call(word, *args)
            args.append(read())

    term = read()
    if text[position:].strip():
        raise ValueError(f"unexpected {text[position:]!r}")
    return term
