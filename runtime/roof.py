"""What this core can do at most: multiply-adds and bytes a second, measured.

The arithmetic roof is a loop of independent fused multiply-adds in vector registers; the memory
roofs are the best of a few copies, one that fits the near caches and one that does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from .cpu_jit import compile_functions

#: float32 lanes, and accumulators that fit the registers, of each instruction set.
_SHAPES = {"avx512": (16, 24), "avx2": (8, 12), "sse2": (4, 12), "neon": (4, 24)}
_ITERATIONS = 100_000
#: Bytes that a copy reads and writes: past the caches, and within the second-level cache.
FAR_BYTES, NEAR_BYTES = 64 << 20, 512 << 10
_ROUNDS = 5


@dataclass(frozen=True)
class Roof:
    """In a second: ``flops`` of a core, bytes ``far`` and ``near`` of a core, time-stamp ticks."""

    flops: float
    far: float
    near: float
    ticks_per_second: float

    def least_seconds(self, flops: int, moved: int, threads: int) -> float:
        """Return the time below which ``threads`` cores cannot compute and move so much."""
        near = moved / (self.near * threads)
        return max(
            flops / (self.flops * threads),
            near if moved <= 2 * NEAR_BYTES * threads else moved / self.far,
        )


def _write_module(lanes: int, accumulators: int, fused: bool) -> str:
    """Return LLVM IR of ``i64 ticks()`` and of ``a = a*x + x`` for every accumulator, n times."""
    vector = f"<{lanes} x float>"
    operation = f"@llvm.{'fma' if fused else 'fmuladd'}.v{lanes}f32"
    names = range(accumulators)
    lines = [
        "declare i64 @llvm.readcyclecounter()",
        f"declare {vector} {operation}({vector}, {vector}, {vector})",
        "define i64 @ticks() {",
        "  %t = call i64 @llvm.readcyclecounter()",
        "  ret i64 %t",
        "}",
        "define i64 @multiply_add(i64 %n, ptr %data) {",
        "entry:",
        f"  %x = load {vector}, ptr %data, align 4",
    ]
    previous = "%x"
    for k in names:  # different starts, else equal accumulators would become one
        lines.append(f"  %s{k} = fadd {vector} {previous}, %x")
        previous = f"%s{k}"
    lines += ["  br label %loop", "loop:", "  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]"]
    lines += [f"  %a{k} = phi {vector} [ %s{k}, %entry ], [ %b{k}, %loop ]" for k in names]
    for k in names:
        arguments = f"{vector} %a{k}, {vector} %x, {vector} %x"
        lines.append(f"  %b{k} = call {vector} {operation}({arguments})")
    lines += [
        "  %i1 = add i64 %i, 1",
        "  %again = icmp ult i64 %i1, %n",
        "  br i1 %again, label %loop, label %exit",
        "exit:",
    ]
    total = "%b0"
    for k in names[1:]:
        lines.append(f"  %t{k} = fadd {vector} {total}, %b{k}")
        total = f"%t{k}"
    lines += [f"  store {vector} {total}, ptr %data, align 4", "  ret i64 0", "}"]
    return "\n".join(lines)


@cache
def measure_roof(isa: str) -> Roof:
    """Return the roof of a core with the vectors of ``isa``; takes about 0.1 s."""
    lanes, accumulators = _SHAPES[isa]
    text = _write_module(lanes, accumulators, isa != "sse2")
    multiply_add, ticks = compile_functions(text, {"multiply_add": 2, "ticks": 0})
    data = np.full(lanes, 0.5, np.float32)  # the fixed point of a = a/2 + 1/2 is 1
    first_ticks, first_time = ticks(), time.perf_counter()
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        multiply_add(_ITERATIONS, data.ctypes.data)
        best = min(best, time.perf_counter() - start)
        data[:] = 0.5
    flops = 2.0 * lanes * accumulators * _ITERATIONS / best
    far, near = _measure_copy(FAR_BYTES, 1), _measure_copy(NEAR_BYTES, 50)
    elapsed = time.perf_counter() - first_time
    return Roof(flops, far, near, (ticks() - first_ticks) / elapsed)


def _measure_copy(moved: int, repeats: int) -> float:
    """Return the bytes a second that a copy reads and writes."""
    source = np.zeros(moved // 2, np.uint8)
    target = np.ones_like(source)
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(repeats):
            np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return repeats * moved / best
