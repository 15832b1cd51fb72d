"""One training gradient of ours beside the same of PyTorch, on any backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

import chainrule as cr
from chainrule.frontend.tensor import Tensor

#: Relative and absolute tolerance by element type.
TOLERANCES = {"float32": (1e-5, 2e-5), "float64": (1e-10, 1e-11)}


def measure(
    outputs: Sequence[Tensor],
    wrt: Sequence[Tensor],
    cotangents: Sequence[np.ndarray],
    arrays: Mapping[str, np.ndarray],
    backend: str,
) -> list[np.ndarray]:
    """Return the outputs, and the gradient of Σ output · cotangent for each of ``wrt``."""
    vectors = [cr.input(f"cotangent{i}", x.shape, x.dtype) for i, x in enumerate(outputs)]
    gradients = cr.grad(outputs, list(wrt), vectors)
    given = {f"cotangent{i}": array for i, array in enumerate(cotangents)}
    return list(cr.compile([*outputs, *gradients], backend=backend)(**arrays, **given))


def assert_close(found: Sequence[np.ndarray], expected: Sequence[object], dtype: str) -> None:
    rtol, atol = TOLERANCES[dtype]
    for place, (a, b) in enumerate(zip(found, expected, strict=True)):
        b = b.detach().numpy() if hasattr(b, "detach") else np.asarray(b)
        assert a.shape == b.shape, f"result {place}"
        scale = max(float(np.abs(b).max(initial=0.0)), 1.0) if np.isfinite(b).all() else 1.0
        np.testing.assert_allclose(a, b, rtol, atol * scale, err_msg=f"result {place}")
