"""Evaluating tensors through the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.ir.graph import Program
from chainrule.frontend.state import variable_of
from chainrule.frontend.tensor import Tensor, as_tensor, constant
from chainrule.runtime.interpreter import run_program

Evaluate = Callable[..., list[np.ndarray]]


def run_tensors(
    tensors: Sequence[Tensor], inputs: Mapping[str, object] | None = None, training: bool = False
) -> list[np.ndarray]:
    program = Program(tuple((f"out{i}", x.node) for i, x in enumerate(tensors)))
    states = {node: variable_of(node).value for node in program.states()}
    outputs, _ = run_program(program, inputs or {}, states, training=training)
    return [outputs[f"out{i}"] for i in range(len(tensors))]


@pytest.fixture
def evaluate() -> Callable[..., np.ndarray]:
    """``evaluate(tensor, x=array)``: the value of one tensor."""

    def one(tensor: object, training: bool = False, **inputs: object) -> np.ndarray:
        return run_tensors([as_tensor(tensor)], inputs, training)[0]

    return one


@pytest.fixture
def differentiate() -> Callable[..., tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    """``differentiate(output, wrt, cotangent, second)``: value, first and second derivatives.

    First: the vector-Jacobian product with ``cotangent``.  Second: the derivative of
    Σ second[i] · first[i].  Both on variables and constants alone.
    """

    def both(
        output: Tensor, wrt: list[Tensor], cotangent: np.ndarray, second: list[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        nodes = [x.node for x in wrt]
        first = gradient([output.node], nodes, [constant(cotangent).node])
        weights = [constant(weight).node for weight in second]
        again = gradient(first, nodes, weights)
        values = run_tensors([output, *map(Tensor, first), *map(Tensor, again)])
        return values[0], values[1 : 1 + len(wrt)], values[1 + len(wrt) :]

    return both
