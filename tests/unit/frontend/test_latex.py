"""Graphs printed as mathematics."""

from __future__ import annotations

import chainrule as cr
from chainrule.frontend.latex import gradient_latex, gradient_text, tensor_latex, to_text


def tensors():
    return cr.input("x", ("batch", 4)), cr.input("W", (4, 3)), cr.input("b", (3,))


def test_a_layer_and_its_gradient_read_as_in_a_book():
    x, w, b = tensors()
    loss = cr.tanh(x @ w + b).sum()
    assert to_text(loss.node) == "Σ_ij tanh(x @ W + b)"
    assert gradient_text(loss, w) == "xᵀ @ (1 - tanh(x @ W + b)^2)"
    assert tensor_latex(loss) == r"\sum_{i, j} \tanh\left(x W + b\right)"
    assert gradient_latex(loss, b).startswith(r"\sum_{i}")


def test_softmax_is_recognised():
    x, _, _ = tensors()
    spelled = cr.exp(x) / cr.exp(x).sum(axis=1, keepdims=True)
    assert tensor_latex(spelled) == r"\operatorname{softmax}\left(x\right)"
    assert tensor_latex(cr.log(spelled)) == r"\operatorname{log\_softmax}\left(x\right)"


def test_a_long_shared_part_is_named():
    x, w, b = tensors()
    h = cr.tanh(x @ w + b) * cr.sigmoid(x @ w + b)
    text = to_text((cr.exp(h) + cr.sin(h)).node, "y")
    first, where, *definitions = text.splitlines()
    assert first == "y = exp(u) + sin(u)"
    assert where.strip() == "where" and definitions[-1].strip().startswith("u = ")


def test_numbers_fractions_and_cases():
    x = cr.input("x", ())
    assert tensor_latex((x + 1) / (x - 2.5)) == r"\frac{x + 1}{x - 2.5}"
    assert to_text(((x + 1) / (x * 2)).node) == "(x + 1) / (2·x)"
    assert tensor_latex(cr.where(x > 0, x, x * 1e-3)).startswith(r"\begin{cases} x & x > 0")
    assert tensor_latex(cr.sqrt(x) * 1e-6).startswith(r"10^{-6}")
