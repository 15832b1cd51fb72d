"""JAX: the whole step in one ``jit``, with optax and donated buffers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

from ..workloads import BETAS, EPSILON, LEARNING_RATE, Elementwise, Matmul, Steady, Training


def build(workload: Steady) -> Callable[[int], float]:
    import jax  # noqa: F401  (reported as missing before anything else is)

    if isinstance(workload, Training):
        return build_training(workload)
    if isinstance(workload, Matmul):
        return build_matmul(workload)
    return build_elementwise(workload)


def build_matmul(workload: Matmul) -> Callable[[int], float]:
    import jax
    import jax.numpy as jnp

    a, b = map(jnp.asarray, workload.operands())
    product = jax.jit(jnp.matmul)

    def run(steps: int) -> float:
        out = a
        for _ in range(steps):
            out = product(a, b).block_until_ready()
        return float(out[0, 0])

    return run


def build_elementwise(workload: Elementwise) -> Callable[[int], float]:
    import jax
    import jax.numpy as jnp

    function = jax.lax.erf if workload.function == "erf" else getattr(jnp, workload.function)
    compiled = jax.jit(function)
    x = jnp.asarray(workload.operand())

    def run(steps: int) -> float:
        out = x
        for _ in range(steps):
            out = compiled(x).block_until_ready()
        return float(out[0])

    return run


def compute_loss(workload: Training, layers: Any, key: Any, x: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp
    import optax

    def linear(x: Any, layer: Any) -> Any:
        return x @ layer[0] + layer[1]

    if workload.architecture == "mlp":
        activation = jnp.tanh if workload.activation == "tanh" else jax.nn.relu
        *hidden, last = (layers[name] for name in workload.layers)
        for layer in hidden:
            x = activation(linear(x, layer))
        return optax.softmax_cross_entropy_with_integer_labels(linear(x, last), y).mean()
    hidden = jax.nn.relu(linear(x, layers["encode"]))
    mu, logvar = linear(hidden, layers["mu"]), linear(hidden, layers["logvar"])
    z = mu + jnp.exp(0.5 * logvar) * jax.random.normal(key, mu.shape)
    logits = linear(jax.nn.relu(linear(z, layers["decode"])), layers["output"])
    reconstruction = optax.sigmoid_binary_cross_entropy(logits, x).sum()
    return reconstruction - 0.5 * jnp.sum(1 + logvar - mu * mu - jnp.exp(logvar))


def build_training(workload: Training) -> Callable[[int], float]:
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(LEARNING_RATE, *BETAS, eps=EPSILON)
    layers = {
        name: (jnp.asarray(weight.T.copy()), jnp.asarray(bias))
        for name, (weight, bias) in workload.initial_parameters().items()
    }
    state = (layers, optimizer.init(layers), jax.random.key(5))
    ring = cycle(
        [(jnp.asarray(x), None if y is None else jnp.asarray(y)) for x, y in workload.batches()]
    )

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, x: Any, y: Any) -> Any:
        layers, slots, key = state
        key, noise = jax.random.split(key) if workload.architecture == "vae" else (key, key)
        loss, gradients = jax.value_and_grad(partial(compute_loss, workload))(layers, noise, x, y)
        updates, slots = optimizer.update(gradients, slots, layers)
        return (optax.apply_updates(layers, updates), slots, key), loss

    def run(steps: int) -> float:
        nonlocal state
        value = float("nan")
        for _ in range(steps):
            x, y = next(ring)
            state, loss = step(state, x, y)
            value = float(loss)
        jax.block_until_ready(state)
        return value

    return run
