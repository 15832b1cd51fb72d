"""An order of nodes that depends on what they compute, not on what was traced before.

Numbers of nodes grow with the process's history: a constant that an earlier program made is older
in the second program than in the first.  What orders by them would give other graphs, and so other
bits, in a process that did other things before.
"""

from __future__ import annotations

import hashlib
import weakref

from . import ops
from .graph import Node

_digests: weakref.WeakKeyDictionary[Node, bytes] = weakref.WeakKeyDictionary()


def structural_order(node: Node) -> tuple[bytes, int]:
    """Return a key by which nodes sort alike in any process that builds the same program.

    Only nodes that need no state can be older than the program: they sort by structure.  What needs
    a state is as old as the state, and sorts by age, so that equal layers are spelled alike.
    """
    return structure_digest(node), node.serial


def structure_digest(node: Node) -> bytes:
    """Return a hash of the operators from the leaves to ``node``; nothing where one is a state."""
    stack = [node]
    while stack:
        step = stack[-1]
        missing = [x for x in step.inputs if x not in _digests]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if step not in _digests:
            _digests[step] = _digest(step)
    return _digests[node]


def _digest(node: Node) -> bytes:
    below = [_digests[x] for x in node.inputs]
    if isinstance(node.op, ops.State) or not all(below):
        return b""
    digest = hashlib.blake2b(_describe(node.op).encode(), digest_size=8)
    for part in below:
        digest.update(part)
    return digest.digest()


def _describe(op: ops.Op) -> str:
    match op:
        case ops.Constant():
            return f"constant {op.value.digest}"
        case ops.Nested():  # bodies hold nodes, whose text has their numbers
            return f"{op.name} {op.output}"
        case _:
            return f"{type(op).__name__} {op}"
