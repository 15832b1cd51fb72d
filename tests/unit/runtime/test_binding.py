"""Binding: what callers may pass, what they are told when it does not fit, what a call costs."""

from __future__ import annotations

import time

import ml_dtypes
import numpy as np
import pytest
import torch

from chainrule.compiler.errors import InputError, InputTypeError, SourceLine
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.types import TensorType
from chainrule.runtime.binding import InputBinder, bind_dimensions

N, M = SymbolicDim.of("n"), SymbolicDim.of("m")
LINE = SourceLine("model.py", 3, "build")


def binder(**shapes: tuple) -> InputBinder:
    """Return a binder of float32 inputs; a shape may end in an element type."""
    specs = []
    for name, shape in shapes.items():
        dtype = "float32"
        if shape and isinstance(shape[-1], str):
            *shape, dtype = shape
        specs.append((name, TensorType(dtype, tuple(shape)), LINE))
    return InputBinder(specs)


def bind_one(value: object, *shape) -> np.ndarray:
    ((array,), _) = binder(x=shape).bind({"x": value})
    return array


# -- conversion -----------------------------------------------------------------------------------

BASE = np.arange(12, dtype=np.float32).reshape(3, 4)


class OnlyArray:
    def __array__(self, dtype=None, copy=None):
        return BASE.astype(dtype or BASE.dtype)


class OnlyDlpack:
    def __dlpack__(self, **options):
        return BASE.__dlpack__(**options)

    def __dlpack_device__(self):
        return BASE.__dlpack_device__()


