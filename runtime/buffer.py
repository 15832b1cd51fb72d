"""Memory: aligned arrays, and offsets in the arena."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..compiler.artifact import ArenaSlot
from ..compiler.ir.dims import evaluate

#: Every buffer starts on a cache line.
ALIGNMENT = 64


def _address_from_interface(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _address_from_object(array: np.ndarray) -> int:
    return _read_word(id(array) + _DATA_FIELD).value


_read_word = ctypes.c_uint64.from_address
#: Where CPython keeps an array's data pointer: right after the object's header.
_DATA_FIELD = object.__basicsize__


def _choose_data_address() -> Callable[[np.ndarray], int]:
    """Return the fast way where it gives what NumPy's own interface gives, else that interface.

    The interface costs 1.4 µs a call, reading the field 0.1 µs: half of a small step.
    """
    if sys.implementation.name != "cpython":
        return _address_from_interface
    samples = [np.zeros(3), np.zeros((2, 5), np.float32)[1:], np.zeros((), np.int64), np.zeros(0)]
    agree = all(_address_from_object(a) == _address_from_interface(a) for a in samples)
    return _address_from_object if agree else _address_from_interface


#: The address of an array's first element.
data_address = _choose_data_address()


def aligned_bytes(size: int) -> np.ndarray:
    """Return ``size`` zeroed bytes (at least one line) that start on a cache line."""
    raw = np.zeros(max(size, ALIGNMENT) + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + max(size, ALIGNMENT)]


class ResultArray:
    """Makes the arrays of one large output, aligned, and gives one out again once nobody holds it.

    A fresh 16 MB array costs 4 ms of page faults, as much as a tenth of a product of that size.
    Two are kept, so that a loop that holds the last result while it asks for the next is served.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self._kept: list[_KeptArray] = []

    def take(self) -> np.ndarray:
        """Return an array with arbitrary content that no one else refers to, not even by a view."""
        for kept in self._kept:
            if kept.is_free():
                return kept.array
        new = _KeptArray(self.shape, self.dtype)
        self._kept = [new, *self._kept[:1]]
        return new.array


class _KeptArray:
    """An aligned array, and how many references to it there are while only this object has one."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        size = math.prod(shape) * dtype.itemsize
        self._raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
        start = -data_address(self._raw) % ALIGNMENT
        self.array = self._raw[start : start + size].view(dtype).reshape(shape)
        self._alone = self._references()

    def is_free(self) -> bool:
        return self._references() == self._alone

    def _references(self) -> tuple[int, int]:
        return sys.getrefcount(self.array), sys.getrefcount(self._raw)


def place_slots(slots: Sequence[ArenaSlot], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return each slot's offset in the arena, and the arena's size, in bytes.

    Largest first; each goes to the lowest offset that no slot alive at the same time occupies.
    """
    placed: list[tuple[int, int, ArenaSlot]] = []
    offsets: dict[str, int] = {}
    total = 0
    measured = [(max(evaluate(slot.bytes, sizes), 1), slot) for slot in slots]
    for size, slot in sorted(measured, key=lambda item: (-item[0], item[1].buffer)):
        size = -(-size // ALIGNMENT) * ALIGNMENT
        busy = sorted(
            (start, end)
            for start, end, other in placed
            if other.first <= slot.last and slot.first <= other.last
        )
        offset = 0
        for start, end in busy:
            if offset + size <= start:
                break
            offset = max(offset, end)
        placed.append((offset, offset + size, slot))
        offsets[slot.buffer] = offset
        total = max(total, offset + size)
    return offsets, total
