"""Random programs: rewritten, native and differentiated ones against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from backends import executable
from hypothesis import HealthCheck, given, settings
from random_graphs import BATCHES, Example, examples

from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.errors import InputError
from chainrule.compiler.graph_stages import optimize_graph
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Program, make
from chainrule.compiler.ir.text import format_program, parse_program
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.ir.verify import verify_program
from chainrule.compiler.options import CompileOptions
from chainrule.compiler.passes import PassRunner
from chainrule.compiler.rewrites.algebraic import simplify_algebra
from chainrule.compiler.rewrites.canonicalize import canonicalize
from chainrule.compiler.rewrites.folding import fold_constants, specialize_mode
from chainrule.compiler.rewrites.legalize import legalize
from chainrule.compiler.rewrites.stability import stabilize
from chainrule.runtime.interpreter import Interpreter, run_program


def optimize(program: Program) -> Program:
    """Return what the pipeline makes of a program's graph, verified after each stage."""
    options = CompileOptions(verify=True)
    return optimize_graph(program, options, PassRunner(options))


REWRITES = {
    "canonicalize": canonicalize,
    "simplify_algebra": simplify_algebra,
    "fold_constants": fold_constants,
    "specialize_mode": lambda program: specialize_mode(program, training=False),
    "stabilize": stabilize,
    "legalize": legalize,
    "the pipeline": optimize,
}


