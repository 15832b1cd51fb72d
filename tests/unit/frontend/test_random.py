"""Random numbers: distributions, seeds, streams, and the step that a program advances."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError, GraphTypeError
from chainrule.compiler.ir.graph import Program
from chainrule.frontend import nn, random
from chainrule.frontend.state import effects_reaching
from chainrule.frontend.tensor import Tensor
from chainrule.frontend.tensor import input as tensor_input
from chainrule.runtime.interpreter import run_program

N = 200_000


def test_uniform(evaluate) -> None:
    x = evaluate(random.uniform((N,), -1.0, 3.0))
    assert x.dtype == np.float32
    assert x.min() >= -1
    assert x.max() < 3
    assert abs(x.mean() - 1) < 0.02
    assert abs(x.var() - 16 / 12) < 0.02
    wide = evaluate(random.uniform((N,), dtype="float64"))
    assert wide.dtype == np.float64
    assert abs(wide.mean() - 0.5) < 0.005
    assert len(np.unique(wide)) == N


def test_normal(evaluate) -> None:
    x = evaluate(random.normal((N,), 2.0, 3.0))
    assert np.isfinite(x).all()
    z = (x - 2) / 3
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.05
    assert abs((z**4).mean() - 3) < 0.1
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.01


def test_bernoulli_and_randint(evaluate) -> None:
    assert abs(evaluate(random.bernoulli(0.3, (N,))).mean() - 0.3) < 0.005
    assert not evaluate(random.bernoulli(0.0, (N,))).any()
    assert evaluate(random.bernoulli(1.0, (N,))).all()
    p = np.linspace(0, 1, 5, dtype=np.float32)
    assert evaluate(random.bernoulli(p)).shape == (5,)
    x = evaluate(random.randint(-3, 5, (N,)))
    counts = np.bincount(x + 3, minlength=8)
    assert x.dtype == np.int64
    assert len(counts) == 8
    assert abs(counts / N - 1 / 8).max() < 0.005
    with pytest.raises(GraphError, match="randint"):
        random.randint(3, 3)
    with pytest.raises(GraphTypeError, match="randint"):
        random.randint(0, 3, dtype="float32")
    with pytest.raises(GraphTypeError, match="normal"):
        random.normal((3,), dtype="int64")


def test_seeds_and_streams(evaluate) -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = random.Generator(seed)
        first = random.uniform((8,), generator=generator)
        second = random.uniform((8,), generator=generator)
        return evaluate(first), evaluate(second)

    a, b = draw(1)
    again, _ = draw(1)
    other, _ = draw(2)
    np.testing.assert_array_equal(a, again)
    assert (a != b).all()
    assert (a != other).all()
    generator = random.Generator(2**32 - 1)
    assert generator.state.value == np.int64(-(2**32))


def test_manual_seed_covers_draws_and_initial_values(evaluate) -> None:
    def trace() -> tuple[np.ndarray, np.ndarray]:
        random.manual_seed(7)
        layer = nn.Linear(3, 4)
        return layer.weight.numpy(), evaluate(random.normal((5,)))

    for first, second in zip(trace(), trace(), strict=True):
        np.testing.assert_array_equal(first, second)


def step_of(*tensors: Tensor, training: bool) -> int:
    roots = [x.node for x in tensors]
    updates = [(s, new) for s, new in effects_reaching(roots) if s.role == "random"]
    program = Program(
        tuple((f"out{i}", n) for i, n in enumerate(roots)),
        tuple((state.node, new.node) for state, new in updates),
    )
    states = {state.node: state.value for state, _ in updates}
    _, new = run_program(program, {"x": np.ones((2, 3), "f")}, states, training=training)
    return sum(int(v - states[k]) for k, v in new.items())


def test_a_program_advances_by_one_step() -> None:
    x = tensor_input("x", (2, 3))
    generator = random.Generator(0)
    twice = nn.dropout(nn.dropout(x, generator=generator), generator=generator)
    assert step_of(twice, training=True) == 1
    assert step_of(twice, training=False) == 0
    drawn = random.uniform((2,), generator=generator)
    assert step_of(twice, drawn, training=True) == 1
    assert step_of(drawn, twice, training=False) == 1
    assert effects_reaching([x.node]) == []


def test_dropout(evaluate) -> None:
    x = tensor_input("x", ("n", 100))
    array = np.ones((50, 100), np.float32)
    y = nn.Dropout(0.25)(x)
    dropped = evaluate(y, training=True, x=array)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs((dropped == 0).mean() - 0.25) < 0.03
    np.testing.assert_array_equal(evaluate(y, x=array), array)
    assert nn.Dropout(0.0)(x) is x
    assert not evaluate(nn.Dropout(1.0)(x), training=True, x=array).any()
    with pytest.raises(GraphError, match="Dropout"):
        nn.Dropout(1.5)
    channels = tensor_input("c", (20, 10, 7))
    values = evaluate(nn.Dropout1d()(channels), training=True, c=np.ones((20, 10, 7), "f"))
    assert (values == values[..., :1]).all()
