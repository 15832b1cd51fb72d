"""chainrule, by its public names only."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from ..workloads import BETAS, EPSILON, LEARNING_RATE, Elementwise, Matmul, Steady, Training


def build(workload: Steady) -> Callable[[int], float]:
    if isinstance(workload, Training):
        return build_training(workload)
    if isinstance(workload, Matmul):
        return build_matmul(workload)
    return build_elementwise(workload)


def build_matmul(workload: Matmul) -> Callable[[int], float]:
    import chainrule as cr

    values = dict(zip("ab", workload.operands(), strict=True))
    a, b = (cr.input(name, value.shape) for name, value in values.items())
    return repeat_call(cr.compile(a @ b, backend="native", threads=workload.threads), values)


def build_elementwise(workload: Elementwise) -> Callable[[int], float]:
    import chainrule as cr

    value = workload.operand()
    y = getattr(cr, workload.function)(cr.input("x", value.shape))
    return repeat_call(cr.compile(y, backend="native", threads=workload.threads), {"x": value})


def repeat_call(function: Any, values: dict[str, np.ndarray]) -> Callable[[int], float]:
    """A loop of calls."""

    def run(steps: int) -> float:
        for _ in range(steps - 1):
            function(**values)
        result = function(**values)
        return float(result.flat[0])

    return run


def build_training(workload: Training) -> Callable[[int], float]:
    import chainrule as cr
    from chainrule import nn, optim

    layers = {}
    for name, (weight, bias) in workload.initial_parameters().items():
        layers[name] = nn.Linear(weight.shape[1], weight.shape[0])
        layers[name].load_state_dict({"weight": weight, "bias": bias})
    train = cr.compile_train(
        define_loss(workload, layers),
        optimizer=optim.Adam(LEARNING_RATE, betas=BETAS, eps=EPSILON),
        backend="native",
        threads=workload.threads,
    )
    batches = [{"x": x} if y is None else {"x": x, "y": y} for x, y in workload.batches()]
    ring = cycle(batches)

    def run(steps: int) -> float:
        value = float("nan")
        for _ in range(steps):
            value = train.step(**next(ring))["loss"]
        return value

    return run


def define_loss(workload: Training, layers: dict[str, Any]) -> Any:
    import chainrule as cr
    from chainrule import losses, nn

    x = cr.input("x", ("batch", workload.sizes[0]))
    if workload.architecture == "mlp":
        activation = nn.Tanh if workload.activation == "tanh" else nn.ReLU
        chain = [part for layer in layers.values() for part in (layer, activation())]
        y = cr.input("y", ("batch",), dtype="int64")
        logits = nn.Sequential(*chain[:-1])(x)
        return losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    relu = nn.ReLU()
    hidden = relu(layers["encode"](x))
    mu, logvar = layers["mu"](hidden), layers["logvar"](hidden)
    z = mu + cr.exp(0.5 * logvar) * cr.random.normal(mu.shape)
    logits = layers["output"](relu(layers["decode"](z)))
    return losses.binary_crossentropy(
        logits, x, from_logits=True, reduction="sum"
    ) + losses.gaussian_kl(mu, logvar, reduction="sum")
