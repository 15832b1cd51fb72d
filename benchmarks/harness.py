"""Fair timing: a process for each peer, rounds that go round all of them, one active at a time."""

from __future__ import annotations

import json
import math
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from .peers import DISTRIBUTIONS
from .worker import PEAK
from .workloads import AGREEMENT_STEPS, WORKLOADS, FirstStep, Steady, Training, Workload

PREPARE_SECONDS = 300.0
SETTLE_SECONDS = 0.05  # lets the last peer's idle threads stop spinning
WARM_CACHE_PEERS = ("chainrule",)


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, and the least seconds of a peer's turn in a round."""

    rounds: int = 7
    seconds: float = 0.3
    first_step_rounds: int = 3


QUICK = Effort(rounds=3, seconds=0.1, first_step_rounds=1)


@dataclass
class Result:
    """Seconds per step, one entry for each round; or the reason why there are none."""

    workload: str
    peer: str
    threads: int
    unit: str
    seconds: list[float] = field(default_factory=list)
    operations: float = 0.0
    value: float | None = None  # the loss after AGREEMENT_STEPS steps, or one element
    peak: float | None = None  # GFLOP/s, the best round of the multiply-add loop
    worst_peak: float | None = None  # GFLOP/s, its worst round
    skipped: str = ""
    failed: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else math.inf

    @property
    def minimum(self) -> float:
        return min(self.seconds, default=math.inf)

    @property
    def rate(self) -> float:
        """Billions of operations a second, by the median."""
        return self.operations / self.median / 1e9


class WorkerFailure(Exception):
    """The worker process died, or did not answer in time."""


class Worker:
    """A process that runs one peer with one workload (see worker.py for what it answers)."""

    def __init__(self, threads: int, caches: Path | None = None) -> None:
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  (closed by __exit__)
        with pinned_to_cpus(threads):
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=worker_environment(threads, caches),
                text=True,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, timeout: float = PREPARE_SECONDS, **request: Any) -> dict[str, Any]:
        """The reply to a request.

        Raises
        ------
        WorkerFailure
            If the process has died or gives no answer within ``timeout`` seconds.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are read below
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise WorkerFailure(f"no answer in {timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:]
            raise WorkerFailure(" ".join([f"the process ended with code {code}:", *last]))
        return json.loads(line)


@contextmanager
def pinned_to_cpus(count: int) -> Iterator[None]:
    """Processes started inside may use ``count`` processors: the last ones, as the first gets most
    interrupts. Does nothing where the operating system has no affinity."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def worker_environment(threads: int, caches: Path | None) -> dict[str, str]:
    """The caller's, with each library's thread count, no GPU, and the compilers' caches."""
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(counts, str(threads))}
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if caches is not None:
        environment["CHAINRULE_CACHE_DIR"] = str(caches / "chainrule")
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(caches / "inductor")
    return environment


def measure(
    workload: Workload, peers: list[str], effort: Effort, log: Callable[[str], None]
) -> list[Result]:
    """One result for each peer, in the order of ``peers``."""
    if isinstance(workload, FirstStep):
        return measure_first_step(workload, peers, effort, log)
    return measure_steady(workload, peers, effort, log)


def measure_steady(
    workload: Steady, peers: list[str], effort: Effort, log: Callable[[str], None]
) -> list[Result]:
    results = {
        peer: Result(workload.name, peer, workload.threads, workload.unit)
        for peer in [*peers, PEAK]
    }
    steps: dict[str, int] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for peer, result in results.items():
            log(f"{workload.name}: {peer} prepares")
            worker = stack.enter_context(Worker(workload.threads))
            prepared = exchange(worker, result, do="prepare", peer=peer, workload=workload.name)
            if prepared is None:
                continue
            result.operations = prepared["operations"]
            warm = AGREEMENT_STEPS if isinstance(workload, Training) and peer != PEAK else 1
            first = exchange(worker, result, do="run", steps=warm)
            if first is not None:
                result.value = first["value"]
                workers[peer] = worker
        for peer, worker in list(workers.items()):
            count = calibrate_steps(worker, results[peer], effort.seconds)
            if count is None:
                del workers[peer]
            else:
                steps[peer] = count
        for number in range(effort.rounds):
            log(f"{workload.name}: round {number + 1} of {effort.rounds}")
            for peer in list(workers):
                time.sleep(SETTLE_SECONDS)
                turn = exchange(workers[peer], results[peer], do="run", steps=steps[peer])
                if turn is None:
                    del workers[peer]
                else:
                    results[peer].seconds.append(turn["seconds"] / steps[peer])
    peak = results.pop(PEAK)
    for result in results.values():
        if peak.seconds:
            result.peak = peak.operations / peak.minimum / 1e9
            result.worst_peak = peak.operations / max(peak.seconds) / 1e9
    return list(results.values())


