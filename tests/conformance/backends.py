"""The backends under test, behind one call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.compiler.ir.graph import Node, Program
from chainrule.compiler.options import CompileOptions
from chainrule.runtime.interpreted import InterpretedExecutable

BACKENDS = ("numpy", "native")


#: Kernel families are compiled once a run, not once a case.
CACHE = Path(tempfile.mkdtemp(prefix="chainrule-objects-"))


def executable(
    program: Program,
    backend: str,
    states: Mapping[Node, np.ndarray] | None = None,
    **options: Any,
) -> Any:
    """Return ``program`` compiled for ``backend``, verified after every pass, in this run's cache.

    The result is called with a mapping of inputs; its ``states`` map nodes to arrays.
    """
    held = {node: np.array(array, dtype=node.dtype) for node, array in (states or {}).items()}
    chosen = CompileOptions(backend=backend, verify=True, **{"cache": CACHE, **options})
    if backend == "numpy":
        return InterpretedExecutable(program, held)
    from chainrule.compiler.pipeline import compile_native
    from chainrule.runtime.cpu_jit import LoadedCode, machine_for
    from chainrule.runtime.executable import NativeExecutable

    artifact = compile_native(program, chosen, machine_for(chosen))
    return NativeExecutable(artifact, LoadedCode(artifact, chosen), held, chosen.threads)
