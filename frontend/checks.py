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


#: What is required in graphs that contain the key: of which of the nodes it is computed from (None:
#: of itself), and what.
_Checks = list[tuple[Node | None, RangeCheck]]
_checks: weakref.WeakKeyDictionary[Node, _Checks] = weakref.WeakKeyDictionary()


def register_range_check(
    node: Node,
    low: Dim,
    high: Dim,
    ignore: int | None = None,
    message: str = "",
    anchor: Node | None = None,
) -> None:
    """Require that the elements of ``node`` lie in ``[low, high)`` or equal ``ignore``.

    ``anchor``: the node that uses them so, which no rewrite changes; the requirement holds in
    programs that contain it.  Two models may share the input ``node`` (equal nodes are one) and
    have different numbers of classes.  Constants are checked at once; raises IndexRangeError.
    """
    if isinstance(node.op, ops.Constant):
        _check_values(node.op.value.array, low, high, ignore, message)
        return
    check = RangeCheck(low, high, ignore, message, user_line())
    key = node if anchor is None else anchor
    entry = (None if key is node else node, check)  # a value that held its key would never die
    found = _checks.setdefault(key, [])
    if entry not in found:
        found.append(entry)


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
    return [
        (node if of is None else of, check)
        for node in topological(nodes)
        for of, check in _checks.get(node, ())
    ]
