"""Tensors behave as NumPy arrays: arithmetic, element types, indexing, shapes."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.frontend.tensor import Tensor, as_tensor, constant
from chainrule.frontend.tensor import input as tensor_input

DTYPES = ("bool", "int32", "int64", "uint32", "float32", "float64")
RANK = {"bool": 0, "int32": 1, "uint32": 1, "int64": 2, "float32": 3, "float64": 4}


def values(dtype: str, shape: tuple[int, ...] = (2, 3), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(1, 9, shape).astype(dtype)


@pytest.mark.parametrize(("left", "right"), list(itertools.product(DTYPES, DTYPES)))
def test_arrays_promote_as_in_torch(left: str, right: str, evaluate) -> None:
    a, b = values(left), values(right, seed=1)
    result = evaluate(constant(a) + constant(b))
    if {left, right} == {"int32", "uint32"} or left == right == "bool":
        expected = "int64"
    else:
        expected = max(left, right, key=RANK.__getitem__)
    assert result.dtype == expected
    np.testing.assert_array_equal(result, a.astype(expected) + b.astype(expected))


@pytest.mark.parametrize(
    ("dtype", "scalar", "expected"),
    [
        ("float32", 2, "float32"),
        ("float32", 2.5, "float32"),
        ("float32", np.float64(2.5), "float32"),
        ("float64", 2.5, "float64"),
        ("int32", 2, "int32"),
        ("int32", 2.5, "float32"),
        ("int64", True, "int64"),
        ("uint32", 3, "uint32"),
        ("bool", 2, "int64"),
        ("bool", 0.5, "float32"),
    ],
)
def test_scalars_are_weak(dtype: str, scalar: object, expected: str) -> None:
    assert (constant(values(dtype)) * scalar).dtype == expected
    assert (scalar * constant(values(dtype))).dtype == expected


@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne"]
)
@pytest.mark.parametrize("dtype", ["int64", "float32", "float64"])
def test_operators(name: str, dtype: str, evaluate) -> None:
    function = getattr(operator, name)
    a, b = values(dtype), values(dtype, (3,), 1)
    expected = function(a, b)
    if name == "truediv" and dtype == "int64":
        expected = expected.astype("float32")
    for result in (function(constant(a), constant(b)), function(constant(a), b)):
        np.testing.assert_array_equal(evaluate(result), expected, strict=True)
    reflected = function(b, constant(a))
    assert isinstance(reflected, Tensor)
    np.testing.assert_allclose(evaluate(reflected), function(b, a), rtol=1e-7)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 0.5, -0.5, -1, -2, 2.7])
def test_powers(exponent: float, evaluate) -> None:
    x = np.array([0.3, 1.0, 7.5], np.float32)
    np.testing.assert_allclose(evaluate(constant(x) ** exponent), x**exponent, rtol=3e-7)
    np.testing.assert_allclose(evaluate(2.0 ** constant(x)), 2.0**x, rtol=3e-7)


def test_integer_powers(evaluate) -> None:
    x = np.array([-3, 0, 5])
    for exponent in range(6):
        np.testing.assert_array_equal(evaluate(constant(x) ** exponent), x**exponent, strict=True)
    with pytest.raises(GraphTypeError, match="integer power"):
        constant(x) ** -1


def test_logic(evaluate) -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    i, j = np.array([12, 5, 7]), np.array([10, 3, 8])
    for function in (operator.and_, operator.or_, operator.xor):
        np.testing.assert_array_equal(evaluate(function(constant(a), b)), function(a, b))
        np.testing.assert_array_equal(evaluate(function(constant(i), j)), function(i, j))
    np.testing.assert_array_equal(evaluate(~constant(a)), ~a)
    np.testing.assert_array_equal(evaluate(~constant(i)), ~i)
    np.testing.assert_array_equal(evaluate(constant(i) >> 1), i >> 1)
    with pytest.raises(GraphTypeError, match="float32"):
        constant([1.0]) & constant([2.0])


KEYS = [
    0,
    -1,
    np.s_[1:],
    np.s_[::-1],
    np.s_[::2, ::-2],
    np.s_[3:0:-1],
    np.s_[-2::-2],
    np.s_[:-100:-1],
    np.s_[10:],
    np.s_[2:1],
    np.s_[None, 1],
    np.s_[..., 2],
    np.s_[1, ..., None, -1],
    np.s_[:, None, 1:3, 4:0:-2],
    np.s_[..., ::-1],
    np.s_[[0, 2, -1]],
    np.s_[:, [1, 1]],
    np.s_[..., np.array([[0, 1], [2, -1]])],
    np.s_[1:, np.array([0, 2]), ::-1],
    np.s_[()],
    np.s_[...],
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing(key: object, evaluate) -> None:
    x = np.arange(4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5)
    np.testing.assert_array_equal(evaluate(constant(x)[key]), x[key], strict=True)


@pytest.mark.parametrize(
    "key",
    [0, -1, np.s_[1:], np.s_[:-1], np.s_[::-1], np.s_[::2], np.s_[1:-1:3], np.s_[-2::-1]],
    ids=str,
)
@pytest.mark.parametrize("size", [3, 6])
def test_indexing_a_symbolic_axis(key: object, size: int, evaluate) -> None:
    x = tensor_input("x", ("n", 2))
    array = np.arange(size * 2, dtype=np.float32).reshape(size, 2)
    np.testing.assert_array_equal(evaluate(x[key], x=array), array[key], strict=True)


def test_indexing_with_a_tensor(evaluate) -> None:
    x, places = tensor_input("x", ("n", 4)), tensor_input("i", ("m", 2), "int64")
    array, at = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([[0, 2]])
    np.testing.assert_array_equal(evaluate(x[places], x=array, i=at), array[at])
    np.testing.assert_array_equal(evaluate(x[:, places], x=array, i=at), array[:, at])


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (4, IndexRangeError, "index 4 leaves axis 0 of size 4"),
        (np.s_[:, -4], IndexRangeError, "axis 1 of size 3"),
        (np.s_[0, 0, 0], IndexRangeError, "3 indices for a tensor of rank 2"),
        ([0, 7], IndexRangeError, "index 7 leaves"),
        (np.ones(4, bool), GraphTypeError, "where"),
        (True, GraphTypeError, "where"),
        (1.5, GraphTypeError, "integers"),
        ("a", GraphTypeError, None),
        (np.s_[::0], GraphTypeError, "non-zero"),
        (np.s_[..., ...], GraphError, "Ellipsis"),
        (([0, 1, 2], [1, 2]), GraphError, "broadcast"),
        (([0], [3]), IndexRangeError, "index 3 leaves"),
    ],
    ids=str,
)
def test_bad_indices(key: object, error: type[Exception], words: str | None) -> None:
    with pytest.raises(error, match=words) as caught:
        tensor_input("x", (4, 3))[key]
    assert "test_tensor.py:" in str(caught.value)


def test_shapes_may_be_symbolic() -> None:
    x = tensor_input("x", ("batch", 4, 6))
    batch = SymbolicDim.of("batch")
    assert x.shape == (batch, 4, 6)
    assert x.reshape(-1, 24).shape == (batch, 24)
    assert x.reshape(batch, -1).shape == (batch, 24)
    assert x.reshape(-1).shape == (24 * batch,)
    assert x.flatten(1).shape == (batch, 24)
    assert x.T.shape == (6, 4, batch)
    assert (x + tensor_input("y", (batch, 1, 1))).shape == x.shape
    assert tensor_input("z", ("batch",)).shape == (batch,)


def test_a_dimension_is_a_number(evaluate) -> None:
    x = tensor_input("x", ("n", 2))
    array = np.ones((3, 2), np.float32)
    np.testing.assert_allclose(evaluate(x / x.shape[0], x=array), array / 3)
    np.testing.assert_allclose(evaluate(x * (x.shape[0] * 2 + 1), x=array), array * 7)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "var", "std", "any", "all"])
def test_reductions(name: str, axis: object, keepdims: bool, evaluate) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    result = evaluate(getattr(constant(x), name)(axis, keepdims=keepdims))
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=3e-6, atol=1e-6)


def test_reductions_of_integers(evaluate) -> None:
    x = np.array([[1, 2], [3, 5]], np.int32)
    assert evaluate(constant(x).sum()).dtype == np.int64
    assert evaluate(constant(x > 1).sum()) == 3
    assert evaluate(constant(x).mean()) == np.float32(2.75)
    assert evaluate(constant(x).max()).dtype == np.int32
    assert evaluate(constant(x > 1).max()).dtype == bool


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_arg_reductions(name: str, axis: int | None, keepdims: bool, evaluate) -> None:
    x = np.array([[3.0, 1.0, 3.0], [1.0, 9.0, 9.0]], np.float32)
    result = evaluate(getattr(constant(x), name)(axis, keepdims))
    expected = getattr(np, name)(x, axis, keepdims=keepdims)
    np.testing.assert_array_equal(result, expected, strict=True)


def test_means_over_nothing() -> None:
    with pytest.raises(GraphError, match=r"mean: \(0, 3\) has no elements"):
        tensor_input("x", (0, 3)).mean()
    with pytest.raises(GraphError, match="ddof"):
        tensor_input("x", (1, 3)).var(0, ddof=1)
    with pytest.raises(GraphError, match="size 0"):
        tensor_input("x", (0, 3)).max()


def test_views(evaluate) -> None:
    x = np.arange(24.0, dtype=np.float32).reshape(2, 1, 3, 4)
    t = constant(x)
    np.testing.assert_array_equal(evaluate(t.transpose(3, 0, 1, 2)), x.transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(evaluate(t.T), x.T)
    np.testing.assert_array_equal(evaluate(t.mT), x.swapaxes(-1, -2))
    np.testing.assert_array_equal(evaluate(t.squeeze()), x.squeeze())
    np.testing.assert_array_equal(evaluate(t.squeeze(1)), x.squeeze(1))
    np.testing.assert_array_equal(evaluate(t.expand_dims((0, -1))), np.expand_dims(x, (0, -1)))
    np.testing.assert_array_equal(evaluate(t.reshape((6, -1))), x.reshape(6, -1))
    np.testing.assert_array_equal(evaluate(t.flatten(2)), x.reshape(2, 1, 12))
    np.testing.assert_array_equal(evaluate(constant(3.0).flatten()), [3.0])
    target = (5, 2, 7, 3, 4)
    np.testing.assert_array_equal(evaluate(t.broadcast_to(target)), np.broadcast_to(x, target))
    assert t.reshape(x.shape).node is t.node


def test_a_tensor_has_no_value() -> None:
    x = tensor_input("x", (3,))
    for use in (bool, float, int, np.asarray, lambda t: 1 in t):
        with pytest.raises(GraphTypeError, match=r"test_tensor\.py:\d+: "):
            use(x)
    with pytest.raises(GraphTypeError, match="where"):
        if x > 0:
            pass
    with pytest.raises(GraphTypeError, match="immutable"):
        x[0] = 1
    with pytest.raises(AttributeError, match="immutable"):
        x.node = None
    with pytest.raises(GraphTypeError, match="length"):
        len(tensor_input("y", ("n",)))
    with pytest.raises(TypeError):
        np.exp(x)
    assert len({x, x, tensor_input("x", (3,))}) == 2
    assert len(list(x)) == 3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda x: x @ x, ["matmul", "(batch, 784)", "must be equal"]),
        (lambda x: x + tensor_input("z", (3,)), ["add", "(batch, 784)", "(3,)", "or 1 would fit"]),
        (lambda x: x.reshape(-1, 5), ["reshape", "784*batch", "(-1, 5)"]),
        (lambda x: x.reshape(-1, -1), ["reshape", "more than one -1"]),
        (lambda x: x.sum(2), ["sum", "axis 2 does not fit rank 2"]),
        (lambda x: x.transpose(0, 0), ["transpose", "no permutation"]),
        (lambda x: x.squeeze(1), ["squeeze", "(batch, 784)"]),
        (lambda x: x.astype("float16"), ["unknown dtype", "float32"]),
        (lambda x: x.mean((0, 0)), ["mean", "twice"]),
        (lambda x: x + (1 + 2j), ["complex128"]),
        (lambda x: x + "a", ["cannot use an array of <U1"]),
        (lambda x: x + object(), ["cannot"]),
        (lambda x: constant(np.array(["a"])), ["array"]),
    ],
)
def test_errors_name_the_line_the_operator_and_the_shapes(build, words: list[str]) -> None:
    x = tensor_input("x", ("batch", 784))
    with pytest.raises((GraphError, GraphTypeError)) as caught:
        build(x)
    message = str(caught.value)
    assert "test_tensor.py:" in message.split(": ", maxsplit=1)[0] + ":"
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "shape"), [("1x", (2,)), ("x", (-1,)), ("x", ("1 n",)), ("", ()), ("x", (True,))]
)
def test_bad_inputs(name: str, shape: tuple) -> None:
    with pytest.raises((GraphError, GraphTypeError)):
        tensor_input(name, shape)


def test_integers_out_of_range() -> None:
    with pytest.raises(GraphTypeError, match="does not fit int32"):
        constant(np.zeros(3, np.int32)) + 2**40


ROWS, COLUMNS = np.array([[0], [2]]), np.array([1, 3, -1])


@pytest.mark.parametrize(
    "key",
    [
        (ROWS, COLUMNS),
        (slice(None), ROWS, COLUMNS),
        (ROWS, slice(None), COLUMNS),
        (ROWS, COLUMNS, slice(1, None, 2)),
        (0, COLUMNS),
        (COLUMNS[:2], slice(None), 1),
        (slice(None), 1, COLUMNS),
        (ROWS, COLUMNS, None),
        (..., ROWS, COLUMNS, slice(None)),
        (ROWS, COLUMNS[:1], COLUMNS),
    ],
    ids=str,
)
def test_several_arrays_of_indices(key, evaluate) -> None:
    array = np.arange(4 * 4 * 4 * 2.0).reshape(4, 4, 4, 2)
    x = tensor_input("x", array.shape, "float64")
    np.testing.assert_array_equal(evaluate(x[key], x=array), array[key])
    positive = tuple(part % 4 if isinstance(part, np.ndarray) else part for part in key)
    given = tuple(constant(p) + 0 if isinstance(p, np.ndarray) else p for p in positive)
    np.testing.assert_array_equal(evaluate(x[given], x=array), array[key])


def test_an_index_outside_does_not_reach_another_row(evaluate) -> None:
    x, i = tensor_input("x", (3, 4)), tensor_input("i", (2,), "int64")
    with pytest.raises(IndexRangeError):
        evaluate(x[constant([0, 1]), i + 0], x=np.zeros((3, 4), "f"), i=np.array([0, 4]))


def test_a_sequence_keeps_the_digits_of_the_type_it_becomes(evaluate) -> None:
    assert evaluate(as_tensor([0.1, 1], dtype="float64")).tolist() == [0.1, 1.0]


def test_as_tensor(evaluate) -> None:
    x = tensor_input("x", (2,))
    assert as_tensor(x) is x
    assert as_tensor(2).dtype == "int64"
    assert as_tensor(2.0).dtype == "float32"
    assert as_tensor(2, like=x).dtype == "float32"
    assert as_tensor(2.5, like=constant([1, 2])).dtype == "float32"
    assert as_tensor([1.0, 2.0]).dtype == "float32"
    assert as_tensor(np.zeros(2)).dtype == "float64"
    assert as_tensor(np.zeros(2, np.uint8)).dtype == "int32"
    assert as_tensor(np.zeros(2, np.float16)).dtype == "float32"
    stacked = as_tensor([x, x + 1.0])
    np.testing.assert_array_equal(evaluate(stacked, x=np.zeros(2, np.float32)), [[0, 0], [1, 1]])


def test_torch_tensors_become_constants(evaluate) -> None:
    torch = pytest.importorskip("torch")
    weight = torch.arange(3.0, requires_grad=True)
    np.testing.assert_array_equal(evaluate(as_tensor(weight) * 2), [0, 2, 4])


def test_nodes_carry_the_users_line() -> None:
    x = tensor_input("x", (3, 5))
    y = x.exp()
    assert y.node.source is not None
    assert y.node.source.filename.endswith("test_tensor.py")
    assert y.node.source.function == "test_nodes_carry_the_users_line"
