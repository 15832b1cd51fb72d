"""Loop programs read back what they print, and misprints are named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cases import all_cases, program, sample, tensor
from cases_contract import einsum
from networks import batch_norm_step, compiled, layer_norm, perceptron_step, softmax_cross_entropy

from chainrule.compiler.errors import GraphError, SourceLine
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.graph import apply, constant, make
from chainrule.compiler.loops.parse import parse_loop_program
from chainrule.compiler.loops.text import format_index, format_loop_program
from chainrule.compiler.loops.verify import verify_loops
from chainrule.runtime.loop_interpreter import run_artifact

NETWORKS = (softmax_cross_entropy, perceptron_step, layer_norm, batch_norm_step)


def assert_round_trip(loops):
    text = format_loop_program(loops, sources=True)
    again = parse_loop_program(text)
    assert format_loop_program(again, sources=True) == text
    verify_loops(again)


@pytest.mark.parametrize("part", range(8))
def test_every_case_reads_back(part):
    for case in all_cases()[part::8]:
        assert_round_trip(compiled(case.program).loops)


@pytest.mark.parametrize("checks", [frozenset(), frozenset({"nan", "bounds"})])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_read_back(network, checks):
    assert_round_trip(compiled(network(), checks=checks).loops)


@pytest.mark.parametrize("name", ["a b", "n", "m", "k", "a0", "v1", "acc", "ñ", 'x"[0]:\n', "for"])
def test_any_name_reads_back_and_means_itself(name):
    """The user's dimensions and outputs may be called what kernels call their own indices."""
    size = SymbolicDim.of(name)
    x, w = tensor("x", (4, 3)), tensor("w", (3, size))
    y = apply("exp", einsum("mk,kn->mn", x, w))
    artifact = compiled(program(y, make(ops.Reduce("sum", (0,)), y)))
    assert_round_trip(artifact.loops)
    inputs = {"x": sample((4, 3)), "w": sample((3, 9))}
    expected = np.exp(inputs["x"] @ inputs["w"])
    outputs, _ = run_artifact(artifact, inputs)
    np.testing.assert_allclose(outputs["y0"], expected, rtol=1e-5)
    np.testing.assert_allclose(outputs["y1"], expected.sum(0), rtol=1e-5)


def test_constants_come_back_by_their_digest():
    table = sample((50,))
    y = apply("mul", tensor("x", (50,)), constant(table, "float32"))
    artifact = compiled(program(y))
    (place,) = [s for s in artifact.loops.storage if s.kind == "constant"]
    text = format_loop_program(artifact.loops)
    bare = parse_loop_program(text)
    assert [s.value for s in bare.storage if s.kind == "constant"] == [None]
    assert place.value is not None
    whole = parse_loop_program(text, {place.digest: place.value})
    parsed = dataclasses.replace(artifact, loops=whole)
    outputs, _ = run_artifact(parsed, {"x": table})
    np.testing.assert_array_equal(outputs["y"], table * table)


def test_sites_keep_their_line_on_request():
    x, i = tensor("x", (7,)), tensor("i", (3,), "int64")
    line = SourceLine('a "file".py', 12, "forward")
    loops = compiled(program(make(ops.Gather(0), x, i, source=line))).loops
    assert parse_loop_program(format_loop_program(loops, sources=True)).sites[0].source == line
    assert parse_loop_program(format_loop_program(loops)).sites[0].source is None


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (7, "7"),
        (SymbolicDim.of("%m") * 784 + SymbolicDim.of("%n") - 3, "784*%m + %n - 3"),
        (SymbolicDim.of("n") * -1 + 1, "-1*n + 1"),
        ((SymbolicDim.of("n") - 1) // 2 * SymbolicDim.of("%a0") - 2, "%a0*(n - 1)//2 - 2"),
        (SymbolicDim.of("a + -b"), '"a + -b"'),
    ],
)
def test_indices(index, text):
    assert format_index(index) == text


SOUND = """symbols n
input in.x:float32[n] "x"
output out.y:float32[n] "y"
steps
  k0
kernel k0(in.x:float32, out.y:float32!) flops 0 bytes 8*n work n "neg":
  for %a0 in n vector shared:
    %v1 = in.x[%a0]:float32
    %v2 = neg(%v1)
    out.y[%a0] = %v2
"""


def test_the_sample_is_sound():
    loops = verify_loops(parse_loop_program(SOUND))
    assert format_loop_program(loops) == SOUND


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("neg(%v1)", "neg(%v9)", "line 9: %v9 is used before it is bound"),
        ("neg(%v1)", "nag(%v1)", "line 9: no elementary function is called nag"),
        ("neg(%v1)", "logical_not(%v1)", "line 9: .*needs bool"),
        ("neg(%v1)", "neg(%v1", "line 9: expected ',', found the end"),
        ("neg(%v1)", "neg(%v1) %v1", "line 9: unexpected %v1"),
        ("neg(%v1)", "neg(§)", "line 9: cannot read '§"),
        ("    %v2", "      %v2", "line 9: is indented by 6 spaces, not 4"),
        ("in.x[%a0]:float32\n", "in.x[%a0]:float16\n", "line 8: unknown dtype float16"),
        ("in.x[%a0]:float32\n", "in.x[(%a0)//0]:float32\n", "line 8: .* divided by zero"),
        ("in.x[%a0]:float32\n", "in.x[1.5]:float32\n", "line 8: expected an integer, found 1.5"),
        ("for %a0", "for a0", "line 7: a0 is bound in a kernel and must start with '%'"),
        ("for %a0", "loop %a0", "line 7: no statement starts with loop"),
        ("flops 0", "flips 0", "line 6: expected 'flops', found flips"),
        ("symbols n", "symbol n", "line 1: unexpected symbol"),
    ],
)
def test_a_misprint_is_named(old, new, message):
    assert old in SOUND
    with pytest.raises(GraphError, match=message):
        parse_loop_program(SOUND.replace(old, new))
