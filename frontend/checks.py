"""Requirements on values that a graph cannot express, checked before a compiled program runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass

from ..compiler.errors import SourceLine
from ..compiler.ir.graph import Node, topological
from ..compiler.ir.types import Dim
from .tracing import user_line


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
    """Require that the elements of ``node`` lie in ``[low, high)`` or equal ``ignore``."""
    check = RangeCheck(low, high, ignore, message, user_line())
    found = _checks.setdefault(node, [])
    if check not in found:
        found.append(check)


def checks_reaching(nodes: Iterable[Node]) -> list[tuple[Node, RangeCheck]]:
    """Return the requirements on everything that ``nodes`` need."""
    return [(node, check) for node in topological(nodes) for check in _checks.get(node, ())]
