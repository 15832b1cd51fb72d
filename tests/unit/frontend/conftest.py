"""Evaluating tensors through the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.ir.graph import Program
from chainrule.frontend.state import variable_of
from chainrule.frontend.tensor import Tensor, as_tensor, constant
from chainrule.frontend.tensor import input as tensor_input
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


#: Relative errors that two right implementations may differ by.
_PRECISION = {"float32": 1e-5, "float64": 1e-10}


def compare_with_torch(
    ours: Callable[..., object],
    theirs: Callable[..., object],
    *arrays: np.ndarray,
    symbolic: bool = False,
    native: bool = False,
    dtypes: Sequence[str] = ("float32", "float64"),
    scale: float = 1.0,
) -> None:
    """Compare a function with PyTorch's: results, and gradients with respect to float arrays.

    ``symbolic``: the first axis of the first array is.  ``native``: machine code runs, too.
    ``scale``: by how much the errors may exceed rounding.
    """
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    for dtype in dtypes:
        given = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
        leaves = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in given]
        results = theirs(*leaves)
        expected = list(results) if isinstance(results, tuple) else [results]
        inputs = [
            tensor_input(
                f"x{i}",
                ("batch", *a.shape[1:]) if symbolic and i == 0 else a.shape,
                a.dtype.name,
            )
            for i, a in enumerate(given)
        ]
        found = ours(*inputs)
        outputs = list(found) if isinstance(found, (tuple, list)) else [found]
        assert len(outputs) == len(expected)
        generator = np.random.default_rng(1)
        cotangents = [generator.normal(size=tuple(e.shape)).astype(dtype) for e in expected]
        smooth = [i for i, e in enumerate(expected) if e.requires_grad]
        wrt = [i for i, a in enumerate(given) if a.dtype.kind == "f"] if smooth else []
        slopes: list[Tensor] = []
        if wrt:
            nodes = [outputs[i].node for i in smooth]
            seeds = [tensor_input(f"g{i}", outputs[i].shape, dtype).node for i in smooth]
            slopes = list(map(Tensor, gradient(nodes, [inputs[i].node for i in wrt], seeds)))
            expected += torch.autograd.grad(
                [expected[i] for i in smooth],
                [leaves[i] for i in wrt],
                [torch.tensor(cotangents[i]) for i in smooth],
                allow_unused=True,
                materialize_grads=True,
            )
        feed = {f"x{i}": a for i, a in enumerate(given)}
        feed |= {f"g{i}": cotangents[i] for i in smooth} if wrt else {}
        program = Program(
            tuple((str(i), x.node) for i, x in enumerate([*outputs, *slopes])),
        )
        feed = {n.op.label: feed[n.op.label] for n in program.inputs()}
        runs = [list(run_program(program, feed)[0].values())]
        if native:
            runs.append(list(cr.compile([*outputs, *slopes])(**feed)))
        for values in runs:
            for value, wanted in zip(values, expected, strict=True):
                wanted = wanted.detach().numpy()
                assert value.shape == wanted.shape
                assert value.dtype == wanted.dtype
                finite = np.abs(wanted[np.isfinite(wanted)])
                room = _PRECISION[dtype] * scale * max(1.0, finite.max(initial=0))
                np.testing.assert_allclose(value, wanted, rtol=_PRECISION[dtype], atol=room)


@pytest.fixture
def agrees() -> Callable[..., None]:
    """Return `compare_with_torch`."""
    return compare_with_torch
