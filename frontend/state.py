"""Values that live between calls, and the updates that a traced graph attaches to them.

A `Variable` is a State node with its storage.  An *effect* is an update that belongs to a place in
the graph: batch normalisation moves its running statistics where its output is used, a generator of
random numbers advances where its numbers are used.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..compiler.errors import GraphTypeError, InputError, InputTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape
from ..compiler.ir.graph import Node, topological
from ..compiler.ir.types import TensorType
from .initializers import initial_values
from .promotion import array_of, canonical_dtype
from .shaping import shape_of
from .tensor import Tensor, apply
from .tracing import build, fail

ROLES = ("parameter", "buffer", "slot", "random")
_ALIGNMENT = 64  # a cache line, and the widest vector


@dataclass(eq=False)
class _Storage:
    """What belongs to a State node; it does not refer to the node, so that both can go."""

    array: np.ndarray
    trainable: bool
    variable: weakref.ref[Variable] | None = None


_storages: weakref.WeakKeyDictionary[Node, _Storage] = weakref.WeakKeyDictionary()


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """Return a C-contiguous copy of ``array`` that starts at a multiple of 64 bytes."""
    raw = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Variable(Tensor):
    """A tensor whose value lives between calls: a parameter, a buffer, an optimizer slot.

    ``value`` is the storage itself; compiled programs read and update it in place.  `assign` copies
    into it.
    """

    __slots__ = ("_storage",)

    _storage: _Storage

    def __init__(
        self,
        value: object,
        name: str = "variable",
        role: str = "parameter",
        trainable: bool | None = None,
        dtype: object = None,
    ) -> None:
        if role not in ROLES:
            fail(f"variable {name!r}: role {role!r} is not one of {', '.join(ROLES)}")
        array = array_of(value, canonical_dtype(dtype) if dtype is not None else None)
        kind = TensorType(array.dtype.name, array.shape)
        super().__init__(build(ops.State(name, kind, role, ops.new_state_key())))
        if trainable is None:
            trainable = role == "parameter"
        self._attach(_Storage(aligned_copy(array), trainable))
        _storages[self.node] = self._storage

    def _attach(self, storage: _Storage) -> None:
        object.__setattr__(self, "_storage", storage)
        storage.variable = weakref.ref(self)

    @property
    def name(self) -> str:
        return self._state.label

    @property
    def role(self) -> str:
        return self._state.role

    @property
    def _state(self) -> ops.State:
        assert isinstance(self.node.op, ops.State)
        return self.node.op

    @property
    def value(self) -> np.ndarray:
        """The storage: C-contiguous, 64-byte aligned, the same array for the variable's life."""
        return self._storage.array

    @property
    def trainable(self) -> bool:
        """Whether an optimizer changes it."""
        return self._storage.trainable

    def set_trainable(self, flag: bool) -> None:
        """Say whether an optimizer changes it, in programs that are compiled from now on."""
        self._storage.trainable = bool(flag)

    def requires_grad_(self, flag: bool = True) -> Variable:
        """Say whether an optimizer changes it (`set_trainable`); return the variable."""
        self.set_trainable(flag)
        return self

    def assign(self, array: object) -> Variable:
        """Copy ``array`` into the storage and return the variable.

        Raises InputError where the shape differs, InputTypeError where the element type cannot be
        converted without loss of meaning (floats to integers).
        """
        given = array_of(array)
        storage = self._storage.array
        if given.shape != storage.shape:
            raise InputError(
                f"{self.role} {self.name!r} has shape {format_shape(storage.shape)}; "
                f"an array of shape {format_shape(given.shape)} does not fit"
            )
        if not np.can_cast(given.dtype, storage.dtype, "same_kind"):
            raise InputTypeError(
                f"{self.role} {self.name!r} holds {storage.dtype}; {given.dtype} does not convert"
            )
        storage[...] = given
        return self

    def numpy(self) -> np.ndarray:
        """Return a copy of the value."""
        return self._storage.array.copy()

    def __deepcopy__(self, memo: dict[int, object]) -> Variable:
        """Return a new variable of the same value, so that a copied model has its own."""
        copy = Variable(self.value, self.name, self.role, self.trainable)
        memo[id(self)] = copy
        return copy

    def __repr__(self) -> str:
        return f"Variable({self.name}, {self.role}, {self.node.type})"


