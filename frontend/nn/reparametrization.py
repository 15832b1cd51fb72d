"""Weights that are functions of other parameters: weight and spectral normalisation.

A module whose weight is reparametrized gets a class of its own, in which the weight is computed
where it is read.  The names of the new parameters are those of PyTorch's state dictionaries:
`weight_norm` and `spectral_norm` are ``torch.nn.utils``', `parametrizations` holds the functions of
``torch.nn.utils.parametrizations``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TypeVar

import numpy as np

from .. import functional as F
from .. import initializers
from ..dropout import is_training
from ..state import Variable, register_effect
from ..tensor import Tensor
from ..tracing import fail
from .convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .module import Module

M = TypeVar("M", bound=Module)


class _Originals(Module):
    """What a parametrized tensor is computed from, under PyTorch's names."""

    def __init__(self, originals: dict[str, Variable]) -> None:
        self._originals = originals

    def members(self) -> Iterator[tuple[str, Variable | Module]]:
        yield from self._originals.items()


class _Parametrizations(Module):
    """The parametrized tensors of a module, by name."""

    def __init__(self) -> None:
        self._tensors: dict[str, _Originals] = {}

    def members(self) -> Iterator[tuple[str, Variable | Module]]:
        yield from self._tensors.items()


def _original(module: Module, name: str, what: str) -> Variable:
    """Return the parameter ``name`` of ``module``; raises GraphError where there is none."""
    value = vars(module).get(name)
    if not isinstance(value, Variable):
        known = ", ".join(n for n, v in vars(module).items() if isinstance(v, Variable))
        fail(f"{what}: {type(module).__name__} has no parameter {name!r}; it has {known or 'none'}")
    return value


#: The tensor as a function of what it is computed from, in the order of PyTorch's names.
_Compute = Callable[..., Tensor]


def _replace(module: M, name: str, originals: dict[str, Variable], compute: _Compute) -> M:
    """Make ``module.name`` a function of ``originals``, which become attributes of the module."""
    del module.__dict__[name]
    for key, value in originals.items():
        setattr(module, key, value)
    keys = tuple(originals)
    return _compute_on_reading(
        module, name, lambda self: compute(*(vars(self)[key] for key in keys))
    )


def _parametrize(module: M, name: str, originals: dict[str, Variable], compute: _Compute) -> M:
    """Make ``module.name`` a function of ``originals``, which go to ``parametrizations``."""
    del module.__dict__[name]
    held = vars(module).setdefault("parametrizations", _Parametrizations())
    held._tensors[name] = _Originals(originals)
    return _compute_on_reading(
        module,
        name,
        lambda self: compute(*vars(self)["parametrizations"]._tensors[name]._originals.values()),
    )


def _compute_on_reading(module: M, name: str, read: Callable[[M], Tensor]) -> M:
    base = type(module)
    body = {name: property(read), "__module__": base.__module__, "__doc__": base.__doc__}
    module.__class__ = type(base.__name__, (base,), body)  # type: ignore[assignment]
    return module


def _restore(module: M, name: str, value: np.ndarray) -> M:
    """Make ``module.name`` a parameter again, of the value that it has now."""
    *_, base = type(module).__bases__
    if not isinstance(vars(type(module)).get(name), property):
        fail(f"{type(module).__name__} was not last reparametrized in {name!r}")
    module.__class__ = base
    setattr(module, name, Variable(value, name))
    return module


# -- weight normalisation -------------------------------------------------------------------------


def _norm_except(v: Tensor, dim: int | None) -> Tensor:
    if dim is None or dim == -1:
        return F.norm(v)
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    return F.norm(v, 2, axes, keepdims=True) if axes else F.abs(v)


def _norms(array: np.ndarray, dim: int | None) -> np.ndarray:
    if dim is None or dim == -1:
        return np.sqrt(np.sum(np.square(array)))
    axes = tuple(axis for axis in range(array.ndim) if axis != dim % array.ndim)
    return np.sqrt(np.sum(np.square(array), axis=axes, keepdims=True))


def _split_weight(
    module: Module, name: str, dim: int | None
) -> tuple[Variable, Variable, _Compute]:
    """Return length, direction and the weight as their function."""
    weight = _original(module, name, "weight_norm")
    array = weight.value
    length = Variable(_norms(array, dim), f"{name}_g", dtype=weight.dtype)
    direction = Variable(array, f"{name}_v", dtype=weight.dtype)
    return length, direction, lambda g, v: v * (g / _norm_except(v, dim))


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Make a weight ``g * v / |v|``, with parameters ``name_g`` and ``name_v``; return the module.

    ``dim``: the axis along which the lengths g are; None: one length (Salimans & Kingma 2016).
    Raises GraphError where the module has no such parameter.
    """
    length, direction, compute = _split_weight(module, name, dim)
    return _replace(module, name, {f"{name}_g": length, f"{name}_v": direction}, compute)


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Make the weight a parameter again and return the module."""
    length, direction = (vars(module).get(f"{name}_{part}") for part in "gv")
    if not isinstance(length, Variable) or not isinstance(direction, Variable):
        fail(f"remove_weight_norm: {type(module).__name__} has no weight norm in {name!r}")
    shape = length.value.shape
    wide = [axis for axis, size in enumerate(shape) if size == direction.value.shape[axis]]
    norms = _norms(direction.value, wide[0] if shape else None)
    value = direction.value * (length.value / norms)
    del module.__dict__[f"{name}_g"], module.__dict__[f"{name}_v"]
    return _restore(module, name, value)


