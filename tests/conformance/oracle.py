"""Judging an executable by the interpreter, on the calls of a case."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import Arrays, Case
from closeness import assert_close

from chainrule.compiler.ir.graph import Node
from chainrule.runtime.interpreter import Interpreter, run_program


def assert_agrees(case: Case, run: Any) -> None:
    """Make every call of ``case`` with ``run`` and with the interpreter; compare what comes back.

    One executable serves all calls: sizes change between them, states carry over.
    """
    oracle = Interpreter(case.program, promote=case.promote)
    states = dict(case.states)
    for position, call in enumerate(case.calls):
        expected, updates = oracle.run(call, states)
        bounds = magnitudes(case, call, states)
        outputs = run(call)
        states.update(updates)
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            assert outputs[name].dtype == dict(case.program.outputs)[name].dtype
            assert_close(
                outputs[name],
                value,
                case.tolerance,
                None if bounds is None else bounds[name],
                f"call {position}, output {name!r}",
            )
        for node in updates:
            assert_close(
                np.asarray(run.states[node]),
                states[node],
                case.tolerance,
                what=f"call {position}, state {node.op.label!r}",
            )


def magnitudes(
    case: Case, call: Arrays, states: dict[Node, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Return the outputs for the inputs' magnitudes, which bound the rounding of sums."""
    if not case.tolerance.terms:
        return None
    inputs = {k: np.abs(v) if v.dtype.kind == "f" else v for k, v in call.items()}
    return run_program(case.program, inputs, states, promote=True)[0]
