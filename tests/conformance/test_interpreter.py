"""The interpreter against plain NumPy, SciPy and PyTorch: the oracle's own examination."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import Case, M, N, all_cases, program, sample, tensor
from closeness import EXACT, Tolerance, assert_close

from chainrule.compiler.errors import IndexRangeError, InputError, SourceLine
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Program, Requirement, apply, constant, make
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.ir.verify import verify_program
from chainrule.runtime.interpreter import Interpreter, run_program
from chainrule.runtime.philox import philox_2x32, random_bits

CASES = all_cases()
# The expectations are themselves float32 or float64 functions of other libraries.
FUNCTION_SLACK = Tolerance(ulps=6)
SPECIAL_SLACK = Tolerance(ulps=256, absolute=1e-13)
SPECIAL = ("lgamma", "digamma", "trigamma", "erfc", "formula")


def slack(case: Case) -> Tolerance:
    if case.name.startswith(SPECIAL):
        return Tolerance(ulps=256, absolute=1e-6 if "float32" in case.name else 1e-13)
    tolerance = case.tolerance
    if tolerance.ulps and not tolerance.relative:
        return FUNCTION_SLACK
    return tolerance


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_every_case_is_a_valid_program(case):
    verify_program(case.program)


@pytest.mark.parametrize("case", [c for c in CASES if c.expected], ids=repr)
def test_the_interpreter_agrees_with_plain_numpy(case):
    assert case.expected is not None
    for position, call in enumerate(case.calls):
        expected = case.expected(**call)
        outputs, _ = run_program(case.program, call, case.states)
        assert outputs.keys() == expected.keys()
        magnitude = None
        if case.tolerance.terms:
            magnitude = absolute_run(case, call)
        for name, value in outputs.items():
            assert_close(
                value,
                expected[name],
                slack(case),
                None if magnitude is None else magnitude[name],
                f"call {position}, output {name!r}",
            )


def absolute_run(case: Case, call) -> dict[str, np.ndarray]:
    """Return the outputs for the inputs' magnitudes: bounds for the rounding of sums."""
    inputs = {k: np.abs(v) if v.dtype.kind == "f" else v for k, v in call.items()}
    return run_program(case.program, inputs, case.states, promote=True)[0]


