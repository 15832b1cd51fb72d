"""Gradient accumulation: several small batches whose update is that of one large batch.

The gradient of a mean over all samples is the mean of the batches' gradients, weighted by their
sizes; a state beside each parameter holds the weighted sum so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..compiler.errors import GraphError
from ..compiler.ir import construct
from ..compiler.ir.dims import SymbolicDim
from ..compiler.ir.graph import Node, apply, constant
from .state import Variable

REDUCTIONS = ("mean", "sum")


class GradientSums:
    """The states that hold the sum of the gradients of a group of batches.

    Attributes
    ----------
    pending : Variable
        How many batches the sums hold.
    """

    def __init__(self, parameters: Sequence[Variable], reduction: str) -> None:
        if reduction not in REDUCTIONS:
            raise GraphError(
                f"accumulate_reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}"
            )
        self.reduction = reduction
        self.pending = _slot(np.array(0, "int64"), "accumulated.batches")
        self.weight = _slot(np.array(0.0, "float64"), "accumulated.weight")
        self.sums = [_slot(np.zeros_like(p.value), f"{p.name}.accumulated") for p in parameters]

    @property
    def variables(self) -> list[Variable]:
        """Every state of the accumulation."""
        return [self.pending, self.weight, *self.sums]

    def with_batch(self, gradients: Sequence[Node], weight: Node) -> tuple[list[Node], Node]:
        """Return the sums, and their weight, that include a batch of ``weight`` (0-d float64)."""
        if self.reduction == "mean":
            gradients = [apply("mul", g, _spread(weight, g)) for g in gradients]
        added = [apply("add", s.node, g) for s, g in zip(self.sums, gradients, strict=True)]
        return added, apply("add", self.weight.node, weight)

    def kept(self, sums: Sequence[Node], weight: Node) -> list[tuple[Node, Node]]:
        """Return the updates of the states after a batch that does not end its group."""
        count = apply("add", self.pending.node, constant(1, "int64"))
        states = [s.node for s in self.sums]
        return [
            (self.pending.node, count),
            (self.weight.node, weight),
            *zip(states, sums, strict=True),
        ]

    def gradients(self, sums: Sequence[Node], weight: Node) -> list[Node]:
        """Return the gradients of the group's loss from the sums."""
        if self.reduction == "sum":
            return list(sums)
        # Samples of weight zero alone have no gradient; 0/0 would spread NaN over the weights.
        nothing = apply("eq", weight, constant(0.0, "float64"))
        safe = apply("where", nothing, constant(1.0, "float64"), weight)
        factor = apply("div", constant(1.0, "float64"), safe)
        return [apply("mul", total, _spread(factor, total)) for total in sums]

    def cleared(self) -> list[tuple[Node, Node]]:
        """Return the updates of the states at the end of a group."""
        return [(s.node, construct.full(0, s.node.type)) for s in self.variables]


def _slot(array: np.ndarray, name: str) -> Variable:
    return Variable(array, name, "slot", trainable=False)


def _spread(number: Node, like: Node) -> Node:
    return construct.broadcast_to(construct.cast(number, like.dtype), like.shape)


def batch_size_of(inputs: Sequence[Node]) -> Node:
    """Return the number of samples of a batch as a 0-d float64 node.

    It is the one symbolic size that leads the inputs; where there are several, that of the first
    declared input that has one, and 1 where every size is fixed (all batches are then alike).
    """
    leading = [node.shape[0] for node in inputs if node.shape]
    size = next((dim for dim in leading if isinstance(dim, SymbolicDim)), 1)
    return construct.extent(size, "float64")
