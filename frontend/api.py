"""Compiling, differentiating and checking: the functions of ``chainrule`` itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..compiler.autodiff.reverse import gradient
from ..compiler.errors import GraphError
from ..compiler.ir.graph import topological
from ..compiler.options import CompileOptions, options_from_environment
from ..compiler.rewrites.stability import stabilize_nodes
from . import random
from .averaging import WeightAverage
from .build import build_executable
from .explanation import explain_executable, profile_executable
from .metric import Metric
from .optimizer import Optimizer
from .state import Variable, variable_of
from .step_program import Parameters, build_forward_program
from .tensor import Tensor, as_tensor
from .training import TrainingProgram

Outputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Updates = Mapping[Variable, object]


def _options(check: str | Iterable[str] | None = None, **given: Any) -> CompileOptions:
    if check is not None:
        names = check.split(",") if isinstance(check, str) else check
        given["checks"] = frozenset(filter(None, (name.strip() for name in names)))
    return options_from_environment(**given)


class CompiledFunction:
    """A compiled function of named arrays; make one with `compile`.

    Calling it returns an array, a tuple of arrays or a dict of arrays, like what was compiled.
    """

    def __init__(
        self, outputs: Outputs, options: CompileOptions, updates: Updates | None = None
    ) -> None:
        self._single = isinstance(outputs, Tensor)
        self._names: tuple[str, ...] | None = None
        if isinstance(outputs, Tensor):
            named = {"output": outputs}
        elif isinstance(outputs, Mapping):
            named = {name: as_tensor(value) for name, value in outputs.items()}
        else:
            named = {f"output{n}": as_tensor(value) for n, value in enumerate(outputs)}
            self._names = tuple(named)
        if not named and not updates:
            raise GraphError("nothing to compile: give at least one output or update")
        self.options = options
        self.outputs = named
        self.program = build_forward_program(named, "function", updates)
        storage = {node: variable_of(node).value for node in self.program.states()}
        self.executable = build_executable(self.program, options, storage)

    def __call__(self, **arrays: object) -> Any:
        """Run on arrays by input name; states are updated after everything has been computed.

        Raises InputError, InputTypeError or IndexRangeError for arrays that do not fit.
        """
        results = self.executable(arrays)
        if self._single:
            return results["output"]
        if self._names is not None:
            return tuple(results[name] for name in self._names)
        return results

    def explain(self, **sizes: int) -> str:
        """Return what was fused into which kernel, and why not where it was not.

        With the symbolic sizes (``batch=64``), also the memory plan and the threads.
        """
        return explain_executable(self.executable, **sizes)

    def profile(self) -> str:
        """Return what each kernel cost so far; compile with ``profile=True``."""
        return profile_executable(self.executable)


def compile(
    outputs: Outputs = (),
    *,
    updates: Updates | None = None,
    check: str | Iterable[str] | None = None,
    backend: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    **options: Any,
) -> CompiledFunction:
    """Compile tensors to a function of the inputs that they depend on, in inference mode.

    Parameters
    ----------
    outputs : Tensor, sequence of Tensor, or dict of str to Tensor
        What the function returns.
    updates : dict of Variable to Tensor, optional
        What each call assigns to a variable, of the variable's shape and element type.  Outputs and
        updates are computed from the values before the call; so are updates from one another.
    check : ``"nan"``, ``"bounds"`` or both, optional
        Stop at the first operator that gives NaN, or reads outside of an array.
    backend : ``"native"`` (default) or ``"numpy"``
        Machine code, or the interpreter of the same graph.
    dtype : ``"float32"`` or ``"float64"``, optional
        Compute every float as this type; parameters keep theirs and are converted.
    threads : int, optional
        At most this many; by default what the process may use.  Results do not depend on it.
    seed : int, optional
        Restarts the random numbers that the function draws.

    Raises
    ------
    GraphError, GraphTypeError
        There is nothing to compile, or an update does not fit its variable.
    """
    _seed(seed)
    settings = _options(check, backend=backend, dtype=dtype, threads=threads, **options)
    return CompiledFunction(outputs, settings, updates)


def _seed(seed: int | None) -> None:
    if seed is not None:
        random.manual_seed(seed)


def compile_train(
    loss: Tensor,
    optimizer: Optimizer,
    outputs: Mapping[str, Tensor] | None = None,
    *,
    params: Parameters | None = None,
    buffers: Parameters | None = None,
    metrics: Sequence[str | Metric] | Mapping[str, Metric] = (),
    accumulate: int = 1,
    accumulate_reduction: str = "mean",
    ema: float | WeightAverage | None = None,
    weighted: bool = False,
    check: str | Iterable[str] | None = None,
    backend: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    **options: Any,
) -> TrainingProgram:
    """Compile one step of training: loss, gradients and updates as one native call.

    Parameters
    ----------
    loss : Tensor
        0-d, floating point.
    optimizer : Optimizer
        One of `chainrule.optim`.
    outputs : dict of str to Tensor, optional
        What each step returns beside ``"loss"``.
    params : list of Variable or Module, optional
        What to train; by default what the optimizer was given as ``params``, or else every
        trainable parameter that the loss depends on.  Two programs with a loss and an optimizer
        each may train parts of one model in turn: they share the storage.
    buffers : list of Variable or Module, optional
        The buffers, such as running statistics, that the step changes; by default those of
        ``params`` where that is a module, else all.
    metrics
        Names or `Metric` objects, measured by each step.
    accumulate : int
        Batches whose gradients make one update; for a loss that is a mean over the samples the
        update is that of all of them as one batch, up to rounding.  Statistics of the batch (batch
        normalisation) stay those of each.
    accumulate_reduction : {"mean", "sum"}
        What the loss is over the samples of a batch.
    ema : float or optim.WeightAverage, optional
        Keep an exponential moving average of the weights with this decay; ``evaluate`` and
        ``predict`` then use it.
    weighted : bool
        ``loss`` is one number a sample, ``(batch,)``; the mean is weighted by the input
        ``"sample_weight"``, which ``fit`` fills from ``sample_weight`` and ``class_weight``.
    check : ``"nan"``, ``"bounds"`` or both, optional
        As for `compile`; the error names the step as well.
    backend, dtype, threads
        As for `compile`.
    seed : int, optional
        Restarts the random numbers of the step, and orders the samples in ``fit``.

    Raises
    ------
    GraphError, GraphTypeError
        The loss is not a 0-d float, or depends on no trainable parameter.

    Warns
    -----
    TrainingWarning
        The loss does not depend on a parameter that is to be trained.
    """
    _seed(seed)
    settings = _options(check, backend=backend, dtype=dtype, threads=threads, **options)
    return TrainingProgram(
        loss,
        optimizer,
        outputs,
        params,
        metrics,
        buffers=buffers,
        accumulate=accumulate,
        accumulate_reduction=accumulate_reduction,
        ema=ema,
        weighted=weighted,
        compile_program=build_executable,
        options=settings,
        seed=seed or 0,
    )


def grad(
    output: Tensor | Sequence[Tensor],
    wrt: Sequence[Tensor],
    cotangents: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Return the gradient of ``output`` with respect to each of ``wrt``, as tensors again.

    Parameters
    ----------
    output : Tensor or sequence of Tensor
        0-d, or any shape where ``cotangents`` are given.
    wrt : sequence of Tensor
        Parameters, inputs, or tensors that ``output`` was computed from.
    cotangents : sequence of Tensor, optional
        One for each output: the vector of the vector-Jacobian product.

    Raises
    ------
    GraphError, GraphTypeError
        An output is no scalar, or something is not of a float type.
    """
    outputs = [output] if isinstance(output, Tensor) else list(output)
    nodes = [tensor.node for tensor in outputs]
    wanted = [tensor.node for tensor in wrt]
    stable = stabilize_nodes(nodes)
    if set(wanted) & set(topological(nodes)) <= set(topological(stable)):
        nodes = stable
    seeds = None if cotangents is None else [tensor.node for tensor in cotangents]
    return [Tensor(node) for node in gradient(nodes, wanted, seeds)]


def hessian_vector_product(
    output: Tensor, wrt: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """Return the Hessian of 0-d ``output`` times ``vectors``, without forming the Hessian."""
    gradients = grad(output, wrt)
    products = [(g * v).sum() for g, v in zip(gradients, vectors, strict=True)]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return grad(total, wrt)


def evaluate(tensor: Tensor, **arrays: object) -> np.ndarray:
    """Return the value of ``tensor`` by the interpreter, without compiling anything."""
    return compile(tensor, backend="numpy")(**arrays)
