"""Updates that change nothing: random states and running statistics in inference."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler.ir.graph import Program
from chainrule.compiler.rewrites.folding import drop_idle_updates


def test_an_update_to_the_old_value_is_dropped():
    kept, idle = cr.parameter(np.ones(2)), cr.parameter(np.ones(2))
    program = Program(
        (("out", kept.node),), ((kept.node, (kept + 1.0).node), (idle.node, idle.node))
    )
    assert drop_idle_updates(program).updates == program.updates[:1]
    assert drop_idle_updates(program).outputs == program.outputs


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(3)])
def test_layers_with_states_compile_for_inference(backend, layer):
    predict = cr.compile(layer(cr.input("x", ("n", 3))), backend=backend)
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(predict(x=x), predict(x=x))
