"""How much of a program threads can share: data for deciding how many to use."""

from __future__ import annotations

from collections.abc import Iterator

from ..analysis.scheduling import critical_path, generation_width
from ..artifact import Parallelism
from ..ir.dims import evaluate
from ..ir.types import Dim
from .ir import Item, Kernel, LoopProgram, Repeat, Step, While, is_shared, parts

#: Sizes that stand for symbols where kernels are only compared with each other.
NOMINAL_SIZE = 64


#: Steps that a while loop is taken to make.
NOMINAL_STEPS = 16


def plan_parallelism(program: LoopProgram) -> Parallelism:
    """Return the work that is shared, the work that one thread does alone, and the meetings."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    calls = list(_calls(program.items, 1))
    shared: Dim = 0
    serial: Dim = 0
    barriers: Dim = 0
    for step, times in calls:
        kernel = kernels[step.kernel]
        if is_shared(kernel):
            shared = kernel.work * times + shared
        else:
            serial = kernel.work * times + serial
        barriers = times * step.barrier + barriers
    nominal = dict.fromkeys(program.symbols, NOMINAL_SIZE)
    steps = [kernels[step.kernel] for step, _ in calls]
    costs = [float(evaluate(kernels[step.kernel].work * times, nominal)) for step, times in calls]
    edges = dependencies(steps)
    numbers = range(len(steps))
    path = critical_path(numbers, edges, costs.__getitem__)
    total = sum(costs)
    return Parallelism(
        shared=shared,
        serial=serial,
        barriers=barriers,
        width=generation_width(numbers, edges),
        critical_share=path / total if total else 1.0,
    )


def _calls(items: tuple[Item, ...], times: Dim) -> Iterator[tuple[Step, Dim]]:
    """Yield every step with how often it runs; both branches of a choice count."""
    for item in items:
        if isinstance(item, Step):
            yield item, times
        inner = times
        if isinstance(item, Repeat):
            inner = times * item.extent
        elif isinstance(item, While):
            inner = times * NOMINAL_STEPS
        for part in parts(item):
            yield from _calls(part, inner)


def dependencies(steps: list[Kernel]) -> list[tuple[int, int]]:
    """Return ``(earlier, later)`` for steps that conflict over a buffer.

    A conflict that follows from others in between is left out.
    """
    edges: list[tuple[int, int]] = []
    writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    for number, kernel in enumerate(steps):
        for use in kernel.buffers:
            if use.name in writer:
                edges.append((writer[use.name], number))
            if use.written:
                edges += ((reader, number) for reader in readers.pop(use.name, ()))
                writer[use.name] = number
            else:
                readers.setdefault(use.name, []).append(number)
    return edges
