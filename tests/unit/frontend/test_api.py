"""The functions of ``chainrule`` itself: what they return, in which type, and how they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compiler.errors import (
    CheckFailed,
    GraphError,
    GraphTypeError,
    IndexRangeError,
    InputError,
)

BACKENDS = ["native", "numpy"]
X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def x_input():
    return cr.input("x", ("batch", 4))


def line_of(marker):
    """The line of this file that ends with a comment, as messages name it."""
    with open(__file__, encoding="utf-8") as file:
        (number,) = [n for n, text in enumerate(file, 1) if text.rstrip().endswith(f"# {marker}")]
    return f"test_api.py:{number}: "


# -- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_result_is_like_what_was_compiled(backend):
    x = x_input()
    single = cr.compile(x * 2, backend=backend)(x=X)
    assert isinstance(single, np.ndarray)
    np.testing.assert_array_equal(single, 2 * X)
    for outputs in ([x * 2, x.sum()], (x * 2, x.sum())):
        several = cr.compile(outputs, backend=backend)(x=X)
        assert isinstance(several, tuple) and len(several) == 2
        np.testing.assert_array_equal(several[0], 2 * X)
        np.testing.assert_allclose(several[1], X.sum(), atol=1e-6)
    one = cr.compile([x * 2], backend=backend)(x=X)
    assert isinstance(one, tuple) and len(one) == 1
    named = cr.compile({"twice": x * 2, "x": x, "seven": 7.0}, backend=backend)(x=X)
    assert list(named) == ["twice", "x", "seven"]
    np.testing.assert_array_equal(named["x"], X)
    assert named["seven"] == 7 and named["x"] is not X


@pytest.mark.parametrize("nothing", [{}, [], ()])
def test_nothing_to_compile(nothing):
    with pytest.raises(GraphError, match="at least one output"):
        cr.compile(nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tpu"}, "backend 'tpu' is not one of native, numpy"),
        ({"dtype": "int8"}, "dtype 'int8' is not one of float32, float64"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"vector": "mmx"}, "vector 'mmx' is not one of"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        cr.compile(x_input(), **options)


def test_evaluate_needs_no_compiler():
    x = x_input()
    value = cr.evaluate((x * x).sum(), x=X)
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, (X * X).sum(), rtol=1e-6)
    assert cr.evaluate(cr.constant(3.0) + 4) == 7
    with pytest.raises(InputError, match=r"input 'x', float32\(batch, 4\), is missing"):
        cr.evaluate(x)


# -- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_is_computed_in_float64(backend):
    weight = cr.parameter(np.full((4, 2), 0.1, np.float32), "weight")
    y = cr.sum((x_input() @ weight).exp(), 0)
    narrow = cr.compile(y, backend=backend)(x=X)
    wide = cr.compile(y, backend=backend, dtype="float64")(x=X)
    exact = np.exp(X.astype("f8") @ weight.value.astype("f8")).sum(0)
    assert narrow.dtype == np.float32 and wide.dtype == np.float64
    np.testing.assert_allclose(narrow, exact, rtol=1e-6)
    np.testing.assert_allclose(wide, exact, rtol=1e-14)
    assert weight.value.dtype == np.float32


# -- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_an_intermediate(backend):
    x = x_input()
    hidden = x * x
    loss = (hidden.exp() * 3).sum()
    by_hidden, by_x = cr.grad(loss, [hidden, x])
    found = cr.compile([by_hidden, by_x], backend=backend)(x=X)
    np.testing.assert_allclose(found[0], 3 * np.exp(X * X), rtol=1e-6)
    np.testing.assert_allclose(found[1], 6 * X * np.exp(X * X), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_an_intermediate_that_stability_rewrites():
    x = x_input()
    softmax = cr.softmax(x, -1)
    (by_softmax,) = cr.grad(-softmax.log().sum(), [softmax])
    p = np.exp(X) / np.exp(X).sum(1, keepdims=True)
    np.testing.assert_allclose(cr.compile(by_softmax)(x=X), -1 / p, rtol=1e-5)


def test_vector_jacobian_products():
    x = x_input()
    v = cr.input("v", ("batch", 4))
    (product,) = cr.grad([x * x, x.sum(1)], [x], [v, cr.constant(np.float32(2)) * v[:, 0]])
    np.testing.assert_allclose(
        cr.compile(product)(x=X, v=3 * X), 6 * X * X + 6 * X[:, :1], rtol=1e-6
    )


def test_what_has_no_gradient():
    x, i = x_input(), cr.input("i", (3,), dtype="int64")
    with pytest.raises(GraphError, match=r"the output is no scalar but \(batch, 4\)"):
        cr.grad(x * x, [x])
    with pytest.raises(GraphTypeError, match="needs floating-point elements"):
        cr.grad(x.sum(), [i])
    (zero,) = cr.grad(x.sum(), [cr.input("other", (3,))])
    assert cr.evaluate(zero).tolist() == [0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_hessian_vector_products(backend):
    """f(w, u) = Σ (w u)² + Σ w³: by hand."""
    rng = np.random.default_rng(1)
    w, u = (cr.input(n, (5,), dtype="float64") for n in "wu")
    vw, vu = (cr.input(n, (5,), dtype="float64") for n in ("vw", "vu"))
    products = cr.hessian_vector_product(((w * u) ** 2).sum() + (w**3).sum(), [w, u], [vw, vu])
    given = {n: rng.normal(size=5) for n in ("w", "u", "vw", "vu")}
    a, b, p, q = (given[n] for n in ("w", "u", "vw", "vu"))
    found = cr.compile(products, backend=backend)(**given)
    np.testing.assert_allclose(found[0], (2 * b * b + 6 * a) * p + 4 * a * b * q, rtol=1e-12)
    np.testing.assert_allclose(found[1], 4 * a * b * p + 2 * a * a * q, rtol=1e-12)


def test_hessian_vector_products_of_a_network_by_differences():
    cr.manual_seed(0)
    x = cr.input("x", (6, 4), dtype="float64")
    model = nn.Sequential(
        nn.Linear(4, 5, dtype="float64"), nn.Tanh(), nn.Linear(5, 3, dtype="float64")
    )
    loss = losses.mse(model(x), np.ones((6, 3)))
    weight = model[0].weight
    vector = np.random.default_rng(2).normal(size=(5, 4))
    (product,) = cr.hessian_vector_product(loss, [weight], [cr.constant(vector)])
    gradient = cr.compile(cr.grad(loss, [weight])[0])
    points = np.random.default_rng(3).normal(size=(6, 4))
    found = cr.compile(product)(x=points)
    kept, step = weight.value.copy(), 1e-5
    around = []
    for sign in (1, -1):
        weight.value[...] = kept + sign * step * vector
        around.append(gradient(x=points))
    weight.value[...] = kept
    np.testing.assert_allclose(found, (around[0] - around[1]) / (2 * step), rtol=1e-6, atol=1e-9)


# -- checked builds -------------------------------------------------------------------------------

CHECKS = frozenset({"nan", "bounds"})


@pytest.mark.parametrize("place", [0, 7, 131])
def test_a_checked_build_names_operator_line_and_element(place):
    x = cr.input("x", (11, 12))
    y = (x * 2).log().sum()  # the logarithm
    checked = cr.compile(y, checks=CHECKS)
    given = np.ones((11, 12), np.float32)
    np.testing.assert_allclose(checked(x=given), 132 * np.log(2), rtol=1e-6)
    given.flat[place] = -1
    with pytest.raises(CheckFailed) as caught:
        checked(x=given)
    message = str(caught.value)
    assert line_of("the logarithm") in message
    assert f"log gives nan at element {place} of float32(11, 12)" in message
    given.flat[place + 1 :] = -1
    with pytest.raises(CheckFailed, match=f"log gives nan at element {place} "):
        checked(x=given)
    assert np.isfinite(checked(x=np.ones((11, 12))))
    assert np.isnan(cr.compile(y)(x=given))


def test_a_checked_training_step_changes_nothing_when_it_fails():
    weight = cr.parameter(np.ones(4, np.float32), "weight")
    loss = (x_input() * weight).sqrt().sum()
    train = cr.compile_train(loss, optim.Adam(0.1), checks=CHECKS)
    before = [v.value.copy() for v in train.states]
    with pytest.raises(CheckFailed, match=r"sqrt gives nan at element [0-7] of"):
        train.step(x=-np.ones((2, 4)))
    for variable, value in zip(train.states, before, strict=True):
        np.testing.assert_array_equal(variable.value, value)
    assert train.steps == 0
    train.step(x=np.ones((2, 4)))
    assert train.steps == 1 and (weight.value != 1).all()


def test_a_checked_build_still_reports_labels_as_labels():
    table, i = nn.Embedding(5, 2), cr.input("i", ("n",), dtype="int64")
    checked = cr.compile(table(i), checks=CHECKS)
    assert checked(i=[0, 4]).shape == (2, 2)
    with pytest.raises(IndexRangeError, match=r"index 7 .* size 5"):
        checked(i=[0, 7])


# -- labels ---------------------------------------------------------------------------------------


def classifier(backend, **options):
    cr.manual_seed(3)
    y = cr.input("y", ("batch",), dtype="int64")
    model = nn.Linear(4, 3)
    loss = losses.sparse_categorical_crossentropy(  # the loss
        model(x_input()), y, from_logits=True, **options
    )
    return model, cr.compile_train(loss, optim.SGD(0.1, momentum=0.9), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("label", [3, -1, 2**40, -(2**63)])
def test_a_label_out_of_range_is_named_and_nothing_changes(backend, label):
    _, train = classifier(backend)
    train.step(x=X, y=[0, 1, 2])
    before = [v.value.copy() for v in train.states]
    with pytest.raises(IndexRangeError) as caught:
        train.step(x=X, y=np.array([2, label, 0]))
    message = str(caught.value)
    assert line_of("the loss") in message
    assert f"label {label} at position (1,) of 'y' is outside 0 to 2" in message
    for variable, value in zip(train.states, before, strict=True):
        np.testing.assert_array_equal(variable.value, value)
    assert train.steps == 1
    assert np.isfinite(train.step(x=X, y=[0, 1, 2])["loss"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ignored", [-100, 1])
def test_an_ignored_label_counts_for_nothing(backend, ignored):
    model, train = classifier(backend, ignore_index=ignored)
    weight, bias = (v.value.copy() for v in (model.weight, model.bias))
    result = train.step(x=X, y=[0, ignored, 2])
    logits = (X @ weight.T + bias)[[0, 2]].astype("f8")
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(result["loss"], -np.log(p[[0, 1], [0, 2]]).mean(), rtol=1e-6)
    slope = (p - np.eye(3)[[0, 2]]) / 2
    np.testing.assert_allclose(
        model.weight.value, weight - 0.1 * slope.T @ X[[0, 2]], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(IndexRangeError, match="label -7"):
        train.step(x=X, y=[0, ignored, -7])


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_on_the_same_labels_keep_their_own_requirements(backend):
    _, strict = classifier(backend)
    _, lenient = classifier(backend, ignore_index=-100)
    _, other = classifier(backend, ignore_index=-7)
    assert np.isfinite(lenient.step(x=X, y=[0, -100, 2])["loss"])
    assert np.isfinite(other.step(x=X, y=[0, -7, 2])["loss"])
    for train, label in ((strict, -100), (lenient, -7), (other, -100)):
        with pytest.raises(IndexRangeError, match=f"label {label}"):
            train.step(x=X, y=[0, label, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checks": frozenset({"foo"})}, "no check is called 'foo'; known: bounds, nan"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"backend": "gpu"}, "backend 'gpu' is not one of"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cr.compile(cr.input("x", (3,)) + 1, **options)


def test_errors_name_the_last_declaration_of_an_input():
    """Equal inputs are one node; a reader looks for the line that was run last."""
    first = cr.input("declared_twice", (3,))
    again = cr.input("declared_twice", (3,))
    assert first.node is again.node
    assert (
        again.node.source.lineno
        == test_errors_name_the_last_declaration_of_an_input.__code__.co_firstlineno + 3
    )
