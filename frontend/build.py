"""From a program to something that can be called, on the backend that the options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..compiler.autodiff.expand import expand_formulas
from ..compiler.ir import ops
from ..compiler.ir.bodies import merge_loops, through_bodies
from ..compiler.ir.graph import Node, Program, Requirement
from ..compiler.options import PROFILE_LEVEL, CompileOptions
from ..compiler.rewrites.precision import change_precision
from ..runtime.interpreted import InterpretedExecutable
from .checks import checks_reaching

Executable = Callable[[Mapping[str, object]], dict[str, Any]]


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
    """Compile ``program`` for ``options.backend``; calls update ``states`` in place."""
    program = replace(program, requirements=requirements_of(program))
    if options.dtype is not None:
        program = change_precision(program, options.dtype)
    if options.backend == "numpy":
        # a loop and its gradient's copy of it run once
        program = program.with_roots(through_bodies(program.roots, merge_loops))
        program, check = expand_formulas(program), "nan" in options.checks
        return InterpretedExecutable(program, states, options.training, check)
    from ..compiler.pipeline import compile_native
    from ..runtime.cpu_jit import LoadedCode, machine_for
    from ..runtime.executable import NativeExecutable
    from ..runtime.profile import KernelProfile, report_at_exit

    artifact = compile_native(program, options, machine_for(options))
    code = LoadedCode(artifact, options)
    native = NativeExecutable(artifact, code, states, options.threads)
    if options.profile:
        native.profile = KernelProfile(artifact, native.binder.symbols)
        if options.debug >= PROFILE_LEVEL:
            report_at_exit(native)
    return native
