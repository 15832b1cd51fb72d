"""Nodes sort by what they compute, whatever the process traced before."""

from __future__ import annotations

import subprocess
import sys

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import apply, constant, make
from chainrule.compiler.ir.structure import structural_order, structure_digest
from chainrule.compiler.ir.types import TensorType

PROGRAM = """
import chainrule as cr
from chainrule import nn, losses, optim
{before}
cr.manual_seed(0)
x = cr.input("x", ("batch", 6))
y = cr.input("y", ("batch",), dtype="int64")
net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.GELU(), nn.Linear(5, 3))
loss = losses.sparse_categorical_crossentropy(net(x), y, from_logits=True)
loss = loss + (cr.exp(x) * cr.tanh(x)).mean()
train = cr.compile_train(loss, optim.Adam(1e-2), backend="native")
print([line for line in train.executable.artifact.report if "does not join" not in line])
"""
OTHERS = """
x = cr.input("x", ("batch", 6))
y = cr.input("y", ("batch",), dtype="int64")
kept = [cr.constant(v) for v in (0.9, 0.999, 1.0, 0.1, 1e-5, 0.7)]
kept += [x.var(0), x.mean(0), cr.tanh(x), cr.F.one_hot(y, 3), cr.rsqrt(x.var(0) + 1e-5)]
"""


def leaf(label: str):
    return make(ops.Input(label, TensorType("float32", (3,))))


def test_what_needs_a_state_sorts_by_age():
    old, new = (
        make(ops.State("w", TensorType("float32", (3,)), "parameter", ops.new_state_key()))
        for _ in range(2)
    )
    a, b = (
        apply("exp", new),
        apply("exp", old),
    )
    assert structure_digest(a) == structure_digest(b) == b""
    assert structural_order(a) < structural_order(b)
    assert structural_order(b) < structural_order(leaf("x"))


def test_other_functions_inputs_and_constants_differ():
    x, y = leaf("x"), leaf("y")
    nodes = [
        apply("exp", x), apply("exp", y), apply("tanh", x),
        apply("mul", x, y), apply("mul", y, x),
        apply("add", x, constant(1, "float32")), apply("add", x, constant(2, "float32")),
    ]  # fmt: skip
    assert len({structure_digest(node) for node in nodes}) == len(nodes)


def test_a_programs_kernels_do_not_depend_on_what_was_traced_before():
    reports = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(before=before)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for before in ("", OTHERS)
    ]
    assert "kernel" in reports[0]
    assert reports[0] == reports[1]
