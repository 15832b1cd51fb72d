"""The primitives of the graph: a small closed set, one dataclass each.

    Leaf     = Input(name) | State(name, role, key) | Constant(value) | Extent(dim) | Training
             | Iota(type, axis) | RandomBits(shape, stream, word)
    Map      = Map(elementary name | Formula) | Cast(dtype)           elementwise, broadcasting
    Contract = Contract(sizes, maps of two operands, output map, output shape)
    Reduce   = Reduce(kind, axes)                                     sum prod max min argmax argmin
    View     = Reshape | Transpose | Broadcast | Slice | Pad | Flip | Concat | Window
    Nested   = Scan(body, length) | Cond(then, other) | While(condition, body)
             | CustomGradient(rule)
    Index    = Gather(axis) | ScatterAdd(axis, size) | ArgSort(axis, descending)
    Running  = LinearRecurrence(axis, reverse) | RunningExtremum(kind, axis, reverse)

A loop computes several values; each of its nodes gives one of them (``output``), and nodes that
differ in that alone are one computation.  A `Body` is a graph over formals of its own.

Everything else that a user writes (softmax, normalisation, losses, optimizers) is a composition.
Legalization alone makes `Window` and `FlatContract`, forms of a Contract that kernels are made of.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .dims import SymbolicDim, format_shape
from .scalars import Formula
from .types import Dim, Shape, TensorType


class Value:
    """An immutable array that hashes and compares by its bits."""

    __slots__ = ("array", "digest")

    def __init__(self, array: np.ndarray) -> None:
        self.array = np.array(array, order="C", copy=True)
        self.array.setflags(write=False)
        header = f"{self.array.dtype.name}{self.array.shape}".encode()
        self.digest = hashlib.blake2b(header + self.array.tobytes(), digest_size=16).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        if self.array.size <= 4:
            return str(self.array.tolist())
        return f"<{self.array.size} values {self.digest[:8]}>"


@dataclass(frozen=True)
class Op:
    """Base of all primitives."""

    @property
    def name(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Input(Op):
    """An array that the caller passes by name at each call."""

    label: str
    type: TensorType


@dataclass(frozen=True)
class State(Op):
    """An array that lives between calls: a parameter, a buffer or an optimizer slot.

    ``key`` makes two states of one name distinct.  ``role`` is ``parameter``, ``buffer``, ``slot``
    or ``random``.
    """

    label: str
    type: TensorType
    role: str
    key: int


_state_keys = itertools.count()


def new_state_key() -> int:
    """Return a number that no other state of this process has."""
    return next(_state_keys)


@dataclass(frozen=True)
class Constant(Op):
    """An array known at compile time."""

    value: Value


@dataclass(frozen=True)
class Extent(Op):
    """The size of a dimension as a 0-d value, so that a mean can divide by a symbolic batch."""

    dim: Dim
    dtype: str


@dataclass(frozen=True)
class Training(Op):
    """A 0-d bool: true in a training step, false in inference.  Known at compile time."""


@dataclass(frozen=True)
class Iota(Op):
    """The index along ``axis`` at every element."""

    type: TensorType
    axis: int


@dataclass(frozen=True)
class RandomBits(Op):
    """32 random bits an element, from the counter-based generator Philox 2x32-10.

    Input: a 0-d int64 state, the seed in its high 32 bits and the draw's number in the low ones.
    The counter of element ``i`` (row-major) is ``(i, low 32 bits of the state)``, the key is
    ``(stream * 0x9E3779B9 mod 2**32) xor (high 32 bits of the state)``; ``word`` picks one of the
    two words that a counter gives.  (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    2011.)
    """

    shape: Shape
    stream: int
    word: int


@dataclass(frozen=True)
class Map(Op):
    """An elementwise function of its inputs, which broadcast against each other."""

    function: str | Formula

    @property
    def name(self) -> str:
        return self.function if isinstance(self.function, str) else self.function.name


@dataclass(frozen=True)
class Cast(Op):
    """Elementwise conversion; float to integer truncates, anything to bool tests for non-zero."""

    dtype: str


@dataclass(frozen=True)
class Affine:
    """``offset + sum(coefficient * index)``: one axis of an index map."""

    terms: tuple[tuple[int, int], ...]
    offset: int = 0

    def __str__(self) -> str:
        parts = [f"i{i}" if c == 1 else f"{c}*i{i}" for i, c in self.terms]
        if self.offset or not parts:
            parts.append(str(self.offset))
        return "+".join(parts).replace("+-", "-")


IndexMap = tuple[Affine, ...]


def format_map(index_map: IndexMap) -> str:
    """Return an index map as text, ``[i0,2*i1+i2]``."""
    return "[" + ",".join(map(str, index_map)) + "]"


@dataclass(frozen=True)
class Contract(Op):
    """A sum of products over an index space.

    ``out[output_map(i)] += left[maps[0](i)] * right[maps[1](i)]`` for every ``i`` in the box
    ``sizes``; out-of-range operand elements count as zero, out-of-range outputs are dropped, and
    outputs that no ``i`` reaches are zero.  The adjoint with respect to an operand is again a
    Contract, in which that operand's map and the output's map trade places.
    """

    sizes: tuple[Dim, ...]
    maps: tuple[IndexMap, IndexMap]
    output_map: IndexMap
    output_shape: Shape

    def __str__(self) -> str:
        left, right = map(format_map, self.maps)
        return (
            f"contract[{left},{right}->{format_map(self.output_map)} "
            f"over {format_shape(self.sizes)}]"
        )


@dataclass(frozen=True)
class FlatContract(Op):
    """A batched matrix product of elements found anywhere in two arrays; made by legalization.

    ``out[b…, m, n] = sum over k of left.flat[i(b, m, k)] * right.flat[j(b, k, n)]`` for the box
    ``sizes = (b…, m, n, k)``.  ``left`` holds the offset of the first element and the steps, in
    elements, of ``b…, m, k``; ``right`` those of ``b…, k, n``.  Where the last two are absent, the
    operand's distances along them stand in two int64 tables: inputs left, right, then the tables of
    ``m`` and ``k``, of ``k`` and ``n``.  Every access is in range.
    """

    sizes: Shape
    left: Shape
    right: Shape

    @property
    def tabled(self) -> tuple[bool, bool]:
        """Whether each operand has tables."""
        full = len(self.sizes)
        return len(self.left) < full, len(self.right) < full


#: The operators whose kernels are built around matrix products.
CONTRACTIONS = (Contract, FlatContract)


@dataclass(frozen=True)
class Reduce(Op):
    """A reduction over ``axes``, which are dropped; argmax and argmin take one axis."""

    kind: str
    axes: tuple[int, ...]


REDUCTIONS = frozenset({"sum", "prod", "max", "min", "argmax", "argmin"})


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements, in row-major order, as another shape."""

    shape: Shape


