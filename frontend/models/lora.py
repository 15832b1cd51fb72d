"""LoRA: fine-tuning by low-rank corrections of frozen matrices.

Hu et al., "LoRA: low-rank adaptation of large language models", 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...compiler.errors import GraphError
from .. import functional as F
from ..initializers import default_weight
from ..nn.containers import ModuleDict, ModuleList, Sequential
from ..nn.linear import Linear
from ..nn.module import Module
from ..state import Variable
from ..tensor import Tensor, floating
from .gpt import Projection

Adaptable = Linear | Projection


class LoRA(Module):
    """``base(x) + alpha / rank · x Aᵀ Bᵀ`` for a linear ``base``, which is not trained.

    ``lora_A`` (rank, in_features) starts as a linear layer's weight, ``lora_B`` (out_features,
    rank) as zeros, so that the sum starts as ``base``.  ``dropout`` acts on ``x`` on its way to A.
    Raises GraphError for a rank that is not positive.
    """

    def __init__(
        self, base: Adaptable, rank: int = 8, alpha: float | None = None, dropout: float = 0.0
    ) -> None:
        if rank < 1:
            raise GraphError(f"LoRA: the rank must be positive, not {rank}")
        self.base = base
        self.rank = rank
        self.scaling = (rank if alpha is None else alpha) / rank
        self.dropout = dropout
        dtype = base.weight.dtype
        shape_a, shape_b = (rank, base.in_features), (base.out_features, rank)
        self.lora_A = Variable(default_weight(shape_a), "lora_A", dtype=dtype)
        self.lora_B = Variable(np.zeros(shape_b), "lora_B", dtype=dtype)
        base.requires_grad_(False)

    def forward(self, x: object) -> Tensor:
        """Return the corrected map of ``x`` (..., in_features)."""
        low = F.einsum("...i,ri->...r", F.dropout(floating(x), self.dropout), self.lora_A)
        return self.base(x) + F.einsum("...r,or->...o", low, self.lora_B) * self.scaling

    def merge(self) -> Adaptable:
        """Add the correction to the weight of ``base``, and return that."""
        wide = self.lora_B.value.astype("float64") @ self.lora_A.value.astype("float64")
        change = self.scaling * (wide.T if isinstance(self.base, Projection) else wide)
        weight = self.base.weight
        weight.assign((weight.value + change).astype(weight.dtype))
        return self.base

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scaling={self.scaling}"


def _replace(module: Module, name: str, child: Module) -> None:
    if isinstance(module, (ModuleList, Sequential)):
        module[[label for label, _ in module.named_children()].index(name)] = child
    elif isinstance(module, ModuleDict):
        module[name] = child
    else:
        setattr(module, name, child)


def add_lora(
    model: Module,
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
) -> list[Variable]:
    """Freeze ``model``, give its linear layers corrections, and return these new parameters.

    Parameters
    ----------
    model : Module
        Changed in place; trace it again afterwards.
    rank, alpha, dropout
        As for `LoRA`.
    targets : sequence of str, optional
        The layers' own names (``("c_attn",)``), or the ends of dotted ones; all linear layers and
        projections by default.

    Raises
    ------
    GraphError
        No layer is so called.
    """
    model.requires_grad_(False)
    found: list[Variable] = []
    for path, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            whole = f"{path}.{name}" if path else name
            named = targets is None or any(f".{whole}".endswith(f".{t}") for t in targets)
            if named and isinstance(child, (Linear, Projection)) and not isinstance(module, LoRA):
                adapter = LoRA(child, rank, alpha, dropout)
                _replace(module, name, adapter)
                found += [adapter.lora_A, adapter.lora_B]
    if not found:
        raise GraphError(f"add_lora: no linear layer is called {', '.join(targets or ('',))}")
    return found


def merge_lora(model: Module) -> Module:
    """Add every correction to its frozen matrix, and return the model as it was before `add_lora`.

    Changes ``model`` in place; it computes the same, up to rounding.
    """
    for _, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRA):
                _replace(module, name, child.merge())
    return model
