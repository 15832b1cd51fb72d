"""Every case on every backend against the interpreter: values, states, gradients, layouts, bits."""

from __future__ import annotations

import numpy as np
import pytest
from backends import BACKENDS, executable
from cases import M, N, all_cases, program, sample, tensor
from closeness import Tolerance, assert_close
from gradients import pull_back, random_like
from oracle import assert_agrees

from chainrule.compiler.errors import IndexRangeError, InputError, InputTypeError, SourceLine
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Program, apply, make
from chainrule.runtime.interpreter import Interpreter, run_program

CASES = all_cases()
SMOOTH = [case for case in CASES if case.differentiate]
# Reordered sums, contracted products and other roundings of the derivative's factors.
GRADIENT_SLACK = {
    "float32": Tolerance(ulps=16, relative=1e-5),
    "float64": Tolerance(ulps=16, relative=1e-13),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_values_and_states(case, backend):
    assert_agrees(case, executable(case.program, backend, case.states))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", SMOOTH, ids=repr)
def test_gradients(case, backend):
    step = pull_back(case.program, case.differentiate)
    run = executable(step.program, backend, case.states)
    oracle = Interpreter(step.program, promote=True)
    for position, call in enumerate(case.calls[:2]):
        if "-float" in case.name and position:
            break  # later calls of elementary functions hold edge values and sizes seen before
        outputs, _ = run_program(case.program, call, case.states)
        seeds = {
            seed: value.astype(outputs[seed.removeprefix("seed_")].dtype)
            for seed, value in random_like({s: outputs[s[5:]] for s in step.seeds}, 3).items()
        }
        inputs = {**call, **seeds}
        inputs = {name: inputs[name] for name in oracle.binder.names}
        expected, _ = oracle.run(inputs, case.states)
        found = run(inputs)
        for name, value in expected.items():
            slack = GRADIENT_SLACK.get(found[name].dtype.name, Tolerance())
            assert_close(found[name], value, slack, what=f"call {position}, {name}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "case",
    [
        c
        for c in CASES
        if c.name.startswith(
            ("conv", "einsum", "perceptron", "attention", "momentum", "argsort-(", "linear", "scan")
        )
        and "float64" not in c.name
    ],
    ids=repr,
)
def test_bits_do_not_depend_on_the_thread_count(case, backend):
    results = []
    for threads in (1, 2, 3):
        run = executable(case.program, backend, case.states, threads=threads)
        results.append([run(call) for call in case.calls])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            for name, value in first.items():
                assert value.tobytes() == second[name].tobytes(), name


# -- what the caller may pass ---------------------------------------------------------------------

_BASE = sample((9, 14))
LAYOUTS = {
    "fortran": np.asfortranarray(_BASE[:, :7]),
    "strided": _BASE[:, ::2],
    "reversed": _BASE[::-1, 6::-1],
    "transposed": np.ascontiguousarray(_BASE[:, :7].T).T,
    "big-endian": _BASE[:, :7].astype(">f4"),
    "float64": _BASE[:, :7].astype("f8"),
    "float16": _BASE[:, :7].astype("f2"),
    "integers": (10 * _BASE[:, :7]).astype("i8"),
    "booleans": _BASE[:, :7] > 0,
    "list": _BASE[:, :7].tolist(),
    "broadcast": np.broadcast_to(_BASE[:1, :7], (9, 7)),
    "unaligned": np.frombuffer(b"\0" + _BASE[:, :7].tobytes(), "f4", offset=1).reshape(9, 7),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_layout_of_an_input_gives_the_same_result(backend):
    x, w = tensor("x", (N, 7)), tensor("w", (7,))
    run = executable(program(apply("mul", x, w), make(ops.Reduce("sum", (0,)), x)), backend)
    weight = sample((7,))
    weight.setflags(write=False)
    for name, given in LAYOUTS.items():
        plain = np.array(given, dtype=np.float32, order="C")
        expected, found = run({"x": plain, "w": weight}), run({"x": given, "w": weight})
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_belong_to_the_caller(backend):
    x = tensor("x", (N, 3))
    run = executable(program(a=x, b=apply("neg", x)), backend)
    given = sample((4, 3))
    kept = given.copy()
    first = run({"x": given})
    copies = {name: array.copy() for name, array in first.items()}
    run({"x": given + 1})
    for name, array in first.items():
        np.testing.assert_array_equal(array, copies[name])
        array[...] = 0
    np.testing.assert_array_equal(given, kept)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, InputError, "'x', .* is missing"),
        ({"x": sample((2, 3)), "z": 1}, InputError, "no input is called 'z'"),
        ({"x": sample((2, 4))}, InputError, r"expected \(n, 3\), got \(2, 4\): axis 1 is 4, not 3"),
        ({"x": sample((2,))}, InputError, r"expected \(n, 3\), got \(2,\): 1 axes instead of 2"),
        ({"x": np.zeros((2, 3), complex)}, InputTypeError, "complex128"),
        ({"x": [["a", "b", "c"]]}, InputTypeError, "float32"),
    ],
)
def test_inputs_that_do_not_fit(backend, inputs, error, message):
    run = executable(program(apply("neg", tensor("x", (N, 3)))), backend)
    with pytest.raises(error, match=message):
        run(inputs)
    np.testing.assert_array_equal(run({"x": np.ones((1, 3), "f4")})["y"], [[-1, -1, -1]])


