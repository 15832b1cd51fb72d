"""Requirements on values that a graph cannot express, checked before a compiled program runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..compiler.errors import IndexRangeError, SourceLine
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, topological
from ..compiler.ir.types import Dim
from .tracing import fail, user_line


@dataclass(frozen=True)
class RangeCheck:
    """Every element must lie in ``[low, high)`` or equal ``ignore``; else IndexRangeError.

    ``message`` says what the values are for; ``source`` is the user's line.
    """

    low: Dim
    high: Dim
    ignore: int | None
    message: str
    source: SourceLine | None


_checks: weakref.WeakKeyDictionary[Node, list[RangeCheck]] = weakref.WeakKeyDictionary()


def register_range_check(
    node: Node, low: Dim, high: Dim, ignore: int | None = None, message: str = ""
) -> None:
    """Require that the elements of ``node`` lie in ``[low, high)`` or equal ``ignore``.

    Constants are checked at once; raises IndexRangeError.
    """
    if isinstance(node.op, ops.Constant):
        _check_values(node.op.value.array, low, high, ignore, message)
        return
    check = RangeCheck(low, high, ignore, message, user_line())
    found = _checks.setdefault(node, [])
    if check not in found:
        found.append(check)


def _check_values(
    values: np.ndarray, low: Dim, high: Dim, ignore: int | None, message: str
) -> None:
    outside = np.zeros(values.shape, bool)
    if isinstance(low, int):
        outside |= values < low
    if isinstance(high, int):
        outside |= values >= high
    if ignore is not None:
        outside &= values != ignore
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        at = f" at position {place}" if place else ""
        fail(f"{message} {values[place]}{at} is outside [{low}, {high})", IndexRangeError)


def checks_reaching(nodes: Iterable[Node]) -> list[tuple[Node, RangeCheck]]:
    """Return the requirements on everything that ``nodes`` need."""
    return [(node, check) for node in topological(nodes) for check in _checks.get(node, ())]
