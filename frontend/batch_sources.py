"""Where a training takes its batches from: arrays that fit the inputs, or the user's iterable."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol

import numpy as np

from ..compiler.errors import InputError
from ..compiler.ir import ops
from ..compiler.ir.graph import Node
from ..runtime.binding import convert_input
from .data import ArrayBatches, as_named_arrays, common_length

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


class Source(Protocol):
    """Epochs of batches; ``length`` is the number of batches, None where it is not known."""

    @property
    def length(self) -> int | None: ...

    def epoch(self, number: int, first: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the batches of epoch ``number`` from ``first`` on, each with its size."""
        ...


class ArraySource:
    """Epochs of arrays."""

    def __init__(self, batches: ArrayBatches) -> None:
        self.batches = batches
        self.length: int | None = len(batches)

    def epoch(self, number: int, first: int) -> Iterator[tuple[dict[str, Any], int]]:
        return self.batches.epoch(number, first)


_SPENT = object()


class IterableSource:
    """Epochs of an iterable of batches, or of a function that returns one.

    Each epoch iterates anew.  With ``steps`` an epoch is so many batches: the next one goes on
    where it stopped, and a spent iterable is begun again; batches that earlier epochs of a resumed
    training took are passed over, unless ``data`` is an iterator, which stands where it stands.
    """

    def __init__(self, data: Any, names: Sequence[str], steps: int | None = None) -> None:
        if not (callable(data) or isinstance(data, Iterable)):
            raise InputError(
                f"{type(data).__name__} is no data; arrays or an iterable of batches would fit"
            )
        if steps is not None and steps < 1:
            raise InputError(f"steps_per_epoch must be at least 1, not {steps}")
        self.data: Any = data
        self.names = names
        self.steps = steps
        self.length: int | None = steps or (len(data) if isinstance(data, Sized) else None)
        self._running: Iterator[Any] | None = None

    def epoch(self, number: int, first: int) -> Iterator[tuple[dict[str, Any], int]]:
        if self.steps is None:
            batches = itertools.islice(self._begin(), first, None)
        else:
            batches = self._go_on(number * self.steps + first, self.steps - first)
        for batch in batches:
            arrays = as_named_arrays(batch, _names_of(batch, self.names))
            if arrays is None:
                raise InputError(f"a batch must be arrays, not {type(batch).__name__}")
            yield arrays, samples_in(arrays)

    def _begin(self) -> Iterator[Any]:
        batches: Any = self.data() if callable(self.data) else self.data
        return iter(batches)

    def _go_on(self, taken: int, count: int) -> Iterator[Any]:
        """Yield ``count`` batches after the ``taken`` first ones of the endless sequence."""
        begun = self._running is None
        passed = taken if begun and not isinstance(self.data, Iterator) else 0
        if self._running is None:
            self._running = self._begin()
        while count:
            batch = next(self._running, _SPENT)
            if batch is _SPENT:
                if begun:
                    raise InputError("the data gave no batch; an iterator is spent after one pass")
                self._running, begun = self._begin(), True
                continue
            begun = False
            if passed:
                passed -= 1
                continue
            yield batch
            count -= 1


def _names_of(batch: object, names: Sequence[str]) -> Sequence[str]:
    """Return the names that a batch's arrays stand for: weights of samples may be left out."""
    optional = names and names[-1] == "sample_weight"
    if optional and isinstance(batch, (tuple, list)) and len(batch) == len(names) - 1:
        return names[:-1]
    return names


def name_arrays(data: object, names: Sequence[str]) -> dict[str, object] | None:
    """Return data by input name, None where it is an iterable of batches (`as_named_arrays`)."""
    return as_named_arrays(data, _names_of(data, names))


def split_arrays(
    arrays: Mapping[str, object] | None, share: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return arrays without, and of, the last ``share`` of their samples.

    Raises InputError where there are no arrays or the split leaves one part empty.
    """
    if arrays is None or not 0 < share < 1:
        raise InputError("validation_split takes a share between 0 and 1 of arrays, not batches")
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    count = common_length(plain)
    kept = count - round(count * share)
    if not 0 < kept < count:
        raise InputError(f"{count} samples cannot be split with validation_split={share}")
    return (
        {name: array[:kept] for name, array in plain.items()},
        {name: array[kept:] for name, array in plain.items()},
    )


def samples_in(arrays: Mapping[str, Any]) -> int:
    """Return the size of the first axis of the first array that has one; 1 where none has."""
    for array in arrays.values():
        shape = getattr(array, "shape", None)
        if shape is None:
            shape = np.shape(array)
        if len(shape):
            return int(shape[0])
    return 1
