"""Objects from a user's own file, named as ``file.py:name``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.ir import ops
from ...compiler.ir.dims import evaluate, symbols
from ...compiler.ir.graph import topological
from ..tensor import Tensor
from .failure import CommandError

#: Symbolic sizes of inputs that are drawn at random.
SYMBOL_SIZE = 7


def load_object(target: str) -> tuple[Any, Any]:
    """Run the file of ``file.py:name`` and return the object and the module.

    Raises
    ------
    CommandError
        There is no such file, or it defines no such name.
    """
    filename, _, name = target.rpartition(":")
    if not filename or not name:
        raise CommandError(f"{target!r} is not of the form file.py:name")
    path = Path(filename)
    if not path.is_file():
        raise CommandError(f"there is no file {filename}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{filename} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        names = ", ".join(n for n in vars(module) if isinstance(vars(module)[n], Tensor))
        raise CommandError(f"{filename} defines no {name!r}; its tensors: {names or 'none'}")
    return getattr(module, name), module


def random_inputs(tensors: list[Tensor], seed: int = 0) -> dict[str, np.ndarray]:
    """Return numbers for the inputs of ``tensors``: normal floats, small labels, coin flips."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for node in topological([tensor.node for tensor in tensors]):
        if isinstance(node.op, ops.Input):
            sizes = {name: SYMBOL_SIZE for dim in node.shape for name in symbols(dim)}
            shape = tuple(evaluate(dim, sizes) for dim in node.shape)
            if node.type.is_float:
                values: np.ndarray = rng.standard_normal(shape)
            else:
                values = rng.integers(0, 2, shape)
            found[node.op.label] = np.asarray(values).astype(node.dtype)
    return found


def tensors_of(value: object, target: str) -> dict[str, Tensor]:
    """Return the tensors that a user's object holds; CommandError where it holds none."""
    if isinstance(value, Tensor):
        return {target.rpartition(":")[2]: value}
    if isinstance(value, Mapping) and value and all(isinstance(v, Tensor) for v in value.values()):
        return {str(name): tensor for name, tensor in value.items()}
    raise CommandError(
        f"{target} is a {type(value).__name__}; a tensor, or a dict of tensors, is wanted"
    )
