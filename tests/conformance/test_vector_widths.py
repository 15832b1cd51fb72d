"""Narrower vectors than this CPU's give the interpreter's values; the widest are really used."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from backends import executable
from cases import all_cases
from oracle import assert_agrees

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compiler.options import CompileOptions
from chainrule.runtime.cpu_jit import host_machine, machine_for

WIDEST_FIRST = ("avx512", "avx2", "sse2")


def host_widths():
    isa = host_machine().isa
    return WIDEST_FIRST[WIDEST_FIRST.index(isa) :] if isa in WIDEST_FIRST else ()


def spread(count):
    """The same cases on every machine, from all over the table."""
    cases = all_cases()
    return cases[:: -(-len(cases) // count)]


def convolutions():
    """Some convolutions: their operands are packed in ways of their own."""
    cases = [case for case in all_cases() if "conv" in case.name]
    return [case for case in cases[::5] if case not in spread(40)]


@pytest.mark.parametrize("width", ["avx2", "sse2"])
@pytest.mark.parametrize("case", [*spread(40), *convolutions()], ids=repr)
def test_a_narrower_width_agrees_with_the_interpreter(case, width):
    if width not in host_widths():
        pytest.skip(f"this CPU has no {width}")
    run = executable(case.program, "native", case.states, vector=width)
    assert run.artifact.machine.isa == width
    assert_agrees(case, run)


@pytest.mark.skipif("avx512" not in host_widths(), reason="this CPU has no avx512")
def test_a_width_that_is_the_hosts_is_the_host():
    assert machine_for(CompileOptions(vector=host_machine().isa)) == host_machine()
    with pytest.raises(ValueError, match="vector 'neon' is not one of sse2, avx2, avx512"):
        machine_for(CompileOptions(vector="neon"))


# -- what the instructions are --------------------------------------------------------------------

#: Registers of each width; the narrower ones occur in wide code too, for scalars.
REGISTERS = {"avx512": "zmm", "avx2": "ymm", "sse2": "xmm"}
#: What generated code may call that is not its own.
OUTSIDE = {"sched_yield", "memcpy", "memset", "memmove"}


@functools.cache
def assembly(width, tmp):
    """The assembly of a training step with every kind of elementary function, by module."""
    cr.manual_seed(0)
    x = cr.input("x", ("batch", 48))
    y = cr.input("y", ("batch",), dtype="int64")
    model = nn.Sequential(
        nn.Linear(48, 64), nn.Tanh(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64),
        nn.Softplus(), nn.LayerNorm(64), nn.Linear(64, 10),
    )  # fmt: skip
    loss = losses.sparse_categorical_crossentropy(model(x), y, from_logits=True)
    train = cr.compile_train(loss, optim.Adam(1e-3), vector=width, dump=tmp)
    for _ in range(2):
        value = train.step(x=np.ones((5, 48)), y=np.arange(5))["loss"]
        assert np.isfinite(value)
    return {path.name.split("_", 1)[1][:-2]: path.read_text() for path in tmp.glob("*.s")}


@pytest.fixture(scope="module", params=[w for w in WIDEST_FIRST if w in host_widths()])
def modules(request, tmp_path_factory):
    return request.param, assembly(request.param, tmp_path_factory.mktemp("dump"))


def test_a_training_step_uses_the_widest_registers(modules):
    width, texts = modules
    register = REGISTERS[width]
    assert texts["program"].count(register) > 500
    assert texts["kernels.float32"].count(register) > 500
    for wider in WIDEST_FIRST[: WIDEST_FIRST.index(width)]:
        assert REGISTERS[wider] not in "".join(texts.values())


def test_elementary_functions_are_inline(modules):
    """LLVM turns what it cannot vectorise into scalar calls of the C library: none may be left."""
    _, texts = modules
    own = set(re.findall(r"^(\w+):", "\n".join(texts.values()), re.MULTILINE))
    called = {
        name.removesuffix("@PLT")
        for text in texts.values()
        for name in re.findall(r"^\s+(?:call|jmp|jmpq|callq)\s+([A-Za-z_]\w*(?:@PLT)?)", text, re.M)
    }
    assert called - own <= OUTSIDE
    loaded = re.findall(r"([A-Za-z_]\w*)@(?:GOT|PLT)", "\n".join(texts.values()))
    assert set(loaded) - own <= OUTSIDE


def test_contraction_tiles_keep_their_accumulators_in_registers(modules):
    width, texts = modules
    if width == "sse2":
        pytest.skip("without fused multiply-add products take registers too, and some spill")
    functions = re.split(r"^(\w+):", texts["kernels.float32"], flags=re.MULTILINE)
    tiles = {
        name: body
        for name, body in zip(functions[1::2], functions[2::2], strict=True)
        if "_tile_" in name
    }
    assert len(tiles) > 5
    for name, body in tiles.items():
        spilled = [
            line
            for line in body.splitlines()
            if REGISTERS[width] in line and re.search(r"\(%rsp", line)
        ]
        assert not spilled, (name, spilled[:3])
