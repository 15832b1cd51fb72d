"""From LLVM IR to machine code in this process, through llvmlite."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm

from ..compiler.artifact import Artifact, Machine, ModuleSource
from ..compiler.options import CompileOptions
from .cache import ObjectCache

_ALONE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
#: Debug levels from which LLVM IR and assembly are printed.
LLVM_LEVEL, ASSEMBLY_LEVEL = 5, 6
Write = Callable[[str, str, str], None]
_SETS = {
    "avx512": ("avx512f", "avx512vl", "avx512dq", "avx512bw"),
    "avx2": ("avx2", "fma"),
}
#: Feature strings that restrict an x86-64 host to a narrower instruction set.
_RESTRICTED = {
    "avx512": ("x86-64-v4", "+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx2,+fma,+avx,+sse4.1"),
    "avx2": ("x86-64-v3", "+avx2,+fma,+avx,+sse4.1"),
    "sse2": ("x86-64", ""),
}


@cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@cache
def host_machine() -> Machine:
    """Return the CPU of this process, as LLVM names it."""
    _initialize()
    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    if triple.startswith(("aarch64", "arm64")):
        isa = "neon"
    else:
        isa = next(
            (name for name, needed in _SETS.items() if all(features.get(f) for f in needed)),
            "sse2",
        )
    return Machine(triple, llvm.get_host_cpu_name(), features.flatten(), isa)


def machine_for(options: CompileOptions) -> Machine:
    """Return the machine that ``options`` ask for: this one, or it restricted to ``vector``."""
    host = host_machine()
    if options.vector is None or options.vector == host.isa:
        return host
    order = ["sse2", "avx2", "avx512"]
    if options.vector not in order or host.isa not in order:
        raise ValueError(f"vector {options.vector!r} is not one of {', '.join(order)}")
    if order.index(options.vector) > order.index(host.isa):
        raise ValueError(f"this CPU has no {options.vector}; its widest is {host.isa}")
    cpu, features = _RESTRICTED[options.vector]
    return Machine(host.triple, cpu, features, options.vector)


def target_machine(machine: Machine) -> llvm.TargetMachine:
    """Return an LLVM target machine for JIT code."""
    _initialize()
    target = llvm.Target.from_triple(machine.triple)
    return target.create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="small"
    )


def optimize(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Run the few LLVM passes that pay: the code comes vectorised and nearly in SSA form.

    A third of the time of LLVM's ``O1`` or ``O2`` pipelines, and code as fast.
    """
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_instruction_combine_pass()
    passes.add_new_gvn_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


def llvm_version() -> str:
    """Return the version of the LLVM in llvmlite."""
    return ".".join(map(str, llvm.llvm_version_info))


def compile_text(
    text: str,
    source: ModuleSource,
    machine: Machine,
    options: CompileOptions,
    write: Write | None = None,
) -> bytes:
    """Compile the LLVM IR ``text`` of ``source`` to an object file."""
    if options.debug >= LLVM_LEVEL:
        print(text, file=sys.stderr)
    module = llvm.parse_assembly(text)
    target = target_machine(machine)
    if source.optimize:
        optimize(module, target)
    if write is not None:
        write(source.name, text, "ll")
        write(source.name, target.emit_assembly(module), "s")
    if options.debug >= ASSEMBLY_LEVEL:
        print(target.emit_assembly(module), file=sys.stderr)
    return target.emit_object(module)


@cache
def _compiler_fingerprint() -> str:
    """Return a hash of what turns a module into an object: LLVM, and the passes of this file."""
    digest = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=8)
    digest.update(llvm_version().encode())
    return digest.hexdigest()


def object_key(source: ModuleSource) -> str:
    """Return the name of a module's object in the cache."""
    return f"{source.key}-{_compiler_fingerprint()}"


class LoadedCode:
    """Machine code of one program in this process; it stays while this object lives."""

    def __init__(self, artifact: Artifact, options: CompileOptions) -> None:
        shown = options.dump is not None or options.debug >= LLVM_LEVEL
        self.cache = ObjectCache(None if shown else options.cache)
        self.seconds = {"machine_code": 0.0, "link": 0.0}
        backing = llvm.parse_assembly("")
        backing.triple = artifact.machine.triple
        self._engine = llvm.create_mcjit_compiler(backing, target_machine(artifact.machine))
        self.code_bytes = 0
        start = time.perf_counter()
        for data in self._objects(artifact, options):
            self.code_bytes += len(data)
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        self.seconds["machine_code"] = time.perf_counter() - start
        start = time.perf_counter()
        self._engine.finalize_object()
        self.seconds["link"] += time.perf_counter() - start
        if options.debug >= 1:
            for name, seconds in self.seconds.items():
                print(f"{name:24s} {1e3 * seconds:8.2f} ms", file=sys.stderr)
        self.address = self._engine.get_function_address(artifact.entry)
        self.alone = _ALONE(self._engine.get_function_address("alone"))
        self.worker_address = self._engine.get_function_address("worker")
        self.launch_address = self._engine.get_function_address("launch")

    def _objects(self, artifact: Artifact, options: CompileOptions) -> list[bytes]:
        """Return the objects of all modules, from the cache or compiled.

        LLVM works without Python's lock, so one module is written here while another is compiled.
        """
        found = {source.key: self.cache.find(object_key(source)) for source in artifact.modules}
        missing = [source for source in artifact.modules if found[source.key] is None]
        if missing:
            collecting = gc.isenabled()
            gc.disable()  # a full collection in the middle of a build costs up to a second
            try:
                with ThreadPoolExecutor(1, "chainrule-compile") as pool:
                    jobs = [
                        pool.submit(
                            compile_text,
                            source.emit(),
                            source,
                            artifact.machine,
                            options,
                            artifact.write,
                        )
                        for source in missing
                    ]
                    for source, job in zip(missing, jobs, strict=True):
                        found[source.key] = job.result()
                        self.cache.keep(object_key(source), job.result())
            finally:
                if collecting:
                    gc.enable()
        return [data for data in found.values() if data is not None]


def compile_functions(text: str, arity: dict[str, int]) -> list[Callable[..., int]]:
    """Return functions of LLVM IR by name, each of that many int64 arguments, giving an int64.

    For measurements; the code stays for the life of the process.
    """
    machine = target_machine(host_machine())
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    _kept.append(engine)
    return [
        ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * count)(
            engine.get_function_address(name)
        )
        for name, count in arity.items()
    ]


_kept: list[llvm.ExecutionEngine] = []
