"""The processor's own limit: a loop of independent fused multiply-adds, written in LLVM IR."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

ITERATIONS = 1_000_000  # about 10 ms


def choose_vector(features: dict[str, bool], triple: str) -> tuple[int, int, bool]:
    """Lanes of float32, accumulators that fit the registers, and whether there is an FMA."""
    if features.get("avx512f"):
        return 16, 24, True
    if features.get("avx2") and features.get("fma"):
        return 8, 12, True
    return 4, 12, triple.startswith(("aarch64", "arm64"))


def write_loop(lanes: int, accumulators: int, fused: bool) -> str:
    """LLVM IR of ``a = a * x + y`` for each accumulator ``a``, ``n`` times."""
    vector = f"<{lanes} x float>"
    several = range(accumulators)
    lines = [
        f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
        "define void @fma_loop(i64 %n, ptr %data) {",
        "entry:",
        f"  %x = load {vector}, ptr %data, align 4",
        f"  %past = getelementptr float, ptr %data, i64 {lanes}",
        f"  %y = load {vector}, ptr %past, align 4",
    ]
    # Different starts, else equal accumulators would become one.
    previous = "%x"
    for k in several:
        lines.append(f"  %s{k} = fadd {vector} {previous}, %y")
        previous = f"%s{k}"
    lines += ["  br label %loop", "loop:", "  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]"]
    lines += [f"  %a{k} = phi {vector} [ %s{k}, %entry ], [ %b{k}, %loop ]" for k in several]
    for k in several:
        if fused:
            operands = f"{vector} %a{k}, {vector} %x, {vector} %y"
            lines.append(f"  %b{k} = call {vector} @llvm.fma.v{lanes}f32({operands})")
        else:
            lines.append(f"  %m{k} = fmul {vector} %a{k}, %x")
            lines.append(f"  %b{k} = fadd {vector} %m{k}, %y")
    lines += [
        "  %i1 = add i64 %i, 1",
        "  %again = icmp ult i64 %i1, %n",
        "  br i1 %again, label %loop, label %exit",
        "exit:",
    ]
    total = "%b0"
    for k in several[1:]:
        lines.append(f"  %t{k} = fadd {vector} {total}, %b{k}")
        total = f"%t{k}"
    lines += [f"  store {vector} {total}, ptr %data, align 4", "  ret void", "}"]
    return "\n".join(lines)


def build(threads: int) -> tuple[Callable[[int], float], float]:
    """A ``run(steps)`` that keeps ``threads`` cores multiplying, and the operations in one step."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    lanes, accumulators, fused = choose_vector(features, llvm.get_process_triple())
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3
    )
    module = llvm.parse_assembly(write_loop(lanes, accumulators, fused))
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    loop = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(
        engine.get_function_address("fma_loop")
    )
    pool = ThreadPoolExecutor(threads)

    def work(steps: int) -> None:
        # The fixed point of a = 0.5 a + 0.5 is 1: no subnormals, no infinities.
        data = (ctypes.c_float * (2 * lanes))(*[0.5] * (2 * lanes))
        loop(steps * ITERATIONS, ctypes.addressof(data))

    def run(steps: int, engine: object = engine) -> float:  # the engine owns the code
        list(pool.map(work, [steps] * threads))
        return float("nan")

    return run, 2.0 * lanes * accumulators * ITERATIONS * threads
