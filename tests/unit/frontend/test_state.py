"""Variables, their storage, and effects."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError, GraphTypeError, InputError, InputTypeError
from chainrule.frontend.state import (
    Variable,
    effects_reaching,
    parameter,
    register_effect,
    variable_of,
)
from chainrule.frontend.tensor import input as tensor_input


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (2, 3, 4)])
def test_storage_is_aligned_and_stays(shape: tuple) -> None:
    given = np.ones(shape, np.float32)
    variable = Variable(given, "w")
    storage = variable.value
    assert storage.flags.c_contiguous
    assert storage.ctypes.data % 64 == 0 or storage.size == 0
    assert not np.shares_memory(storage, given)
    variable.assign(np.full(shape, 2.0))
    assert variable.value is storage
    assert (storage == 2).all()
    assert variable.numpy() is not storage


def test_assign_checks() -> None:
    variable = Variable(np.zeros((2, 3), np.int64), "count", "buffer")
    with pytest.raises(InputError, match=r"'count' has shape \(2, 3\).*\(3, 2\)"):
        variable.assign(np.zeros((3, 2), np.int64))
    with pytest.raises(InputTypeError, match="float32 does not convert"):
        variable.assign(np.zeros((2, 3), np.float32))
    with pytest.raises(AttributeError):
        variable.value = np.zeros((2, 3))
    assert not variable.trainable
    with pytest.raises(GraphError, match="role"):
        Variable(0.0, role="weight")


def test_a_variable_is_found_by_its_node() -> None:
    variable = Variable([1.0, 2.0], "w")
    node, storage = variable.node, variable.value
    assert variable_of(node) is variable
    variable.set_trainable(False)
    del variable
    gc.collect()
    again = variable_of(node)
    assert again.value is storage
    assert not again.trainable
    assert variable_of(node) is again
    with pytest.raises(KeyError):
        variable_of(tensor_input("x", (2,)).node)


def test_states_die() -> None:
    variable = Variable([1.0, 2.0], "w")
    output = variable * 2
    register_effect(variable, output.node, lambda old: old + 1)
    gone = [weakref.ref(variable), weakref.ref(variable.node), weakref.ref(output.node)]
    del variable, output
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]


def test_parameter() -> None:
    assert parameter((3, 4)).value.shape == (3, 4)
    assert np.abs(parameter((300, 4)).value).max() <= 0.5
    assert not parameter((4,)).value.any()
    assert parameter(2.5).value == np.float32(2.5)
    assert parameter([1.0, 2.0]).dtype == "float32"
    assert parameter(np.zeros(3)).dtype == "float64"
    assert (parameter((3,), init=1.5).value == 1.5).all()
    assert parameter((3, 3), init="orthogonal", name="q").name == "q"
    assert (parameter((2,), init=lambda shape: np.arange(2.0)).value == [0, 1]).all()
    assert parameter((2,), dtype="float64").dtype == "float64"
    with pytest.raises(GraphTypeError, match="static"):
        parameter(("n", 3))
    with pytest.raises(GraphError, match="init"):
        parameter([1.0], init="zeros")
    with pytest.raises(ValueError, match="kaiming_uniform"):
        parameter((2, 2), init="glorot")


def test_two_states_of_one_name_are_two() -> None:
    assert Variable(0.0, "w").node is not Variable(0.0, "w").node


def test_effects_chain_and_do_not_mix(evaluate) -> None:
    count = Variable(10.0, "count", "buffer")
    x = tensor_input("x", ())
    first, second = x * 2, x * 3
    register_effect(count, first.node, lambda old: old + 1)
    register_effect(count, second.node, lambda old: old * 2)
    register_effect(count, second.node, lambda old: old * 2)  # the same place of the graph

    def value_after(*nodes) -> float:
        ((state, new),) = effects_reaching(nodes)
        assert state is count
        return float(evaluate(new))

    assert value_after(first.node) == 11
    assert value_after(second.node) == 20
    assert value_after(second.node, first.node) == 22  # in trace order
    assert value_after((first + second).node) == 22
    assert effects_reaching([x.node]) == []


def test_training_only_effects(evaluate) -> None:
    count = Variable(10.0, "count", "buffer")
    y = tensor_input("x", ()) * 2
    register_effect(count, y.node, lambda old: old + 1, training_only=True)
    ((_, new),) = effects_reaching([y.node])
    assert evaluate(new) == 10
    assert evaluate(new, training=True) == 11
