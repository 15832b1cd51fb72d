"""Random loops: the interpreter, machine code and first and second gradients, against all steps."""

from __future__ import annotations

import numpy as np
import pytest
from random_loops import make_loop

import chainrule as cr

PARTS, EXAMPLES = 6, 6


def evaluate(example, outputs, backend):
    run = cr.compile(outputs, backend=backend)
    used = {node.op.label for node in run.program.inputs()}
    return run(**{name: array for name, array in example.arrays.items() if name in used})


@pytest.mark.parametrize("part", range(PARTS))
def test_a_loop_equals_the_graph_of_its_steps(part):
    for seed in range(part * EXAMPLES, (part + 1) * EXAMPLES):
        found = []
        for loop in (False, True):
            example = make_loop(seed, loop)
            first = cr.grad(example.loss, example.wrt)
            again = cr.grad(sum((g * g).sum() for g in first), example.wrt)
            outputs = [example.loss, *example.results, *first, *again]
            found.append(evaluate(example, outputs, "numpy"))
            if loop:
                found.append(evaluate(example, outputs, "native"))
        for other in found[1:]:
            for position, (wanted, value) in enumerate(zip(found[0], other, strict=True)):
                room = 1e-9 * (1 + np.abs(wanted).max(initial=0))
                np.testing.assert_allclose(
                    value, wanted, rtol=1e-9, atol=room, err_msg=f"seed {seed}, output {position}"
                )
