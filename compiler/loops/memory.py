"""The memory plan: when each temporary is alive, counted in phases between barriers.

Kernels of one phase may run at the same time on different threads, so buffers share memory only
where their phases do not touch.  What a loop finds or leaves behind is alive for all of its phases;
what each step computes anew lives as long as that step needs it.  Sizes may be symbolic; offsets
are assigned from these slots when the sizes are known, without compiling again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..analysis.liveness import live_intervals
from ..artifact import ArenaSlot
from ..ir.types import ITEM_BYTES
from .ir import Choice, Item, LoopProgram, Repeat, Step, While, parts


def plan_memory(program: LoopProgram) -> tuple[ArenaSlot, ...]:
    """Return one slot for each arena buffer of ``program``."""
    intervals = live_intervals(_Timeline(program).uses())
    return tuple(
        ArenaSlot(storage.name, storage.size * ITEM_BYTES[storage.dtype], *intervals[storage.name])
        for storage in program.storage
        if storage.kind == "arena" and storage.name in intervals
    )


@dataclass(frozen=True)
class _Use:
    """A buffer used in a phase, inside some loops."""

    name: str
    phase: int
    written: bool
    loops: tuple[int, ...]


class _Timeline:
    """Walks the items of a program and counts phases."""

    def __init__(self, program: LoopProgram) -> None:
        self.kernels = {kernel.name: kernel for kernel in program.kernels}
        self.phase = 0
        self.found: list[_Use] = []
        self.spans: list[tuple[int, int]] = []  # the phases of each loop
        self.walk(program.items, ())

    def uses(self) -> Iterator[tuple[int, tuple[str]]]:
        """Yield every use as ``(phase, name)``, and the ends of the loops that need a buffer."""
        by_name: dict[str, list[_Use]] = {}
        for use in self.found:
            by_name.setdefault(use.name, []).append(use)
        for name, uses in by_name.items():
            for use in uses:
                yield use.phase, (name,)
            for loop in {number for use in uses for number in use.loops}:
                inside = [use for use in uses if loop in use.loops]
                if len(inside) < len(uses) or not inside[0].written:
                    for phase in self.spans[loop]:
                        yield phase, (name,)

    def use(self, name: str, written: bool, loops: tuple[int, ...]) -> None:
        self.found.append(_Use(name, self.phase, written, loops))

    def walk(self, items: tuple[Item, ...], loops: tuple[int, ...]) -> None:
        for item in items:
            match item:
                case Step():
                    self.phase += item.barrier
                    for use in self.kernels[item.kernel].buffers:
                        self.use(use.name, use.written, loops)
                case Choice():
                    self.phase += item.barrier
                    self.use(item.condition, False, loops)
                    ends = []
                    for part in parts(item):
                        self.walk(part, loops)
                        ends.append(self.phase)
                    # what follows may run beside the end of either branch
                    late = [use for use in self.found if use.phase in ends[:-1]]
                    self.found += [replace(use, phase=self.phase, written=False) for use in late]
                case _:
                    self.walk_loop(item, loops)

    def walk_loop(self, item: Repeat | While, loops: tuple[int, ...]) -> None:
        number = len(self.spans)
        self.spans.append((0, 0))
        first = self.phase + 1
        inner = (*loops, number)
        if isinstance(item, While):
            self.walk(item.test, inner)
            self.phase += 1
            self.use(item.condition, False, inner)
        self.walk(item.items, inner)
        self.spans[number] = first, max(first, self.phase)
