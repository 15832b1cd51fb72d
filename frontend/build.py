"""From a program to something that can be called, on the backend that the options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from ..compiler.autodiff.expand import expand_formulas
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, Program, Requirement
from ..compiler.options import PROFILE_LEVEL, CompileOptions
from ..runtime.interpreted import InterpretedExecutable
from .checks import checks_reaching

Executable = Callable[[Mapping[str, object]], dict[str, Any]]


def load_room(name: str) -> ModuleType:
    """Import a part of chainrule that needs a heavy library, when it is first used."""
    return import_module(f"..{name}", __package__)


def requirements_of(program: Program) -> tuple[Requirement, ...]:
    """Return what the traced code requires of the program's inputs (labels inside their range)."""
    found: list[Requirement] = []
    for node, check in checks_reaching(program.roots):
        source = node
        while isinstance(source.op, (ops.Cast, ops.Reshape, ops.Broadcast, ops.Transpose)):
            source = source.inputs[0]
        if isinstance(source.op, ops.Input):
            found.append(
                Requirement(
                    source, check.low, check.high, check.ignore, check.message, check.source
                )
            )
    return tuple(dict.fromkeys(found))


def build_executable(
    program: Program, options: CompileOptions, states: Mapping[Node, np.ndarray]
) -> Any:
    """Compile ``program`` for ``options.backend``; calls of the result update ``states`` in place."""
    program = replace(program, requirements=requirements_of(program))
    if options.backend == "numpy":
        return InterpretedExecutable(expand_formulas(program), states, options.training)
    pipeline = load_room("compiler.pipeline")
    jit = load_room("runtime.cpu_jit")
    executable = load_room("runtime.executable")
    artifact = pipeline.compile_native(program, options, jit.machine_for(options))
    code = jit.LoadedCode(artifact, options)
    native = executable.NativeExecutable(artifact, code, states, options.threads)
    if options.profile:
        profile = load_room("runtime.profile")
        native.profile = profile.KernelProfile(artifact, native.binder.symbols)
        if options.debug >= PROFILE_LEVEL:
            profile.report_at_exit(native)
    return native
