"""Examples are files, not a package: tests load them by path."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@functools.cache
def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """``example("mlp")``: the module of examples/mlp.py.

    One thread, which changes no bit: tests share the cores already, and small steps that wait for
    one another across threads would wait for other tests.
    """
    monkeypatch.setenv("CHAINRULE_THREADS", "1")
    return load
