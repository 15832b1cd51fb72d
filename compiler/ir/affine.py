"""Index arithmetic: where an element lies, and how an offset depends on a loop index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .dims import FloorDiv, Symbol, SymbolicDim, symbols
from .types import Dim, Shape

Index = Dim


def offset_of(shape: Shape, index: tuple[Index, ...]) -> Index:
    """Return the row-major offset of ``index`` in an array of ``shape``."""
    offset: Index = 0
    stride: Index = 1
    for dim, i in zip(reversed(shape), reversed(index), strict=True):
        offset = i * stride + offset
        stride = dim * stride
    return offset


def pointwise_index(shape: Shape, index: tuple[Index, ...]) -> tuple[Index, ...]:
    """Return the index at which a broadcasting reader at ``index`` reads an input of ``shape``."""
    tail = index[len(index) - len(shape) :]
    return tuple(0 if dim == 1 else i for i, dim in zip(tail, shape, strict=True))


def linear_coefficient(index: Index, name: str) -> Index | None:
    """Return ``c`` where ``index = c * name + rest`` and neither depends on ``name``, else None."""
    if isinstance(index, int):
        return 0
    total: Index = 0
    atom = Symbol(name)
    for monomial, coefficient in index.terms:
        count = monomial.count(atom)
        if any(isinstance(a, FloorDiv) and name in symbols(a.numerator) for a in monomial):
            return None
        if count > 1:
            return None
        if count == 1:
            rest = list(monomial)
            rest.remove(atom)
            total = total + _monomial(tuple(rest), coefficient)
    return total


def _monomial(monomial: tuple, coefficient: int) -> Index:
    return SymbolicDim(((monomial, coefficient),)) if monomial else coefficient


def split_linear(index: Index, names: Iterable[str]) -> tuple[tuple[Index, ...], Index]:
    """Return the coefficients of ``names`` in ``index`` and what is left without them."""
    coefficients = []
    for name in names:
        coefficient = linear_coefficient(index, name)
        if coefficient is None:
            raise ValueError(f"{index} is not linear in {name}")
        coefficients.append(coefficient)
    return tuple(coefficients), substitute_index(index, {name: 0 for name in names})


def substitute_index(index: Index, values: Mapping[str, Index]) -> Index:
    """Return ``index`` with symbols replaced."""
    if isinstance(index, int) or not symbols(index) & values.keys():
        return index
    total: Index = 0
    for monomial, coefficient in index.terms:
        term: Index = coefficient
        for atom in monomial:
            if isinstance(atom, Symbol):
                term = term * values.get(atom.name, SymbolicDim.of(atom.name))
            else:
                term = term * (substitute_index(atom.numerator, values) // atom.denominator)
        total = total + term
    return total
