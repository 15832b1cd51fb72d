"""Encodings of positions against formulas written out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import F, nn
from chainrule.compiler.errors import GraphError, IndexRangeError

BACKENDS = ["numpy", "native"]


def sinusoids(positions: np.ndarray, width: int, base: float = 10000.0) -> np.ndarray:
    code = np.zeros((len(positions), width))
    for i in range(width):
        angle = positions / base ** ((i - i % 2) / width)
        code[:, i] = np.cos(angle) if i % 2 else np.sin(angle)
    return code


def rotate(x: np.ndarray, positions: np.ndarray, interleaved: bool) -> np.ndarray:
    width = x.shape[-1]
    pairs = [(2 * i, 2 * i + 1) if interleaved else (i, i + width // 2) for i in range(width // 2)]
    out = np.empty_like(x)
    for i, (a, b) in enumerate(pairs):
        angle = positions * 10000.0 ** (-2 * i / width)
        out[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
        out[..., b] = x[..., b] * np.cos(angle) + x[..., a] * np.sin(angle)
    return out


@pytest.mark.parametrize("width", [1, 6, 7])
def test_sinusoids(width: int, evaluate) -> None:
    np.testing.assert_allclose(
        evaluate(F.sinusoidal_encoding(5, width, dtype="float64")),
        sinusoids(np.arange(5.0), width),
        rtol=1e-12,
        atol=1e-14,
    )
    start = np.array([2, 7])
    found = evaluate(F.sinusoidal_encoding(3, width, start, base=50.0, dtype="float64"))
    expected = [sinusoids(s + np.arange(3.0), width, 50.0) for s in start]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sinusoids_are_added_for_any_length(backend: str) -> None:
    x = cr.input("x", ("batch", "length", 6))
    start = cr.input("start", (), "int64")
    layer = nn.SinusoidalPositionalEncoding(6)
    add = cr.compile([layer(x), layer(x, start)], backend=backend)
    for length in (1, 40):
        array = np.random.default_rng(length).normal(size=(2, length, 6)).astype("f")
        plain, moved = add(x=array, start=3)
        expected = sinusoids(np.arange(3.0, 3 + length), 6)
        np.testing.assert_allclose(plain - array, [sinusoids(np.arange(length), 6)] * 2, atol=1e-5)
        np.testing.assert_allclose(moved - array, [expected] * 2, atol=1e-5)
    by_length = nn.SinusoidalPositionalEncoding(6, batch_first=False)(cr.input("y", (4, 2, 6)))
    array = np.zeros((4, 2, 6), "f")
    found = cr.compile(by_length, backend=backend)(y=array)
    np.testing.assert_allclose(found[:, 1], sinusoids(np.arange(4.0), 6), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotations(interleaved: bool, backend: str) -> None:
    x = cr.input("x", ("batch", 2, "length", 8), "float64")
    start = cr.input("start", (), "int64")
    outputs = [
        F.rotary_embedding(x, interleaved=interleaved),
        F.rotary_embedding(x, start, interleaved=interleaved),
        nn.RotaryEmbedding(8, interleaved=interleaved, rotary_dim=4)(x, 2),
    ]
    cotangent = np.random.default_rng(1).normal(size=(3, 2, 5, 8))
    (gradient,) = cr.grad([outputs[0]], [x], [cr.input("c", x.shape, "float64")])
    array = np.random.default_rng(0).normal(size=(3, 2, 5, 8))
    run = cr.compile([*outputs, gradient], backend=backend)
    whole, moved, part, back = run(x=array, start=4, c=cotangent)
    near = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(whole, rotate(array, np.arange(5.0), interleaved), **near)
    np.testing.assert_allclose(moved, rotate(array, np.arange(4.0, 9.0), interleaved), **near)
    expected = array.copy()
    expected[..., :4] = rotate(array[..., :4], np.arange(2.0, 7.0), interleaved)
    np.testing.assert_allclose(part, expected, **near)
    # a rotation: its adjoint turns back
    np.testing.assert_allclose(back, rotate(cotangent, -np.arange(5.0), interleaved), **near)


def test_rotated_products_depend_on_the_distance_alone(evaluate) -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(1, 8)), rng.normal(size=(1, 8))

    def score(i: int, j: int) -> float:
        return evaluate(F.rotary_embedding(q, i) @ F.rotary_embedding(k, j).mT).item()

    np.testing.assert_allclose(score(5, 3), score(12, 10), rtol=1e-9)
    assert abs(score(5, 3) - score(5, 4)) > 1e-3


def test_each_sequence_may_have_positions_of_its_own(evaluate) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    places = np.array([[0, 1, 2], [7, 7, 9]])
    expected = rotate(x, places.astype(float), False)
    found = evaluate(F.rotary_embedding(cr.constant(x), positions=places))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    starts = evaluate(F.rotary_embedding(cr.constant(x), np.array([0, 7])))
    np.testing.assert_allclose(starts[1], rotate(x[1], np.arange(7.0, 10.0), False), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_learned_positions(backend: str) -> None:
    layer = nn.LearnedPositionalEmbedding(6, 2)
    assert list(layer.state_dict()) == ["weight"]
    x = cr.input("x", ("batch", "length", 2))
    start = cr.input("start", (), "int64")
    (slope,) = cr.grad(layer(x).sum(), [layer.weight])
    run = cr.compile([layer(x), layer(x, start), slope], backend=backend)
    array = np.ones((2, 4, 2), "f")
    plain, moved, gradient = run(x=array, start=2)
    np.testing.assert_allclose(plain - array, [layer.weight.value[:4]] * 2, atol=1e-6)
    np.testing.assert_allclose(moved - array, [layer.weight.value[2:]] * 2, atol=1e-6)
    np.testing.assert_array_equal(gradient, np.repeat([[2.0], [0.0]], [4, 2], 0) * np.ones(2))
    with pytest.raises(IndexRangeError):
        run(x=np.ones((2, 7, 2), "f"), start=0)
    fixed = layer(cr.input("y", (1, 3, 2)), 3)
    np.testing.assert_allclose(
        cr.compile(fixed, backend=backend)(y=np.zeros((1, 3, 2), "f"))[0], layer.weight.value[3:]
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_alibi(backend: str) -> None:
    x = cr.input("x", (8, "queries", "keys"))
    run = cr.compile(x + F.alibi_bias(8, x.shape[1], x.shape[2]), backend=backend)
    bias = run(x=np.zeros((8, 3, 5), "f"))
    np.testing.assert_allclose(bias[0, 2], -0.5 * np.array([4, 3, 2, 1, 0]))
    np.testing.assert_allclose(bias[7, 0], -(2.0**-8) * np.array([2, 1, 0, -1, -2]))
    slopes = cr.evaluate(F.alibi_bias(6, 2, 2))[:, 1, 0]
    np.testing.assert_allclose(slopes, [-(2.0**-e) for e in (2, 4, 6, 8, 1, 3)])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: F.sinusoidal_encoding(3, 0), "width must be positive"),
        (lambda: F.rotary_embedding(np.ones((3, 5))), "5 of 5 elements .* even"),
        (lambda: F.rotary_embedding(np.ones((3, 4)), rotary_dim=6), "6 of 4"),
        (lambda: F.rotary_embedding(np.ones(4)), r"\(\.\.\., length, width\)"),
        (lambda: nn.RotaryEmbedding(8)(np.ones((3, 4))), r"is not \(\.\.\., length, 8\)"),
        (lambda: nn.LearnedPositionalEmbedding(4, 2)(np.ones((5, 2))), "0 to 4 leave .* 4"),
        (lambda: nn.SinusoidalPositionalEncoding(4)(np.ones((5, 2))), "length, 4"),
        (lambda: F.alibi_bias(0, 2, 2), "at least one head"),
    ],
)
def test_refusals(build, words: str) -> None:
    with pytest.raises(GraphError, match=words) as caught:
        build()
    assert "test_positions.py:" in str(caught.value)
