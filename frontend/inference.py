"""The inference programs of a training: compiled when they are needed, over the same storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..compiler.errors import GraphError, InputError
from ..compiler.ir.dims import SymbolicDim
from ..compiler.ir.graph import Node
from .averaging import AveragedWeights
from .batch_sources import cut_batches
from .build import Executable
from .data import as_named_arrays
from .step_program import build_forward_program, inputs_of
from .tensor import Tensor

#: Samples in a batch, where neither the caller nor the inputs fix it.
DEFAULT_BATCH = 256


class InferencePrograms:
    """Programs of outputs, of the weights or of their averages.

    Parameters
    ----------
    compile_program : function
        ``compile_program(program, training=False)`` makes an executable.
    average : AveragedWeights, optional
        What stands for the weights unless a caller wants the weights themselves.
    """

    def __init__(
        self, compile_program: Callable[..., Executable], average: AveragedWeights | None
    ) -> None:
        self.average = average
        self._compile = compile_program
        self._compiled: dict[tuple, tuple[Executable, tuple[str, ...]]] = {}

    def average_to_use(self, averaged: bool | None) -> AveragedWeights | None:
        """Return the averages that ``averaged`` asks for; GraphError where there are none."""
        if averaged and self.average is None:
            raise GraphError("there are no averages; compile_train(..., ema=0.999) keeps them")
        return None if averaged is False else self.average

    def compiled(
        self, outputs: Mapping[str, Tensor], averaged: bool | None = None
    ) -> tuple[Executable, tuple[str, ...]]:
        """Return what computes ``outputs``, and the names of its inputs."""
        average = self.average_to_use(averaged)
        key = (average is None, *((name, tensor.node) for name, tensor in outputs.items()))
        if key not in self._compiled:
            program = build_forward_program(outputs, "inference")
            if average is not None:
                program = average.applied_to(program)
            names = tuple(inputs_of(program))
            self._compiled[key] = self._compile(program, training=False), names
        return self._compiled[key]

    def predict(
        self,
        outputs: Mapping[str, Tensor],
        known: Mapping[str, Node],
        data: object,
        batch_size: int | None,
        averaged: bool | None,
    ) -> Any:
        """Return ``outputs`` for arrays, in batches where they have a batch axis."""
        execute, names = self.compiled(outputs, averaged)
        arrays = as_named_arrays(data, names)
        if arrays is None:
            raise InputError("predict takes arrays, not batches")
        inputs = {name: known[name] for name in names}
        if not all(_has_batch_axis(t.node, inputs.values()) for t in outputs.values()):
            result = execute({name: arrays[name] for name in names})
        else:
            batches = cut_batches(arrays, inputs, known, batch_size, DEFAULT_BATCH)
            parts = [execute(batch) for batch, _ in batches.epoch()]
            result = {name: np.concatenate([p[name] for p in parts]) for name in outputs}
        return result if len(result) > 1 else next(iter(result.values()))


def _has_batch_axis(output: Node, inputs: Iterable[Node]) -> bool:
    batches = {node.shape[0] for node in inputs if node.shape}
    return (
        bool(output.shape)
        and batches == {output.shape[0]}
        and all(isinstance(dim, SymbolicDim) for dim in batches)
    )
