"""Kernels of known networks, as text: a change of fusion or lowering shows as a diff of a file.

``pytest tests/golden --update-golden`` writes the files anew; read the diff before keeping it.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from networks import compiled, layer_norm, perceptron_step, softmax_cross_entropy

from chainrule.compiler.artifact import Artifact
from chainrule.compiler.loops.ir import Contraction, Store, walk
from chainrule.compiler.loops.text import format_loop_program
from chainrule.compiler.schedule.text import format_slots

NETWORKS = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "layer_norm": layer_norm,
    "perceptron_step": perceptron_step,
}


def golden_text(artifact: Artifact) -> str:
    kernels = [line for line in artifact.report if line.startswith("kernel ")]
    parts = ("\n".join(kernels) + "\n", format_loop_program(artifact.loops))
    return "\n".join((*parts, format_slots(artifact.arena)))


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_are_as_written(name, request):
    path = Path(__file__).parent / f"{name}.txt"
    found = golden_text(compiled(NETWORKS[name]()))
    if request.config.getoption("--update-golden"):
        path.write_text(found)
    expected = path.read_text()
    if found != expected:
        lines = [text.splitlines() for text in (expected, found)]
        diff = difflib.unified_diff(*lines, path.name, "compiled now", lineterm="", n=1)
        pytest.fail("\n".join(diff) + "\nrun with --update-golden if this is meant", pytrace=False)


def stored_labels(artifact: Artifact, kernel) -> list[str]:
    labels = {s.name: s.label for s in artifact.loops.storage}
    stores = (s for s in walk(kernel.body) if isinstance(s, Store))
    return [labels[store.buffer] for store in stores]


def test_a_perceptrons_step_is_sixteen_kernels():
    """3 products, softmax, loss, its gradient, 2 back, 3 + 3 updates, 2 of single numbers."""
    artifact = compiled(perceptron_step())
    assert len(artifact.loops.kernels) == 16
    assert sum(isinstance(k.body[0], Contraction) for k in artifact.loops.kernels) == 8


def test_the_optimizer_runs_in_the_epilogue_of_the_weights_gradients():
    artifact = compiled(perceptron_step())
    updates = [
        kernel
        for kernel in artifact.loops.kernels
        if isinstance(kernel.body[0], Contraction) and "weight" in stored_labels(artifact, kernel)
    ]
    assert len(updates) == 3
    for kernel in updates:
        assert set(stored_labels(artifact, kernel)) == {"weight", "weight.m", "weight.v"}
        assert not any(use.name.startswith("t") and use.written for use in kernel.buffers)


def test_softmax_is_one_kernel():
    """Its maximum, exponentials, sum and the picked logarithm leave as two numbers a row."""
    softmax = compiled(softmax_cross_entropy()).loops.kernels[0]
    text = softmax.label
    assert text.startswith("reduce stop_gradient sub exp reduce log")
    assert [loop.index for loop in softmax.body] == ["%a0"]


def test_layer_normalisation_and_its_gradient_are_one_kernel_by_row_and_one_by_column_sum():
    assert len(compiled(layer_norm()).loops.kernels) == 3
