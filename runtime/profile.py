"""What the kernels of a native program cost: times, rates, and the share of the roof.

A program compiled with ``profile`` counts the time-stamp ticks of each kernel on the calling
thread, waiting for the other threads included.
"""

from __future__ import annotations

import atexit
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..compiler.artifact import Artifact
from ..compiler.ir.dims import evaluate, symbols
from .roof import Roof, measure_roof

#: Calls whose times are kept, for each combination of sizes.
KEPT_CALLS = 1024
#: Below this many seconds it was another thread that ran the kernel, or there was nothing to do.
SHORTEST = 1e-7


@dataclass(frozen=True)
class KernelCost:
    """A kernel at one combination of sizes.

    ``seconds`` is the median of a call; ``flops`` and ``bytes`` are what it has to compute and to
    move, caches being as good as they can; ``share`` is the achieved part of the roof in percent.
    """

    kernel: str
    label: str
    calls: int
    seconds: float
    flops: int
    bytes: int
    share: float

    @property
    def gflops(self) -> float:
        """Billions of arithmetic operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """Billions of bytes a second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0


class KernelProfile:
    """The times of the kernels of one program, call by call."""

    def __init__(self, artifact: Artifact, symbol_names: tuple[str, ...]) -> None:
        self.artifact = artifact
        self.symbol_names = symbol_names
        self._last = np.zeros(len(artifact.loops.steps), np.int64)
        self._ticks: dict[tuple[tuple[int, ...], int], deque[np.ndarray]] = {}
        self._calls: dict[tuple[tuple[int, ...], int], int] = {}

    def record(self, sizes: tuple[int, ...], threads: int, totals: np.ndarray) -> None:
        """Note a call; ``totals`` are the ticks of every step since the program was made."""
        key = (sizes, threads)
        if key not in self._ticks:
            self._ticks[key] = deque(maxlen=KEPT_CALLS)
        self._ticks[key].append(totals - self._last)
        self._calls[key] = self._calls.get(key, 0) + 1
        self._last = totals.copy()

    def costs(self, roof: Roof | None = None) -> dict[str, list[KernelCost]]:
        """Return every kernel's cost under a title that names the sizes and the threads."""
        if not self._ticks:
            return {}
        roof = roof or measure_roof(self.artifact.machine.isa)
        kernels = {kernel.name: kernel for kernel in self.artifact.loops.kernels}
        found: dict[str, list[KernelCost]] = {}
        for (sizes, threads), ticks in self._ticks.items():
            bound = dict(zip(self.symbol_names, sizes, strict=True))
            named = ", ".join(f"{name} = {size}" for name, size in bound.items())
            title = f"{named or 'fixed sizes'}, threads = {threads}"
            medians = np.median(np.array(ticks), axis=0) / roof.ticks_per_second
            costs = []
            for step, seconds in zip(self.artifact.loops.steps, medians.tolist(), strict=True):
                kernel = kernels[step.kernel]
                flops = _evaluate_known(kernel.flops, bound)
                moved = _evaluate_known(kernel.bytes, bound)
                least = roof.least_seconds(flops, moved, threads)
                share = 100 * least / seconds if seconds >= SHORTEST else 0.0
                calls = self._calls[sizes, threads]
                costs.append(
                    KernelCost(kernel.name, kernel.label, calls, seconds, flops, moved, share)
                )
            found[title] = costs
        return found

    def table(self, roof: Roof | None = None) -> str:
        """Return a table for each combination of sizes, the roof above."""
        if not self._ticks:
            return "no call has been profiled"
        roof = roof or measure_roof(self.artifact.machine.isa)
        lines = [
            f"roof: {roof.flops / 1e9:.0f} GFLOP/s on one core (float32), "
            f"{roof.near / 1e9:.0f} GB/s in cache, {roof.far / 1e9:.0f} GB/s in memory, as "
            "measured now; times include waiting for other threads"
        ]
        for title, costs in self.costs(roof).items():
            lines += ["", f"{self.artifact.program.name}: {title}", *_format_costs(costs)]
        return "\n".join(lines)


def _evaluate_known(dim: object, bound: Mapping[str, int]) -> int:
    """Return the size, 0 where it depends on what is known inside the kernel alone."""
    if isinstance(dim, int) or not symbols(dim) <= set(bound):  # type: ignore[arg-type]
        return dim if isinstance(dim, int) else 0
    return evaluate(dim, bound)  # type: ignore[arg-type]


def _format_costs(costs: list[KernelCost]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("kernel", "calls", "µs", "% time", "GFLOP/s", "GB/s", "% roof", "operators")
    ]
    total = sum(cost.seconds for cost in costs) or 1.0
    for cost in costs:
        rows.append(
            (
                cost.kernel,
                f"{cost.calls}",
                f"{1e6 * cost.seconds:.2f}",
                f"{100 * cost.seconds / total:.1f}",
                *(
                    (f"{cost.gflops:.1f}", f"{cost.gbytes:.1f}", f"{cost.share:.0f}")
                    if cost.seconds >= SHORTEST
                    else ("–", "–", "–")
                ),
                cost.label,
            )
        )
    rows.append(("all", "", f"{1e6 * total:.2f}", "100.0", "", "", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(widths[i]) if i in (0, last) else cell.rjust(widths[i])
            for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


class Profiled(Protocol):
    """An executable that keeps a profile."""

    profile: KernelProfile | None


def report_at_exit(executable: Profiled) -> None:
    """Print the profile of ``executable`` to standard error when the process ends."""

    def report() -> None:
        if executable.profile is not None and executable.profile.costs():
            print(executable.profile.table(), file=sys.stderr)

    atexit.register(report)