def exchange(worker: Worker, result: Result, **request: Any) -> dict[str, Any] | None:
    """The reply, or None with the reason noted in ``result``."""
    try:
        reply = worker.ask(**request)
    except WorkerFailure as failure:
        reply = {"error": str(failure)}
    result.skipped = reply.get("skip", "")
    result.failed = reply.get("error", "")
    if result.skipped or result.failed:
        result.seconds.clear()
        return None
    return reply


def calibrate_steps(worker: Worker, result: Result, seconds: float) -> int | None:
    """How many steps take ``seconds``."""
    steps = 1
    while True:
        reply = exchange(worker, result, do="run", steps=steps)
        if reply is None:
            return None
        if reply["seconds"] > seconds / 4:
            return math.ceil(seconds * steps / reply["seconds"])
        steps *= 2


def measure_first_step(
    workload: FirstStep, peers: list[str], effort: Effort, log: Callable[[str], None]
) -> list[Result]:
    """From the start of a process to its first loss."""
    results = {p: Result(workload.name, p, workload.threads, workload.unit) for p in peers}
    warm = workload.cache == "warm"
    with tempfile.TemporaryDirectory() as shared:
        if warm:
            for peer, result in results.items():
                if peer in WARM_CACHE_PEERS:
                    log(f"{workload.name}: {peer} fills the cache")
                    time_first_step(workload, result, Path(shared))
                    result.seconds.clear()
                else:
                    result.skipped = "measured with a cold cache only"
        for number in range(effort.first_step_rounds):
            for peer, result in results.items():
                if not result.skipped and not result.failed:
                    log(f"{workload.name}: round {number + 1}, {peer}")
                    with tempfile.TemporaryDirectory() as fresh:
                        time_first_step(workload, result, Path(shared if warm else fresh))
    return list(results.values())


def time_first_step(workload: FirstStep, result: Result, caches: Path) -> None:
    started = time.perf_counter()
    with Worker(workload.threads, caches) as worker:
        prepared = exchange(worker, result, do="prepare", peer=result.peer, workload=workload.name)
        if prepared is None:
            return
        first = exchange(worker, result, do="run", steps=1)
        seconds = time.perf_counter() - started
    if first is not None:
        result.seconds.append(seconds)
        result.value = first["value"]


def measure_peak(threads: int, rounds: int = 5) -> float | None:
    """The best short round of the multiply-add loop, in GFLOP/s; None if it cannot run."""
    workload = next(w for w in WORKLOADS if w.threads == threads)
    result = Result(workload.name, PEAK, threads, "GFLOP/s")
    with Worker(threads) as worker:
        prepared = exchange(worker, result, do="prepare", peer=PEAK, workload=workload.name)
        if prepared is None:
            return None
        turns = [exchange(worker, result, do="run", steps=2) for _ in range(rounds)]
    seconds = [turn["seconds"] / 2 for turn in turns if turn is not None]
    return prepared["operations"] / min(seconds) / 1e9 if seconds else None


def describe_machine() -> dict[str, Any]:
    """Processor, system, load, one core's peak in GFLOP/s, and the versions of what is measured."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return {
        "processor": read_processor_name(),
        "cpus": len(affinity) or os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "core_peak": measure_peak(threads=1),
        "versions": versions,
    }


def read_processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def to_json(machine: dict[str, Any], results: list[Result]) -> str:
    rows = []
    for result in results:
        row = asdict(result)
        if result.seconds:
            row |= {"median": result.median, "minimum": result.minimum, "rate": result.rate}
        rows.append(row)
    return json.dumps({"machine": machine, "results": rows}, indent=1) + "\n"
