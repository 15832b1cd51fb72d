"""Where a training takes its batches from: arrays that fit the inputs, or the user's iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from ..compiler.errors import InputError
from ..compiler.ir import ops
from ..compiler.ir.graph import Node
from ..runtime.binding import convert_input
from .data import ArrayBatches, as_named_arrays

#: Data of at most this many bytes is converted to the inputs' element types once, not by the batch.
CONVERTED_AT_ONCE = 2 << 30


def cut_batches(
    arrays: Mapping[str, object],
    inputs: Mapping[str, Node],
    known: Iterable[str],
    batch_size: int | None,
    default: int = 32,
    **how: Any,
) -> ArrayBatches:
    """Return ``arrays`` as batches of ``inputs``; names of other ``known`` inputs are left out.

    Without ``batch_size`` it is the size that the inputs fix, or ``default``.

    Raises
    ------
    InputError
        A name is missing or unknown, or the batches do not fit a fixed size.
    """
    missing = [name for name in inputs if name not in arrays]
    unknown = [name for name in arrays if name not in known]
    if missing or unknown:
        raise InputError(
            f"the inputs are {', '.join(inputs)}"
            + (f"; {', '.join(missing)} missing" if missing else "")
            + (f"; {', '.join(unknown)} unknown" if unknown else "")
        )
    prepared = {name: _prepare_array(arrays[name], node) for name, node in inputs.items()}
    fixed = {n.shape[0] for n in inputs.values() if n.shape and isinstance(n.shape[0], int)}
    size = batch_size or (min(fixed) if fixed else default)
    batches = ArrayBatches(prepared, size, **how)
    rest = batches.samples % batches.batch_size
    if fixed and (fixed != {batches.batch_size} or (rest and not batches.drop_last)):
        raise InputError(
            f"the batch axis is fixed at {', '.join(map(str, sorted(fixed)))}: {batches.samples} "
            f"samples in batches of {batches.batch_size} do not fit; name the axis, as in "
            "input('x', ('batch', …)), or use drop_last=True"
        )
    return batches


def _prepare_array(value: object, node: Node) -> np.ndarray:
    assert isinstance(node.op, ops.Input)
    size = getattr(value, "size", 0)
    if isinstance(size, int) and size * np.dtype(node.dtype).itemsize > CONVERTED_AT_ONCE:
        return np.asarray(value)
    return convert_input(value, (node.op.label, node.type, node.source))


class ArraySource:
    """Epochs of arrays."""

    def __init__(self, batches: ArrayBatches) -> None:
        self.batches = batches
        self.length: int | None = len(batches)

    def epoch(self, number: int, first: int) -> Iterator[tuple[dict[str, Any], int]]:
        return self.batches.epoch(number, first)


class IterableSource:
    """Epochs of an iterable of batches, or of a function that returns one."""

    def __init__(self, data: Any, names: Sequence[str]) -> None:
        if not (callable(data) or isinstance(data, Iterable)):
            raise InputError(
                f"{type(data).__name__} is no data; arrays or an iterable of batches would fit"
            )
        self.data: Any = data
        self.names = names
        self.length: int | None = len(data) if isinstance(data, Sized) else None

    def epoch(self, number: int, first: int) -> Iterator[tuple[dict[str, Any], int]]:
        batches: Any = self.data() if callable(self.data) else self.data
        for index, batch in enumerate(batches):
            if index < first:
                continue
            arrays = as_named_arrays(batch, self.names)
            if arrays is None:
                raise InputError(f"a batch must be arrays, not {type(batch).__name__}")
            yield arrays, _samples_in(arrays)


Source = ArraySource | IterableSource


def _samples_in(arrays: Mapping[str, Any]) -> int:
    for array in arrays.values():
        shape = getattr(array, "shape", None)
        if shape is None:
            shape = np.shape(array)
        if len(shape):
            return int(shape[0])
    return 1
