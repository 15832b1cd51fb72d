"""The loop interpreter against the graph interpreter, and the faults that it alone can see."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, all_cases, program, sample, tensor
from closeness import Tolerance, assert_close
from gradients import pull_back, random_like
from networks import (
    batch_norm_step,
    compiled,
    initial_states,
    layer_norm,
    perceptron_step,
    softmax_cross_entropy,
)

from chainrule.compiler.errors import CheckFailed, IndexRangeError, InputError, SourceLine
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Program, make
from chainrule.compiler.loops.parse import parse_loop_program
from chainrule.runtime.interpreter import Interpreter, run_program
from chainrule.runtime.loop_interpreter import LoopExecutable, run_artifact, run_loop_program

PARTS = 12
GRADIENT_SLACK = {
    "float32": Tolerance(ulps=16, relative=1e-5),
    "float64": Tolerance(ulps=16, relative=1e-13),
}


def assert_case(case: Case) -> None:
    oracle = Interpreter(case.program, promote=case.promote)
    executable = LoopExecutable(
        compiled(case.program, training=False),
        {node: np.array(value, node.dtype) for node, value in case.states.items()},
    )
    states = dict(case.states)
    for call in case.calls:
        bounds = None
        if case.tolerance.terms:
            sizes = {k: np.abs(v) if v.dtype.kind == "f" else v for k, v in call.items()}
            bounds = run_program(case.program, sizes, states, promote=True)[0]
        expected, updates = oracle.run(call, states)
        found = executable(call)
        states.update(updates)
        for name, value in expected.items():
            bound = None if bounds is None else bounds[name]
            assert_close(found[name], value, case.tolerance, bound, f"{case.name}, {name}")
        for node in updates:
            assert_close(executable.states[node], states[node], case.tolerance, what=case.name)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_case_agrees_with_the_graph_interpreter(part):
    for case in all_cases()[part::PARTS]:
        assert_case(case)


def assert_gradient(case: Case) -> None:
    step = pull_back(case.program, case.differentiate)
    outputs, _ = run_program(case.program, case.calls[0], case.states)
    seeds = random_like({seed: outputs[seed.removeprefix("seed_")] for seed in step.seeds}, 3)
    inputs = {
        **case.calls[0],
        **{s: v.astype(outputs[s.removeprefix("seed_")].dtype) for s, v in seeds.items()},
    }
    oracle = Interpreter(step.program, promote=True)
    inputs = {name: inputs[name] for name in oracle.binder.names}
    expected, _ = oracle.run(inputs, case.states)
    found, _ = run_artifact(compiled(step.program), inputs, case.states)
    for name, value in expected.items():
        slack = GRADIENT_SLACK.get(found[name].dtype.name, Tolerance())
        assert_close(found[name], value, slack, what=f"{case.name}, {name}")


@pytest.mark.parametrize("part", range(PARTS))
def test_gradients_of_cases_agree_with_the_graph_interpreter(part):
    for case in [case for case in all_cases() if case.differentiate][part::PARTS]:
        assert_gradient(case)


# -- networks -------------------------------------------------------------------------------------

STEPS = {
    "perceptron": (
        lambda: perceptron_step((12, 9, 8, 5)),
        lambda rng, n: {
            "x": rng.standard_normal((n, 12)).astype("f4"),
            "y": rng.integers(0, 5, n),
        },
    ),
    "batch norm": (
        batch_norm_step,
        lambda rng, n: {
            "x": rng.standard_normal((n, 7)).astype("f4"),
            "t": rng.standard_normal((n, 3)).astype("f4"),
        },
    ),
    "layer norm": (
        layer_norm,
        lambda rng, n: {
            "x": rng.standard_normal((n, 64)).astype("f4"),
            "g": rng.standard_normal((n, 64)).astype("f4"),
        },
    ),
    "softmax": (
        softmax_cross_entropy,
        lambda rng, n: {
            "logits": 30 * rng.standard_normal((n, 10)).astype("f4"),
            "labels": rng.integers(0, 10, n),
        },
    ),
}


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", STEPS)
def test_three_steps_agree_with_the_graph_interpreter(name, fuse):
    build, batch = STEPS[name]
    step = build()
    artifact = compiled(step, fuse=fuse)
    rng = np.random.default_rng(0)
    expected_states = initial_states(step)
    executable = LoopExecutable(artifact, initial_states(step))
    for size in (6, 3, 17):
        inputs = batch(rng, size)
        expected, updates = run_program(step, inputs, expected_states, training=True)
        found = executable(inputs)
        expected_states.update(updates)
        for output, value in expected.items():
            np.testing.assert_allclose(found[output], value, rtol=2e-4, atol=2e-6, err_msg=output)
        for node, value in updates.items():
            # Where a gradient is all but zero, Adam divides one rounding error by another.
            np.testing.assert_allclose(
                executable.states[node], value, rtol=1e-3, atol=2e-5, err_msg=node.op.label
            )


# -- faults ---------------------------------------------------------------------------------------

HEAD = """symbols n
input x:float32[n] "x"
output y:float32[n] "y"
arena t:float32[n]
steps
  k0
