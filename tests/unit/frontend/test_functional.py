"""NumPy-style functions against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError
from chainrule.frontend import functional as F
from chainrule.frontend.checks import checks_reaching
from chainrule.frontend.tensor import constant
from chainrule.frontend.tensor import input as tensor_input

rng = np.random.default_rng(0)
A = rng.normal(size=(2, 3, 4)).astype(np.float32)
B = rng.normal(size=(2, 4, 5)).astype(np.float32)
M = rng.normal(size=(4, 4)).astype(np.float32)


ELEMENTARY = (
    "abs negative sign square exp exp2 expm1 log log2 log10 log1p sin cos tan sqrt sinh cosh tanh"
    " reciprocal floor ceil trunc cbrt isnan isinf isfinite logical_not"
)


@pytest.mark.parametrize("name", ELEMENTARY.split())
def test_elementary_functions(name: str, evaluate) -> None:
    x = np.array([0.25, 0.5, 0.9], np.float32)
    result = evaluate(getattr(F, name)(x))
    np.testing.assert_allclose(result, getattr(np, name)(x), rtol=1e-6)


def test_integers_become_floats_where_they_must(evaluate) -> None:
    assert F.exp(constant([1, 2])).dtype == "float32"
    assert F.floor(constant([1, 2])).dtype == "int64"
    assert F.abs(constant([1, 2])).dtype == "int64"
    assert F.maximum(constant([True]), False).dtype == "bool"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((2, 3), (3, 4)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (7, 3, 4)),
        ((5, 2, 3), (1, 3, 4)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((2, 0), (0, 3)),
        ((1, 3), (3, 1)),
    ],
)
def test_matmul(left: tuple, right: tuple, evaluate) -> None:
    a, b = (rng.normal(size=s).astype(np.float32) for s in (left, right))
    result = evaluate(constant(a) @ constant(b))
    assert result.shape == (a @ b).shape
    np.testing.assert_allclose(result, a @ b, rtol=1e-5, atol=1e-6)


def test_matmul_with_symbolic_sizes(evaluate) -> None:
    x, y = tensor_input("x", ("n", 4)), tensor_input("y", (4, "m"))
    np.testing.assert_allclose(evaluate(x @ y, x=A[0], y=B[0]), A[0] @ B[0], rtol=1e-5)
    with pytest.raises(GraphError, match="matmul"):
        y @ y
    with pytest.raises(GraphTypeError, match="scalars"):
        x @ 2.0


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("...ij,...jk->...ik", (7, 1, 3, 4), (2, 4, 5)),
    ("i,j->ij", (3,), (4,)),
    ("i,i->", (3,), (3,)),
    ("ij,ij->j", (3, 4), (3, 4)),
    ("ij->ji", (3, 4)),
    ("ij->", (3, 4)),
    ("ij->j", (3, 4)),
    ("...j->...", (2, 3, 4)),
    ("ii->i", (4, 4)),
    ("ii", (4, 4)),
    ("ij,k->i", (2, 3), (4,)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ij,jk,kl,lm->im", (2, 3), (3, 4), (4, 5), (5, 2)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("ba,ab->ab", (2, 3), (3, 2)),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda case: case[0])
def test_einsum(case: tuple, evaluate) -> None:
    equation, *shapes = case
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    result = evaluate(F.einsum(equation, *arrays))
    expected = np.einsum(equation, *arrays)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("equation", ["ij,jk->il", "ij->ij,", "i,jk->ik", "ij,jk->iik", "i1,jk->i"])
def test_bad_einsum(equation: str) -> None:
    with pytest.raises(GraphError, match="einsum"):
        F.einsum(equation, A[0], M)


def test_contractions(evaluate) -> None:
    np.testing.assert_allclose(
        evaluate(F.tensordot(A, B, ((0, 2), (0, 1)))),
        np.tensordot(A, B, ((0, 2), (0, 1))),
        rtol=1e-5,
    )
    np.testing.assert_allclose(evaluate(F.tensordot(A, M, 1)), np.tensordot(A, M, 1), rtol=1e-4)
    np.testing.assert_allclose(evaluate(F.dot(A, B)), np.dot(A, B), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(evaluate(F.outer(A[0, 0], B[0])), np.outer(A[0, 0], B[0]), rtol=1e-6)
    np.testing.assert_allclose(evaluate(F.cumsum(A, 1)), np.cumsum(A, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(evaluate(F.cumsum([[1, 2, 3]])), [[1, 3, 6]])


@pytest.mark.parametrize("axis", [0, 1, -1, (1, 2), None])
def test_softmax_family(axis: object, evaluate) -> None:
    x = A * 50
    wide = x.astype(np.float64)
    shifted = wide - wide.max(axis=axis, keepdims=True)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    lse = np.log(total) + wide.max(axis=axis, keepdims=True)
    np.testing.assert_allclose(
        evaluate(F.softmax(x, axis)), np.exp(shifted) / total, rtol=2e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        evaluate(F.log_softmax(x, axis)), shifted - np.log(total), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(evaluate(F.logsumexp(x, axis, True)), lse, rtol=1e-6)
    np.testing.assert_allclose(evaluate(F.logsumexp(x, axis)), np.squeeze(lse, axis), rtol=1e-6)
    hot = np.exp(shifted / 2) / np.exp(shifted / 2).sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(evaluate(F.softmax(x, axis, 2.0)), hot, rtol=2e-5, atol=1e-7)


def test_logsumexp_of_infinities(evaluate) -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [0.0, -np.inf]], np.float32)
    np.testing.assert_array_equal(evaluate(F.logsumexp(x, 1)), [-np.inf, np.inf, 0.0])
    big = np.array([1e30, -1e30], np.float32)
    np.testing.assert_allclose(evaluate(F.logaddexp(big, big)), big)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 2.5, np.inf, -np.inf])
def test_norms(order: float, evaluate) -> None:
    np.testing.assert_allclose(
        evaluate(F.norm(A, order, -1)), np.linalg.norm(A, order, -1), rtol=1e-5
    )


def test_joining_and_splitting(evaluate) -> None:
    x, y = A[0], A[1]
    np.testing.assert_array_equal(evaluate(F.concatenate([x, y], -1)), np.concatenate([x, y], -1))
    np.testing.assert_array_equal(evaluate(F.stack([x, y], 1)), np.stack([x, y], 1))
    for sections in (2, [1, 3]):
        for part, expected in zip(F.split(x, sections, 1), np.split(x, sections, 1), strict=True):
            np.testing.assert_array_equal(evaluate(part), expected)
    with pytest.raises(GraphError, match="split"):
        F.split(x, 3, 1)
    with pytest.raises(GraphError, match="stack"):
        F.stack([x, M])


def test_repeating_and_moving(evaluate) -> None:
    for repeats in (2, (2, 3), (2, 1, 2, 3)):
        np.testing.assert_array_equal(evaluate(F.tile(A, repeats)), np.tile(A, repeats))
    for axis in (None, 0, -1):
        np.testing.assert_array_equal(evaluate(F.repeat(A, 3, axis)), np.repeat(A, 3, axis))
        np.testing.assert_array_equal(evaluate(F.flip(A, axis)), np.flip(A, axis))
        for shift in (0, 1, -2, 7):
            np.testing.assert_array_equal(evaluate(F.roll(A, shift, axis)), np.roll(A, shift, axis))
    np.testing.assert_array_equal(evaluate(F.moveaxis(A, 0, -1)), np.moveaxis(A, 0, -1))
    np.testing.assert_array_equal(
        evaluate(F.moveaxis(A, (0, 1), (2, 0))), np.moveaxis(A, (0, 1), (2, 0))
    )
    with pytest.raises(GraphError, match="moveaxis"):
        F.moveaxis(A, (0, 1), 2)


@pytest.mark.parametrize("width", [1, (0, 2), ((0, 0), (1, 2), (3, 0))])
@pytest.mark.parametrize("value", [0, 1.5, -np.inf])
def test_padding(width: object, value: float, evaluate) -> None:
    np.testing.assert_array_equal(
        evaluate(F.pad(A, width, value)), np.pad(A, width, constant_values=value)
    )
    with pytest.raises(GraphError, match="pad"):
        F.pad(A, -2)


def test_picking(evaluate) -> None:
    places = np.array([[2, 0], [1, 1]])
    for axis in (0, 1, 2):
        at = places % A.shape[axis]
        np.testing.assert_array_equal(evaluate(F.take(A, at, axis)), np.take(A, at, axis))
    np.testing.assert_array_equal(evaluate(F.take(A, [5, -1])), np.take(A, [5, -1]))
    for axis, count in ((-1, 1), (1, 2), (0, 5)):
        shape = list(A.shape)
        shape[axis] = count
        at = rng.integers(0, A.shape[axis], shape)
        np.testing.assert_array_equal(
            evaluate(F.take_along_axis(A, at, axis)), np.take_along_axis(A, at, axis)
        )


def test_creation(evaluate) -> None:
    n = tensor_input("x", ("n", 3)).shape[0]
    x = tensor_input("x", ("n", 3))
    array = np.ones((4, 3), np.float32)
    for arguments in ((5,), (2, 9), (2, 9, 3), (9, 2, -2), (0.0, 1.0, 0.25), (3, 1)):
        np.testing.assert_allclose(evaluate(F.arange(*arguments)), np.arange(*arguments))
    np.testing.assert_array_equal(
        evaluate(F.arange(n) + x.sum().astype("int64") * 0, x=array), range(4)
    )
    np.testing.assert_allclose(evaluate(F.linspace(0, 1, 7)), np.linspace(0, 1, 7), rtol=1e-7)
    for k in (-1, 0, 2):
        np.testing.assert_array_equal(evaluate(F.eye(3, 4, k)), np.eye(3, 4, k))
        np.testing.assert_array_equal(evaluate(F.tri(3, 4, k)), np.tri(3, 4, k))
        np.testing.assert_array_equal(evaluate(F.tril(A, k)), np.tril(A, k))
        np.testing.assert_array_equal(evaluate(F.triu(A, k)), np.triu(A, k))
        np.testing.assert_array_equal(evaluate(F.diag(M[0], k)), np.diag(M[0], k))
        np.testing.assert_array_equal(evaluate(F.diag(M, k)), np.diag(M, k))
        np.testing.assert_array_equal(evaluate(F.diag(B[0], k)), np.diag(B[0], k))
        np.testing.assert_array_equal(evaluate(F.diag(B[0].T, k)), np.diag(B[0].T, k))
    np.testing.assert_array_equal(evaluate(F.zeros((n, 2)) + x[:, :2], x=array), np.ones((4, 2)))
    np.testing.assert_array_equal(evaluate(F.full((2, 2), 3)), np.full((2, 2), 3))
    assert F.full_like(constant([1.5]), 2).dtype == "float32"
    np.testing.assert_array_equal(evaluate(F.one_hot([1, 0], 3)), [[0, 1, 0], [1, 0, 0]])


def test_labels_are_range_checked() -> None:
    labels = tensor_input("y", ("n",), "int64")
    ((node, check),) = checks_reaching([F.one_hot(labels, 10).node])
    assert node is labels.node
    assert (check.low, check.high, check.ignore) == (0, 10, None)
    assert check.source is not None
    assert check.source.filename.endswith("test_functional.py")
    with pytest.raises(IndexRangeError, match=r"one_hot: index 10 at position \(1,\)"):
        F.one_hot([0, 10], 10)
    with pytest.raises(IndexRangeError, match="-1"):
        F.take_along_axis(A, np.full((2, 3, 1), -1))


def test_clip(evaluate) -> None:
    x = np.array([-2.0, 0.5, 3.0, np.nan], np.float32)
    np.testing.assert_array_equal(evaluate(F.clip(x, -1, 1)), np.clip(x, -1, 1))
    np.testing.assert_array_equal(evaluate(F.clip(x, high=1)), np.clip(x, None, 1))
    np.testing.assert_array_equal(evaluate(F.clip(constant([1, 5]), 2, 3)), [2, 3])


def test_cosine_similarity(evaluate) -> None:
    torch = pytest.importorskip("torch")
    expected = torch.nn.functional.cosine_similarity(torch.tensor(A[0]), torch.tensor(A[1]), dim=-1)
    np.testing.assert_allclose(evaluate(F.cosine_similarity(A[0], A[1])), expected, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, -1, None])
@pytest.mark.parametrize("name", ["sum", "max", "mean", "logsumexp", "argmax", "all", "norm"])
def test_a_scalar_is_one_element_along_axis_0(name: str, axis: int | None, evaluate) -> None:
    x = constant(np.float32(-2.5))
    if name == "norm":
        result = F.norm(x, 2, axis)
    else:
        result = getattr(F, name)(x, axis)
    expected = {"argmax": 0, "all": True, "norm": 2.5}.get(name, -2.5)
    assert evaluate(result) == expected


def test_softmax_of_nothing_and_of_a_scalar(evaluate) -> None:
    assert evaluate(F.softmax(F.zeros((3, 0)), -1)).shape == (3, 0)
    assert evaluate(F.softmax(constant(np.float32(3.0)), 0)) == 1


def test_cosine_similarity_counts_the_axis_in_the_broadcast_shape(evaluate) -> None:
    torch = pytest.importorskip("torch")
    x, y = rng.normal(size=(1, 2, 3)), rng.normal(size=(2, 1, 3))
    expected = torch.cosine_similarity(torch.tensor(x), torch.tensor(y), dim=-2)
    ours = evaluate(F.cosine_similarity(x, y, axis=-2))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
