"""The pipeline: every stage of the compiler, in the order the data flows.  Start reading here."""

from __future__ import annotations

import sys
from functools import partial

from .analysis.size_rules import find_size_rules
from .artifact import Artifact, Machine
from .backends.cpu import emit_native
from .backends.spmd import thread_module
from .graph_stages import optimize_graph
from .ir import ops
from .ir.graph import Node, Program
from .ir.text import format_program
from .ir.verify import verify_program
from .loops.lower import lower_schedule
from .loops.memory import plan_memory
from .loops.parallelism import plan_parallelism
from .loops.sharing import share_kernels
from .loops.text import format_loop_program
from .loops.verify import verify_loops
from .options import CompileOptions
from .passes import PassRunner
from .rewrites.legalize import legalize
from .schedule.fusion import group_nodes
from .schedule.order import order_groups
from .schedule.text import format_groups, format_schedule, format_slots


def compile_native(
    program: Program, options: CompileOptions, machine: Machine, runner: PassRunner | None = None
) -> Artifact:
    """Compile ``program`` for a CPU: graph, schedule, kernels, memory plan, LLVM modules."""
    run = runner or PassRunner(options)
    run.run("trace", lambda: program, verify=verify_program, text=format_program)
    graph = optimize_graph(program, options, run)
    graph = run.run(
        "legalize",
        legalize,
        graph,
        verify=partial(verify_program, sizes=program.symbols()),
        text=format_program,
    )
    groups = run.run("fuse", group_nodes, graph, options.fuse, run.note, text=format_groups)
    schedule = run.run("order", order_groups, graph, groups, text=format_schedule)
    loops = run.run(
        "lower",
        lower_schedule,
        schedule,
        options.checks,
        verify=verify_loops,
        text=format_loop_program,
        level=4,
    )
    arena = run.run("plan_memory", plan_memory, loops, text=format_slots)
    shared = run.run("share", share_kernels, loops)
    modules, table, scratch = run.run(
        "emit", emit_native, loops, format_loop_program(loops), shared, machine, options.profile
    )
    if options.debug >= 1:
        for name, seconds in run.seconds.items():
            print(f"{name:24s} {1e3 * seconds:8.2f} ms", file=sys.stderr)
    return Artifact(
        program=program,
        loops=loops,
        machine=machine,
        modules=(*modules, thread_module(machine)),
        entry="entry",
        table=table,
        arena=arena,
        scratch_bytes=scratch,
        parallelism=plan_parallelism(loops),
        homes={node: name for node, name in schedule.home.items() if _is_leaf(node)},
        size_rules=find_size_rules(graph),
        report=(*format_schedule(schedule).splitlines(), *run.notes),
        seconds=run.seconds,
        write=None if options.dump is None else run.write,
    )


def _is_leaf(node: Node) -> bool:
    return isinstance(node.op, (ops.Input, ops.State))