def _parametrized_weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Make a weight ``g * v / |v|``, with parameters ``parametrizations.name.original0`` and 1."""
    length, direction, compute = _split_weight(module, name, dim)
    return _parametrize(module, name, {"original0": length, "original1": direction}, compute)


# -- spectral normalisation -----------------------------------------------------------------------


def _unit(x: Tensor, eps: float) -> Tensor:
    return x / F.maximum(F.norm(x), eps)


class _Spectrum:
    """How a weight is divided by its largest singular value, which power iteration estimates."""

    def __init__(
        self, weight: Variable, steps: int, eps: float, dim: int, left_first: bool
    ) -> None:
        if steps < 1:
            fail(f"spectral_norm: n_power_iterations must be positive, not {steps}")
        self.steps, self.eps, self.left_first = steps, eps, left_first
        place = dim % weight.ndim
        self.order = [place, *(axis for axis in range(weight.ndim) if axis != place)]
        self.rows = weight.value.shape[place]

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """Return an array of the weight's shape as a matrix."""
        return weight.transpose(self.order).reshape(self.rows, -1)

    def first_vectors(self, weight: Variable, steps: int) -> tuple[Variable, Variable]:
        """Return random singular vectors after some steps of power iteration."""
        matrix = self.matrix(weight.value)
        left, right = (self._unit(initializers.normal((size,))) for size in matrix.shape)
        for _ in range(steps):
            left = self._unit(matrix @ right)
            right = self._unit(matrix.T @ left)
        return tuple(  # type: ignore[return-value]
            Variable(vector, "singular_vector", "buffer", dtype=weight.dtype)
            for vector in (left, right)
        )

    def _unit(self, vector: np.ndarray) -> np.ndarray:
        return vector / max(float(np.linalg.norm(vector)), self.eps)

    def divide(self, weight: Variable, old_left: Variable, old_right: Variable) -> Tensor:
        """Return the weight over its spectral norm; training moves the singular vectors."""
        matrix = weight.transpose(self.order).reshape((self.rows, -1))
        fixed = F.stop_gradient(matrix)
        left: Tensor = old_left
        right: Tensor = old_right
        for _ in range(self.steps):
            if self.left_first:
                left = _unit(fixed @ right, self.eps)
                right = _unit(left @ fixed, self.eps)
            else:
                right = _unit(left @ fixed, self.eps)
                left = _unit(fixed @ right, self.eps)
        moved = left, right
        left = F.stop_gradient(F.where(is_training(), left, old_left))
        right = F.stop_gradient(F.where(is_training(), right, old_right))
        result = weight / (left * (matrix @ right)).sum()
        for state, new in zip((old_left, old_right), moved, strict=True):
            register_effect(
                state, result.node, lambda _, new=new: new, once=True, training_only=True
            )
        return result


_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


def _rows_of(module: Module, dim: int | None) -> int:
    """Return the axis of outputs of a weight."""
    return int(isinstance(module, _TRANSPOSED)) if dim is None else dim


def spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> M:
    """Divide a weight by its largest singular value and return the module (Miyato et al. 2018).

    Each training step takes ``n_power_iterations`` of power iteration.  The parameter becomes
    ``name_orig``, the singular vectors are the buffers ``name_u`` and ``name_v``.  ``dim``: the
    axis of the matrix's rows; by default that of the outputs.  Raises GraphError where the module
    has no such parameter.
    """
    weight = _original(module, name, "spectral_norm")
    spectrum = _Spectrum(weight, n_power_iterations, eps, _rows_of(module, dim), False)
    left, right = spectrum.first_vectors(weight, 0)
    originals = {f"{name}_orig": weight, f"{name}_u": left, f"{name}_v": right}
    return _replace(module, name, originals, spectrum.divide)


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Make the weight a parameter again and return the module."""
    names = [f"{name}_{part}" for part in ("orig", "u", "v")]
    if any(key not in vars(module) for key in names):
        fail(f"remove_spectral_norm: {type(module).__name__} has no spectral norm in {name!r}")
    weight, left, right = (vars(module).pop(key).value for key in names)
    axis = weight.shape.index(len(left))
    if weight.size // weight.shape[axis] != len(right):
        axis = next(a for a, n in enumerate(weight.shape) if weight.size // n == len(right))
    matrix = np.moveaxis(weight, axis, 0).reshape(len(left), -1)
    return _restore(module, name, weight / (left @ matrix @ right))


def _parametrized_spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> M:
    """Divide a weight by its largest singular value, ``parametrizations.name.original``."""
    weight = _original(module, name, "spectral_norm")
    spectrum = _Spectrum(weight, n_power_iterations, eps, _rows_of(module, dim), True)
    left, right = spectrum.first_vectors(weight, 15)
    originals = {"original": weight, "0._u": left, "0._v": right}
    return _parametrize(module, name, originals, spectrum.divide)


parametrizations = SimpleNamespace(
    spectral_norm=_parametrized_spectral_norm, weight_norm=_parametrized_weight_norm
)

__all__ = [
    "parametrizations",
    "remove_spectral_norm",
    "remove_weight_norm",
    "spectral_norm",
    "weight_norm",
]
