"""Dimensions: a size known now, or a polynomial in symbols that are known at call time.

A dimension is an ``int`` or a `SymbolicDim`.  ``batch * 3 + 1`` is a `SymbolicDim`; arithmetic that
cancels the symbols gives back an ``int``.  Equality is structural, on a canonical form, so
``2 * n`` from a concatenation equals ``n + n`` from an addition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Dim = "int | SymbolicDim"


@dataclass(frozen=True, order=True)
class Symbol:
    """A named size that is bound when a compiled function is called."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class FloorDiv:
    """``numerator // denominator`` where the division is not known to be exact."""

    numerator: SymbolicDim
    denominator: int

    def __str__(self) -> str:
        return f"({self.numerator})//{self.denominator}"


Atom = Symbol | FloorDiv
Monomial = tuple[Atom, ...]


@dataclass(frozen=True, eq=True)
class SymbolicDim:
    """A polynomial with integer coefficients: ``((monomial, coefficient), ...)``, sorted."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(name: str) -> SymbolicDim:
        return SymbolicDim((((Symbol(name),), 1),))

    def __add__(self, other: int | SymbolicDim) -> int | SymbolicDim:
        if not isinstance(other, (int, SymbolicDim)):
            return NotImplemented
        total = dict(self.terms)
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _canonical(total)

    __radd__ = __add__

    def __neg__(self) -> int | SymbolicDim:
        return self * -1

    def __sub__(self, other: int | SymbolicDim) -> int | SymbolicDim:
        return self + other * -1

    def __rsub__(self, other: int | SymbolicDim) -> int | SymbolicDim:
        return self * -1 + other

    def __mul__(self, other: int | SymbolicDim) -> int | SymbolicDim:
        if not isinstance(other, (int, SymbolicDim)):
            return NotImplemented
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                monomial = tuple(sorted(left + right, key=str))
                total[monomial] = total.get(monomial, 0) + a * b
        return _canonical(total)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> int | SymbolicDim:
        exact = divide_exactly(self, divisor)
        if exact is not None:
            return exact
        return SymbolicDim((((FloorDiv(self, divisor),), 1),))

    def __str__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [str(atom) for atom in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")

    __repr__ = __str__


def _terms(dim: int | SymbolicDim) -> Iterator[tuple[Monomial, int]]:
    if isinstance(dim, int):
        if dim:
            yield (), dim
    else:
        yield from dim.terms


def _canonical(total: Mapping[Monomial, int]) -> int | SymbolicDim:
    terms = {monomial: c for monomial, c in total.items() if c}
    if not terms:
        return 0
    if set(terms) == {()}:
        return terms[()]
    return SymbolicDim(tuple(sorted(terms.items(), key=lambda item: (-len(item[0]), str(item[0])))))


def divide_exactly(dim: int | SymbolicDim, divisor: int | SymbolicDim) -> int | SymbolicDim | None:
    """Return ``dim / divisor`` where that is a polynomial for certain, else None."""
    if dim == divisor:
        return 1
    if isinstance(divisor, int):
        if divisor == 0:
            return None
        quotient: dict[Monomial, int] = {}
        for monomial, coefficient in _terms(dim):
            if coefficient % divisor:
                return None
            quotient[monomial] = coefficient // divisor
        return _canonical(quotient)
    if len(divisor.terms) != 1:
        return None
    ((factor, scale),) = divisor.terms
    quotient = {}
    for monomial, coefficient in _terms(dim):
        rest = list(monomial)
        for atom in factor:
            if atom not in rest:
                return None
            rest.remove(atom)
        if coefficient % scale:
            return None
        quotient[tuple(rest)] = coefficient // scale
    return _canonical(quotient)


def evaluate(dim: int | SymbolicDim, bindings: Mapping[str, int]) -> int:
    """Return the size of ``dim`` under ``bindings``; KeyError names a symbol that is missing."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms:
        product = coefficient
        for atom in monomial:
            if isinstance(atom, Symbol):
                product *= bindings[atom.name]
            else:
                product *= evaluate(atom.numerator, bindings) // atom.denominator
        total += product
    return total


def symbols(dim: int | SymbolicDim) -> frozenset[str]:
    """Return the names of the symbols in ``dim``."""
    if isinstance(dim, int):
        return frozenset()
    names: set[str] = set()
    for monomial, _ in dim.terms:
        for atom in monomial:
            names |= {atom.name} if isinstance(atom, Symbol) else symbols(atom.numerator)
    return frozenset(names)


def product(dims: tuple[int | SymbolicDim, ...]) -> int | SymbolicDim:
    """Return the product of ``dims`` (1 for none)."""
    total: int | SymbolicDim = 1
    for dim in dims:
        total = dim * total
    return total


def format_shape(shape: tuple[int | SymbolicDim, ...]) -> str:
    """Return a shape as the user writes it, ``(batch, 784)``."""
    return "(" + ", ".join(str(dim) for dim in shape) + ("," if len(shape) == 1 else "") + ")"