@dataclass(frozen=True)
class Transpose(Op):
    """Axis ``i`` of the result is axis ``permutation[i]`` of the input."""

    permutation: tuple[int, ...]


@dataclass(frozen=True)
class Broadcast(Op):
    """Broadcast to ``shape`` by NumPy's rule."""

    shape: Shape


@dataclass(frozen=True)
class Slice(Op):
    """``x[start:start + size*step:step]`` on every axis; ``size`` counts the kept elements."""

    starts: tuple[Dim, ...]
    sizes: Shape
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Pad(Op):
    """Insert zeros: ``low`` and ``high`` around, ``interior`` between the elements of an axis."""

    low: tuple[Dim, ...]
    high: tuple[Dim, ...]
    interior: tuple[int, ...]


@dataclass(frozen=True)
class Flip(Op):
    """The elements along ``axes`` in reverse."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Window(Op):
    """``out[i…] = x[map(i…)]`` for an affine map that stays in range; made by legalization."""

    shape: Shape
    map: IndexMap


@dataclass(frozen=True)
class Concat(Op):
    """The inputs one after the other along ``axis``."""

    axis: int


@dataclass(frozen=True)
class Gather(Op):
    """``take(x, indices, axis)``; the axes of ``indices`` stand where ``axis`` was.

    Indices must lie in ``[0, size)``; others raise an IndexRangeError.
    """

    axis: int


@dataclass(frozen=True)
class ScatterAdd(Op):
    """The adjoint of `Gather`: add ``updates`` into zeros at ``indices`` along ``axis``.

    Inputs: updates, indices.  ``size`` is the length of ``axis`` in the result.
    """

    axis: int
    size: Dim


@dataclass(frozen=True)
class Body:
    """A closed piece of graph: ``results`` as functions of ``formals``.

    Formals are `Input` nodes with labels that tell role and position (``ir/bodies.py``), so that
    equal bodies are equal.  No other input and no state occurs; what the body uses of the graph
    around it is passed to it.
    """

    formals: tuple[Any, ...]  # nodes, whose class needs this module
    results: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"<body of {len(self.formals)} formals, {len(self.results)} results>"


class Nested(Op):
    """Base of the primitives that run bodies."""

    output: int

    @property
    def bodies(self) -> tuple[Body, ...]:
        """Every body, in a fixed order."""
        raise NotImplementedError

    def with_bodies(self, bodies: tuple[Body, ...]) -> Self:
        """Return the same operator over other bodies."""
        raise NotImplementedError

    @property
    def family(self) -> Self:
        """The operator short of which output it gives: nodes of one family over the same inputs
        are one computation."""
        return replace(self, output=-1)  # type: ignore[type-var]


@dataclass(frozen=True)
class Scan(Nested):
    """``length`` steps of ``(carries, items, outer) -> (carries, stacked)``.

    Inputs: ``carries`` initial carries, ``sequences`` sequences of ``length`` items along their
    first axis, and what every step gets as it is.  With ``reverse`` the last items come first; a
    step's results are stacked where its items came from.  Output ``k`` of the carries is the
    carry after the last step; the others are the stacked results.
    """

    body: Body
    carries: int
    sequences: int
    length: Dim
    reverse: bool
    output: int

    @property
    def bodies(self) -> tuple[Body, ...]:
        return (self.body,)

    def with_bodies(self, bodies: tuple[Body, ...]) -> Scan:
        return replace(self, body=bodies[0])


@dataclass(frozen=True)
class Cond(Nested):
    """``then`` of the inputs behind the predicate where it holds, else ``other`` of them.

    Inputs: a 0-d bool, then one for each formal.  Only one body runs.
    """

    then: Body
    other: Body
    output: int

    @property
    def bodies(self) -> tuple[Body, ...]:
        return (self.then, self.other)

    def with_bodies(self, bodies: tuple[Body, ...]) -> Cond:
        return replace(self, then=bodies[0], other=bodies[1])


@dataclass(frozen=True)
class While(Nested):
    """``body`` again and again, as long as ``condition`` of the carries holds.

    Inputs: initial carries, then what every step gets as it is; both bodies have a formal for
    each.  ``condition`` gives a 0-d bool, ``body`` the new carries.
    """

    condition: Body
    body: Body
    output: int

    @property
    def bodies(self) -> tuple[Body, ...]:
        return (self.condition, self.body)

    def with_bodies(self, bodies: tuple[Body, ...]) -> While:
        return replace(self, condition=bodies[0], body=bodies[1])


@dataclass(frozen=True)
class ArgSort(Op):
    """The int64 positions along ``axis`` that put its elements in order; equal ones keep theirs.

    NaN is greater than every number, and ``-0.0`` equals ``0.0``.
    """

    axis: int
    descending: bool


@dataclass(frozen=True)
class LinearRecurrence(Op):
    """``y[i] = a[i] * y[i-1] + b[i]`` along ``axis``, from its end backwards where ``reverse``.

    Inputs: a, b, of one shape.  The first element is ``b`` there, whatever ``a`` holds: cumulative
    sums (a = 1) and products, discounted returns, moving averages, and their adjoints.
    """

    axis: int
    reverse: bool


@dataclass(frozen=True)
class RunningExtremum(Op):
    """The maximum or minimum (``kind``) of all elements along ``axis`` so far; NaN stays NaN."""

    kind: str
    axis: int
    reverse: bool


@dataclass(frozen=True)
class CustomGradient(Nested):
    """The first ``count`` inputs as they are, with ``rule`` for the gradient of what follows.

    Inputs: ``count`` values, then arguments, one for each result of ``rule``, then what else the
    rule uses.  ``rule`` maps the values' cotangents and the latter to the arguments' cotangents.
    """

    rule: Body
    count: int
    output: int

    @property
    def bodies(self) -> tuple[Body, ...]:
        return (self.rule,)

    def with_bodies(self, bodies: tuple[Body, ...]) -> CustomGradient:
        return replace(self, rule=bodies[0])


def dims_of(op: Op) -> tuple[Dim, ...]:
    """Return the dimensions that ``op`` itself mentions."""
    match op:
        case Input() | State() | Iota():
            return op.type.shape
        case Extent():
            return (op.dim,)
        case RandomBits() | Reshape() | Broadcast() | Window():
            return op.shape
        case Contract():
            return op.sizes + op.output_shape
        case FlatContract():
            return op.sizes + op.left + op.right
        case Slice():
            return op.starts + op.sizes
        case Pad():
            return op.low + op.high
        case ScatterAdd():
            return (op.size,)
        case Scan():
            return (op.length,)
        case _:
            return ()


def is_symbolic(shape: Shape) -> bool:
    """Whether some size is known only when called."""
    return any(isinstance(dim, SymbolicDim) for dim in shape)