# -- errors at run time ---------------------------------------------------------------------------

LINE = SourceLine("model.py", 12, "forward")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("index", [7, -1, 2**40])
def test_an_index_out_of_range_is_named_and_states_stay(backend, index):
    table = make(ops.State("table", tensor("t", (7, 2)).type, "parameter", 950))
    i = tensor("labels", (N,), "int64")
    picked = make(ops.Gather(0), table, i, source=LINE)
    step = Program((("y", picked),), ((table, apply("neg", table)),))
    run = executable(step, backend, {table: sample((7, 2))})
    with pytest.raises(IndexRangeError, match=rf"model.py:12: gather: index {index}\b.*size 7"):
        run({"labels": np.array([0, 6, index, 3])})
    np.testing.assert_array_equal(np.asarray(run.states[table]), sample((7, 2)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scattered_index_out_of_range_is_named(backend):
    u, i = tensor("u", (N, 2)), tensor("i", (N,), "int32")
    run = executable(program(make(ops.ScatterAdd(0, 3), u, i, source=LINE)), backend)
    with pytest.raises(IndexRangeError, match=r"model.py:12: scatteradd: index 3\b"):
        run({"u": sample((2, 2)), "i": np.array([0, 3], np.int32)})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["max", "argmin"])
def test_an_extreme_of_nothing(backend, kind):
    reduced = make(ops.Reduce(kind, (1,)), tensor("x", (3, N)), source=LINE)
    run = executable(program(reduced), backend)
    with pytest.raises(
        InputError, match=f"model.py:12: {kind} over an axis of size 0 has no value"
    ):
        run({"x": np.zeros((3, 0), "f4")})


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mean_of_nothing(backend):
    total = make(ops.Reduce("sum", (0,)), tensor("x", (N, 3)))
    mean = apply("div", total, make(ops.Extent(N, "float32")), source=LINE)
    run = executable(program(mean), backend)
    with pytest.raises(
        InputError, match=r"model.py:12: mean over an axis of size 0: n divides by zero"
    ):
        run({"x": np.zeros((0, 3), "f4")})


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_that_disagree(backend):
    both = program(apply("add", tensor("x", (N, M)), tensor("z", (M,))))
    run = executable(both, backend)
    with pytest.raises(InputError, match="m is 4 by axis 1 of 'x'"):
        run({"x": sample((2, 4)), "z": sample((5,))})
