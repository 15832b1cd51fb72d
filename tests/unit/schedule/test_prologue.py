"""Cheap functions of a contraction's operand are applied while it is packed."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.loops.parse import parse_loop_program
from chainrule.compiler.loops.text import format_loop_program

SHAPES = [(1, 5, 3), (23, 37, 19), (64, 200, 96), (70, 1500, 33)]
FORMS = {
    "left": lambda x, w: cr.relu(x * 0.125 - 0.1) @ w,
    "right": lambda x, w: x @ (w * w * 2.0),
    "both": lambda x, w: cr.abs(x) @ cr.maximum(0.3, w),
    "transposed": lambda x, w: cr.einsum("bi,oi->bo", x - 3.0, cr.transpose(-w)),
}


def build(form, shape, dtype="float32", **options):
    _, depth, columns = shape
    x = cr.input("x", ("batch", depth), dtype=dtype)
    w = cr.input("w", (depth, columns), dtype=dtype)
    return cr.compile(FORMS[form](x, w), **options)


def operands(shape, dtype="float32"):
    random = np.random.default_rng(0)
    rows, depth, columns = shape
    x = random.standard_normal((rows, depth)).astype(dtype)
    return {"x": x, "w": random.standard_normal((depth, columns)).astype(dtype)}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_one_kernel_computes_what_the_interpreter_does(form, shape):
    function = build(form, shape)
    assert len(function.executable.artifact.loops.kernels) == 1
    arrays = operands(shape)
    expected = build(form, shape, backend="numpy", dtype="float64")(**arrays)
    got = function(**arrays)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(got, build(form, shape, threads=1)(**arrays))


@pytest.mark.parametrize("vector", ["avx512", "avx2", "sse2"])
def test_at_every_width_and_in_float64(vector):
    try:
        function = build("both", (23, 37, 19), "float64", vector=vector)
    except ValueError as missing:
        pytest.skip(str(missing))
    arrays = operands((23, 37, 19), "float64")
    expected = np.abs(arrays["x"]) @ np.maximum(arrays["w"], 0.3)
    np.testing.assert_allclose(function(**arrays), expected, rtol=1e-12)


def test_the_text_of_a_prologue_reads_back():
    loops = build("left", (23, 37, 19)).executable.artifact.loops
    text = format_loop_program(loops)
    assert "relu(add(mul(in.x[" in text
    assert format_loop_program(parse_loop_program(text)) == text


def test_a_costly_or_shared_function_keeps_its_kernel():
    x, w = cr.input("x", ("batch", 8)), cr.input("w", (8, 4))
    costly = cr.compile(cr.exp(x) @ w)
    assert len(costly.executable.artifact.loops.kernels) == 2
    scaled = x * 2.0
    both = cr.compile({"product": scaled @ w, "scaled": scaled})
    values = np.ones((3, 8), np.float32)
    result = both(x=values, w=np.ones((8, 4), np.float32))
    assert (result["product"] == 16).all() and (result["scaled"] == 2).all()
