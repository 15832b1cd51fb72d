"""Verification of loop programs: a sound one passes, and each rule catches what breaks it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cases import all_cases
from networks import batch_norm_step, compiled, layer_norm, perceptron_step, softmax_cross_entropy

from chainrule.compiler.errors import VerificationError
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.ops import Value
from chainrule.compiler.loops.ir import (
    Apply,
    BufferUse,
    Carry,
    Check,
    CheckSite,
    Choice,
    Contraction,
    Convert,
    Expr,
    Fold,
    Index,
    IndexValue,
    Item,
    Kernel,
    Let,
    Literal,
    Load,
    Loop,
    LoopProgram,
    Operand,
    Philox,
    Repeat,
    Sort,
    Step,
    Stmt,
    Storage,
    Store,
    Var,
)
from chainrule.compiler.loops.verify import verify_loops

N = SymbolicDim.of("n")
A, B, M, C = (SymbolicDim.of(name) for name in ("%a", "%b", "%m", "%n"))
STORAGE = (
    Storage("x", "float32", N * 8, "input"),
    Storage("i", "int64", N, "input"),
    Storage("w", "float32", 64, "state"),
    Storage("y", "float32", N * 8, "output"),
    Storage("t", "float32", N * 8, "arena"),
    Storage("flag", "bool", N, "arena"),
)
USES = tuple(BufferUse(s.name, s.dtype, s.kind not in {"input"}) for s in STORAGE)
X = Load("float32", "x", A)
ONE = Literal("float32", 1.0)


def kernel(*body: Stmt, name: str = "k0", uses: tuple[BufferUse, ...] = USES) -> Kernel:
    return Kernel(name, uses, body)


def programs(*kernels: Kernel, barriers: bool = True, **changes) -> LoopProgram:
    steps = tuple(Step(k.name, barriers) for k in kernels)
    whole = LoopProgram(kernels, steps, STORAGE, ("n",), (CheckSite("bad {value}", None),))
    return dataclasses.replace(whole, **changes)


def over(*body: Stmt, kind: str = "vector", shared: bool = True, folds: tuple[Fold, ...] = ()):
    return Loop("%a", N, kind, body, folds, shared)


def holding(*body: Stmt) -> LoopProgram:
    """A program of one kernel that runs ``body`` for every ``%a``."""
    return programs(kernel(over(*body)))


def evaluating(expr: Expr) -> LoopProgram:
    return holding(Let("%v", expr))


def product(*epilogue: Stmt, left: str = "x", dtype: str = "float32", columns=8) -> Contraction:
    return Contraction(
        dtype, N, columns, 8, Operand(left, 0, 8, 1), Operand("w", 0, 1, 8), "%acc", "%m", "%n",
        epilogue,
    )  # fmt: skip


def tabled(row: str, column: str | int) -> Contraction:
    """The product of an operand that is found through tables."""
    left = Operand("x", 0, row, column)
    return dataclasses.replace(product(STORED), left=left)


STORED = Store("y", M * 8 + C, Var("float32", "%acc"))


def test_a_sound_program_passes():
    picked = Let("%g", Load("int64", "i", A))
    inside = Apply(
        "bool", "lt", (IndexValue("int64", SymbolicDim.of("%g")), IndexValue("int64", N))
    )
    gathered = Load("float32", "x", SymbolicDim.of("%g"), Var("bool", "%in"))
    row = over(
        picked,
        Let("%in", inside),
        Check(Var("bool", "%in"), 0, IndexValue("int64", A)),
        Loop("%b", 8, "serial", (Let("%v", gathered),), (Fold("%r", "sum", Var("float32", "%v")),)),
        Loop("%b", 8, "serial", (), (Fold("%p", "argmax", X, B),)),
        Store("y", A, Apply("float32", "where", (Var("bool", "%in"), Var("float32", "%r"), ONE))),
        Let("%w", Convert("float32", Var("int64", "%p"))),
    )
    verify_loops(programs(kernel(row), kernel(product(STORED), name="k1", uses=(*USES[:2],
        dataclasses.replace(USES[2], written=False), *USES[3:]))))  # fmt: skip


def test_a_sound_recurrence_and_a_sound_sort_pass():
    before = Var("float32", "%c")
    step = (Let("%v", Apply("float32", "add", (before, X))), Store("y", A, Var("float32", "%v")))
    carry = Carry("%c", ONE, Var("float32", "%v"))
    verify_loops(programs(kernel(Loop("%a", N, "serial", step, carries=(carry,)))))
    verify_loops(sorting())


def sorting(keys: str = "t", order: str = "o", offset=A * 8, **changes) -> LoopProgram:
    """A program that sorts every row of 8."""
    sort = dataclasses.replace(Sort(keys, order, "p", offset, 8, "float32", False), **changes)
    rows = tuple(Storage(name, "int64", N * 8, "arena") for name in "op")
    used = (*USES, *(BufferUse(row.name, "int64", True) for row in rows))
    loop = Loop("%a", N, "serial", (sort,), shared=True)
    return programs(kernel(loop, uses=used), storage=(*STORAGE, *rows))


BROKEN_STATEMENTS = {
    "a sort needs three buffers": lambda: sorting(order="p"),
    "o holds int64, not float32": lambda: sorting(keys="o", order="t"),
    "t holds float32, not float64": lambda: sorting(dtype="float64"),
    "buffer z is not listed\nat sort": lambda: sorting(order="z"),
    "%b is not bound in %a": lambda: sorting(offset=B * 8 + A),
    "every %a, on any thread, stores to this element\nat sort": lambda: sorting(offset=0),
    "a sort stands inside the vector loop over %a": lambda: holding(
        Sort("x", "i", "t", 0, 8, "float32", False)
    ),
    "iterations that run at once hand nothing on": lambda: programs(
        kernel(Loop("%a", N, "vector", (), carries=(Carry("%c", ONE, ONE),)))
    ),
    "1:int64 is int64, not float32": lambda: holding(
        Loop("%b", 8, "serial", (), carries=(Carry("%c", ONE, Literal("int64", 1)),))
    ),
    "%v is used before it is bound": lambda: holding(Store("y", A, Var("float32", "%v"))),
    "%v is float32, not float64": lambda: holding(
        Let("%v", X), Let("%u", Convert("float32", Var("float64", "%v")))
    ),
    "%v is bound twice": lambda: holding(Let("%v", X), Let("%v", X)),
    "%r is used before it is bound": lambda: holding(
        Loop("%b", 8, "serial", (Let("%u", Var("float32", "%r")),), (Fold("%r", "sum", X),))
    ),
    "%u is used before it is bound": lambda: holding(
        Loop("%b", 8, "serial", (Let("%u", X),)), Store("y", A, Var("float32", "%u"))
    ),
    "%a is bound twice": lambda: holding(Loop("%a", 8, "serial", ())),
    "v is bound in a kernel": lambda: holding(Let("v", X)),
    "b is bound in a kernel": lambda: holding(Loop("b", 8, "serial", ())),
    "%b is not bound in %b": lambda: evaluating(Load("float32", "x", B)),
    "m is not bound in m": lambda: holding(Loop("%b", SymbolicDim.of("m"), "serial", ())),
    "%v is a float32, no index": lambda: holding(
        Let("%v", X), Store("y", SymbolicDim.of("%v") + A, X)
    ),
    "buffer z is not listed": lambda: evaluating(Load("float32", "z", A)),
    "buffer s is not listed": lambda: holding(Store("s", A, X)),
    "buffer x is not marked as written": lambda: holding(Store("x", A, X)),
    "float64 is read from a buffer of float32": lambda: evaluating(Load("float64", "x", A)),
    "int64 is stored in a buffer of float32": lambda: holding(Store("y", A, Literal("int64", 1))),
    "bools do not add up": lambda: holding(
        Store("flag", A, Literal("bool", True), accumulate=True)
    ),
    "every %a stores to the same element": lambda: holding(Store("y", 0, X)),
    "1:float32 is float32, not bool": lambda: holding(
        Check(Literal("float32", 1), 0, Literal("int64", 0))
    ),
    "1.0:float32 is float32, not int64": lambda: holding(Check(Literal("bool", True), 0, ONE)),
    "check site 1 is not one of 1": lambda: holding(
        Check(Literal("bool", True), 1, Literal("int64", 0))
    ),
    "serial or vector, not parallel": lambda: holding(Loop("%b", 8, "parallel", ())),
    "a vector loop stands inside that over %a": lambda: holding(Loop("%b", 8, "vector", ())),
    "a shared loop stands inside another loop": lambda: holding(
        Loop("%b", 8, "serial", (), (), True)
    ),
    "a shared loop folds": lambda: programs(kernel(over(folds=(Fold("%r", "sum", X),)))),
    "every %a, on any thread, stores to this element": lambda: programs(
        kernel(over(Loop("%b", 8, "vector", (Store("y", B, X),)), kind="serial"))
    ),
    "not the kernel's only one": lambda: programs(kernel(over(), Let("%v", ONE))),
    "no fold is called mean": lambda: holding(
        Loop("%b", 8, "serial", (), (Fold("%r", "mean", X),))
    ),
    "bools do not fold by sum": lambda: holding(
        Loop("%b", 8, "serial", (), (Fold("%r", "sum", Literal("bool", True)),))
    ),
    "%c is not bound in %c": lambda: holding(
        Loop("%b", 8, "serial", (), (Fold("%r", "argmax", X, SymbolicDim.of("%c")),))
    ),
    r"Stmt\(\) is no statement": lambda: holding(Stmt()),
    "a contraction stands inside the vector loop": lambda: holding(product()),
    "a contraction is of floats, not int64": lambda: programs(kernel(product(dtype="int64"))),
    "operand flag holds bool, not float32": lambda: programs(kernel(product(left="flag"))),
    "operand x has a table for one axis alone": lambda: programs(kernel(tabled("i", 1))),
    "x is no table of offsets of x": lambda: programs(kernel(tabled("i", "x"))),
    "buffer z is not listed\nat contract": lambda: programs(kernel(product(left="z"))),
    "operand t is overwritten while it is read": lambda: programs(
        kernel(product(Store("t", M * 8 + C, ONE), left="t"))
    ),
    "a vector loop stands inside that over %n": lambda: programs(
        kernel(product(Loop("%b", 8, "vector", ())))
    ),
}
BROKEN_EXPRESSIONS = {
    "unknown element type float16": Literal("float16", 1.0),
    "0.5 is no int64": Literal("int64", 0.5),
    "2 is no bool": Literal("bool", 2),
    "an index is an int64, not int32": IndexValue("int32", A),
    "is int64, not bool": Load("float32", "x", A, IndexValue("int64", A)),
    "philox.2.0.* is no random word": Philox("uint32", 2, 0, IndexValue("int64", A), ONE),
    "1.0:float32 is float32, not int64": Philox("uint32", 1, 0, IndexValue("int64", A), ONE),
    "neg: takes 1 inputs, not 2": Apply("float32", "neg", (X, X)),
    "no elementary function is called 'negate'": Apply("float32", "negate", (X,)),
    "float32 and int64 differ": Apply("float32", "add", (X, IndexValue("int64", A))),
    "needs floating-point elements, not int64": Apply("int64", "exp", (IndexValue("int64", A),)),
    "is bool, not float32": Apply("float32", "lt", (X, X)),
    "is no expression": Expr("float32"),
}


@pytest.mark.parametrize("message", BROKEN_STATEMENTS)
def test_a_broken_statement_is_named(message):
    with pytest.raises(VerificationError, match=message):
        verify_loops(BROKEN_STATEMENTS[message]())


@pytest.mark.parametrize("message", BROKEN_EXPRESSIONS)
def test_a_broken_expression_is_named(message):
    with pytest.raises(VerificationError, match=message):
        verify_loops(evaluating(BROKEN_EXPRESSIONS[message]))


def uses(**changes: tuple[str, bool]) -> tuple[BufferUse, ...]:
    return tuple(BufferUse(name, dtype, written) for name, (dtype, written) in changes.items())


def stored(*places: Storage) -> LoopProgram:
    return programs(storage=(*STORAGE, *places))


ELEMENTS = Value(np.zeros(3, "float32"))
WRITES = kernel(name="k0", uses=uses(t=("float32", True)))
READS = kernel(name="k1", uses=uses(t=("float32", False)))
FLAGS = kernel(name="k0", uses=uses(flag=("bool", True)))


def repeated(item: Item, extent: Index = 3, index: str = "step.0") -> LoopProgram:
    return programs(kernel(), items=(Repeat(index, extent, (item,)),))


BROKEN_PROGRAMS = {
    "two kernels share a name": lambda: programs(kernel(), kernel()),
    "a step runs k9, which is no kernel": lambda: programs(items=(Step("k9", False),)),
    "buffer z has no storage": lambda: programs(kernel(uses=uses(z=("float32", False)))),
    "buffer x holds float32, not int64": lambda: programs(kernel(uses=uses(x=("int64", False)))),
    "input x is written": lambda: programs(kernel(uses=uses(x=("float32", True)))),
    "buffer x is listed twice": lambda: programs(kernel(uses=USES[:1] * 2)),
    "k1 and k0 share t without a barrier": lambda: programs(WRITES, READS, barriers=False),
    "k1 reads t before any kernel writes": lambda: programs(READS, WRITES),
    "dimension %n is called as only names in kernels are": lambda: programs(symbols=("%n",)),
    "threads do not meet between the steps of a loop": lambda: repeated(Step("k0", False)),
    "step.1 repeats at depth 0": lambda: repeated(Step("k0", True), index="step.1"),
    "step.0 runs up to unknown m": lambda: repeated(Step("k0", True), SymbolicDim.of("m")),
    "t decides and is no bool buffer": lambda: programs(
        WRITES, items=(Step("k0", False), Choice("t", 0, True, (), ()))
    ),
    "flag decides without a barrier": lambda: programs(
        FLAGS, items=(Step("k0", False), Choice("flag", 0, False, (), ()))
    ),
    "k1 reads t before any kernel writes\\Z": lambda: programs(
        FLAGS,
        READS,
        dataclasses.replace(WRITES, name="k2"),
        items=(
            Step("k0", False),
            Choice("flag", 0, True, (Step("k2", False),), ()),
            Step("k1", True),
        ),
    ),
    "two buffers are called x": lambda: stored(STORAGE[0]),
    "buffer z is a heap of float32": lambda: stored(Storage("z", "float32", 1, "heap")),
    "buffer z is a arena of float16": lambda: stored(Storage("z", "float16", 1, "arena")),
    "the size of z needs m": lambda: stored(
        Storage("z", "float32", SymbolicDim.of("m") * 2, "arena")
    ),
    "constants alone have digests": lambda: stored(Storage("z", "float32", 3, "constant")),
    "constant z is not what its value is": lambda: stored(
        Storage("z", "float32", 4, "constant", "z", ELEMENTS, ELEMENTS.digest)
    ),
    "%a is not bound in %a": lambda: programs(dataclasses.replace(kernel(), work=A)),
}


@pytest.mark.parametrize("message", BROKEN_PROGRAMS)
def test_a_broken_program_is_named(message):
    with pytest.raises(VerificationError, match=message):
        verify_loops(BROKEN_PROGRAMS[message]())


def test_two_readers_and_a_barrier_are_no_conflict():
    second = dataclasses.replace(READS, name="k2")
    steps = (Step("k0", False), Step("k1", True), Step("k2", False))
    verify_loops(programs(WRITES, READS, second, items=steps))


def test_the_kernel_and_the_statement_at_fault_are_shown():
    with pytest.raises(VerificationError) as caught:
        verify_loops(holding(Let("%v", X), Store("y", A, Var("float64", "%v"))))
    assert str(caught.value).splitlines()[:4] == [
        "k0: %v is float32, not float64",
        "at y[%a] = %v",
        "in kernel k0(x:float32, i:int64, w:float32!, y:float32!, t:float32!, flag:bool!) "
        "flops 0 bytes 0 work 0:",
        "  for %a in n vector shared:",
    ]


@pytest.mark.parametrize("part", range(4))
def test_what_the_compiler_makes_of_every_case_is_sound(part):
    for case in all_cases()[part::4]:
        verify_loops(compiled(case.program).loops)


@pytest.mark.parametrize("network", [softmax_cross_entropy, perceptron_step, layer_norm,
                                     batch_norm_step])  # fmt: skip
def test_what_the_compiler_makes_of_networks_is_sound(network):
    verify_loops(compiled(network(), fuse=True).loops)
    verify_loops(compiled(network(), fuse=False).loops)
