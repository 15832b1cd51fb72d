"""What a compilation decided, in words: kernels, updates in place, memory, threads."""

from __future__ import annotations

from typing import Any

from ..compiler.ir.dims import symbols

_REFUSAL = " does not join "


def explain_executable(executable: Any, **sizes: int) -> str:
    """Return what was fused into which kernel, what was not and why, memory and threads.

    Memory and threads depend on the symbolic sizes; they are told for those given.
    """
    artifact = getattr(executable, "artifact", None)
    if artifact is None:
        return "backend='numpy' interprets the graph node by node; nothing is fused"
    kernels = [line for line in artifact.report if _REFUSAL not in line]
    refusals = [line for line in artifact.report if _REFUSAL in line]
    steps = artifact.loops.steps
    count, barriers = len(steps), sum(step.barrier for step in steps)
    in_place = sum(line.count(" in place") for line in kernels)
    lines = [
        f"{_count(count, 'kernel')}, {_count(barriers, 'barrier')} between them, "
        f"{_count(in_place, 'update')} in place",
        *(f"  {line}" for line in kernels),
    ]
    if refusals:
        lines += ["not fused", *(f"  {line}" for line in refusals)]
    needed = {name for slot in artifact.arena for name in symbols(slot.bytes)}
    work = artifact.parallelism.shared + artifact.parallelism.serial
    needed |= symbols(work) & set(executable.binder.symbols)
    missing = sorted(needed - set(sizes))
    if missing:
        wanted = ", ".join(f"{name}=…" for name in missing)
        lines.append(f"memory and threads depend on the sizes: explain({wanted})")
    else:
        threads, why = executable.choose_threads(sizes)
        lines.append(
            f"memory: {executable.plan_bytes(**sizes):,} bytes for "
            f"{_count(len(artifact.arena), 'temporary', 'temporaries')} in one arena"
        )
        lines.append(f"threads: {threads} ({why})")
    return "\n".join(lines)


def profile_executable(executable: Any) -> str:
    """Return the table of what each kernel costs, of a program compiled with ``profile=True``."""
    profile = getattr(executable, "profile", None)
    if profile is None:
        return "not profiled: compile with profile=True, or run with CHAINRULE_DEBUG=2"
    return profile.table()


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
