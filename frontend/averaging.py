"""The exponential moving average of weights: states beside the parameters, kept by the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..compiler.ir import construct, ops
from ..compiler.ir.graph import Node, Program, apply, constant, make
from ..compiler.ir.rewrite import replace_nodes
from .state import Variable


@dataclass(frozen=True)
class WeightAverage:
    """How to average: ``e = decay*e + (1 - decay)*p`` after each update.

    The average starts at the parameter before the first update; ``bias_corrected`` starts it at
    zero and divides by ``1 - decay**t``, as Adam does with its moments (Polyak & Juditsky 1992;
    Kingma & Ba 2015, section 7.2).  Raises ValueError for a decay outside [0, 1).
    """

    decay: float = 0.999
    bias_corrected: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"the decay of an average must lie in [0, 1), not {self.decay}")


class AveragedWeights:
    """The averages of some parameters.

    Attributes
    ----------
    averages : dict of Variable to Variable
        The average of each parameter, of its shape and element type.
    count : Variable
        How many updates they hold; where it is 0, the parameter itself stands for its average.
    """

    def __init__(self, how: WeightAverage, parameters: Sequence[Variable]) -> None:
        self.how = how
        self.count = Variable(np.array(0, "int64"), "ema.count", "slot", trainable=False)
        self.averages = {
            p: Variable(p.value, f"{p.name}.ema", "slot", trainable=False) for p in parameters
        }

    @property
    def variables(self) -> list[Variable]:
        """Every state of the averages."""
        return [self.count, *self.averages.values()]

    def updates(self, updated: Mapping[Node, Node]) -> Iterable[tuple[Node, Node]]:
        """Yield each state with its new value; ``updated`` holds that of each parameter."""
        step = apply("add", self.count.node, constant(1, "int64"))
        yield self.count.node, step
        keep = self._share_kept(make(ops.Cast("float64"), step))
        first = self._empty()
        for parameter, average in self.averages.items():
            kind = parameter.node.type
            old = self._where(first, parameter.node, average.node)
            share = construct.broadcast_to(construct.cast(keep, kind.dtype), kind.shape)
            new = updated[parameter.node]
            yield average.node, apply("add", new, apply("mul", share, apply("sub", old, new)))

    def _share_kept(self, step: Node) -> Node:
        """Return what the old average counts in the new one, 0-d float64."""
        decay, one = constant(self.how.decay, "float64"), constant(1.0, "float64")
        if not self.how.bias_corrected:
            return decay
        # e_t/(1 - d^t) by its own recurrence: it needs no division when it is read.
        before = apply("sub", one, apply("pow", decay, apply("sub", step, one)))
        after = apply("sub", one, apply("pow", decay, step))
        return apply("mul", decay, apply("div", before, after))

    def _empty(self) -> Node:
        return apply("eq", self.count.node, constant(0, "int64"))

    def _where(self, test: Node, first: Node, second: Node) -> Node:
        return apply("where", construct.broadcast_to(test, first.shape), first, second)

    def applied_to(self, program: Program) -> Program:
        """Return ``program`` with each parameter replaced by its average."""
        empty = self._empty()
        instead = {
            p.node: self._where(empty, p.node, average.node) for p, average in self.averages.items()
        }
        return program.with_roots(replace_nodes(program.roots, instead.get))

    def swap(self) -> None:
        """Exchange parameters and averages; nothing happens before the first update."""
        if not self.count.value:
            return
        for parameter, average in self.averages.items():
            kept = parameter.value.copy()
            parameter.value[...] = average.value
            average.value[...] = kept


def average_of(given: float | WeightAverage | None) -> WeightAverage | None:
    """Return how to average: by a decay, as a `WeightAverage` says, or not at all."""
    return given if given is None or isinstance(given, WeightAverage) else WeightAverage(given)
