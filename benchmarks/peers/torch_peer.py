"""PyTorch: eager with the fused Adam, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

from ..workloads import BETAS, EPSILON, LEARNING_RATE, Elementwise, Matmul, Steady, Training


def build_eager(workload: Steady) -> Callable[[int], float]:
    import torch

    torch.set_num_threads(workload.threads)
    if isinstance(workload, Training):
        return build_eager_training(workload)
    if isinstance(workload, Matmul):
        return build_matmul(workload)
    return build_elementwise(workload)


def build_compiled(workload: Steady) -> Callable[[int], float]:
    import torch

    torch.set_num_threads(workload.threads)
    if isinstance(workload, Training):
        return build_compiled_training(workload)
    raise ModuleNotFoundError("one operator: nothing to compile")


def build_matmul(workload: Matmul) -> Callable[[int], float]:
    import torch

    a, b = map(torch.from_numpy, workload.operands())
    out = torch.empty_like(a)

    def run(steps: int) -> float:
        with torch.inference_mode():
            for _ in range(steps):
                torch.matmul(a, b, out=out)
        return float(out[0, 0])

    return run


def build_elementwise(workload: Elementwise) -> Callable[[int], float]:
    import torch

    function = getattr(torch, workload.function)
    x = torch.from_numpy(workload.operand())
    out = torch.empty_like(x)

    def run(steps: int) -> float:
        with torch.inference_mode():
            for _ in range(steps):
                function(x, out=out)
        return float(out[0])

    return run


def load_training(workload: Training) -> tuple[dict[str, tuple[Any, Any]], cycle]:
    """The parameters and the ring of batches as tensors."""
    import torch

    layers = {
        name: (torch.from_numpy(weight), torch.from_numpy(bias))
        for name, (weight, bias) in workload.initial_parameters().items()
    }
    batches = [
        (torch.from_numpy(x), None if y is None else torch.from_numpy(y))
        for x, y in workload.batches()
    ]
    return layers, cycle(batches)


def compute_loss(workload: Training, layers: dict[str, tuple[Any, Any]], x: Any, y: Any) -> Any:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear, relu

    if workload.architecture == "mlp":
        activation = torch.tanh if workload.activation == "tanh" else relu
        *hidden, last = layers.values()
        for weight, bias in hidden:
            x = activation(linear(x, weight, bias))
        return cross_entropy(linear(x, *last), y)
    hidden = relu(linear(x, *layers["encode"]))
    mu, logvar = linear(hidden, *layers["mu"]), linear(hidden, *layers["logvar"])
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    logits = linear(relu(linear(z, *layers["decode"])), *layers["output"])
    reconstruction = binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return reconstruction - 0.5 * torch.sum(1 + logvar - mu * mu - torch.exp(logvar))


def build_eager_training(workload: Training) -> Callable[[int], float]:
    import torch

    layers, ring = load_training(workload)
    parameters = [p.requires_grad_() for layer in layers.values() for p in layer]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, betas=BETAS, eps=EPSILON, fused=True)

    def run(steps: int) -> float:
        value = float("nan")
        for _ in range(steps):
            x, y = next(ring)
            optimizer.zero_grad(set_to_none=True)
            loss = compute_loss(workload, layers, x, y)
            loss.backward()
            optimizer.step()
            value = loss.item()
        return value

    return run


def build_compiled_training(workload: Training) -> Callable[[int], float]:
    """Forward, backward and Adam as one graph: what TorchInductor can fuse, it may."""
    import torch

    layers, ring = load_training(workload)
    first, second = BETAS
    slots = {
        name: tuple((torch.zeros_like(p), torch.zeros_like(p)) for p in layer)
        for name, layer in layers.items()
    }
    count = torch.zeros(())

    def step(layers: Any, slots: Any, count: Any, x: Any, y: Any) -> Any:
        gradients, loss = torch.func.grad_and_value(
            lambda values: compute_loss(workload, values, x, y)
        )(layers)
        count.add_(1)
        rate = LEARNING_RATE / (1 - first**count)
        correction = 1 - second**count
        for name, layer in layers.items():
            for p, g, (m, v) in zip(layer, gradients[name], slots[name], strict=True):
                m.mul_(first).add_(g, alpha=1 - first)
                v.mul_(second).addcmul_(g, g, value=1 - second)
                p.sub_(rate * m / (torch.sqrt(v / correction) + EPSILON))
        return loss

    compiled = torch.compile(step, fullgraph=True, dynamic=False)

    def run(steps: int) -> float:
        value = float("nan")
        for _ in range(steps):
            x, y = next(ring)
            value = compiled(layers, slots, count, x, y).item()
        return value

    return run
