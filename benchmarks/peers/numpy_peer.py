"""NumPy: handwritten gradients; the losses that the other peers are compared with."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import numpy as np

from ..workloads import (
    BETAS,
    EPSILON,
    LEARNING_RATE,
    Array,
    Elementwise,
    Layer,
    Matmul,
    Steady,
    Training,
)

Gradients = dict[str, Layer]


def build(workload: Steady) -> Callable[[int], float]:
    if isinstance(workload, Training):
        return build_training(workload)
    if isinstance(workload, Matmul):
        return build_matmul(workload)
    return build_elementwise(workload)


def build_matmul(workload: Matmul) -> Callable[[int], float]:
    a, b = workload.operands()
    out = np.empty_like(a)

    def run(steps: int) -> float:
        for _ in range(steps):
            np.matmul(a, b, out=out)
        return float(out[0, 0])

    return run


def build_elementwise(workload: Elementwise) -> Callable[[int], float]:
    if workload.function == "erf":
        raise ModuleNotFoundError("NumPy has no erf")
    if workload.threads != 1:
        raise ModuleNotFoundError("NumPy runs elementwise functions on one thread")
    function = getattr(np, workload.function)
    x = workload.operand()
    out = np.empty_like(x)

    def run(steps: int) -> float:
        for _ in range(steps):
            function(x, out=out)
        return float(out[0])

    return run


def build_training(workload: Training) -> Callable[[int], float]:
    layers = workload.initial_parameters()
    ring = cycle(workload.batches())
    gradients_of = mlp_gradients if workload.architecture == "mlp" else vae_gradients
    slots = {
        name: [(np.zeros_like(p), np.zeros_like(p)) for p in layer]
        for name, layer in layers.items()
    }
    random = np.random.default_rng(5)
    count = 0

    def run(steps: int) -> float:
        nonlocal count
        loss = float("nan")
        for _ in range(steps):
            count += 1
            x, y = next(ring)
            loss, gradients = gradients_of(workload, layers, x, y, random)
            for name, layer in layers.items():
                for parameter, gradient, slot in zip(
                    layer, gradients[name], slots[name], strict=True
                ):
                    update_by_adam(parameter, gradient, *slot, count)
        return loss

    return run


def update_by_adam(parameter: Array, gradient: Array, m: Array, v: Array, count: int) -> None:
    """In place (Kingma and Ba 2015, algorithm 1)."""
    first, second = BETAS
    m *= first
    m += (1 - first) * gradient
    v *= second
    v += (1 - second) * np.square(gradient)
    rate = LEARNING_RATE / (1 - first**count)
    parameter -= rate * m / (np.sqrt(v / (1 - second**count)) + EPSILON)


def apply_linear(x: Array, layer: Layer) -> Array:
    return x @ layer[0].T + layer[1]


def linear_gradients(x: Array, above: Array) -> Layer:
    return above.T @ x, above.sum(0)


def mlp_gradients(
    workload: Training,
    layers: dict[str, Layer],
    x: Array,
    y: Array | None,
    random: np.random.Generator,
) -> tuple[float, Gradients]:
    assert y is not None  # a classifier's batches have labels
    names = list(layers)
    inputs = [x]
    for name in names[:-1]:
        z = apply_linear(inputs[-1], layers[name])
        inputs.append(np.tanh(z) if workload.activation == "tanh" else np.maximum(z, 0))
    logits = apply_linear(inputs[-1], layers[names[-1]])
    shifted = logits - logits.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = float(np.mean(np.log(total[:, 0]) - shifted[rows, y]))

    above = exponentials / total
    above[rows, y] -= 1
    above /= np.float32(len(y))
    gradients = {}
    for position in reversed(range(len(names))):
        name = names[position]
        gradients[name] = linear_gradients(inputs[position], above)
        if position:
            value = inputs[position]
            slope = 1 - value * value if workload.activation == "tanh" else value > 0
            above = (above @ layers[name][0]) * slope
    return loss, gradients


def vae_gradients(
    workload: Training,
    layers: dict[str, Layer],
    x: Array,
    y: Array | None,
    random: np.random.Generator,
) -> tuple[float, Gradients]:
    hidden = np.maximum(apply_linear(x, layers["encode"]), 0)
    mu = apply_linear(hidden, layers["mu"])
    logvar = apply_linear(hidden, layers["logvar"])
    noise = random.standard_normal(mu.shape, dtype=np.float32)
    deviation = np.exp(logvar / 2)
    z = mu + deviation * noise
    wide = np.maximum(apply_linear(z, layers["decode"]), 0)
    logits = apply_linear(wide, layers["output"])
    small = np.exp(-np.abs(logits))
    reconstruction = np.sum(np.maximum(logits, 0) - logits * x + np.log1p(small))
    divergence = -0.5 * np.sum(1 + logvar - mu * mu - deviation * deviation)

    gradients = {}
    above = np.where(logits >= 0, 1, small) / (1 + small) - x
    gradients["output"] = linear_gradients(wide, above)
    above = (above @ layers["output"][0]) * (wide > 0)
    gradients["decode"] = linear_gradients(z, above)
    above = above @ layers["decode"][0]
    above_mu = above + mu
    above_logvar = 0.5 * (above * noise * deviation + deviation * deviation - 1)
    gradients["mu"] = linear_gradients(hidden, above_mu)
    gradients["logvar"] = linear_gradients(hidden, above_logvar)
    above = (above_mu @ layers["mu"][0] + above_logvar @ layers["logvar"][0]) * (hidden > 0)
    gradients["encode"] = linear_gradients(x, above)
    return float(reconstruction + divergence), gradients