def variable_of(node: Node) -> Variable:
    """Return the variable of a State node; KeyError where the node has none."""
    storage = _storages[node]
    found = storage.variable() if storage.variable is not None else None
    if found is None:
        found = Variable.__new__(Variable)
        Tensor.__init__(found, node)
        found._attach(storage)
    return found


def parameter(
    value_or_shape: object,
    name: str | None = None,
    dtype: object = None,
    init: str | float | Callable[[tuple[int, ...]], object] | None = None,
) -> Variable:
    """Return a trainable variable.

    ``value_or_shape``: a tuple of ints is a shape, anything else the value.  ``init``, for a shape:
    the name of an initialiser, a number, or a function of the shape that gives an array; by default
    ``kaiming_uniform`` with a = sqrt(5) for two or more axes (PyTorch's default) and zeros below.
    Raises GraphTypeError for a shape that is not static.
    """
    name = name or "parameter"
    if isinstance(value_or_shape, tuple):
        shape = shape_of(value_or_shape, f"parameter {name!r}")
        if not all(isinstance(dim, int) and dim >= 0 for dim in shape):
            fail(f"parameter {name!r}: {format_shape(shape)} is not a static shape", GraphTypeError)
        value_or_shape = initial_values(shape, init)  # type: ignore[arg-type]
        dtype = dtype or "float32"
    elif init is not None:
        fail(f"parameter {name!r}: init goes with a shape (a tuple of ints), not with a value")
    return Variable(value_or_shape, name, "parameter", True, dtype)


@dataclass(frozen=True, eq=False)
class Effect:
    """An update of ``state`` in the graphs that contain ``anchor``; see `register_effect`."""

    serial: int
    anchor: weakref.ref[Node]
    state: Variable
    update: Callable[[Tensor], Tensor]
    once: bool
    training_only: bool


_effects: dict[int, Effect] = {}
_effects_by_anchor: weakref.WeakKeyDictionary[Node, list[int]] = weakref.WeakKeyDictionary()
_serials = itertools.count()


def register_effect(
    state: Variable,
    anchor: Node,
    update: Callable[[Tensor], Tensor],
    once: bool = False,
    training_only: bool = False,
) -> None:
    """Attach ``state <- update(state)`` to the graphs that contain ``anchor``.

    A state's updates apply one after the other in trace order, one for each anchor.  ``once``: all
    such updates of the state count as one.  ``training_only``: the state keeps its value in
    inference.  ``update`` must not refer to ``anchor`` itself, whose death ends the effect.
    """
    serials = _effects_by_anchor.setdefault(anchor, [])
    if any(_effects[serial].state.node is state.node for serial in serials):
        return  # hash-consing gave the same place of the graph a second time
    serial = next(_serials)
    reference = weakref.ref(anchor, lambda _: _effects.pop(serial, None))
    _effects[serial] = Effect(serial, reference, state, update, once, training_only)
    serials.append(serial)


def effects_at(anchor: Node) -> list[Effect]:
    """Return the updates attached to the graphs that contain ``anchor``."""
    return [_effects[serial] for serial in _effects_by_anchor.get(anchor, ())]


def effects_reaching(nodes: Iterable[Node]) -> list[tuple[Variable, Tensor]]:
    """Return every state whose updates are anchored in what ``nodes`` need, with its new value."""
    found = sorted(
        serial for node in topological(nodes) for serial in _effects_by_anchor.get(node, ())
    )
    chains: dict[Node, list[Effect]] = {}
    for serial in found:
        effect = _effects[serial]
        chain = chains.setdefault(effect.state.node, [])
        if effect.once and (previous := next((e for e in chain if e.once), None)):
            if previous.training_only and not effect.training_only:
                chain[chain.index(previous)] = effect
            continue
        chain.append(effect)
    return [(chain[0].state, _fold(chain)) for chain in chains.values()]


def _fold(chain: list[Effect]) -> Tensor:
    value: Tensor = chain[0].state
    for effect in chain:
        new = effect.update(value)
        if effect.training_only:
            new = apply("where", Tensor(build(ops.Training())), new, value)
        value = new
    return value
