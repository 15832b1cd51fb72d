"""The native CPU backend: a loop program as one LLVM module with a single entry point.

    int64 entry(pointers, sizes, tid, nthreads, barrier, scratch, status)

Every thread calls the entry; kernels run in order, threads meet at the barriers that the schedule
asks for.  ``status`` is checked after each barrier; whoever calls waits for the other threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import ClassVar

from llvmlite import ir

from ..artifact import Machine, ModuleSource
from ..loops.ir import (
    Choice,
    Contraction,
    Index,
    Item,
    Kernel,
    LoopProgram,
    Repeat,
    Step,
    While,
    walk,
)
from .elementwise import I32, I64
from .indices import emit_index
from .llvm_lanes import LaneFeatures
from .microkernels import declared_kernels, emit_kernel_family
from .microkernels.control_flow import POINTER
from .microkernels.tile import set_kernel_attributes
from .statements import KernelEmitter
from .vector_target import VectorTarget, vector_target

ENTRY_TYPE = ir.FunctionType(I64, [POINTER, POINTER, I64, I64, POINTER, POINTER, POINTER])
BARRIER_TYPE = ir.FunctionType(I64, [POINTER, I64, POINTER])
I8 = ir.IntType(8)
#: Where in the status words a profiled program keeps the cycles of its steps.
PROFILE_START = 8
#: Spins of a waiting thread between two offers to yield the core.
SPINS_BEFORE_YIELD = 4096


@cache
def source_fingerprint() -> str:
    """Return a hash of the code generator itself, so that cached objects never outlive it."""
    digest = hashlib.blake2b(digest_size=8)
    here = Path(__file__).resolve().parent
    for folder in (here, here / "microkernels", here.parent / "loops"):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def emit_native(
    program: LoopProgram,
    text: str,
    shared: Mapping[str, Kernel],
    machine: Machine,
    profile: bool = False,
) -> tuple[tuple[ModuleSource, ...], tuple[str, ...], int]:
    """Return the modules of ``program``, its pointer table, and each thread's scratch in bytes.

    ``text`` is the program as text: with the machine it tells whether an object can be reused.
    ``shared`` names for each kernel the one whose code it uses.
    With ``profile`` thread 0 adds the cycles of step ``i`` to ``status[PROFILE_START + i]``.
    """
    emitter = _ModuleEmitter(program, shared, machine, profile)
    base = f"{machine.triple} {machine.cpu} {machine.features} {machine.isa} {source_fingerprint()}"
    key = hashlib.blake2b(f"{base} {profile}\n{text}".encode(), digest_size=20).hexdigest()
    main = ModuleSource("program", key, emitter.text)
    families = []
    for dtype in sorted(
        {stmt.dtype for kernel in program.kernels for stmt in _contractions(kernel)}
    ):
        emit_family = partial(emitter.family_text, dtype)
        families.append(
            ModuleSource(f"kernels.{dtype}", f"{key}.{dtype}", emit_family, optimize=False)
        )
    return (main, *families), emitter.table, emitter.scratch_bytes()


def _contractions(kernel: Kernel) -> list[Contraction]:
    return [stmt for stmt in walk(kernel.body) if isinstance(stmt, Contraction)]


#: An upper bound of one thread's scratch for any contraction; see `microkernels.scratch_bytes`.
_CONTRACTION_SCRATCH = 4 << 20


class _ModuleEmitter:
    """Emits one module; done at most once, and only where the object cache has none."""

    def __init__(
        self,
        program: LoopProgram,
        shared: Mapping[str, Kernel],
        machine: Machine,
        profile: bool,
    ) -> None:
        self.program = program
        self.shared = shared
        self.profile = profile
        self.machine = machine
        self.table = tuple(storage.name for storage in program.storage)

    def scratch_bytes(self) -> int:
        needs = any(_contractions(kernel) for kernel in self.program.kernels)
        return _CONTRACTION_SCRATCH if needs else 64

    def text(self) -> str:
        """Return the LLVM IR of the program."""
        return str(self.module)

    def family_text(self, dtype: str) -> str:
        """Return the LLVM IR of the contraction kernels that the program calls.

        The whole family takes 0.7 s to compile, what one program needs of it 0.1 s.
        """
        target = vector_target(self.machine.isa)
        wanted = declared_kernels(self.module, target, dtype)
        return str(emit_kernel_family(target, dtype, wanted, triple=self.machine.triple))

    @cached_property
    def module(self) -> ir.Module:
        module = ir.Module("chainrule_program")
        module.triple = self.machine.triple
        target = vector_target(self.machine.isa)
        features = LaneFeatures.parse(self.machine.features, self.machine.triple)
        functions = {
            kernel.name: self.kernel(module, kernel, target, features)
            for kernel in self.program.kernels
            if self.shared[kernel.name] is kernel
        }
        kernels = {
            kernel.name: (kernel, functions[self.shared[kernel.name].name])
            for kernel in self.program.kernels
        }
        self.entry(module, kernels)
        return module

    def kernel(
        self, module: ir.Module, kernel: Kernel, target: VectorTarget, features: LaneFeatures
    ) -> ir.Function:
        count, symbols = len(kernel.buffers), len(self.program.names)
        arguments = [POINTER] * count + [I64] * (symbols + 2) + [POINTER, POINTER]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), kernel.name)
        function.linkage = "internal"
        set_kernel_attributes(function, target)
        for argument in function.args[:count]:
            argument.attributes.add("noalias")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        pointers = {
            use.name: argument
            for use, argument in zip(kernel.buffers, function.args[:count], strict=True)
        }
        sizes = dict(zip(self.program.names, function.args[count : count + symbols], strict=True))
        tid, nthreads, scratch, status = function.args[count + symbols :]
        emitter = KernelEmitter(
            builder, kernel, target, features, pointers, sizes, (tid, nthreads), scratch, status
        )
        emitter.emit()
        if emitter.scratch_bytes > _CONTRACTION_SCRATCH:
            raise AssertionError(f"{kernel.name} needs {emitter.scratch_bytes} bytes of scratch")
        builder.ret_void()
        return function

    def entry(self, module: ir.Module, kernels: dict[str, tuple[Kernel, ir.Function]]) -> None:
        features = LaneFeatures.parse(self.machine.features, self.machine.triple)
        position = {name: number for number, name in enumerate(self.table)}
        _EntryEmitter(module, self.program, kernels, position, features, self.profile).emit()


class _EntryEmitter:
    """Emits the function that calls the kernels, in loops and branches where there are any."""

    def __init__(
        self,
        module: ir.Module,
        program: LoopProgram,
        kernels: dict[str, tuple[Kernel, ir.Function]],
        position: dict[str, int],
        features: LaneFeatures,
        profile: bool,
    ) -> None:
        self.program, self.kernels, self.position = program, kernels, position
        self.features, self.profile = features, profile
        self.barrier = emit_barrier(module)
        self.function = ir.Function(module, ENTRY_TYPE, "entry")
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.table, sizes, self.tid, self.nthreads, self.meeting, self.scratch, self.status = (
            self.function.args
        )
        self.stop = self.function.append_basic_block("stop")
        self.number = 0
        b = self.builder
        self.names: dict[str, ir.Value] = {
            name: b.load(b.gep(sizes, [I64(n)], source_etype=I64), typ=I64, align=8)
            for n, name in enumerate(program.symbols)
        }
        # outside of repetitions an index is any number: no kernel there uses it
        self.names |= dict.fromkeys(program.names[len(program.symbols) :], I64(0))

    def emit(self) -> None:
        b = self.builder
        self.items(self.program.items)
        b.branch(self.stop)
        b.position_at_end(self.stop)
        b.ret(b.load(self.status, typ=I64, align=8))

    def items(self, items: tuple[Item, ...]) -> None:
        for item in items:
            self._ITEMS[type(item)](self, item)

    def meet(self) -> None:
        """Wait for all threads; stop where one has failed."""
        b = self.builder
        failed = b.call(self.barrier, [self.meeting, self.nthreads, self.status])
        going = b.append_basic_block("going")
        b.cbranch(b.icmp_signed("!=", failed, I64(0)), self.stop, going)
        b.position_at_end(going)

    def pointer(self, buffer: str) -> ir.Value:
        # Loaded where it is used: a thousand pointers kept alive take LLVM seconds to place.
        b = self.builder
        slot = b.gep(self.table, [I64(self.position[buffer])], source_etype=POINTER)
        return b.load(slot, typ=POINTER, align=8)

    def step(self, step: Step) -> None:
        b = self.builder
        started = cycles(b) if self.profile else None
        kernel, callee = self.kernels[step.kernel]
        if step.barrier:
            self.meet()
        arguments = [self.pointer(use.name) for use in kernel.buffers]
        names = [self.names[name] for name in self.program.names]
        thread = [self.tid, self.nthreads, self.scratch, self.status]
        b.call(callee, [*arguments, *names, *thread])
        if started is not None:
            with b.if_then(b.icmp_signed("==", self.tid, I64(0))):
                spent = b.sub(cycles(b), started)
                number = I64(PROFILE_START + self.number)
                place = b.gep(self.status, [number], source_etype=I64)
                b.store(b.add(b.load(place, typ=I64, align=8), spent), place, align=8)
        self.number += 1

    def repeat(self, item: Repeat) -> None:
        b = self.builder
        extent = emit_index(b, self.features, item.extent, self.names)
        if not isinstance(item.extent, int) or item.extent == 0:
            # what follows relies on a meeting, though there be no step
            with b.if_then(b.icmp_signed("==", extent, I64(0))):
                self.meet()
        before = b.block
        head, body, done = (b.append_basic_block(f"{item.index}.{n}") for n in _LOOP_BLOCKS)
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(I64(0), before)
        b.cbranch(b.icmp_signed("<", index, extent), body, done)
        b.position_at_end(body)
        outer = self.names
        self.names = {**outer, item.index: index}
        self.items(item.items)
        self.names = outer
        index.add_incoming(b.add(index, I64(1)), b.block)
        b.branch(head)
        b.position_at_end(done)

    def holds(self, buffer: str, offset: Index) -> ir.Value:
        b = self.builder
        at = emit_index(b, self.features, offset, self.names)
        place = b.gep(self.pointer(buffer), [at], source_etype=I8)
        return b.icmp_signed("!=", b.load(place, typ=I8, align=1), ir.Constant(I8, 0))

    def choice(self, item: Choice) -> None:
        if item.barrier:
            self.meet()
        with self.builder.if_else(self.holds(item.condition, item.offset)) as (then, other):
            with then:
                self.items(item.then)
            with other:
                self.items(item.other)

    def again(self, item: While) -> None:
        b = self.builder
        head, body, done = (b.append_basic_block(f"while.{n}") for n in _LOOP_BLOCKS)
        b.branch(head)
        b.position_at_end(head)
        self.items(item.test)
        self.meet()
        b.cbranch(self.holds(item.condition, 0), body, done)
        b.position_at_end(body)
        self.items(item.items)
        b.branch(head)
        b.position_at_end(done)

    _ITEMS: ClassVar[dict[type, Callable]] = {
        Step: step,
        Repeat: repeat,
        Choice: choice,
        While: again,
    }


_LOOP_BLOCKS = ("head", "body", "done")


def cycles(b: ir.IRBuilder) -> ir.Value:
    """Read the processor's counter of cycles."""
    name = "llvm.readcyclecounter"
    kind = ir.FunctionType(I64, [])
    return b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), [])


