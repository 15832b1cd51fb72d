"""What contractions become: no scatter for any convolution, one kernel with what follows it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from cases import N, program, sample, tensor
from cases_contract import (
    CASES,
    adjoint_of_left,
    adjoint_of_right,
    convolution,
    einsum,
    transposed_convolution,
)

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.construct import reshape, transpose
from chainrule.compiler.ir.graph import apply, constant, make
from chainrule.compiler.ir.verify import verify_program
from chainrule.compiler.options import CompileOptions
from chainrule.compiler.pipeline import compile_native
from chainrule.compiler.rewrites.legalize import legalize
from chainrule.compiler.rewrites.offset_tables import LARGEST_CONSTANT, offset_table
from chainrule.runtime.cpu_jit import machine_for
from chainrule.runtime.interpreter import run_program

CONVOLUTIONS = [case for case in CASES if "conv" in case.name]


def kinds(legal):
    return Counter(type(node.op) for node in legal.nodes())


def kernels(given):
    options = CompileOptions(verify=True)
    return [k.label for k in compile_native(given, options, machine_for(options)).loops.kernels]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=repr)
def test_convolutions_and_their_gradients_read_operands_where_they_are(case):
    legal = legalize(case.program)
    verify_program(legal, case.program.symbols())
    found = kinds(legal)
    assert not found.keys() & {ops.ScatterAdd, ops.Gather}
    for call in case.calls[:2]:
        outputs, _ = run_program(legal, call, case.states, promote=True)
        for name, value in (case.expected(**call) if case.expected else {}).items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-4)


def test_a_convolution_with_bias_and_activation_is_one_kernel():
    for batch, tables in ((4, []), (N, ["add"])):
        x, w, b = tensor("x", (batch, 3, 8, 8)), tensor("w", (16, 3, 3, 3)), tensor("b", (16,))
        y = convolution(x, w, 1, 1)
        z = apply("relu", apply("add", y, reshape(b, (16, 1, 1))))
        assert kernels(program(z)) == ["pad", *tables, "flatcontract add relu", "transpose"]


def test_a_residual_sum_joins_the_second_convolution():
    x = tensor("x", (4, 8, 6, 6))
    v, w = tensor("v", (8, 8, 3, 3)), tensor("w", (8, 8, 3, 3))
    y = apply("relu", convolution(x, v, 1, 1))
    z = apply("relu", apply("add", convolution(y, w, 1, 1), y))
    expected = ["pad", "flatcontract relu", "pad", "flatcontract add relu", "transpose"]
    assert kernels(program(z)) == expected


@pytest.mark.parametrize("case", [c for c in CONVOLUTIONS if "trained" in c.name], ids=repr)
def test_a_weight_is_updated_in_place_by_the_kernel_of_its_gradient(case):
    options = CompileOptions(verify=True)
    artifact = compile_native(case.program, options, machine_for(options))
    assert "flatcontract add mul sub" in {k.label for k in artifact.loops.kernels}
    assert not any("copies" in line for line in artifact.report)


def test_batch_normalization_after_a_convolution_is_one_kernel():
    x, w = tensor("x", (N, 3, 8, 8)), tensor("w", (16, 3, 3, 3))
    y = convolution(x, w)
    total = make(ops.Reduce("sum", (0, 2, 3)), y)
    centred = apply("sub", y, reshape(total, (16, 1, 1)))
    squares = make(ops.Reduce("sum", (0, 2, 3)), apply("square", centred))
    z = apply("mul", centred, apply("rsqrt", reshape(squares, (16, 1, 1))))
    made = kernels(program(apply("relu", z)))
    assert made[-2:] == ["reduce sub square reduce rsqrt mul …", "transpose"]


def test_bias_and_activation_join_a_product_over_three_axes():
    x, w, b = tensor("x", (N, 5, 7)), tensor("w", (7, 33)), tensor("b", (33,))
    y = apply("relu", apply("add", einsum("bsk,kn->bsn", x, w), b))
    again = apply("add", einsum("bsk,kn->bsn", y, tensor("v", (33, 7))), x)
    assert kernels(program(again)) == ["contract add relu", "contract add"]


def test_a_strided_gradient_does_no_more_work_than_the_convolution():
    x, w = tensor("x", (2, 4, 12, 12)), tensor("w", (8, 4, 4, 4))
    y = convolution(x, w, 2, 1)
    forward, gradient = (
        next(n.op for n in legalize(program(root)).nodes() if isinstance(n.op, ops.FlatContract))
        for root in (y, adjoint_of_left(y, tensor("g", y.shape)))
    )
    ratio = np.prod(gradient.sizes) / np.prod(forward.sizes)
    assert ratio <= (14 * 14) / (12 * 12)


def test_windows_without_overlap_need_no_zeros():
    x, w = tensor("x", (2, 3, 4, 4)), tensor("w", (3, 5, 2, 2))
    assert ops.Pad not in kinds(legalize(program(transposed_convolution(x, w, 2))))


def test_a_product_of_small_outer_parts_is_a_sum_of_windows():
    x, w = tensor("x", (2, 6, 8, 8)), tensor("w", (6, 1, 3, 3))
    y = convolution(x, w, 1, 1, groups=6)
    g = tensor("g", y.shape)
    for root in (y, adjoint_of_left(y, g), adjoint_of_right(y, g)):
        found = kinds(legalize(program(root)))
        assert found[ops.Window] and not found.keys() & {ops.Contract, ops.FlatContract}


def test_equal_convolutions_share_their_tables():
    x = tensor("x", (2, 8, 8, 8))
    for weight in ("u", "v"):
        x = convolution(x, tensor(weight, (8, 8, 3, 3)), 1, 1)
    tables = {
        table
        for node in legalize(program(x)).nodes()
        if isinstance(node.op, ops.FlatContract)
        for table in node.inputs[2:]
    }
    assert len(tables) == 4  # the second one's input lies in another order


@pytest.mark.parametrize(
    ("sizes", "steps"),
    [((2, 3, 4), (100, 7, 1)), ((5,), (3,)), ((LARGEST_CONSTANT, 2), (2, 1)), ((N, 3), (7, -2))],
    ids=str,
)
def test_a_table_counts_with_the_last_index_fastest(sizes, steps):
    table = offset_table(sizes, steps)
    x = tensor("x", (N,))
    found = run_program(program(table, x), {"x": np.zeros(4, "f4")})[0]["y0"]
    grid = np.indices([4 if size == N else size for size in sizes])
    wanted = sum(step * along for step, along in zip(steps, grid, strict=True))
    np.testing.assert_array_equal(found, wanted.reshape(-1))


# -- views below their consumers ------------------------------------------------------------------


def product_of_three_axes():
    return einsum("bsk,kn->bsn", tensor("x", (N, 5, 7)), tensor("w", (7, 6)))


SINKING = {
    "a number": (lambda y: apply("mul", y, constant(3.0, "float32")), 2),
    "a row": (lambda y: apply("add", y, tensor("o", (6,))), 2),
    "a column": (lambda y: apply("add", y, tensor("o", (N, 5, 1))), 2),
    "an array": (lambda y: apply("add", y, tensor("o", (N, 5, 6))), 2),
    "the same": (lambda y: apply("mul", y, apply("relu", y)), 2),
    "a part of the rows": (lambda y: apply("add", y, tensor("o", (5, 6))), 3),
    "another order": (
        lambda y: apply("add", y, transpose(tensor("o", (6, 5, N)), [2, 1, 0])),
        3,
    ),
    "the sum of the last axis": (lambda y: make(ops.Reduce("sum", (2,)), y), 2),
    "the sum of all rows": (lambda y: make(ops.Reduce("max", (0, 1)), y), 2),
    "the sum of some rows": (lambda y: make(ops.Reduce("sum", (1,)), y), 3),
}


@pytest.mark.parametrize("what", SINKING)
def test_a_view_sinks_where_the_other_operands_have_it_undone(what):
    build, rank = SINKING[what]
    given = program(build(product_of_three_axes()))
    legal = legalize(given)
    (last,) = [n for n in legal.nodes() if isinstance(n.op, (ops.Map, ops.Reduce))][-1:]
    width = last.inputs[0].type.rank if isinstance(last.op, ops.Reduce) else last.type.rank
    assert width == rank
    inputs = {
        node.op.label: sample(tuple(3 if dim == N else dim for dim in node.shape))
        for node in given.inputs()
    }
    np.testing.assert_allclose(
        run_program(legal, inputs)[0]["y"], run_program(given, inputs)[0]["y"], rtol=1e-5, atol=1e-5
    )


def test_layer_normalization_of_a_product_is_one_kernel():
    y = product_of_three_axes()
    total = reshape(make(ops.Reduce("sum", (2,)), y), (N, 5, 1))
    centred = apply("sub", y, total)
    squares = reshape(make(ops.Reduce("sum", (2,)), apply("square", centred)), (N, 5, 1))
    made = kernels(program(apply("mul", centred, apply("rsqrt", squares))))
    assert made == ["contract", "reduce sub square reduce rsqrt mul"]


def test_dropout_after_a_product_keeps_its_random_numbers():
    y = product_of_three_axes()
    state = make(ops.State("seed", tensor("s", (), "int64").type, "random", 7001))
    bits = make(ops.RandomBits(y.shape, 3, 0), state)
    kept = apply("lt", bits, constant(2**31, "uint32"))
    given = program(apply("where", kept, y, constant(0.0, "float32")))
    assert kernels(given) == ["contract where"]
    inputs = {"x": sample((3, 5, 7)), "w": sample((7, 6))}
    states = {state: np.array(11 << 32)}
    before, after = (run_program(p, inputs, states)[0]["y"] for p in (given, legalize(given)))
    np.testing.assert_array_equal(before, after)
