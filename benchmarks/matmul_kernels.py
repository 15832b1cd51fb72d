"""Time the generated contraction kernels: ``python -m chainrule.benchmarks.matmul_kernels``.

One line per shape: GFLOP/s with one thread and with two, and how much of this core's measured
multiply-add peak the first is.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import threading
import time
from dataclasses import dataclass, field

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from ..compiler.backends.microkernels import (
    Epilogue,
    Gemm,
    Store,
    declared_kernels,
    emit_gemm,
    emit_kernel_family,
    scratch_bytes,
)
from ..compiler.backends.microkernels.control_flow import counted_loop
from ..compiler.backends.vector_target import VectorTarget, isa_of_features, vector_target

I32, I64, POINTER = ir.IntType(32), ir.IntType(64), ir.PointerType()
ROUNDS = 24  # short rounds: the best of them ran undisturbed
CPUS = {"avx512": "", "avx2": "x86-64-v3", "sse2": "x86-64", "neon": ""}


@dataclass
class Jit:
    """Compiles modules with MCJIT for one instruction set of this machine."""

    isa: str
    engines: list = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.target: VectorTarget = vector_target(self.isa, l1_bytes=48 << 10, l2_bytes=1 << 20)

    def machine(self) -> llvm.TargetMachine:
        cpu = CPUS[self.isa] or llvm.get_host_cpu_name()
        features = "" if CPUS[self.isa] else llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        return target.create_target_machine(
            cpu=cpu, features=features, opt=2, jit=True, reloc="pic", codemodel="small"
        )

    def compile(self, module: ir.Module, name: str, dtype: str):
        """Return the address of ``name`` after linking the kernels that ``module`` declares."""
        start = time.perf_counter()
        kernels = declared_kernels(module, self.target, dtype)
        family = emit_kernel_family(self.target, dtype, kernels)
        parsed = [llvm.parse_assembly(str(m)) for m in (family, module)]
        engine = llvm.create_mcjit_compiler(parsed[0], self.machine())
        engine.add_module(parsed[1])
        engine.finalize_object()
        self.engines.append(engine)
        self.seconds[name] = time.perf_counter() - start
        return engine.get_function_address(name)


@dataclass(frozen=True)
class Problem:
    """A contraction whose extents and strides are all known; ``a_t`` and ``b_t``: transposed."""

    m: int
    n: int
    k: int
    a_t: bool = False
    b_t: bool = False
    dtype: str = "float32"
    static: bool = True

    def build(self, jit: Jit, epilogue: Epilogue | None = None):
        """Return ``run(a, b, c, tid, nthreads, repeats)``; the repeats are a native loop."""
        module = ir.Module("contraction")
        extents = [I64] * 3
        kind = ir.FunctionType(ir.VoidType(), [POINTER] * 4 + [I32] * 2 + extents + [I64])
        function = ir.Function(module, kind, "contract")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        a, b, c, scratch, tid, nthreads, m, n, k, repeats = function.args
        if self.static:
            m, n, k = self.m, self.n, self.k
        gemm = Gemm(
            self.dtype, m, n, k, a, b,
            a_m=1 if self.a_t else k, a_k=m if self.a_t else 1,
            b_k=1 if self.b_t else n, b_n=k if self.b_t else 1,
        )  # fmt: skip
        finish = epilogue or Store(c, n)
        share = {"tid": tid, "nthreads": nthreads, "scratch": scratch}
        with counted_loop(builder, 0, repeats):
            emit_gemm(builder, jit.target, gemm, finish, **share)
        builder.ret_void()
        size = scratch_bytes(jit.target, gemm, finish)
        address = jit.compile(module, "contract", self.dtype)
        p, i, l = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        native = ctypes.CFUNCTYPE(None, p, p, p, p, i, i, l, l, l, l)(address)
        scratches = [aligned_empty(size) for _ in range(2)]

        def run(x, y, z, tid: int, nthreads: int, repeats: int = 1) -> None:
            native(
                x.ctypes.data, y.ctypes.data, z.ctypes.data, scratches[tid].ctypes.data,
                tid, nthreads, self.m, self.n, self.k, repeats,
            )  # fmt: skip

        return run


def aligned_empty(size: int) -> np.ndarray:
    raw = np.empty(size + 4096, np.uint8)
    return raw[-raw.ctypes.data % 4096 :][:size]


def seconds_per_call(run, operands, nthreads: int, budget: float) -> float:
    """Best of several rounds; with two threads, both work through a round side by side."""
    run(*operands, 0, 1)
    start = time.perf_counter()
    run(*operands, 0, 1)
    once = time.perf_counter() - start
    repeats = max(1, int(budget / ROUNDS / max(once, 1e-7)))
    best = float("inf")
    cores = sorted(os.sched_getaffinity(0))
    for _ in range(ROUNDS):
        if nthreads == 1:
            start = time.perf_counter()
            run(*operands, 0, 1, repeats)
            best = min(best, (time.perf_counter() - start) / repeats)
            continue
        gate, moments = threading.Barrier(nthreads), []

        def work(tid: int, gate: threading.Barrier = gate, moments: list = moments) -> None:
            os.sched_setaffinity(0, {cores[tid]})
            gate.wait()
            start = time.perf_counter()
            run(*operands, tid, nthreads, repeats)
            moments.append((start, time.perf_counter()))

        workers = [threading.Thread(target=work, args=(tid,)) for tid in range(nthreads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        started, ended = (sorted(times) for times in zip(*moments, strict=True))
        best = min(best, (ended[-1] - started[0]) / repeats)
    return best


def peak_gflops(jit: Jit, dtype: str) -> float:
    """The rate of one tile kernel whose operands never leave the nearest cache."""
    lanes = jit.target.lanes(dtype)
    rows = {"avx512": 14, "neon": 12}.get(jit.isa, 6)
    problem = Problem(rows, 2 * lanes, 128, a_t=True, dtype=dtype)
    run = problem.build(jit)
    operands = _operands(problem)
    loops = Problem(rows, 2 * lanes, 1024, a_t=True, dtype=dtype)
    deep, deep_operands = loops.build(jit), _operands(loops)
    short = seconds_per_call(run, operands, 1, 0.3)
    long = seconds_per_call(deep, deep_operands, 1, 0.3)
    return 2 * rows * 2 * lanes * (1024 - 128) / (long - short) / 1e9


def _operands(problem: Problem) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(problem.m * problem.k,), (problem.k * problem.n,), (problem.m * problem.n,)]
    result = []
    for (size,) in shapes:
        array = aligned_empty(size * np.dtype(problem.dtype).itemsize).view(problem.dtype)
        array[:] = rng.standard_normal(size)
        result.append(array)
    return result


SHAPES = {
    "square 256": Problem(256, 256, 256),
    "square 333": Problem(333, 333, 333),
    "square 512": Problem(512, 512, 512),
    "square 1000": Problem(1000, 1000, 1000),
    "square 1024": Problem(1024, 1024, 1024),
    "square 2048": Problem(2048, 2048, 2048),
    "forward 64×784×512": Problem(64, 512, 784),
    "forward 64×512×512": Problem(64, 512, 512),
    "forward 128×512×512": Problem(128, 512, 512),
    "weights 784×64×512": Problem(784, 512, 64, a_t=True),
    "weights 512×64×512": Problem(512, 512, 64, a_t=True),
    "inputs 64×512×512ᵀ": Problem(64, 512, 512, b_t=True),
    "logits 64×512×10": Problem(64, 10, 512),
    "logits grad 512×64×10": Problem(512, 10, 64, a_t=True),
    "logits input 64×10×512ᵀ": Problem(64, 512, 10, b_t=True),
    "tiny 16×64×32": Problem(16, 32, 64),
    "tiny 16×32×10": Problem(16, 10, 32),
    "tiny 64×16×32": Problem(64, 32, 16),
    "vector 1×512×512": Problem(1, 512, 512),
    "batch 8×512×512": Problem(8, 512, 512),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isa", choices=sorted(CPUS), default=None)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=0.4)
    arguments = parser.parse_args()
    isa = arguments.isa or isa_of_features(llvm.get_default_triple(), llvm.get_host_cpu_features())
    jit = Jit(isa)
    peak = peak_gflops(jit, arguments.dtype)
    print(f"{isa} {arguments.dtype}: one core's peak {peak:.0f} GFLOP/s")
    print(f"{'shape (m×k×n)':26} {'1 thread':>9} {'of peak':>8} {'2 threads':>10} {'of peak':>8}")
    for name, shape in SHAPES.items():
        if arguments.only not in name:
            continue
        problem = Problem(shape.m, shape.n, shape.k, shape.a_t, shape.b_t, arguments.dtype)
        run, operands = problem.build(jit), _operands(problem)
        work = 2e-9 * problem.m * problem.n * problem.k
        rates = [
            work / seconds_per_call(run, operands, threads, arguments.seconds) for threads in (1, 2)
        ]
        print(
            f"{name:26} {rates[0]:9.1f} {rates[0] / peak:8.0%}"
            f" {rates[1]:10.1f} {rates[1] / peak / 2:8.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
