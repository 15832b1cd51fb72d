"""Bodies as programs: carries become states, so that new carries are updates like any others."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import ops
from ..ir.bodies import substitute
from ..ir.graph import Node, Program, make


def carry_count(op: ops.Nested) -> int:
    """Return how many of the first inputs, and of the first results, are carries."""
    match op:
        case ops.Scan():
            return op.carries
        case ops.While():
            return len(op.body.results)
        case _:
            return 0


def loop_programs(op: ops.Nested, used: Sequence[int]) -> list[tuple[Program, tuple[Node, ...]]]:
    """Return each body as a program, with the states that stand for the carries.

    Results beyond the carries are outputs, those whose numbers are ``used``.  The states have
    negative keys, which no state of a user has.
    """
    count = carry_count(op)
    found = []
    for body in op.bodies:
        carries = tuple(
            make(ops.State(f"carry{j}", formal.type, "buffer", -1 - j), source=formal.source)
            for j, formal in enumerate(body.formals[:count])
        )
        results = substitute(body.results, dict(zip(body.formals, carries, strict=False)))
        steps = not (isinstance(op, ops.While) and body is op.condition)
        new = results[:count] if steps else []
        stacked = enumerate(results[len(new) :], start=len(new))
        outputs = tuple((str(k), node) for k, node in stacked if not steps or k in used)
        updates = tuple((a, b) for a, b in zip(carries, new, strict=False) if a is not b)
        found.append((Program(outputs, updates, name="body"), carries))
    return found
