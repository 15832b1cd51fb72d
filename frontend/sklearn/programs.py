"""Compiled networks for estimators: one for each architecture, shared by all fits of it.

A search or a cross-validation fits the same architecture hundreds of times; compiling costs more
than most of these fits.  A program holds the weights of one fit at a time, and each estimator keeps
its own as arrays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ...compiler.errors import GraphError
from .. import functional as F
from .. import losses, nn, optim
from ..api import CompiledFunction, compile, compile_train
from ..callbacks import Callback
from ..history import History
from ..initializers import preserve_initializers, seed_initializers
from ..nn.module import Module
from ..optimizer import Optimizer
from ..random import default_generator
from ..state import Variable
from ..tensor import Tensor
from ..tensor import input as declare_input
from ..training import TrainingProgram
from ..training_state import name_states

#: Programs that are kept, those used last.
KEPT_PROGRAMS = 32

#: The inputs.  Equal inputs are one node: these names are not those that a user's would have.
FEATURES, TARGETS, CODE = "estimator_features", "estimator_targets", "estimator_code"

Builder = Callable[[int, int], Any]

ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "adamax": optim.Adamax,
    "sgd": lambda lr: optim.SGD(lr, momentum=0.9, nesterov=True),
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "lion": optim.Lion,
}


@dataclass(frozen=True)
class Architecture:
    """All that a compiled network depends on.

    ``kind``: ``"classifier"``, ``"regressor"`` or ``"autoencoder"``; ``outputs``: classes, targets
    or components; ``network``: the sizes of the hidden layers, or a function of features and
    outputs that returns a module (for an autoencoder two, encoder and decoder).
    """

    kind: str
    features: int
    outputs: int
    network: tuple[int, ...] | Builder
    activation: str
    optimizer: str | Callable[[float], Optimizer]
    dtype: str
    backend: str | None
    threads: int | None

    def build(self) -> list[Module]:
        """Return fresh modules: the network, or encoder and decoder."""
        if callable(self.network):
            made = self.network(self.features, self.outputs)
            modules = list(made) if isinstance(made, (tuple, list)) else [made]
        elif self.kind == "autoencoder":
            sizes = (self.features, *self.network, self.outputs)
            modules = [self._layers(sizes), self._layers(sizes[::-1])]
        else:
            modules = [self._layers((self.features, *self.network, self.outputs))]
        wanted = 2 if self.kind == "autoencoder" else 1
        if len(modules) != wanted or not all(isinstance(m, Module) for m in modules):
            raise ValueError(
                f"network must return {'encoder and decoder' if wanted == 2 else 'a module'}, not "
                + ", ".join(type(m).__name__ for m in modules)
            )
        return modules

    def _layers(self, sizes: Sequence[int]) -> Module:
        layers: list[Module] = []
        for before, after in pairwise(sizes):
            if layers:
                layers.append(ACTIVATIONS[self.activation]())
            layers.append(nn.Linear(before, after, dtype=self.dtype))
        return nn.Sequential(*layers)

    def make_optimizer(self) -> Optimizer:
        """Return a new optimizer; its learning rate is set before each fit."""
        make = OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer
        return make(1e-3)


class NetworkProgram:
    """A compiled network: its training step, and its functions of the features."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.lock = threading.RLock()
        dtype = architecture.dtype
        with _private_randomness(0):
            self.modules = architecture.build()
            self.x = declare_input(FEATURES, ("batch", architecture.features), dtype=dtype)
            self.functions = self._trace()
            self.penalty = Variable(np.zeros((), dtype), "alpha", "buffer")
            weights = [p for m in self.modules for p in m.parameters() if p.ndim >= 2]
            each = self._loss()
            if weights:
                each = each + nn.regularization.l2(weights) * (self.penalty * 0.5)
            self.training: TrainingProgram = compile_train(
                each,
                architecture.make_optimizer(),
                weighted=True,
                backend=architecture.backend,
                threads=architecture.threads,
            )
        self._compiled: dict[str, CompiledFunction] = {}
        self._states = name_states(
            {v: None for m in self.modules for v in (*m.parameters(), *m.buffers())}
            | {v: None for v in self.training.states if v is not self.penalty}
        )
        self._start = {name: v.value.copy() for name, v in self._states.items()}
        #: The arrays that the storage holds now, by identity.
        self.holds: Mapping[str, np.ndarray] | None = None

    def _trace(self) -> dict[str, Tensor]:
        """Return the network's functions of the features by name."""
        if self.architecture.kind == "autoencoder":
            code = self._checked(self.modules[0](self.x), self.architecture.outputs)
            self.code = declare_input(
                CODE, ("batch", self.architecture.outputs), dtype=self.architecture.dtype
            )
            decoder, features = self.modules[1], self.architecture.features
            self.rebuilt = self._checked(decoder(code), features)
            return {"transform": code, "inverse": self._checked(decoder(self.code), features)}
        output = self._checked(self.modules[0](self.x), self.architecture.outputs)
        if self.architecture.kind == "classifier":
            return {"logits": output, "probabilities": F.softmax(output, -1)}
        return {"output": output}

    def _checked(self, output: Tensor, width: int) -> Tensor:
        if output.shape != (self.x.shape[0], width):
            raise GraphError(
                f"the network gives {output.node.type}; ({self.x.shape[0]}, {width}) would fit"
            )
        return output

    def _loss(self) -> Tensor:
        """Return the loss of each sample."""
        kind, dtype = self.architecture.kind, self.architecture.dtype
        if kind == "autoencoder":
            return losses.mse(self.rebuilt, self.x, "none").mean(1)
        if kind == "classifier":
            labels = declare_input(TARGETS, ("batch",), dtype="int64")
            return losses.cross_entropy(self.functions["logits"], labels, reduction="none")
        target = declare_input(TARGETS, ("batch", self.architecture.outputs), dtype=dtype)
        return losses.mse(self.functions["output"], target, "none").mean(1)

    # -- the weights of one estimator -------------------------------------------------------------

    def begin(self, seed: int) -> None:
        """Start a training: initial weights drawn anew, optimizer and statistics at rest."""
        for name, variable in self._states.items():
            variable.value[...] = self._start[name]
        with _private_randomness(seed):
            fresh = self.architecture.build()
        for module, new in zip(self.modules, fresh, strict=True):
            module.load_state_dict(new.state_dict())
        training = self.training
        training.epoch = training.steps = training.batch = 0
        self.holds = None

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `saved` gave."""
        if self.holds is not arrays:
            for name, variable in self._states.items():
                variable.value[...] = arrays[name]
            self.holds = arrays

    def saved(self) -> dict[str, np.ndarray]:
        """Return a copy of everything that a training changes, read-only."""
        arrays = {name: v.value.copy() for name, v in self._states.items()}
        for array in arrays.values():
            array.setflags(write=False)
        self.holds = arrays
        return arrays

    def fit(
        self,
        data: Mapping[str, np.ndarray],
        validation: Mapping[str, np.ndarray] | None,
        *,
        epochs: int,
        learning_rate: float,
        alpha: float,
        batch_size: int,
        shuffle: bool,
        seed: int,
        callbacks: Sequence[Callback],
        verbose: int,
    ) -> History:
        """Train the weights that the storage holds."""
        self.holds = None
        self.training.optimizer.lr = learning_rate
        self.penalty.value[...] = alpha
        with _private_randomness(seed):
            return self.training.fit(
                data,
                epochs=epochs,
                batch_size=batch_size,
                shuffle=shuffle,
                seed=seed,
                validation_data=validation,
                callbacks=callbacks,
                verbose=verbose,
            )

    def run(self, name: str, x: np.ndarray) -> np.ndarray:
        """Return the function ``name`` of the features (or codes) ``x``, in inference mode."""
        if name not in self._compiled:
            self._compiled[name] = compile(
                self.functions[name],
                backend=self.architecture.backend,
                threads=self.architecture.threads,
            )
        return self._compiled[name](**{CODE if name == "inverse" else FEATURES: x})


@contextmanager
def _private_randomness(seed: int) -> Iterator[None]:
    """Draw initial values, dropout and the like from ``seed``; the user's generators stay put."""
    state = default_generator().state.value
    kept = state.copy()
    with preserve_initializers():
        seed_initializers(seed)
        state[...] = np.int64(seed) << 32
        try:
            yield
        finally:
            state[...] = kept


_programs: OrderedDict[Architecture, NetworkProgram] = OrderedDict()
_lock = threading.RLock()


def program_of(architecture: Architecture) -> NetworkProgram:
    """Return the compiled network of ``architecture``, made on first use."""
    with _lock:
        found = _programs.get(architecture)
        if found is None:
            found = _programs[architecture] = NetworkProgram(architecture)
        _programs.move_to_end(architecture)
        while len(_programs) > KEPT_PROGRAMS:
            _programs.popitem(last=False)
        return found
