"""Kernels that reduce the same arrays in the same loops become one."""

from __future__ import annotations

import numpy as np
import pytest
from backends import BACKENDS, executable
from cases import program, sample, tensor
from networks import compiled, initial_states

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import apply, make
from chainrule.frontend.step_program import build_training_program


def total(x, axes=(0,)):
    return make(ops.Reduce("sum", axes), x)


def kernels(*outputs) -> list[str]:
    return [kernel.label for kernel in compiled(program(*outputs)).loops.kernels]


def test_sums_over_one_array_share_its_loop() -> None:
    x, w = tensor("x", (64, 33)), tensor("w", (64, 33))
    sums = total(apply("mul", x, w)), total(apply("square", x)), total(apply("exp", w))
    assert len(kernels(*sums)) == 1
    separate = total(x), total(w)  # no array in common
    assert len(kernels(*separate)) == 2


def test_other_axes_other_loops_other_maps_stay_apart() -> None:
    x = tensor("x", (32, 32))
    turned = make(ops.Transpose((1, 0)), x)
    assert len(kernels(total(apply("exp", x)), total(apply("exp", turned)))) == 2
    assert len(kernels(total(x), total(x, (1,)))) == 2


def test_a_sum_that_needs_the_other_through_a_kernel_stays_apart() -> None:
    x = tensor("x", (40, 8))
    first = total(x)
    table = make(ops.Gather(0), first, tensor("i", (8,), "int64"))  # needs it in memory
    second = total(apply("exp", apply("mul", x, table)))
    assert len(kernels(first, second)) == 3


def test_the_number_of_sums_in_a_kernel_is_limited() -> None:
    x = tensor("x", (16, 5))
    sums = [total(apply("mul", x, tensor(f"w{i}", (16, 5)))) for i in range(11)]
    assert len(kernels(*sums)) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_merged_sums_are_right(backend) -> None:
    x, w = tensor("x", (65, 17)), tensor("w", (65, 17))
    top = make(ops.Reduce("max", (0,)), x)
    outputs = total(apply("mul", x, w)), total(apply("exp", apply("sub", x, top))), total(w)
    values = {"x": sample((65, 17)), "w": sample((65, 17)) * 2}
    found = executable(program(*outputs), backend)(values)
    a, b = values["x"], values["w"]
    expected = (a * b).sum(0), np.exp(a - a.max(0)).sum(0), b.sum(0)
    for value, reference in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=2e-5, atol=1e-5)


def test_gradients_of_a_batch_norm_read_the_batch_once() -> None:
    """One kernel sums for the input, the scale and the shift; it also updates those two."""
    cr.manual_seed(0)
    x = cr.input("x", (8, 4, 6, 6))
    norm = nn.BatchNorm2d(4)
    loss = (norm(nn.Conv2d(4, 4, 1)(x)).tanh() * 3.0).sum()
    step = build_training_program(loss, optim.SGD(0.1))[0]
    artifact = compiled(step)
    homes = {artifact.homes[node]: node.op.label for node in initial_states(step)}
    updating = [
        {homes[use.name] for use in kernel.buffers if use.written and use.name in homes}
        for kernel in artifact.loops.kernels
    ]
    assert any({"weight", "bias"} <= labels for labels in updating)
