"""The graph stages: what happens to a program before it is scheduled, in order.

Split from ``pipeline.py`` because they need no LLVM.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .autodiff.expand import expand_formulas
from .ir.graph import Node, Program
from .ir.rewrite import Rule
from .ir.text import format_program
from .ir.verify import verify_program
from .options import CompileOptions
from .passes import PassRunner
from .rewrites.algebraic import simplify_algebra
from .rewrites.canonicalize import canonicalize
from .rewrites.folding import (
    drop_gradient_rules,
    drop_idle_updates,
    fold_constants,
    specialize_mode,
)
from .rewrites.loops import tidy_loops
from .rewrites.stability import stabilize


def optimize_graph(program: Program, options: CompileOptions, runner: PassRunner) -> Program:
    """Rewrite the graph; the result computes the same values.  Every backend starts from it."""

    def fired(rule: Rule, before: Node, after: Node) -> None:
        runner.rule_fired(rule.name)

    sizes = program.symbols()

    def stage(name: str, function: Callable[..., Program], *arguments: object) -> None:
        nonlocal program
        program = runner.run(
            name,
            function,
            program,
            *arguments,
            verify=partial(verify_program, sizes=sizes),
            text=format_program,
        )

    stage("specialize_mode", specialize_mode, options.training)
    stage("drop_gradient_rules", drop_gradient_rules)
    stage("canonicalize", canonicalize, fired)
    stage("fold_constants", fold_constants, fired)
    stage("tidy_loops", tidy_loops)
    stage("stabilize", stabilize, fired)
    stage("expand_formulas", expand_formulas)
    stage("simplify_algebra", simplify_algebra, fired)
    stage("tidy_loops", tidy_loops)
    stage("drop_idle_updates", drop_idle_updates)
    return program
