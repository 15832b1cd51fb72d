"""Loss functions as modules: one row each, with PyTorch's names and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .. import losses
from ..ctc import ctc_loss
from ..tensor import Tensor
from .module import Module

#: Arguments that are saved with the module.
_WEIGHTS = ("weight", "pos_weight")


class _Loss(Module):
    """A module that applies ``function`` to its inputs with the arguments it was made with."""

    function: Callable[..., Tensor]
    inputs: int
    fixed: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        parameters = list(inspect.signature(self.function).parameters.values())[self.inputs :]
        signature = inspect.Signature([p for p in parameters if p.name not in self.fixed])
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        bound.apply_defaults()
        self.arguments = dict(bound.arguments)
        self.weights = [name for name in _WEIGHTS if self.arguments.get(name) is not None]
        for name in self.weights:  # buffers, as in PyTorch's state_dict
            self.register_buffer(name, self.arguments.pop(name))

    def forward(self, *inputs: object) -> Tensor:
        """Return the loss of the inputs, predictions first."""
        weights = {name: getattr(self, name) for name in self.weights}
        return type(self).function(*inputs, **self.arguments, **weights, **self.fixed)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.arguments.items())


def _module(
    name: str, function: Callable[..., Tensor], inputs: int = 2, **fixed: Any
) -> type[_Loss]:
    """Return the module called ``name``, whose first ``inputs`` arguments come with each call."""
    body = {
        "function": staticmethod(function),
        "inputs": inputs,
        "fixed": fixed,
        "__doc__": function.__doc__,
        "__module__": __name__,
    }
    return type(name, (_Loss,), body)


_AXIS = {"axis": -1}

MSELoss = _module("MSELoss", losses.mse)
L1Loss = _module("L1Loss", losses.mae)
HuberLoss = _module("HuberLoss", losses.huber)
SmoothL1Loss = _module("SmoothL1Loss", losses.smooth_l1)
BCELoss = _module("BCELoss", losses.binary_crossentropy, from_logits=False, pos_weight=None)
BCEWithLogitsLoss = _module("BCEWithLogitsLoss", losses.binary_crossentropy, from_logits=True)
CrossEntropyLoss = _module("CrossEntropyLoss", losses.cross_entropy)
NLLLoss = _module("NLLLoss", losses.nll_loss)
NLLLoss2d = NLLLoss
KLDivLoss = _module("KLDivLoss", losses.kl_divergence, from_logits=False, **_AXIS)
PoissonNLLLoss = _module("PoissonNLLLoss", losses.poisson_nll)
GaussianNLLLoss = _module("GaussianNLLLoss", losses.gaussian_nll, 3)
HingeEmbeddingLoss = _module("HingeEmbeddingLoss", losses.hinge_embedding)
CosineEmbeddingLoss = _module("CosineEmbeddingLoss", losses.cosine_embedding, 3)
TripletMarginLoss = _module("TripletMarginLoss", losses.triplet, 3)
MarginRankingLoss = _module("MarginRankingLoss", losses.margin_ranking, 3)
SoftMarginLoss = _module("SoftMarginLoss", losses.soft_margin)
MultiMarginLoss = _module("MultiMarginLoss", losses.multi_margin)
MultiLabelMarginLoss = _module("MultiLabelMarginLoss", losses.multilabel_margin)
TripletMarginWithDistanceLoss = _module(
    "TripletMarginWithDistanceLoss", losses.triplet_with_distance, 3
)
CTCLoss = _module("CTCLoss", ctc_loss, 4)
MultiLabelSoftMarginLoss = _module("MultiLabelSoftMarginLoss", losses.multilabel_soft_margin)
