"""The table of conformance cases: every primitive × element types × shapes, as small programs.

A case is a program with one or more sets of inputs, its expected outputs in plain NumPy where that
is short, and how close a backend must come.  `ALL_CASES` collects the tables of the other files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from closeness import EXACT, Tolerance

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.graph import Node, Program, make
from chainrule.compiler.ir.types import Shape, TensorType

Arrays = Mapping[str, np.ndarray]

#: The symbolic sizes of the tables, and the sizes that they take.
N = SymbolicDim.of("n")
M = SymbolicDim.of("m")
ODD_SIZES = (1, 3, 7, 17, 33, 65)


@dataclass(frozen=True)
class Case:
    """One program and how to judge it.

    Attributes
    ----------
    name
        What the test is called.
    program
        What to run.
    calls
        Sets of inputs, each run in turn by one executable.
    expected
        Inputs to outputs in plain NumPy, or None where only the interpreter is at hand.
    tolerance
        How close a backend must come to the interpreter.
    promote
        Judge float32 results by the interpreter's in float64, not in float32.
    differentiate
        Names of the inputs in which the first call's outputs are smooth.
    states
        Initial values of the states.
    """

    name: str
    program: Program
    calls: tuple[Arrays, ...]
    expected: Callable[..., Mapping[str, np.ndarray]] | None = None
    tolerance: Tolerance = EXACT
    promote: bool = False
    differentiate: tuple[str, ...] = ()
    states: Mapping[Node, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name


def tensor(name: str, shape: Shape, dtype: str = "float32") -> Node:
    """Return an input node."""
    return make(ops.Input(name, TensorType(dtype, shape)))


def program(*outputs: Node, **named: Node) -> Program:
    """Return a program of outputs ``y``, or ``y0``, ``y1``, …, and of named ones."""
    names = ["y"] if len(outputs) == 1 else [f"y{i}" for i in range(len(outputs))]
    return Program((*zip(names, outputs, strict=True), *named.items()))


def sample(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Return standard normal floats, integers in [-50, 50) (uint32: [0, 100)), or coin flips."""
    rng = np.random.default_rng([seed, *shape])
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    return (rng.integers(0, 100, shape) - (0 if dtype == "uint32" else 50)).astype(dtype)


def sampled(*sets: Mapping[str, tuple], dtype: str = "float32") -> tuple[Arrays, ...]:
    """Return a call for each table of input name to shape."""
    return tuple(
        {
            name: sample(shape, dtype, seed=position)
            for position, (name, shape) in enumerate(shapes.items())
        }
        for shapes in sets
    )


def all_cases() -> list[Case]:
    """Return every case; names are distinct."""
    import cases_contract
    import cases_elementwise
    import cases_leaves
    import cases_loops
    import cases_networks
    import cases_running
    import cases_structure

    tables = (
        *(cases_elementwise, cases_leaves, cases_structure, cases_running, cases_contract),
        *(cases_networks, cases_loops),
    )
    cases = [case for table in tables for case in table.CASES]
    assert len({case.name for case in cases}) == len(cases)
    return cases
