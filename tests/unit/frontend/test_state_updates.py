"""``cr.compile(…, updates=…)``: programs that assign to variables by a rule of the user's."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler.errors import GraphError, GraphTypeError

BACKENDS = ["native", "numpy"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_and_updates_read_what_was_there_before_the_call(backend):
    a, b = cr.parameter([1.0, 2.0], "a"), cr.parameter([10.0, 20.0], "b")
    x = cr.input("x", (2,))
    swap = cr.compile(a + b, updates={a: b * x, b: a}, backend=backend)
    first = np.array([1.0, 2.0], "float32"), np.array([10.0, 20.0], "float32")
    np.testing.assert_array_equal(swap(x=[2, 3]), first[0] + first[1])
    np.testing.assert_array_equal(a.value, first[1] * [2, 3])
    np.testing.assert_array_equal(b.value, first[0])
    np.testing.assert_array_equal(swap(x=[0, 1]), [21, 62])
    np.testing.assert_array_equal(a.value, [0, 2])
    np.testing.assert_array_equal(b.value, [20, 60])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_of_updates_alone(backend):
    count = cr.Variable(np.zeros((), "int64"), "count", "buffer")
    total = cr.Variable(np.zeros(3, "float64"), "total", "buffer")
    x = cr.input("x", ("batch", 3), dtype="float64")
    updates = {count: count + x.shape[0], total: total + x.sum(0)}
    gather = cr.compile(updates=updates, backend=backend)
    for rows in (1, 4):
        assert gather(x=np.full((rows, 3), 2.0)) == ()
    assert count.value == 5
    np.testing.assert_array_equal(total.value, [10.0] * 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_fits_any_element_type(backend):
    flag = cr.Variable(np.array(3.0, "float64"), "flag", "buffer")
    cr.compile(updates={flag: 0}, backend=backend)()
    assert flag.value == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers_of_an_update_differ_from_call_to_call(backend):
    place = cr.Variable(np.zeros(5, "float32"), "place", "buffer")
    walk = cr.compile(place, updates={place: place + cr.random.normal((5,))}, backend=backend)
    path = np.stack([walk(), walk(), walk(), walk()])
    steps = np.diff(path, axis=0)
    assert (path[0] == 0).all() and len(np.unique(steps)) == steps.size


def test_an_update_that_does_not_fit_names_the_variable_and_both_types():
    v = cr.parameter([1.0, 2.0], "weights")
    with pytest.raises(GraphError, match=r"'weights' is float32\(2,\); its update is float32\(\)"):
        cr.compile(updates={v: v.sum()})
    with pytest.raises(GraphTypeError, match=r"float32\(2,\); its update is float64\(2,\)"):
        cr.compile(updates={v: v.astype("float64")})
    with pytest.raises(GraphTypeError, match="updates are of variables, not of Tensor"):
        cr.compile(updates={v * 2: v})  # type: ignore[dict-item]


def test_a_state_that_the_model_updates_cannot_be_updated_twice():
    norm = nn.BatchNorm1d(3)
    x = cr.input("x", ("batch", 3))
    mean = norm.running_mean
    assert isinstance(mean, cr.Variable)
    with pytest.raises(GraphError, match="updated by the model and by the given updates"):
        cr.compile(norm(x), updates={mean: mean * 0.5})
