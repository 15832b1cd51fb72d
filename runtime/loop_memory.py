"""Buffers of interpreted kernels: every access is checked before it happens.

An element must lie inside its buffer, must have been written since the memory was last another
buffer's, and must not be shared by iterations that run on different threads.
"""

from __future__ import annotations

import itertools

import numpy as np

from ..compiler.errors import CheckFailed

_UNTOUCHED = -1
_SEVERAL = -2
_numbers = itertools.count(1)


class Buffer:
    """A named flat array under watch.

    Parameters
    ----------
    name
        What messages call it.
    array
        Its elements, in order; written in place.
    owner
        int32, one per byte of ``array``: the number of the buffer that wrote the byte last.
        Buffers that share memory share it.  None: every element holds a value from the start.
    """

    def __init__(self, name: str, array: np.ndarray, owner: np.ndarray | None = None) -> None:
        self.name = name
        self.array = array.reshape(-1)
        self.number = next(_numbers)
        shape = (self.array.size, self.array.itemsize)
        self.owner = owner if owner is None else owner.reshape(shape)
        self._readers: np.ndarray | None = None
        self._writers: np.ndarray | None = None

    def begin_parallel(self) -> None:
        """Start to watch for elements that two iterations share."""
        self._readers = np.full(self.array.size, _UNTOUCHED, dtype=np.int64)
        self._writers = np.full(self.array.size, _UNTOUCHED, dtype=np.int64)

    def end_parallel(self) -> None:
        self._readers = self._writers = None

    def read(self, offset: np.ndarray, iteration: np.ndarray | None) -> np.ndarray:
        """Return the elements at ``offset``; raises CheckFailed where one may not be read."""
        self._check_bounds(offset)
        if self.owner is not None:
            fresh = (self.owner[offset] == self.number).all(axis=-1)
            if not fresh.all():
                at = int(offset[~fresh].flat[0])
                raise CheckFailed(f"{self.name}[{at}] is read and holds no value of its own")
        if iteration is not None and self._writers is not None and self._readers is not None:
            writer = self._writers[offset]
            self._check_alone(offset, (writer != _UNTOUCHED) & (writer != iteration))
            reader = self._readers[offset]
            first = (reader == _UNTOUCHED) | (reader == iteration)
            self._readers[offset] = np.where(first, iteration, _SEVERAL)
        return self.array[offset]

    def write(self, offset: np.ndarray, value: np.ndarray, iteration: np.ndarray | None) -> None:
        """Store ``value`` at ``offset``; raises CheckFailed where that is not allowed."""
        self._check_bounds(offset)
        if offset.size > 1:
            ordered = np.sort(offset, axis=None)
            twice = ordered[1:][ordered[1:] == ordered[:-1]]
            if twice.size:
                raise CheckFailed(f"{self.name}[{int(twice[0])}] is stored to by several lanes")
        self._check_written(offset, iteration)
        self.array[offset] = value
        if self.owner is not None:
            self.owner[offset] = self.number

    def add(self, offset: np.ndarray, value: np.ndarray, iteration: np.ndarray | None) -> None:
        """Add ``value`` to the elements at ``offset``, one after another."""
        self.read(offset, iteration)
        self._check_written(offset, iteration)
        np.add.at(self.array, offset, value)

    def _check_bounds(self, offset: np.ndarray) -> None:
        outside = (offset < 0) | (offset >= self.array.size)
        if outside.any():
            at = int(offset[outside].flat[0])
            raise CheckFailed(f"{self.name}[{at}] lies outside its {self.array.size} elements")

    def _check_written(self, offset: np.ndarray, iteration: np.ndarray | None) -> None:
        if iteration is not None and self._writers is not None and self._readers is not None:
            for seen in (self._writers[offset], self._readers[offset]):
                self._check_alone(offset, (seen != _UNTOUCHED) & (seen != iteration))
            self._writers[offset] = iteration

    def _check_alone(self, offset: np.ndarray, shared: np.ndarray) -> None:
        if shared.any():
            at = int(np.broadcast_to(offset, shared.shape)[shared].flat[0])
            raise CheckFailed(f"{self.name}[{at}] is written by one thread and used by another")


def poison(array: np.ndarray) -> np.ndarray:
    """Fill ``array`` with what no program should see: NaN, or the least number; return it."""
    kind = array.dtype.kind
    array.fill(np.nan if kind == "f" else True if kind == "b" else np.iinfo(array.dtype).min)
    return array
