"""What `tidy_loops` makes of loops and branches: graphs, not only values."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import F
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Program
from chainrule.compiler.ir.verify import verify_program
from chainrule.compiler.rewrites.canonicalize import canonicalize
from chainrule.compiler.rewrites.loops import tidy_loops
from chainrule.runtime.interpreter import run_program


def tidied(outputs, **arrays):
    """Return the program after `tidy_loops`, checked to compute what it did."""
    before = canonicalize(Program(tuple((str(k), x.node) for k, x in enumerate(outputs))))
    after = tidy_loops(before)
    verify_program(after, before.symbols())
    values = []
    for program in (before, after):
        used = {node.op.label for node in program.inputs()}
        given = {name: x for name, x in arrays.items() if name in used}
        values.append(run_program(program, given)[0])
    for name, value in values[0].items():
        np.testing.assert_allclose(values[1][name], value, rtol=1e-12)
    assert tidy_loops(after).roots == after.roots
    return after


def only(program, kind=ops.Scan):
    """Return the one loop of a program."""
    found = {node.op.family: node for node in program.nodes() if isinstance(node.op, kind)}
    assert len(found) == 1
    return next(iter(found.values()))


def count(roots, kind):
    body = Program(tuple((str(k), node) for k, node in enumerate(roots)))
    return sum(isinstance(node.op, kind) for node in body.nodes())


X = np.random.default_rng(0).normal(size=(5, 3))
W = np.random.default_rng(1).normal(size=(3, 3))
x, w = cr.input("x", (5, 3), "float64"), cr.input("w", (3, 3), "float64")
h = cr.input("h", (3,), "float64")
H = np.array([0.1, 0.2, 0.3])


def test_loops_of_the_same_carries_are_one():
    first, _ = cr.scan(lambda c, x: (F.sin(c + x), None), h, x)
    _, ys = cr.scan(lambda c, x: (F.sin(c + x), c * 2), h, x)
    node = only(tidied([first, ys], x=X, h=H))
    assert len(node.op.body.results) == 2


def test_loops_of_which_one_needs_the_other_stay_two():
    _, ys = cr.scan(lambda c, x: (F.sin(c + x), c), h, x)
    _, zs = cr.scan(lambda c, x: (F.sin(c + x[0]), c * x[1]), h, (x, ys))
    program = tidied([ys, zs], x=X, h=H)
    assert len({node.op.family for node in program.nodes() if isinstance(node.op, ops.Scan)}) == 2


def test_what_no_result_needs_goes():
    (c, _), (ys, _) = cr.scan(lambda c, x: ((c[0] + x, c[1] * x), (c[0] * 2, c[1])), (h, h * 3), x)
    node = only(tidied([c, ys], x=X, h=H))
    assert node.op.carries == 1
    assert len(node.op.body.results) == 2


def test_a_carry_that_stays_is_passed_as_it_is():
    (a, b), _ = cr.scan(lambda c, x: ((c[0] + x * c[1], c[1]), None), (h, w[0]), x)
    node = only(tidied([a, b], x=X, h=H, w=W))
    assert node.op.carries == 1


def test_numbers_and_equal_items_move_into_the_body():
    ones = F.broadcast_to(F.ones((3,), dtype="float64"), (5, 3))
    c, _ = cr.scan(lambda c, x: (c * x[0] + x[1] * 0.5, None), h, (x, ones))
    node = only(tidied([c], x=X, h=H))
    assert node.op.sequences == 1
    assert len(node.inputs) == 2


def test_fixed_work_moves_out_of_the_loop():
    (last,) = cr.grad(cr.scan(lambda c, x: (F.tanh(c @ (w @ w)), None), h, x)[0].sum(), [h])
    program = tidied([last], x=X, h=H, w=W)
    for node in program.nodes():
        if isinstance(node.op, ops.Scan):
            assert count(node.op.body.results, ops.Contract) == 1


def test_products_of_items_are_one_product_before_the_loop():
    c, _ = cr.scan(lambda c, x: (F.tanh(c + x @ w), None), h, x)
    program = tidied([c], x=X, h=H, w=W)
    assert count(only(program).op.body.results, ops.Contract) == 0
    assert count(program.roots, ops.Contract) == 1


def test_projections_of_carries_are_one_product_after_the_loop():
    def step(c, x):
        c = F.tanh(c * x)
        return c, c @ w

    _, ys = cr.scan(step, h, x)
    program = tidied([ys], x=X, h=H, w=W)
    assert count(only(program).op.body.results, ops.Contract) == 0
    assert count(program.roots, ops.Contract) == 1


def test_stacks_of_items_and_of_equal_values_need_no_loop():
    _, (a, b) = cr.scan(lambda c, x: (c + x, (x, w[0] * 2)), h, x)
    program = tidied([a, b], x=X, h=H, w=W)
    assert count(program.roots, ops.Scan) == 0


@pytest.mark.parametrize("holds", [True, False])
def test_a_known_branch_is_chosen(holds):
    y = cr.cond(F.full((), holds, dtype="bool"), lambda: h * 2, lambda: F.exp(h))
    assert count(tidied([y], h=H).roots, ops.Cond) == 0


def test_branches_and_while_loops_lose_what_they_do_not_use():
    p = h.sum() > 0
    y, _ = cr.cond(p, lambda a, b: (a * 2, b), lambda a, b: (a * h[0], b), x, w)
    node = only(tidied([y], x=X, h=H, w=W), ops.Cond)
    assert len(node.inputs) == 3
    z = cr.while_loop(lambda c: c.sum() < 10, lambda c: c * 2 + F.ones((3,), dtype="float64"), h)
    node = only(tidied([z], h=H), ops.While)
    assert len(node.inputs) == 1


def test_rules_reach_bodies():
    """A softplus that is written naively in a step comes out stable."""
    big = cr.input("big", (2,))
    last, _ = cr.scan(lambda c, x: (F.log(1 + F.exp(c + x)), None), F.zeros(()), big)
    found = cr.compile(last)(big=np.array([200.0, 300.0]))
    assert found == pytest.approx(500.0)
