"""The memory plan: when each temporary is alive, counted in phases between barriers.

Kernels of one phase may run at the same time on different threads, so buffers share memory only
where their phases do not touch.  Sizes may be symbolic; offsets are assigned from these slots when
the sizes are known, without compiling again.
"""

from __future__ import annotations

from ..analysis.liveness import live_intervals
from ..artifact import ArenaSlot
from ..ir.types import ITEM_BYTES
from .ir import LoopProgram


def plan_memory(program: LoopProgram) -> tuple[ArenaSlot, ...]:
    """Return one slot for each arena buffer of ``program``."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    phase = 0
    uses: list[tuple[int, list[str]]] = []
    for step in program.steps:
        phase += step.barrier
        uses.append((phase, [use.name for use in kernels[step.kernel].buffers]))
    intervals = live_intervals(uses)
    return tuple(
        ArenaSlot(storage.name, storage.size * ITEM_BYTES[storage.dtype], *intervals[storage.name])
        for storage in program.storage
        if storage.kind == "arena" and storage.name in intervals
    )