kernel k0(x:float32, y:float32!, t:float32!) flops 0 bytes 0 work 0:
"""
FAULTS = {
    r"k0: x\[5\] lies outside its 5 elements": """
  for %a in n vector shared:
    y[%a] = x[%a + 1]:float32""",
    r"k0: y\[-1\] lies outside its 5 elements": """
  for %a in n serial shared:
    y[%a - 1] = 1.0:float32""",
    r"k0: t\[0\] is read and holds no value of its own": """
  for %a in n vector shared:
    y[%a] = t[%a]:float32""",
    r"k0: y\[0\] is read and holds no value of its own": """
  for %a in n serial:
    y[0] += x[%a]:float32""",
    r"k0: y\[0\] is stored to by several lanes": """
  for %a in n vector:
    y[(%a)//2] = 1.0:float32""",
    r"k0: t\[1\] is written by one thread and used by another": """
  for %a in n - 1 serial shared:
    t[%a] = x[%a]:float32
    t[%a + 1] = x[%a]:float32""",
    r"k0: t\[0\] is written by one thread and used by another": """
  for %a in n vector shared:
    t[%a] = x[%a]:float32
    %v1 = t[0]:float32
    y[%a] = %v1""",
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_fault_of_lowering_is_named(message):
    loops = parse_loop_program(HEAD + FAULTS[message].lstrip("\n") + "\n")
    buffers = {"x": np.arange(5, dtype="f4"), "y": np.zeros(5, "f4")}
    with pytest.raises(CheckFailed, match=message):
        run_loop_program(loops, buffers, {"n": 5})


def test_a_plan_that_gives_one_place_to_two_live_buffers_is_seen():
    loops = parse_loop_program(
        """symbols
input x:float32[4] "x"
output y:float32[4] "y"
arena s:float32[4]
arena t:float32[4]
steps
  k0
  barrier k1
kernel k0(x:float32, s:float32!, t:float32!) flops 0 bytes 0 work 0:
  for %a in 4 vector shared:
    s[%a] = x[%a]:float32
    t[%a] = neg(x[%a]:float32)
kernel k1(s:float32, t:float32, y:float32!) flops 0 bytes 0 work 0:
  for %a in 4 vector shared:
    y[%a] = add(s[%a]:float32, t[%a]:float32)
"""
    )
    buffers = {"x": np.arange(4, dtype="f4"), "y": np.ones(4, "f4")}
    run_loop_program(loops, buffers, {})
    np.testing.assert_array_equal(buffers["y"], 0)
    run_loop_program(loops, buffers, {}, {"s": 0, "t": 16})
    np.testing.assert_array_equal(buffers["y"], 0)
    with pytest.raises(CheckFailed, match=r"k1: s\[2\] is read and holds no value of its own"):
        run_loop_program(loops, buffers, {}, {"s": 0, "t": 8})


def test_sums_add_up_in_the_order_of_their_loop():
    loops = parse_loop_program(
        """symbols
input i:int64[6] "i"
input x:float32[6] "x"
output y:float32[2] "y"
steps
  k0
kernel k0(i:int64, x:float32, y:float32!) flops 0 bytes 0 work 0:
  for %z in 2 serial:
    y[%z] = 0:float32
  for %a in 6 serial:
    %g = i[%a]:int64
    y[%g] += x[%a]:float32
"""
    )
    values = np.array([1e8, 1, -1e8, 3, 1, 4], "f4")
    buffers = {"i": np.array([0, 0, 0, 1, 0, 1]), "x": values, "y": np.zeros(2, "f4")}
    run_loop_program(loops, buffers, {})
    np.testing.assert_array_equal(buffers["y"], [1, 7])


@pytest.mark.parametrize("kind", ["argmax", "argmin"])
@pytest.mark.parametrize("order", ["vector", "serial"])
def test_the_first_of_equals_and_nan_win(kind, order):
    sign = 1 if kind == "argmax" else -1
    loops = parse_loop_program(
        f"""symbols n
input x:float32[n] "x"
output y:int64[1] "y"
steps
  k0
kernel k0(x:float32, y:int64!) flops 0 bytes 0 work 0:
  for %a in n {order}:
    fold %r = {kind}(x[%a]:float32 at 2*%a)
  y[0] = %r
"""
    )
    for values, expected in (([1, 3, 3], 2), ([1, np.nan, 9, np.nan], 2), ([-np.inf] * 2, 0)):
        buffers = {"x": sign * np.array(values, "f4"), "y": np.zeros(1, "i8")}
        run_loop_program(loops, buffers, {"n": len(values)})
        assert buffers["y"][0] == expected


def test_an_index_out_of_range_names_the_users_line():
    line = SourceLine("model.py", 12, "forward")
    table, i = tensor("table", (7, 2)), tensor("i", (4,), "int64")
    artifact = compiled(program(make(ops.Gather(0), table, i, source=line)))
    with pytest.raises(IndexRangeError, match=r"model.py:12: gather: index 9\b.*size 7"):
        run_artifact(artifact, {"table": sample((7, 2)), "i": np.array([0, 9, 3, 6])})


def test_buffers_must_fit():
    loops = parse_loop_program(HEAD + "  y[0] = 1.0:float32\n")
    for wrong in (np.zeros(4, "f4"), np.zeros(5, "f8"), np.zeros(10, "f4")[::2]):
        with pytest.raises(InputError, match=r"buffer y is no contiguous float32\[5\]"):
            run_loop_program(loops, {"x": np.zeros(5, "f4"), "y": wrong}, {"n": 5})


def test_inputs_and_states_are_left_alone():
    w = make(ops.State("w", tensor("v", (3,)).type, "parameter", 9701))
    x = tensor("x", (3,))
    step = Program((("y", x),), ((w, x),))
    states, given = {w: np.zeros(3, "f4")}, np.ones(3, "f4")
    outputs, updates = run_artifact(compiled(step), {"x": given}, states)
    outputs["y"][...] = 5
    np.testing.assert_array_equal(updates[w], 1)
    np.testing.assert_array_equal(states[w], 0)
    np.testing.assert_array_equal(given, 1)


def test_constants_need_their_values():
    loops = parse_loop_program("symbols\nconstant c:float32[3] = #ab\nsteps\n")
    with pytest.raises(InputError, match="constant c has a digest and no value"):
        run_loop_program(loops, {}, {})