def quick(count: int) -> settings:
    """Return settings that give the same examples in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def assert_agrees(found: dict, plain: dict, wide: dict, what: str) -> None:
    """Compare with the float64 results, allowing a multiple of what float32 itself loses."""
    assert found.keys() == plain.keys()
    for key, value in found.items():
        value, exact = np.asarray(value), wide[key]
        assert value.shape == exact.shape, f"{what}: {key} has shape {value.shape}"
        assert value.dtype == plain[key].dtype, f"{what}: {key} has dtype {value.dtype}"
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(value, plain[key], err_msg=f"{what}: {key}")
        elif value.size:
            lost = np.abs(plain[key] - exact).max()
            slack = 64 * lost + 1e-5 * np.abs(exact).max() + 1e-6
            error = np.abs(value - exact)
            assert np.isfinite(value).all(), f"{what}: {key} is not finite"
            assert error.max() <= slack, f"{what}: {key} is off by {error.max()}, allowed {slack}"


def run(
    program: Program, example: Example, promote: bool = False, batch: int | None = None
) -> dict:
    used = {node.op.label for node in program.inputs()}
    inputs = {k: v for k, v in example.inputs(batch).items() if k in used}
    outputs, updates = run_program(program, inputs, example.states, promote)
    # an update to a state's own value may be dropped
    kept = {state: example.states[state] for state, _ in example.program.updates}
    after = {**kept, **updates}
    return {**outputs, **{n.op.label + " after": v for n, v in after.items()}}


@quick(100)
@given(examples())
def test_programs_are_valid_and_round_trip_through_text(example):
    verify_program(example.program)
    for sources in (False, True):
        text = format_program(example.program, sources)
        assert parse_program(text) == example.program
        assert format_program(parse_program(text), sources) == text


@quick(60)
@given(examples())
def test_promoted_and_plain_interpretation_agree(example):
    plain, wide = run(example.program, example), run(example.program, example, promote=True)
    for key, value in plain.items():
        assert np.isfinite(value).all(), key
        np.testing.assert_allclose(
            value, wide[key], rtol=1e-2, atol=1e-2 * np.abs(wide[key]).max(initial=1)
        )


@pytest.mark.parametrize("name", REWRITES)
def test_rewritten_programs_compute_the_same(name):
    @quick(30)
    @given(examples())
    def check(example):
        rewritten = REWRITES[name](example.program)
        verify_program(rewritten)
        plain = run(example.program, example)
        wide = run(example.program, example, promote=True)
        assert_agrees(run(rewritten, example), plain, wide, name)
        # In float64 the difference is that of formulas, not of rounding.
        again = run(rewritten, example, promote=True)
        for key, value in again.items():
            size = np.abs(wide[key]).max(initial=1e-3) if value.dtype.kind == "f" else 0
            np.testing.assert_allclose(value, wide[key], rtol=1e-7, atol=1e-6 * size, err_msg=key)

    check()


@quick(25)
@given(examples())
def test_native_code_agrees_with_the_interpreter(example):
    check_native(example)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(examples())
def test_native_code_agrees_with_the_interpreter_at_length(example):
    check_native(example)


def check_native(example: Example) -> None:
    """One executable, called with several batch sizes from the same states."""
    program = example.program
    compiled = executable(program, "native", example.states)
    used = {node.op.label for node in program.inputs()}
    for batch in dict.fromkeys((example.batch, *BATCHES[:3])):
        for node, value in example.states.items():
            compiled.states[node][...] = value
        inputs = {k: v for k, v in example.inputs(batch).items() if k in used}
        try:
            found = dict(compiled(inputs))
        except InputError:  # a maximum of nothing has no value for either
            with pytest.raises((InputError, ValueError)):
                run(program, example, batch=batch)
            continue
        found.update({n.op.label + " after": compiled.states[n] for n, _ in program.updates})
        assert_agrees(
            found,
            run(program, example, batch=batch),
            run(program, example, promote=True, batch=batch),
            f"batch {batch}",
        )


@quick(60)
@given(examples())
def test_gradients_agree_with_differences(example):
    floats = [n for name, n in example.program.outputs if n.dtype == "float32" and name[0] == "y"]
    blocked = any(n.op == ops.Map("stop_gradient") for n in example.program.nodes())
    if not floats or blocked:
        return
    leaves = {n.op.label: n for n in example.program.inputs() if n.type.is_float}
    seeds = [
        make(ops.Input(f"seed{i}", TensorType(n.dtype, n.shape))) for i, n in enumerate(floats)
    ]
    found = gradient(floats, list(leaves.values()), seeds)
    kept = tuple((f"kept {n.op.label}", n) for n in example.program.inputs())
    derivative = Program((*zip(leaves, found, strict=True), *kept))
    verify_program(derivative)
    function = Program((*((f"f{i}", n) for i, n in enumerate(floats)), *kept))
    inputs = {k: v.astype("f8") if v.dtype == "f4" else v for k, v in example.inputs().items()}
    rng = np.random.default_rng(1)
    values = evaluate(function, example, inputs)
    weights = {f"seed{i}": rng.standard_normal(values[f"f{i}"].shape) for i in range(len(floats))}
    direction = {name: rng.standard_normal(inputs[name].shape) for name in leaves}

    def along(h: float) -> float:
        moved = {**inputs, **{k: inputs[k] + h * v for k, v in direction.items()}}
        result = evaluate(function, example, moved)
        return sum(float(np.sum(w * result[f"f{i}"])) for i, w in enumerate(weights.values()))

    def difference(h: float) -> float:
        return (along(h) - along(-h)) / (2 * h)

    numeric = (4 * difference(5e-6) - difference(1e-5)) / 3
    exact = evaluate(derivative, example, {**inputs, **weights})
    products = [exact[name] * v for name, v in direction.items()]
    actual = sum(float(p.sum()) for p in products)
    size = sum(float(np.abs(p).sum()) for p in products)
    noise = sum(float(np.abs(w * values[f"f{i}"]).sum()) for i, w in enumerate(weights.values()))
    assert abs(actual - numeric) <= 1e-5 * size + 1e-8 * noise + 1e-9


def evaluate(program: Program, example: Example, inputs: dict) -> dict[str, np.ndarray]:
    interpreter = Interpreter(program, promote=True)
    return interpreter.run({k: inputs[k] for k in interpreter.binder.names}, example.states)[0]


def test_the_generator_reaches_every_primitive():
    seen: set[type] = set()

    @quick(600)
    @given(examples())
    def collect(example):
        seen.update(type(node.op) for node in example.program.nodes())

    collect()
    every = {
        kind for kind in vars(ops).values() if isinstance(kind, type) and issubclass(kind, ops.Op)
    }
    loops = {kind for kind in every if issubclass(kind, ops.Nested)}
    made_by_legalization = {ops.FlatContract, ops.Window}
    assert every - seen == {ops.Op, *loops, *made_by_legalization}
