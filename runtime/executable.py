"""A program that can be called: bind the inputs, run, hand back the outputs."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.artifact import Artifact
from ..compiler.errors import CheckFailed, IndexRangeError, InputError, locate
from ..compiler.ir import ops
from ..compiler.ir.dims import evaluate
from ..compiler.ir.graph import Node
from ..compiler.loops.ir import NAN_FOUND, OUT_OF_BOUNDS
from .binding import InputBinder
from .buffer import ResultArray, aligned_bytes, data_address, place_slots
from .cpu_jit import LoadedCode
from .profile import KernelProfile
from .requirements import check_requirements
from .threads import available_threads, shared_pool

#: What handing a call to the workers costs, and what a barrier costs, in element operations
#: (about 1.5 µs and 0.5 µs; a core does some 100 of them in a nanosecond).
LAUNCH_WORK, BARRIER_WORK = 150_000, 50_000
#: Threads must bring the estimate down to this part of one thread's.
PAYS = 0.8
#: Outputs of at least this many bytes are aligned, and given out again once nobody holds them.
LARGE_OUTPUT = 1 << 16
#: Combinations of sizes that are remembered, each with its arena.
KEPT_FRAMES = 64


@dataclass
class _Frame:
    """Everything about one combination of sizes: pointers, arena, outputs' shapes.

    ``job`` is what native code reads (see ``backends/spmd.py``); ``table`` is the pointer table in
    it.  0-d outputs have a place of their own, from which they are read back; others are allocated
    at each call.
    """

    table: ctypes.Array
    job: ctypes.Array
    job_address: int
    threads: int
    scalars: tuple[tuple[str, np.ndarray], ...]
    arrays: tuple[tuple[str, int, tuple[int, ...], np.dtype], ...]
    large: tuple[tuple[str, int, ResultArray], ...]
    kept: tuple[object, ...]


class NativeExecutable:
    """Machine code with its states and memory.

    Parameters
    ----------
    artifact
        What the compiler made of the program.
    code
        The same, as machine code in this process.
    states
        The array of every state; calls update them in place.  C-contiguous, of the state's type.
    threads
        At most this many threads; None: as many as the process may use.
    """

    def __init__(
        self,
        artifact: Artifact,
        code: LoadedCode,
        states: Mapping[Node, np.ndarray],
        threads: int | None = None,
    ) -> None:
        self.artifact = artifact
        self.code = code
        self.states = dict(states)
        self.threads = threads or available_threads()
        program = artifact.program
        inputs = [node for node in program.nodes() if isinstance(node.op, ops.Input)]
        self.binder = InputBinder([(n.op.label, n.type, n.source) for n in inputs])
        storage = {s.name: s for s in artifact.loops.storage}
        position = {name: number for number, name in enumerate(artifact.table)}
        unused = len(artifact.table)
        self._input_slots = tuple(
            position[artifact.homes[node]] if node in artifact.homes else unused for node in inputs
        )
        self._symbols = artifact.loops.symbols
        self._constants = {
            position[s.name]: np.ascontiguousarray(s.value.array)
            for s in storage.values()
            if s.value is not None
        }
        self._state_slots: dict[int, np.ndarray] = {}
        for node, name in artifact.homes.items():
            if isinstance(node.op, ops.State):
                array = self.states[node]
                if not array.flags.c_contiguous or array.dtype.name != node.dtype:
                    raise InputError(f"state {node.op.label} is not a contiguous {node.type}")
                self._state_slots[position[name]] = array
        self._output_slots = [
            (name, position[f"out.{name}"], root.shape, np.dtype(root.dtype))
            for name, root in program.outputs
        ]
        self._position = position
        self._frames: dict[tuple[int, ...], _Frame] = {}
        self._arena_bytes: dict[tuple[int, ...], int] = {}
        self._status = np.zeros(8 + len(artifact.loops.steps), dtype=np.int64)
        self._scratch: list[np.ndarray] = []
        self._meeting = aligned_bytes(64 * 8)
        self._lock = threading.Lock()
        self.profile: KernelProfile | None = None

    @property
    def peak_bytes(self) -> int:
        """Bytes of temporary memory for the largest sizes seen so far."""
        return max(self._arena_bytes.values(), default=0)

    def plan_bytes(self, **sizes: int) -> int:
        """Return the bytes of temporary memory that a call with these sizes needs."""
        return place_slots(self.artifact.arena, sizes)[1]

    def __call__(self, arrays: Mapping[str, object]) -> dict[str, Any]:
        """Run once; return the outputs by name (0-d ones as NumPy scalars).

        Raises InputError or InputTypeError for inputs that do not fit, IndexRangeError for an index
        outside its axis.
        """
        with self._lock:
            bound, sizes = self.binder.bind(arrays)
            frame = self._frames.get(sizes)
            if frame is None:
                frame = self._make_frame(sizes)
            table = frame.table
            for slot, array in zip(self._input_slots, bound):  # noqa: B905
                table[slot] = data_address(array)
            results: dict[str, Any] = {}
            for name, slot, large in frame.large:
                results[name] = array = large.take()
                table[slot] = data_address(array)
            for name, slot, shape, dtype in frame.arrays:
                results[name] = array = np.empty(shape, dtype)
                table[slot] = data_address(array)
            if frame.threads == 1:
                failed = self.code.alone(frame.job_address)
            else:
                failed = self._run_threads(frame)
            if failed:
                self._report_failure(bound, sizes)
            for name, array in frame.scalars:
                results[name] = array[()]
            if self.profile is not None:
                self.profile.record(sizes, frame.threads, self._status[8:])
        return results

    def kernel_cycles(self) -> dict[str, int]:
        """Return the cycles spent in each kernel so far, where compiled with ``profile``."""
        cycles = self._status[8:].tolist()
        return {
            step.kernel: count
            for step, count in zip(self.artifact.loops.steps, cycles, strict=True)
        }

    def choose_threads(self, sizes: Mapping[str, int]) -> tuple[int, str]:
        """Return how many threads a call with these sizes uses, and why.

        More threads pay where the work that they share shrinks by more than meeting costs.
        """
        plan = self.artifact.parallelism
        shared, serial = evaluate(plan.shared, sizes), evaluate(plan.serial, sizes)
        if self.threads == 1:
            return 1, "one thread is all that was asked for or may run"
        alone = shared + serial
        barriers = evaluate(plan.barriers, sizes)
        meeting = LAUNCH_WORK + barriers * BARRIER_WORK
        together = shared / self.threads + serial + meeting
        facts = (
            f"{alone:,} element operations, {serial:,} of them on one thread, {barriers} "
            f"barriers; {plan.critical_share:.0%} of the work lies on the critical path, "
            f"at most {plan.width} kernels are independent"
        )
        if together < PAYS * alone:
            return self.threads, f"shared work outweighs meeting: {facts}"
        return 1, f"meeting would cost more than sharing saves: {facts}"

    def _make_frame(self, sizes: tuple[int, ...]) -> _Frame:
        bound = dict(zip(self.binder.symbols, sizes, strict=True))
        for rule in self.artifact.size_rules:
            if evaluate(rule.positive, bound) <= 0 and evaluate(rule.unless, bound) != 0:
                shown = ", ".join(f"{name}={size}" for name, size in bound.items())
                raise InputError(f"{rule.message} (with {shown})")
        offsets, total = place_slots(self.artifact.arena, bound)
        arena = aligned_bytes(total)
        self._arena_bytes[sizes] = total
        table = (ctypes.c_uint64 * (len(self.artifact.table) + 1))()
        base = arena.ctypes.data
        for name, offset in offsets.items():
            table[self._position[name]] = base + offset
        for slot, array in (*self._constants.items(), *self._state_slots.items()):
            table[slot] = array.ctypes.data
        values = (ctypes.c_int64 * max(len(self._symbols), 1))(
            *(bound[name] for name in self._symbols)
        )
        scalars: list[tuple[str, np.ndarray]] = []
        outputs: list[tuple[str, int, tuple[int, ...], np.dtype]] = []
        large: list[tuple[str, int, ResultArray]] = []
        for name, slot, shape, dtype in self._output_slots:
            if shape:
                known = tuple(evaluate(dim, bound) for dim in shape)
                if math.prod(known) * dtype.itemsize < LARGE_OUTPUT:
                    outputs.append((name, slot, known, dtype))
                else:
                    large.append((name, slot, ResultArray(known, dtype)))
            else:
                scalars.append((name, np.zeros((), dtype)))
                table[slot] = scalars[-1][1].ctypes.data
        threads, _ = self.choose_threads(bound)
        while len(self._scratch) < threads:
            self._scratch.append(aligned_bytes(self.artifact.scratch_bytes))
        fields = (
            self.code.address,
            ctypes.addressof(table),
            ctypes.addressof(values),
            threads,
            self._meeting.ctypes.data,
            self._status.ctypes.data,
            *(array.ctypes.data for array in self._scratch[:threads]),
        )
        job = (ctypes.c_uint64 * len(fields))(*fields)
        if len(self._frames) >= KEPT_FRAMES:
            self._frames.pop(next(iter(self._frames)))
        frame = _Frame(
            table,
            job,
            ctypes.addressof(job),
            threads,
            tuple(scalars),
            tuple(outputs),
            tuple(large),
            (arena, values),
        )
        self._frames[sizes] = frame
        return frame

    def _run_threads(self, frame: _Frame) -> int:
        code = self.code
        pool = shared_pool(self.threads, code.worker_address, code.launch_address, code)
        try:
            return pool.run(frame.job_address, frame.threads, code.alone)
        except BaseException:
            self._status[:2] = 0  # Ctrl-C has taken the place of what the job reported
            raise

    def _report_failure(self, arrays: tuple[np.ndarray, ...], sizes: tuple[int, ...]) -> None:
        site = self.artifact.loops.sites[int(self._status[0]) - 1]
        value = int(self._status[1])
        self._status[:2] = 0
        named = dict(zip(self.binder.names, arrays, strict=True))
        check_requirements(
            self.artifact.program, named, dict(zip(self.binder.symbols, sizes, strict=True))
        )
        error = (
            CheckFailed if site.message.startswith((NAN_FOUND, OUT_OF_BOUNDS)) else IndexRangeError
        )
        raise error(locate(site.message.format(value=value), site.source))
