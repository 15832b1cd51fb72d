"""Functions held against PyTorch's: values and gradients, one by one or all in one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import chainrule as cr


@dataclass(frozen=True)
class TorchCase:
    """A function of arrays here and in PyTorch.

    ``smooth`` are the positions of the arrays that get a gradient (None: all floats).
    """

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arrays: Sequence[np.ndarray]
    smooth: tuple[int, ...] | None = None
    options: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    def wrt(self) -> list[int]:
        floats = [i for i, a in enumerate(self.arrays) if a.dtype.kind == "f"]
        return floats if self.smooth is None else list(self.smooth)


def alike(name: str, *extra: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the functions of one name here and in PyTorch, with further arguments."""
    import torch

    ours, theirs = getattr(cr, name), getattr(torch, name)
    return lambda x: ours(x, *extra), lambda x: theirs(x, *extra)


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([7, *shape]).standard_normal(shape)


def expected(case: TorchCase) -> dict[str, np.ndarray]:
    """Return the values ``y0``, … and the gradients ``g0``, … by PyTorch."""
    import torch

    given = [torch.tensor(a) for a in case.arrays]
    wrt = case.wrt()
    for i in wrt:
        given[i].requires_grad_(True)
    values = _flat(case.theirs(*given))
    result = {f"y{k}": v.detach().numpy() for k, v in enumerate(values)}
    terms = [
        (v * torch.tensor(_weights(tuple(v.shape))).to(v.dtype)).sum()
        for v in values
        if v.dtype.is_floating_point and v.requires_grad
    ]
    if terms:
        sum(terms[1:], terms[0]).backward()
        for i in wrt:
            gradient = given[i].grad
            zero = np.zeros(case.arrays[i].shape, case.arrays[i].dtype)
            result[f"g{i}"] = zero if gradient is None else gradient.numpy()
    return result


def traced(case: TorchCase, prefix: str = "") -> tuple[dict[str, cr.Tensor], dict[str, np.ndarray]]:
    """Return the tensors that `expected` names, and the inputs by name."""
    inputs = [cr.input(f"{prefix}x{i}", a.shape, a.dtype.name) for i, a in enumerate(case.arrays)]
    values = [cr.as_tensor(v) for v in _flat(case.ours(*inputs))]
    result = {f"{prefix}y{k}": v for k, v in enumerate(values)}
    floats = [v for v in values if v.dtype.startswith("float")]
    wrt = case.wrt()
    if floats and wrt:
        loss = sum((v * cr.constant(_weights(v.shape), v.dtype)).sum() for v in floats)
        for i, g in zip(wrt, cr.grad(loss, [inputs[i] for i in wrt]), strict=True):
            result[f"{prefix}g{i}"] = g
    arrays = {f"{prefix}x{i}": a for i, a in enumerate(case.arrays)}
    return result, arrays


def check(cases: Sequence[TorchCase], backend: str, **options: Any) -> None:
    """Raise AssertionError, with the case's name, unless all agree with PyTorch."""
    tensors: dict[str, cr.Tensor] = {}
    arrays: dict[str, np.ndarray] = {}
    for number, case in enumerate(cases):
        more, given = traced(case, f"c{number}_")
        tensors |= more
        arrays |= given
    run = cr.compile(tensors, backend=backend, **options)
    used = [node.op.label for node in run.program.inputs()]
    found = run(**{name: arrays[name] for name in used})
    complaints = []
    for number, case in enumerate(cases):
        for name, value in expected(case).items():
            result = found.get(f"c{number}_{name}")
            try:
                assert result is not None, "is missing"
                _assert_close(case, result, value)
            except AssertionError as error:
                complaints.append(f"{case.name}: {name}: {error}")
    assert not complaints, "\n".join(complaints)


def _assert_close(case: TorchCase, result: np.ndarray, value: np.ndarray) -> None:
    narrow = any(a.dtype == np.float32 for a in case.arrays) or result.dtype == np.float32
    rtol = case.options.get("rtol", 2e-5 if narrow else 1e-10)
    assert result.shape == value.shape, f"{result.shape}, not {value.shape}"
    finite = value[np.isfinite(value)] if value.dtype.kind == "f" else np.ones(1)
    atol = rtol * np.abs(finite).max(initial=1)
    np.testing.assert_allclose(result, value, rtol=rtol, atol=atol, equal_nan=True)
