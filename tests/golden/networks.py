"""Small networks as programs, and what the compiler makes of them, for tests of whole stages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compiler.artifact import Artifact, Machine
from chainrule.compiler.ir.graph import Node, Program
from chainrule.compiler.options import CompileOptions
from chainrule.compiler.pipeline import compile_native
from chainrule.frontend.state import variable_of
from chainrule.frontend.step_program import build_forward_program, build_training_program

#: Stages before emission do not depend on it.
MACHINE = Machine("x86_64-unknown-linux-gnu", "x86-64", "", "avx512")


def compiled(program: Program, training: bool = True, **options: object) -> Artifact:
    """Return what the compiler makes of ``program``, verified after every stage, not emitted."""
    return compile_native(
        program, CompileOptions(training=training, verify=True, **options), MACHINE
    )


def initial_states(program: Program) -> dict[Node, np.ndarray]:
    return {node: variable_of(node).value.copy() for node in program.states()}


def softmax_cross_entropy(classes: int = 10) -> Program:
    """The loss of given logits, and its gradient."""
    logits = cr.input("logits", ("batch", classes))
    labels = cr.input("labels", ("batch",), dtype="int64")
    loss = losses.sparse_categorical_crossentropy(logits, labels, from_logits=True)
    (pulled,) = cr.grad(loss, [logits])
    return build_forward_program({"loss": loss, "d_logits": pulled}, "softmax_cross_entropy")


def perceptron_step(sizes: Sequence[int] = (784, 512, 512, 10)) -> Program:
    """One step of Adam on a perceptron with ReLU between its layers."""
    cr.manual_seed(0)
    x = cr.input("x", ("batch", sizes[0]))
    y = cr.input("y", ("batch",), dtype="int64")
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    logits = nn.Sequential(*layers[:-1])(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    return build_training_program(loss, optim.Adam(1e-3))[0]


def layer_norm(features: int = 64) -> Program:
    """Layer normalisation, and its gradients by the input, the scale and the shift."""
    x = cr.input("x", ("batch", features))
    g = cr.input("g", ("batch", features))
    layer = nn.LayerNorm(features)
    y = layer(x)
    by_x, by_weight, by_bias = cr.grad(y, [x, layer.weight, layer.bias], [g])
    outputs = {"y": y, "d_x": by_x, "d_weight": by_weight, "d_bias": by_bias}
    return build_forward_program(outputs, "layer_norm")


def batch_norm_step(features: int = 7) -> Program:
    """One step of stochastic gradient descent through batch normalisation and dropout."""
    cr.manual_seed(0)
    x = cr.input("x", ("batch", features))
    t = cr.input("t", ("batch", 3))
    network = nn.Sequential(
        nn.Linear(features, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.25), nn.Linear(5, 3)
    )
    error = network(x) - t
    return build_training_program((error * error).mean(), optim.SGD(0.1, momentum=0.9))[0]
