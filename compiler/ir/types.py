"""Types of graph values: an element type and a shape."""

from __future__ import annotations

from dataclasses import dataclass

from .dims import SymbolicDim, format_shape, product

Dim = int | SymbolicDim
Shape = tuple[Dim, ...]

#: Element type -> size in bytes.
ITEM_BYTES = {
    "float32": 4,
    "float64": 8,
    "int32": 4,
    "int64": 8,
    "uint32": 4,
    "bool": 1,
}
FLOATS = frozenset({"float32", "float64"})
INTEGERS = frozenset({"int32", "int64", "uint32"})


def least_value(dtype: str) -> float | int:
    """Return the least value of an element type."""
    if dtype in FLOATS:
        return float("-inf")
    signed = dtype in {"int32", "int64"}
    return -(1 << 8 * ITEM_BYTES[dtype] - 1) if signed else 0


def greatest_value(dtype: str) -> float | int:
    """Return the greatest value of an element type."""
    if dtype in FLOATS:
        return float("inf")
    if dtype == "bool":
        return 1
    bits = 8 * ITEM_BYTES[dtype]
    return (1 << bits) - 1 if dtype == "uint32" else (1 << bits - 1) - 1


@dataclass(frozen=True)
class TensorType:
    """The element type and shape of a value."""

    dtype: str
    shape: Shape

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise TypeError(f"unknown dtype {self.dtype!r}; known: {', '.join(ITEM_BYTES)}")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def __str__(self) -> str:
        return f"{self.dtype}{format_shape(self.shape)}"
