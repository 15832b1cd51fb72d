"""Softmax over many classes, the rare ones in clusters of smaller width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import format_shape
from ...compiler.ir.types import INTEGERS
from .. import functional as F
from ..tensor import Tensor, as_tensor, floating
from ..tracing import fail
from .containers import ModuleList, Sequential
from .linear import Linear
from .module import Module

_LAYER = "AdaptiveLogSoftmaxWithLoss"


class AdaptiveLogSoftmaxOutput(NamedTuple):
    """The log-probability of each target, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-softmax of ``n_classes`` sorted by frequency, from ``in_features`` (Grave et al. 2017).

    Parameters
    ----------
    in_features, n_classes : int
    cutoffs : sequence of int
        Increasing: classes below the first are in the head; the others between two cutoffs are one
        cluster, whose logits come through a layer of in_features / ``div_value``^i.
    div_value : float
    head_bias : bool

    Parameters are those of PyTorch, ``head`` and ``tail``.  All clusters are computed for every
    sample (a compiled graph has one shape), so only parameters are saved, not time.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        dtype: str = "float32",
    ) -> None:
        found = list(cutoffs)
        if not found or sorted(set(found)) != found or found[0] <= 0 or found[-1] >= n_classes:
            fail(f"{_LAYER}: cutoffs {found} must increase, each from 1 to {n_classes - 1}")
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*found, n_classes]
        self.div_value = div_value
        self.shortlist_size = found[0]
        self.n_clusters = len(found)
        self.head = Linear(in_features, found[0] + len(found), head_bias, dtype)
        clusters = []
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:], strict=False)):
            width = int(in_features // div_value ** (i + 1))
            clusters.append(
                Sequential(
                    Linear(in_features, width, False, dtype),
                    Linear(width, high - low, False, dtype),
                )
            )
        self.tail = ModuleList(clusters)

    def log_prob(self, input: object) -> Tensor:
        """Return the log-probabilities (batch, n_classes) for ``input`` (batch, in_features)."""
        x = floating(input)
        if x.ndim not in (1, 2) or x.shape[-1] != self.in_features:
            fail(
                f"{_LAYER}: an input of shape {format_shape(x.shape)} is not "
                f"(batch, {self.in_features})"
            )
        head = F.log_softmax(self.head(x))
        parts = [head[..., : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            place = self.shortlist_size + i
            parts.append(head[..., place : place + 1] + F.log_softmax(cluster(x)))
        return F.concatenate(parts, -1)

    def forward(self, input: object, target: object) -> AdaptiveLogSoftmaxOutput:
        """Return the log-probability of each ``target`` (batch,), and their negative mean."""
        labels = as_tensor(target)
        log_p = self.log_prob(input)
        if labels.dtype not in INTEGERS:
            fail(f"{_LAYER}: targets are integers, not {labels.dtype}", GraphTypeError)
        if labels.shape != log_p.shape[:-1]:
            fail(
                f"{_LAYER}: targets {format_shape(labels.shape)} do not fit; "
                f"{format_shape(log_p.shape[:-1])} would"
            )
        output = F.take_along_axis(log_p, labels.expand_dims(-1), -1).squeeze(-1)
        return AdaptiveLogSoftmaxOutput(output, -output.mean())

    def predict(self, input: object) -> Tensor:
        """Return the class of the greatest probability of each sample; (batch,), int64."""
        return self.log_prob(input).argmax(-1)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.n_classes}, cutoffs={self.cutoffs[:-1]}"