@pytest.mark.parametrize(
    "value",
    [
        BASE,
        BASE.tolist(),
        tuple(map(tuple, BASE.tolist())),
        [np.float64(1) * row for row in BASE],
        np.asfortranarray(BASE),
        np.repeat(BASE, 2, axis=0)[::2],
        BASE.astype(">f4"),
        BASE.astype("f8"),
        BASE.astype("f2"),
        BASE.astype(np.longdouble),
        BASE.astype(ml_dtypes.bfloat16),
        BASE.astype("i8"),
        BASE.astype("u1"),
        np.frombuffer(b"\0" + BASE.tobytes(), np.float32, offset=1).reshape(3, 4),
        BASE.view(type("Subclass", (np.ndarray,), {})),
        np.ma.masked_array(BASE).filled(0),
        torch.from_numpy(BASE),
        torch.from_numpy(BASE).double().t().t(),
        OnlyArray(),
        OnlyDlpack(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_with_numbers_is_converted(value):
    array = bind_one(value, 3, 4)
    assert type(array) is np.ndarray
    assert array.dtype is np.dtype("float32")
    assert array.flags.c_contiguous and array.flags.aligned
    np.testing.assert_array_equal(array, BASE)


def test_a_fitting_array_is_passed_on_itself():
    read_only = BASE.copy()
    read_only.setflags(write=False)
    for array in (BASE, read_only, np.zeros((0, 4), "f4")):
        ((bound,), _) = binder(x=(N, 4)).bind({"x": array})
        assert bound is array


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        (3, ("int32",), 3),
        (True, (), 1.0),
        (2.5, (), 2.5),
        (float("nan"), (), np.nan),
        (np.float64(1e-50), (), 0.0),
        ([], (N, "int64"), []),
        ([[], []], (2, 0), [[], []]),
        (np.array([1, 2], "i8"), (2, "int32"), [1, 2]),
        (np.array([1, 2], "u8"), (2, "int64"), [1, 2]),
        (np.array([2**32 - 1]), (1, "uint32"), [2**32 - 1]),
        (np.array([True]), (1, "int64"), [1]),
        (np.array([0, 1], "u1"), (2, "bool"), [False, True]),
        ([np.inf, -np.inf], (2,), [np.inf, -np.inf]),
        (np.array([np.inf]), (1,), [np.inf]),
        (np.array([1], np.longlong), (1, "int64"), [1]),
    ],
)
def test_values_that_keep_their_meaning(value, shape, expected):
    array = bind_one(value, *shape)
    np.testing.assert_array_equal(array, expected)
    assert array.dtype.name == (shape[-1] if shape and isinstance(shape[-1], str) else "float32")


@pytest.mark.parametrize(
    ("value", "shape", "error", "message"),
    [
        (
            [1.0, 2.0],
            (2, "int64"),
            InputTypeError,
            r"needs int64 .* got float64; .*astype\('int64'\)",
        ),
        ([1j], (1,), InputTypeError, "complex128 elements are no float32"),
        (["a"], (1,), InputTypeError, "<U1 elements are no float32"),
        ([None], (1,), InputTypeError, "object elements are no float32"),
        ([2**70], (1, "int64"), InputTypeError, "object elements are no int64"),
        (None, (), InputTypeError, "object elements"),
        (np.array(["2020"], "M8[Y]"), (1,), InputTypeError, "datetime64"),
        (np.zeros(2, [("a", "f4")]), (2,), InputTypeError, "elements are no float32"),
        (np.ma.masked_array([1.0], [True]), (1,), InputTypeError, "masked array"),
        (torch.ones(2, requires_grad=True), (2,), InputTypeError, "torch.Tensor.*requires grad"),
        ([[1.0], [1.0, 2.0]], (2, 2), InputError, "its nested lists differ in length"),
        ([1e300], (1,), InputError, "beyond the range of float32"),
        ([2**40], (1, "int32"), InputError, "holds 1099511627776, which is no int32 value"),
        ([-1], (1, "uint32"), InputError, "holds -1, which is no uint32"),
        (np.array([2**63], "u8"), (1, "int64"), InputError, "holds 9223372036854775808"),
        ([2], (1, "bool"), InputError, "holds 2, which is no bool"),
        ([0.5], (1, "bool"), InputTypeError, "needs bool elements, got float64"),
    ],
)
def test_values_that_would_lose_their_meaning(value, shape, error, message):
    with pytest.raises(error, match=r"^model.py:3: input 'x'.*" + message):
        bind_one(value, *shape)


# -- names ----------------------------------------------------------------------------------------


def test_names_are_checked():
    b = binder(images=(N, 4), labels=(N,))
    for given, message in [
        ({"images": BASE}, r"model.py:3: input 'labels', float32\(n,\), is missing"),
        ({}, "also missing: 'labels'"),
        ({"images": BASE, "label": [1]}, "no input is called 'label'; did you mean 'labels'"),
        ({"images": BASE, "labels": [1], 3: 4}, r"called 3 \(inputs: 'images', 'labels'\)"),
    ]:
        with pytest.raises(InputError, match=message):
            b.bind(given)


def test_no_inputs_at_all():
    assert binder().bind({}) == ((), ())
    with pytest.raises(InputError, match=r"no input is called 'x' \(inputs: none\)"):
        binder().bind({"x": 1})


# -- sizes ----------------------------------------------------------------------------------------


def sizes(shapes: dict[str, tuple], given: dict[str, tuple]) -> dict[str, int]:
    b = binder(**shapes)
    _, found = b.bind({name: np.zeros(shape, "f4") for name, shape in given.items()})
    return dict(zip(b.symbols, found, strict=True))


@pytest.mark.parametrize(
    ("shapes", "given", "expected"),
    [
        ({"x": (N, 4)}, {"x": (5, 4)}, {"n": 5}),
        ({"x": (N, M), "y": (M,)}, {"x": (5, 0), "y": (0,)}, {"n": 5, "m": 0}),
        ({"x": (2 * N + 1,)}, {"x": (7,)}, {"n": 3}),
        ({"x": (N * M,), "y": (M,)}, {"x": (6,), "y": (3,)}, {"n": 2, "m": 3}),
        ({"x": (N // 2,), "y": (N,)}, {"x": (2,), "y": (5,)}, {"n": 5}),
        (
            {"x": (N + M,), "y": (N - M + 3,), "z": (M,)},
            {"x": (7,), "y": (6,), "z": (2,)},
            {"n": 5, "m": 2},
        ),
        ({"x": (N * N,), "y": (N,)}, {"x": (9,), "y": (3,)}, {"n": 3}),
        ({"x": (4 - N,)}, {"x": (1,)}, {"n": 3}),
    ],
)
def test_sizes_are_solved(shapes, given, expected):
    assert sizes(shapes, given) == expected


@pytest.mark.parametrize(
    ("shapes", "given", "message"),
    [
        (
            {"x": (N, 784)},
            {"x": (5, 28, 28)},
            r"expected \(n, 784\), got \(5, 28, 28\): 3 axes instead of 2",
        ),
        (
            {"x": (N, 784)},
            {"x": (5, 28)},
            r"expected \(n, 784\), got \(5, 28\): axis 1 is 28, not 784",
        ),
        (
            {"x": (N,), "y": (3, N)},
            {"x": (5,), "y": (3, 6)},
            r"'y': expected \(3, n\): axis 1 is 6, not n = 5 \(n is 5 by axis 0 of 'x'\)",
        ),
        ({"x": (2 * N,)}, {"x": (7,)}, r"axis 0 is 7, which no size 'n' makes equal to 2\*n"),
        ({"x": (N + 3,)}, {"x": (2,)}, r"axis 0 is 2, which no size 'n'"),
        ({"x": (N * M,)}, {"x": (6,)}, "does not determine m, n"),
        ({"x": (N * N,)}, {"x": (9,)}, "does not determine n; use n alone"),
        ({"x": (N * M,), "y": (M,)}, {"x": (0,), "y": (0,)}, "does not determine n"),
    ],
)
def test_sizes_that_do_not_fit(shapes, given, message):
    with pytest.raises(InputError, match=r"^model.py:3: .*" + message):
        sizes(shapes, given)


def test_bind_dimensions_gives_names():
    specs = [("x", TensorType("float32", (N, 2 * M)), None)]
    assert bind_dimensions(specs, {"x": np.zeros((3, 8))}) == {"n": 3, "m": 4}


def test_an_error_leaves_the_binder_usable():
    b = binder(x=(N, 4))
    b.bind({"x": BASE})
    with pytest.raises(InputError):
        b.bind({"x": np.zeros((3, 5), "f4")})
    assert b.bind({"x": BASE})[1] == (3,)


def test_many_shapes_do_not_pile_up():
    b = binder(x=(N,))
    for n in range(9000):
        assert b.bind({"x": np.empty(n, "f4")})[1] == (n,)
    assert len(b._sizes) <= 4096


# -- speed ----------------------------------------------------------------------------------------


@pytest.mark.bench
def test_a_repeated_call_costs_less_than_a_microsecond_an_input():
    b = binder(x=(N, 4), y=(N,), w=(4, 3), i=(N, "int64"))
    shapes = {"x": (3, 4), "y": (3,), "w": (4, 3)}
    arrays = {k: np.zeros(s, "f4") for k, s in shapes.items()} | {"i": np.zeros(3, "i8")}
    best = min(_seconds(b, arrays) for _ in range(20))
    assert best / 4 < 1e-6


def _seconds(b: InputBinder, arrays: dict, repeats: int = 2000) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        b.bind(arrays)
    return (time.perf_counter() - start) / repeats