def emit_barrier(module: ir.Module) -> ir.Function:
    """Define ``int64 barrier(meeting, nthreads, status)``: all threads wait for the last one.

    ``meeting`` holds three i64 on cache lines of their own: how many have arrived, the generation,
    and the status that the last to arrive saw.  All threads get that same status back, so that they
    agree on whether to go on.
    """
    function = ir.Function(module, BARRIER_TYPE, "barrier")
    function.linkage = "internal"
    function.attributes.add("noinline")
    meeting, nthreads, status = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    alone, meet = function.append_basic_block("alone"), function.append_basic_block("meet")
    last, wait = function.append_basic_block("last"), function.append_basic_block("wait")
    spin, relax = function.append_basic_block("spin"), function.append_basic_block("relax")
    done = function.append_basic_block("done")
    b.cbranch(b.icmp_signed("<=", nthreads, I64(1)), alone, meet)
    b.position_at_end(alone)
    b.ret(b.load(status, typ=I64, align=8))
    b.position_at_end(meet)
    generation = b.gep(meeting, [I64(8)], source_etype=I64)
    decision = b.gep(meeting, [I64(16)], source_etype=I64)
    before = b.load_atomic(generation, "acquire", 8, typ=I64)
    arrived = b.atomic_rmw("add", meeting, I64(1), "acq_rel")
    b.cbranch(b.icmp_signed("==", arrived, b.sub(nthreads, I64(1))), last, wait)
    b.position_at_end(last)
    seen = b.load(status, typ=I64, align=8)
    b.store(seen, decision, align=8)
    b.atomic_rmw("xchg", meeting, I64(0), "monotonic")
    b.atomic_rmw("add", generation, I64(1), "release")
    b.ret(seen)
    b.position_at_end(wait)
    b.branch(spin)
    b.position_at_end(spin)
    spins = b.phi(I64)
    spins.add_incoming(I64(0), wait)
    now = b.load_atomic(generation, "acquire", 8, typ=I64)
    b.cbranch(b.icmp_signed("!=", now, before), done, relax)
    b.position_at_end(done)
    b.ret(b.load(decision, typ=I64, align=8))
    b.position_at_end(relax)
    emit_wait(b, spins)
    following = b.add(spins, I64(1))
    spins.add_incoming(following, b.block)
    b.branch(spin)
    return function


def emit_wait(b: ir.IRBuilder, spins: ir.Value) -> None:
    """Pause in a spin loop, and now and then offer the core to another thread."""
    emit_pause(b)
    last = I64(SPINS_BEFORE_YIELD - 1)
    with b.if_then(b.icmp_signed("==", b.and_(spins, last), last), likely=False):
        emit_yield(b)


def emit_pause(b: ir.IRBuilder) -> None:
    """Tell the core that this is a spin loop."""
    kind = ir.FunctionType(ir.VoidType(), [])
    name = "llvm.x86.sse2.pause"
    if b.module.triple.startswith(("x86_64", "i686", "amd64")):
        b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), [])
    else:
        b.asm(kind, "yield", "", [], side_effect=True)


def emit_yield(b: ir.IRBuilder) -> None:
    """Offer the core to another thread of the operating system."""
    name = "SwitchToThread" if "windows" in b.module.triple else "sched_yield"
    kind = ir.FunctionType(I32, [])
    b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), [])
