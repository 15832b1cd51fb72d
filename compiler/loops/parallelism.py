"""How much of a program threads can share: data for deciding how many to use."""

from __future__ import annotations

from ..analysis.scheduling import critical_path, generation_width
from ..artifact import Parallelism
from ..ir.dims import SymbolicDim, evaluate
from .ir import Kernel, LoopProgram, is_shared

#: Sizes that stand for symbols where kernels are only compared with each other.
NOMINAL_SIZE = 64


def plan_parallelism(program: LoopProgram) -> Parallelism:
    """Return the work that is shared, the work that one thread does alone, and the meetings."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    steps = [kernels[step.kernel] for step in program.steps]
    shared: int | SymbolicDim = 0
    serial: int | SymbolicDim = 0
    for kernel in steps:
        if is_shared(kernel):
            shared = kernel.work + shared
        else:
            serial = kernel.work + serial
    nominal = dict.fromkeys(program.symbols, NOMINAL_SIZE)
    edges = dependencies(steps)
    numbers = range(len(steps))
    path = critical_path(numbers, edges, lambda n: float(evaluate(steps[n].work, nominal)))
    total = sum(evaluate(kernel.work, nominal) for kernel in steps)
    return Parallelism(
        shared=shared,
        serial=serial,
        barriers=sum(step.barrier for step in program.steps),
        width=generation_width(numbers, edges),
        critical_share=path / total if total else 1.0,
    )


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
