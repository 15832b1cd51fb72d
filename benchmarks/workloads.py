"""What is measured: the shapes, the data and the count of floating-point operations.

Every peer gets the same initial parameters and the same batches, made here with NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

import numpy as np

LEARNING_RATE = 1e-3
BETAS = (0.9, 0.999)
EPSILON = 1e-8
AGREEMENT_STEPS = 20  # the loss after so many steps is shown; later, rounding makes paths differ

Array = np.ndarray
Layer = tuple[Array, Array]  # weight (out, in), bias (out,)


@dataclass(frozen=True)
class Training:
    """A training step: forward, backward and Adam, float32, the loss read back as a float.

    ``sizes`` are the layers' widths. An ``mlp`` classifies into ``sizes[-1]`` classes. In a ``vae``
    they are the encoder's widths, the latent last, and the decoder's are the same backwards.
    """

    name: str
    architecture: str  # "mlp" | "vae"
    sizes: tuple[int, ...]
    activation: str  # "tanh" | "relu"
    batch: int
    threads: int = 2

    group = "training"
    unit = "GFLOP/s"

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """The (in, out) widths of each linear layer, in the order of the forward pass."""
        if self.architecture == "mlp":
            pairs = zip(self.sizes, self.sizes[1:], strict=False)
            return {f"layer{i}": pair for i, pair in enumerate(pairs)}
        wide, hidden, latent = self.sizes
        return {
            "encode": (wide, hidden),
            "mu": (hidden, latent),
            "logvar": (hidden, latent),
            "decode": (latent, hidden),
            "output": (hidden, wide),
        }

    @property
    def operations(self) -> float:
        """Of the contractions in one step; the first layer has no gradient for its input."""
        products = [2 * self.batch * a * b for a, b in self.layers.values()]
        return 3 * sum(products) - products[0]

    def initial_parameters(self) -> dict[str, Layer]:
        """Uniform in ±1/sqrt(in), as PyTorch's Linear."""
        random = np.random.default_rng(1)
        parameters = {}
        for name, (inputs, outputs) in self.layers.items():
            bound = inputs**-0.5
            weight = random.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
            bias = random.uniform(-bound, bound, outputs).astype(np.float32)
            parameters[name] = (weight, bias)
        return parameters

    def batches(self) -> list[tuple[Array, Array | None]]:
        """A ring of 32 batches of inputs, with labels for a classifier.

        Each input comes four times, with its true label twice and a random one twice, so that no
        peer can learn the ring by heart and end in subnormal gradients, however long it runs.
        """
        random = np.random.default_rng(2)
        shape = (8, self.batch, self.sizes[0])
        if self.architecture == "vae":
            pixels = random.beta(0.3, 0.8, shape).astype(np.float32)
            return [(x, None) for x in pixels]
        inputs = random.standard_normal(shape).astype(np.float32)
        classes = self.sizes[-1]
        teacher = random.standard_normal((self.sizes[0], classes))
        true = np.argmax(inputs @ teacher, axis=-1)
        ring = []
        for repeat in range(4):
            for x, label in zip(inputs, true, strict=True):
                noise = random.integers(0, classes, self.batch)
                ring.append((x, (label if repeat % 2 else noise).astype(np.int64)))
        return ring


@dataclass(frozen=True)
class Matmul:
    """``a @ b`` of two square float32 matrices."""

    size: int
    threads: int

    group = "matmul"
    unit = "GFLOP/s"

    @property
    def name(self) -> str:
        return f"matmul_{self.size}_{self.threads}t"

    @property
    def operations(self) -> float:
        return 2.0 * self.size**3

    def operands(self) -> tuple[Array, Array]:
        random = np.random.default_rng(3)
        shape = (2, self.size, self.size)
        a, b = random.standard_normal(shape).astype(np.float32)
        return a, b


@dataclass(frozen=True)
class Elementwise:
    """One function of a float32 vector; operations are counted as elements."""

    function: str  # "exp" | "tanh" | "erf" | "log"
    threads: int
    size: int = 1_000_000

    group = "elementwise"
    unit = "Gelem/s"

    @property
    def name(self) -> str:
        return f"{self.function}_{self.threads}t"

    @property
    def operations(self) -> float:
        return float(self.size)

    def operand(self) -> Array:
        """Over the function's whole interesting range: no subnormals, both tails."""
        random = np.random.default_rng(4)
        low, high = {"exp": (-80, 80), "tanh": (-6, 6), "erf": (-4, 4), "log": (1e-6, 1e6)}[
            self.function
        ]
        return random.uniform(low, high, self.size).astype(np.float32)


@dataclass(frozen=True)
class FirstStep:
    """A new process, its imports, compilation and one step of ``of``: what a user waits for."""

    of: Training
    cache: str  # "cold" | "warm"

    group = "first_step"
    unit = ""

    @property
    def name(self) -> str:
        return f"first_step_{self.cache}"

    @property
    def threads(self) -> int:
        return self.of.threads


Steady = Training | Matmul | Elementwise
Workload = Steady | FirstStep

MLP_SMALL = Training("mlp_small", "mlp", (64, 32, 10), "tanh", batch=16)
MLP = Training("mlp", "mlp", (784, 512, 512, 10), "relu", batch=64)
VAE = Training("vae", "vae", (784, 400, 20), "relu", batch=128)

WORKLOADS: tuple[Workload, ...] = (
    MLP_SMALL,
    MLP,
    VAE,
    *(Matmul(n, threads) for threads in (1, 2) for n in (256, 333, 512, 1000, 1024, 2048)),
    *(Elementwise(f, threads) for threads in (1, 2) for f in ("exp", "tanh", "erf", "log")),
    FirstStep(MLP, "cold"),
    FirstStep(MLP, "warm"),
)


def select_workloads(patterns: list[str]) -> list[Workload]:
    """Those whose name or group fits one of ``patterns`` (shell wildcards); all for no pattern.

    Raises
    ------
    ValueError
        If a pattern fits nothing.
    """
    for pattern in patterns:
        if not any(fnmatch(w.name, pattern) or w.group == pattern for w in WORKLOADS):
            names = ", ".join(sorted({w.group for w in WORKLOADS} | {w.name for w in WORKLOADS}))
            raise ValueError(f"no workload fits {pattern!r}; there are: {names}")
    return [
        w
        for w in WORKLOADS
        if not patterns or any(fnmatch(w.name, p) or w.group == p for p in patterns)
    ]
