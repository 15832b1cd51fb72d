"""Gradients of conformance cases: as programs, and by differences in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from cases import Case, tensor

from chainrule.compiler.autodiff.reverse import gradient
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Node, Program
from chainrule.runtime.interpreter import Interpreter

Arrays = Mapping[str, np.ndarray]

# Central differences with one Richardson step: truncation is of order h**4, rounding of eps / h.
STEP = 1e-5


@dataclass(frozen=True)
class Differentiated:
    """A program whose outputs ``d_x`` are the cotangents of the inputs ``x``, one pull-back on.

    ``seeds`` are the names of the added inputs: the cotangents of the outputs that were pulled.
    The inputs themselves are outputs ``kept_x``, so that they still tell the symbolic sizes.
    """

    pulled: Program
    program: Program
    seeds: tuple[str, ...]
    wrt: tuple[str, ...]


def pull_back(program: Program, wrt: tuple[str, ...], prefix: str = "seed") -> Differentiated:
    """Return the vector-Jacobian product of all floating-point outputs with respect to ``wrt``."""
    outputs = tuple(
        (name, node)
        for name, node in program.outputs
        if node.type.is_float and not name.startswith("kept_")
    )
    leaves = {n.op.label: n for n in program.nodes() if isinstance(n.op, ops.Input)}
    seeds = {
        f"{prefix}_{name}": tensor(f"{prefix}_{name}", n.shape, n.dtype) for name, n in outputs
    }
    targets: list[Node] = [leaves[name] for name in wrt]
    found = gradient([node for _, node in outputs], targets, list(seeds.values()))
    pulled = tuple((f"d_{name}", node) for name, node in zip(wrt, found, strict=True))
    kept = tuple((f"kept_{name}", leaf) for name, leaf in leaves.items())
    return Differentiated(
        Program((*outputs, *kept)),
        Program((*pulled, *kept)),
        tuple(s.op.label for s in seeds.values()),
        wrt,
    )


def random_like(arrays: Arrays, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(np.shape(array)) for name, array in arrays.items()}


class Evaluation:
    """A program in float64; inputs that it does not use may be given as well."""

    def __init__(self, program: Program, case: Case) -> None:
        self.interpreter = Interpreter(program, promote=True)
        self.states = case.states

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        used = {name: inputs[name] for name in self.interpreter.binder.names}
        return self.interpreter.run(used, self.states)[0]


def widen(inputs: Arrays) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in inputs.items()}


def check_by_differences(case: Case, step: Differentiated, inputs: Arrays, seed: int = 0) -> None:
    """Raise AssertionError unless ``step`` agrees with differences in a random direction."""
    function, derivative = Evaluation(step.pulled, case), Evaluation(step.program, case)
    inputs = widen(inputs)
    outputs = {k: v for k, v in function(inputs).items() if not k.startswith("kept_")}
    weights = random_like(outputs, seed)
    direction = random_like({name: inputs[name] for name in step.wrt}, seed + 1)

    def along(h: float) -> float:
        moved = {**inputs, **{k: inputs[k] + h * v for k, v in direction.items()}}
        values = function(moved)
        return float(sum(np.sum(weights[name] * values[name]) for name in weights))

    def difference(h: float) -> float:
        return (along(h) - along(-h)) / (2 * h)

    expected = (4 * difference(STEP / 2) - difference(STEP)) / 3
    seeds = {seed: weights[seed.split("_", 1)[1]] for seed in step.seeds}
    found = derivative({**inputs, **seeds})
    products = [found[f"d_{name}"] * direction[name] for name in step.wrt]
    actual = float(sum(np.sum(p) for p in products))
    size = sum(np.sum(np.abs(p)) for p in products)
    noise = sum(np.sum(np.abs(weights[name] * outputs[name])) for name in outputs)
    slack = 1e-6 * size + 1e-9 * noise + 1e-12
    assert np.isfinite(actual), f"the gradient is {actual}"
    assert abs(actual - expected) <= slack, f"gradient {actual!r}, differences {expected!r}"
