"""Initialisers that fill a variable in place, with PyTorch's names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import initializers
from ..initializers import gain_of as calculate_gain
from ..state import Variable


def _in_place(draw: Callable[..., np.ndarray]) -> Callable[..., Variable]:
    def fill(variable: Variable, *args: Any, **kwargs: Any) -> Variable:
        return variable.assign(draw(variable.value.shape, *args, **kwargs))

    fill.__name__ = fill.__qualname__ = draw.__name__ + "_"
    fill.__doc__ = f"{draw.__doc__}\n\nFills ``variable`` in place and returns it."
    return fill


uniform_ = _in_place(initializers.uniform)
normal_ = _in_place(initializers.normal)
trunc_normal_ = _in_place(initializers.trunc_normal)
xavier_uniform_ = _in_place(initializers.xavier_uniform)
xavier_normal_ = _in_place(initializers.xavier_normal)
kaiming_uniform_ = _in_place(initializers.kaiming_uniform)
kaiming_normal_ = _in_place(initializers.kaiming_normal)
orthogonal_ = _in_place(initializers.orthogonal)
sparse_ = _in_place(initializers.sparse)
dirac_ = _in_place(initializers.dirac)
eye_ = _in_place(initializers.eye)


def constant_(variable: Variable, val: float) -> Variable:
    """Fill ``variable`` with ``val`` and return it."""
    return variable.assign(np.full(variable.value.shape, val))


def zeros_(variable: Variable) -> Variable:
    """Fill ``variable`` with zeros and return it."""
    return constant_(variable, 0.0)


def ones_(variable: Variable) -> Variable:
    """Fill ``variable`` with ones and return it."""
    return constant_(variable, 1.0)


__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]
