"""``python -m benchmarks``: measure, and print a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .harness import QUICK, Effort, Result, describe_machine, measure, to_json
from .peers import PEERS
from .workloads import AGREEMENT_STEPS, WORKLOADS, Training, Workload, select_workloads

BUSY_LOAD = 0.5
DISTURBED = 0.8  # of the peak; all cores at once legitimately run at 0.93 here


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that the command line names; 0 unless a peer failed."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{w.name:22} {w.group}" for w in WORKLOADS))
        return 0
    peers = options.peers.split(",")
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        parser.error(f"no peer {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    try:
        workloads = select_workloads(options.names)
    except ValueError as error:
        parser.error(str(error))

    # rich's Console wraps tables to the terminal, and to 80 columns where there is none.
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 110)
    machine = describe_machine()
    print_machine(console, machine)
    effort = QUICK if options.quick else Effort(rounds=options.rounds)
    results: list[Result] = []
    peaks: dict[int, float] = {}  # by thread count: the best of the session is the chip's
    with Console(stderr=True).status("") as status:
        for workload in workloads:
            found = measure(workload, peers, effort, status.update)
            for result in found:
                best = max(result.peak or 0.0, peaks.get(result.threads, 0.0))
                peaks[result.threads] = best
                result.peak = best or None
            results += found
            status.stop()
            console.print(build_table(workload, found, machine["core_peak"]))
            status.start()
            if options.json:
                # After each workload, so that an interrupted session keeps what it has.
                Path(options.json).write_text(to_json(machine, results), encoding="utf-8")
    return 1 if any(result.failed for result in results) else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Timings of chainrule and its peers."
    )
    parser.add_argument("names", nargs="*", help="workloads or groups; wildcards; default all")
    parser.add_argument("--list", action="store_true", help="print the workloads and stop")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, metavar="N")
    parser.add_argument("--json", metavar="FILE", help="write every round's time")
    parser.add_argument(
        "--peers", default=",".join(PEERS), metavar="A,B", help="default: %(default)s"
    )
    return parser


def print_machine(console: Any, machine: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    console.print(f"{machine['processor']}, {machine['cpus']} cpus, Python {machine['python']}")
    console.print(versions)
    if machine["core_peak"]:
        console.print(f"one core's measured peak: {machine['core_peak']:.0f} GFLOP/s")
    if machine["load"] > BUSY_LOAD:
        console.print(f"the machine is busy (load {machine['load']:.1f}): do not trust the times")


def build_table(workload: Workload, results: list[Result], core_peak: float | None) -> Any:
    from rich.table import Table

    flops = workload.unit == "GFLOP/s"
    title = f"{workload.name}, threads: {workload.threads}"
    peak = results[0].peak
    if flops and peak:
        title += f", peak: {peak:.0f} GFLOP/s"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "\n".join(describe_gaps(results, core_peak))
    table.add_column("peer")
    value = f"loss at {AGREEMENT_STEPS}" if isinstance(workload, Training) else "value"
    for heading in ("median", "min", "× best", workload.unit, "% peak", value):
        if heading and (flops or heading != "% peak"):
            table.add_column(heading, justify="right")
    best = min(result.median for result in results)
    for result in results:
        if result.seconds:
            cells = [result.peer, format_time(result.median), format_time(result.minimum)]
            cells.append(f"{result.median / best:.2f}")
            if workload.unit:
                cells.append(f"{result.rate:.4g}")
            if flops:
                cells.append(f"{100 * result.rate / peak:.1f}" if peak else "?")
            cells.append("" if result.value is None else f"{result.value:.6g}")
            table.add_row(*cells)
    return table


def describe_gaps(results: list[Result], core_peak: float | None) -> Iterator[str]:
    """Who is missing and why, and whether another program disturbed the rounds."""
    for result in results:
        if result.failed:
            yield f"{result.peer} failed: {result.failed}"
        elif result.skipped:
            yield f"{result.peer}: {result.skipped}"
    worst, expected = results[0].worst_peak, (core_peak or 0.0) * results[0].threads
    if worst is not None and worst < DISTURBED * expected:
        share = 100 * worst / expected
        yield f"disturbed: the peak fell to {share:.0f} % in one round; do not trust the times"


def format_time(seconds: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3f} {unit}"
    return f"{seconds / 1e-6:.2f} µs"


if __name__ == "__main__":
    sys.exit(main())
