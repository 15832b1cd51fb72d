"""The graph: immutable, hash-consed, typed nodes, and programs of them.

Two nodes of the same operator over the same inputs are one object, so that common subexpressions
are found by construction and ``is`` compares graphs.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..errors import SourceLine
from . import ops
from .dims import symbols
from .infer import infer_type
from .scalars import Formula
from .types import Dim, TensorType

_serial = itertools.count()
_interned: weakref.WeakValueDictionary[tuple, Node] = weakref.WeakValueDictionary()


class Node:
    """One value of the graph: an operator applied to inputs.  Make nodes with `make`."""

    __slots__ = ("__weakref__", "inputs", "op", "serial", "source", "type")

    op: ops.Op
    inputs: tuple[Node, ...]
    type: TensorType
    source: SourceLine | None
    serial: int

    @property
    def shape(self) -> tuple:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype

    def __repr__(self) -> str:
        args = ", ".join(f"%{x.serial}" for x in self.inputs)
        return f"%{self.serial} = {self.op.name}({args}) : {self.type}"

    def __reduce__(self) -> tuple:
        raise TypeError("graph nodes are not pickled; save parameters with safetensors")


def make(op: ops.Op, *inputs: Node, source: SourceLine | None = None) -> Node:
    """Return the node of ``op`` over ``inputs``; raises GraphError where the types do not fit."""
    key = (op, tuple(id(x) for x in inputs))
    found = _interned.get(key)
    if found is not None:
        return found
    node = Node.__new__(Node)
    node.op = op
    node.inputs = inputs
    node.source = source
    node.type = infer_type(op, tuple(x.type for x in inputs), source)
    node.serial = next(_serial)
    _interned[key] = node
    return node


def constant(value: object, dtype: str, source: SourceLine | None = None) -> Node:
    """Return a constant node of ``value`` converted to ``dtype``."""
    return make(ops.Constant(ops.Value(np.asarray(value, dtype=dtype))), source=source)


def apply(function: str | Formula, *inputs: Node, source: SourceLine | None = None) -> Node:
    """Return ``Map(function)`` over ``inputs``; the first input's line is inherited."""
    if source is None:
        source = next((x.source for x in inputs if x.source), None)
    return make(ops.Map(function), *inputs, source=source)


def scalar_value(node: Node) -> float | int | bool | None:
    """Return the number that a constant of equal elements holds, else None."""
    while isinstance(node.op, (ops.Broadcast, ops.Reshape)):
        node = node.inputs[0]
    if isinstance(node.op, ops.Constant):
        array = node.op.value.array
        if array.size == 1:
            return array.reshape(-1)[0].item()
    return None


def topological(roots: Iterable[Node]) -> list[Node]:
    """Return every node that ``roots`` need, inputs before their users, in a fixed order."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((x, False) for x in reversed(node.inputs) if x not in seen)
    return order


def with_bodies(roots: Iterable[Node]) -> Iterator[Node]:
    """Yield every node that ``roots`` need, and every node of the bodies among them, once each."""
    seen: set[ops.Body] = set()
    pending = [list(roots)]
    while pending:
        for node in topological(pending.pop()):
            yield node
            if isinstance(node.op, ops.Nested):
                for body in node.op.bodies:
                    if body not in seen:
                        seen.add(body)
                        pending.append([*body.formals, *body.results])


@dataclass(frozen=True)
class Requirement:
    """Before anything runs, every element of an input must lie in ``[low, high)`` or be ``ignore``.

    ``message`` says what the elements are for.
    """

    input: Node
    low: Dim
    high: Dim
    ignore: int | None
    message: str
    source: SourceLine | None


@dataclass(frozen=True)
class Program:
    """What is compiled: named outputs, and states with the values that replace them.

    All updates take effect together, after every output has been computed from the old states.
    """

    outputs: tuple[tuple[str, Node], ...]
    updates: tuple[tuple[Node, Node], ...] = ()
    name: str = "program"
    requirements: tuple[Requirement, ...] = ()

    @property
    def roots(self) -> tuple[Node, ...]:
        return tuple(n for _, n in self.outputs) + tuple(n for _, n in self.updates)

    def nodes(self) -> list[Node]:
        """Every node, in topological order; updated states are included even where unread."""
        return topological((*self.roots, *(state for state, _ in self.updates)))

    def inputs(self) -> list[Node]:
        return [n for n in self.nodes() if isinstance(n.op, ops.Input)]

    def states(self) -> list[Node]:
        return [n for n in self.nodes() if isinstance(n.op, ops.State)]

    def symbols(self) -> frozenset[str]:
        """Return the names of the sizes that the inputs' shapes tell."""
        dims = (dim for node in self.inputs() for dim in node.shape)
        return frozenset(name for dim in dims for name in symbols(dim))

    def with_roots(self, roots: Iterable[Node]) -> Program:
        """Return this program with its output and update values replaced, in order."""
        values = iter(roots)
        outputs = tuple((name, next(values)) for name, _ in self.outputs)
        updates = tuple((state, next(values)) for state, _ in self.updates)
        return replace(self, outputs=outputs, updates=updates)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes())
