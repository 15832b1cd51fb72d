"""Reverse accumulation against random-direction differences, first and second order."""

from __future__ import annotations

import pytest
from cases import all_cases
from gradients import check_by_differences, pull_back, random_like, widen

from chainrule.compiler.ir.verify import verify_program
from chainrule.runtime.interpreter import run_program

SMOOTH = [case for case in all_cases() if case.differentiate]
# In float64 the float32 and float64 variants of a case are one function.
# The derivative of trigamma is no elementary function.
SECOND_ORDER = [
    case for case in SMOOTH if "float64" not in case.name and not case.name.startswith("digamma")
]


@pytest.mark.parametrize("case", SMOOTH, ids=repr)
def test_gradients_agree_with_differences(case):
    step = pull_back(case.program, case.differentiate)
    verify_program(step.program)
    check_by_differences(case, step, case.calls[0])


@pytest.mark.parametrize("case", SECOND_ORDER, ids=repr)
def test_second_gradients_agree_with_differences(case):
    first = pull_back(case.program, case.differentiate)
    inputs = widen(case.calls[0])
    shapes = {seed: output_shape(case, seed, inputs) for seed in first.seeds}
    inputs = {**inputs, **random_like(shapes, 7)}
    second = pull_back(first.program, case.differentiate, prefix="again")
    verify_program(second.program)
    check_by_differences(case, second, inputs, seed=11)


def output_shape(case, seed, inputs):
    outputs, _ = run_program(case.program, inputs, case.states, promote=True)
    return outputs[seed.removeprefix("seed_")]