@pytest.mark.parametrize("case", CASES[:: max(len(CASES) // 150, 1)], ids=repr)
def test_inputs_are_left_alone_and_results_are_the_callers(case):
    before = {name: array.copy() for name, array in case.calls[0].items()}
    states = {node: array.copy() for node, array in case.states.items()}
    outputs, updates = run_program(case.program, case.calls[0], case.states)
    for array in [*outputs.values(), *updates.values()]:
        assert array.flags.writeable and array.flags.c_contiguous
        array[...] = 1
    for name, array in before.items():
        np.testing.assert_array_equal(case.calls[0][name], array)
    for node, array in states.items():
        np.testing.assert_array_equal(case.states[node], array)


@pytest.mark.parametrize("case", [c for c in CASES if c.promote], ids=repr)
def test_promotion_keeps_floats_wide(case):
    outputs, updates = run_program(case.program, case.calls[0], case.states, promote=True)
    assert all(a.dtype != np.float32 for a in [*outputs.values(), *updates.values()])


# -- random numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0), 0, (0xFF1DAE59, 0x6CD10DF2)),
        ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    result = philox_2x32(np.array([counter[0]], np.uint64), counter[1], key)
    assert tuple(int(word[0]) for word in result) == words


def test_random_bits_use_seed_draw_and_stream_as_documented():
    seed, draw, stream = 0x89ABCDEF - 2**32, 0x01234567, 5
    bits = random_bits(seed << 32 | draw, (2, 3), stream, word=1)
    key = (stream * 0x9E3779B9 % 2**32) ^ 0x89ABCDEF
    for position in range(6):
        word = philox_2x32(np.array([position]), draw, key)[1][0]
        assert bits.reshape(-1)[position] == word


def test_random_bits_look_random():
    bits = random_bits(7 << 32, (100_000,), 1, 0)
    uniform = bits / 2**32
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(uniform.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(uniform[:-1], uniform[1:])[0, 1]) < 0.01
    assert len(np.unique(bits)) > 99_990


# -- states ---------------------------------------------------------------------------------------


def test_updates_take_effect_together():
    a, b = (
        make(ops.State(x, TensorType("float32", ()), "buffer", 800 + i)) for i, x in enumerate("ab")
    )
    swap = Program((("a", a),), ((a, b), (b, apply("add", a, b))))
    outputs, updates = run_program(swap, {}, {a: np.float32(1), b: np.float32(10)})
    assert (outputs["a"], updates[a], updates[b]) == (1, 10, 11)


def test_a_state_without_a_value_is_named():
    a = make(ops.State("weight", TensorType("float32", (2,)), "parameter", 810))
    with pytest.raises(InputError, match="weight"):
        run_program(program(a), {}, {})


def test_training_is_an_argument():
    trained = program(make(ops.Training()))
    assert run_program(trained, {}, training=True)[0]["y"]
    assert not run_program(trained, {})[0]["y"]


def test_an_interpreter_is_reused_with_other_sizes():
    interpreter = Interpreter(program(apply("neg", tensor("x", (N, M)))))
    for shape in ((2, 3), (0, 1), (5, 2), (2, 3)):
        x = sample(shape)
        np.testing.assert_array_equal(interpreter.run({"x": x})[0]["y"], -x)


# -- errors ---------------------------------------------------------------------------------------

LINE = SourceLine("model.py", 12, "forward")


@pytest.mark.parametrize("index", [7, -1, 100])
def test_gather_names_the_line_the_index_and_the_axis(index):
    x, i = tensor("x", (5, 7)), tensor("labels", (N,), "int64")
    picked = program(make(ops.Gather(1), x, i, source=LINE))
    with pytest.raises(
        IndexRangeError,
        match=rf"model.py:12: gather: index {index} at position "
        r"\(2,\) of 'labels' is outside axis 1 of size 7; 0 to 6 would fit",
    ):
        run_program(picked, {"x": sample((5, 7)), "labels": np.array([0, 6, index, 3])})


def test_scatter_add_names_the_index():
    u, i = tensor("u", (N, 2)), tensor("i", (N,), "int32")
    added = program(make(ops.ScatterAdd(0, 3), u, i, source=LINE))
    with pytest.raises(
        IndexRangeError, match=r"model.py:12: scatteradd: index 3 at position \(1,\)"
    ):
        run_program(added, {"u": sample((2, 2)), "i": np.array([0, 3], np.int32)})


def test_gather_from_an_empty_axis():
    x, i = tensor("x", (N,)), tensor("i", (M,), "int64")
    picked = program(make(ops.Gather(0), x, i))
    empty = np.zeros(0, np.int64)
    assert run_program(picked, {"x": np.zeros(0, "f4"), "i": empty})[0]["y"].shape == (0,)
    with pytest.raises(IndexRangeError, match="no index fits"):
        run_program(picked, {"x": np.zeros(0, "f4"), "i": np.zeros(1, np.int64)})


@pytest.mark.parametrize("kind", ["max", "min", "argmax", "argmin"])
def test_an_extreme_of_nothing_is_an_error(kind):
    x = tensor("x", (3, N))
    reduced = program(make(ops.Reduce(kind, (1,)), x, source=LINE))
    with pytest.raises(
        InputError, match=f"model.py:12: {kind} over an axis of size 0 has no value"
    ):
        run_program(reduced, {"x": np.zeros((3, 0), "f4")})


@pytest.mark.parametrize("function", ["div", "reciprocal"])
def test_a_mean_of_nothing_is_an_error(function):
    x = tensor("x", (N, 3))
    total = make(ops.Reduce("sum", (0,)), x)
    count = make(ops.Broadcast((3,)), make(ops.Cast("float32"), make(ops.Extent(N, "int64"))))
    mean = (
        apply("div", total, count, source=LINE)
        if function == "div"
        else apply("mul", total, apply("reciprocal", count, source=LINE))
    )
    with pytest.raises(
        InputError, match=r"model.py:12: mean over an axis of size 0: n divides by zero"
    ):
        run_program(program(mean), {"x": np.zeros((0, 3), "f4")})


def test_a_slice_beyond_a_symbolic_axis_is_an_error():
    cut = make(ops.Slice((0,), (5,), (1,)), tensor("x", (N,)), source=LINE)
    assert len(run_program(program(cut), {"x": sample((9,))})[0]["y"]) == 5
    with pytest.raises(InputError, match=r"model.py:12: slice: 5 elements from 0"):
        run_program(program(cut), {"x": sample((4,))})


def test_a_size_that_no_input_tells_is_an_error():
    loose = program(make(ops.Broadcast((M,)), constant(1, "float32")))
    with pytest.raises(InputError, match="no input determines the size 'm'"):
        run_program(loose, {})


# -- accuracy -------------------------------------------------------------------------------------


def test_long_float32_sums_are_accurate_along_any_axis():
    x = (1 + sample((40_000, 3), seed=5)).astype(np.float32)
    for axis, array in ((0, x), (1, np.ascontiguousarray(x.T))):
        total = make(ops.Reduce("sum", (axis,)), tensor("x", array.shape))
        value = run_program(program(total), {"x": array})[0]["y"]
        np.testing.assert_allclose(value, array.sum(axis, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("name", ["digamma", "lgamma", "erf", "erfc"])
def test_special_functions_agree_with_torch(name):
    x = np.linspace(-5.9, 30, 4001)
    value = run_program(program(apply(name, tensor("x", (N,), "float64"))), {"x": x})[0]["y"]
    expected = getattr(torch.special, {"lgamma": "gammaln"}.get(name, name))(torch.from_numpy(x))
    np.testing.assert_allclose(value, expected.numpy(), rtol=1e-11, atol=1e-12)


def test_poles_of_the_gamma_family():
    x = np.array([0.0, -0.0, -1.0, -2.0, np.inf, -np.inf, np.nan])

    def run(name):
        return run_program(program(apply(name, tensor("x", (N,), "float64"))), {"x": x})[0]["y"]

    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(run("lgamma"), [inf, inf, inf, inf, inf, inf, nan])
    np.testing.assert_array_equal(run("digamma"), [-inf, inf, nan, nan, inf, nan, nan])
    np.testing.assert_array_equal(run("trigamma")[[0, 1, 2, 3, 4, 6]], [inf, inf, inf, inf, 0, nan])


def test_exact_is_exact():
    with pytest.raises(AssertionError, match="1 of 2 elements differ"):
        assert_close(np.float32([1, 2]), np.float32([1, np.nextafter(np.float32(2), 3)]), EXACT)


def test_requirements_on_inputs_come_first():
    labels = tensor("labels", (N,), "int64")
    needed = Requirement(labels, 0, 10, -100, "cross_entropy: class label", LINE)
    checked = Program((("y", apply("neg", labels)),), requirements=(needed,))
    run_program(checked, {"labels": np.array([0, 9, -100])})
    with pytest.raises(
        IndexRangeError,
        match=r"model.py:12: cross_entropy: class label 10 at position \(1,\) of 'labels' is "
        "outside 0 to 9",
    ):
        run_program(checked, {"labels": np.array([0, 10, -1])})
