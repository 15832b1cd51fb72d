"""What the compiler hands to the runtime: kernels as data, modules to turn into machine code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .ir.graph import Program
from .ir.types import Dim
from .loops.ir import LoopProgram


@dataclass(frozen=True)
class Machine:
    """The CPU that code is made for: LLVM's names, and the vector instruction set in use."""

    triple: str
    cpu: str
    features: str
    isa: str


@dataclass(frozen=True)
class ModuleSource:
    """An LLVM module that may already be in the object cache.

    ``key`` identifies its content; ``emit`` writes the LLVM IR, and is called only where the cache
    has no object of that key.  ``optimize`` tells whether it wants LLVM's passes.
    """

    name: str
    key: str
    emit: Callable[[], str]
    optimize: bool = True


@dataclass(frozen=True)
class ArenaSlot:
    """A temporary buffer: its size in bytes, and the steps between which it is alive."""

    buffer: str
    bytes: Dim
    first: int
    last: int


@dataclass(frozen=True)
class Parallelism:
    """What threads can share of a program, in element operations.

    ``shared`` is dealt out, ``serial`` is done by one thread; all meet at ``barriers``.  ``width``
    is how many kernels could at most run at once, ``critical_share`` the part of all work on the
    longest path of kernels that need each other (sizes taken as equal).
    """

    shared: Dim
    serial: Dim
    barriers: Dim
    width: int
    critical_share: float


@dataclass(frozen=True)
class SizeRule:
    """When the program runs ``positive`` must be above zero, except where ``unless`` is zero."""

    positive: Dim
    message: str
    unless: Dim = 1


@dataclass(frozen=True)
class Artifact:
    """A compiled program, short of machine code.

    ``write`` keeps a numbered dump file (``name, text, suffix``), where dumps are asked for.
    ``report`` says what was fused into what, ``seconds`` what each stage of the compiler took.
    ``table`` lists the buffers in the order of the native function's pointer table; ``entry`` is
    the function ``int64 entry(table, sizes, tid, nthreads, meeting, scratch, status)``.
    """

    program: Program
    loops: LoopProgram
    machine: Machine
    modules: tuple[ModuleSource, ...]
    entry: str
    table: tuple[str, ...]
    arena: tuple[ArenaSlot, ...]
    scratch_bytes: int
    parallelism: Parallelism
    homes: dict
    size_rules: tuple[SizeRule, ...] = ()
    report: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    write: Callable[[str, str, str], None] | None = None
