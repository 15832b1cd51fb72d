"""Sequences of different lengths in one tensor, under PyTorch's names.

A compiled program has fixed shapes, so a "packed" sequence stays padded and carries its lengths;
layers leave out what lies beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...compiler.ir.dims import format_shape
from .. import functional as F
from ..tensor import Tensor, as_tensor
from ..tracing import fail


class PackedSequence(NamedTuple):
    """Padded ``data`` (steps, batch, …), or (batch, steps, …), and ``lengths`` (batch,)."""

    data: Tensor
    lengths: Tensor
    batch_first: bool = False


def pack_padded_sequence(
    input: object, lengths: object, batch_first: bool = False, enforce_sorted: bool = False
) -> PackedSequence:
    """Return ``input`` (steps, batch, …) with its ``lengths`` (batch,), in any order."""
    del enforce_sorted  # nothing here is sorted
    data, sizes = as_tensor(input), as_tensor(lengths)
    batch = data.shape[0 if batch_first else 1] if data.ndim > 1 else None
    if sizes.shape != (batch,):
        fail(
            f"pack_padded_sequence: lengths of shape {format_shape(sizes.shape)} do not fit data "
            f"of shape {format_shape(data.shape)}: one length for each sequence is needed"
        )
    return PackedSequence(data, sizes, batch_first)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the padded data, ``padding_value`` beyond each sequence's end, and the lengths."""
    data, lengths = sequence.data, sequence.lengths
    if sequence.batch_first != batch_first:
        data = data.swapaxes(0, 1)
    steps, batch = (1, 0) if batch_first else (0, 1)
    shape = tuple(data.shape[a] if a in (0, 1) else 1 for a in range(data.ndim))
    wide = lengths.reshape(tuple(-1 if a == batch else 1 for a in range(data.ndim)))
    inside = F.iota(shape, steps, lengths.dtype) < wide
    return F.where(inside, data, padding_value), lengths


def pad_sequence(
    sequences: Sequence[np.ndarray], batch_first: bool = False, padding_value: float = 0.0
) -> np.ndarray:
    """Return arrays (steps_i, …) as one, padded at the end: (steps, batch, …)."""
    arrays = [np.asarray(s) for s in sequences]
    if not arrays:
        raise ValueError("pad_sequence needs at least one sequence")
    longest = max(a.shape[0] for a in arrays)
    result = np.full(
        (len(arrays), longest, *arrays[0].shape[1:]), padding_value, np.result_type(*arrays)
    )
    for row, array in zip(result, arrays, strict=True):
        row[: len(array)] = array
    return result if batch_first else np.ascontiguousarray(result.swapaxes(0, 1))
