"""Memory: aligned arrays, and offsets in the arena."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..compiler.artifact import ArenaSlot
from ..compiler.ir.dims import evaluate

#: Every buffer starts on a cache line.
ALIGNMENT = 64


def aligned_bytes(size: int) -> np.ndarray:
    """Return ``size`` zeroed bytes (at least one line) that start on a cache line."""
    raw = np.zeros(max(size, ALIGNMENT) + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + max(size, ALIGNMENT)]


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
