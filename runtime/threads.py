"""Worker threads that enter a step together with the caller.

A worker is a Python thread that waits inside native code, so handing it work costs a cache line's
journey.  After about a millisecond without work it parks on a lock, and burns nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .buffer import aligned_bytes

_WORKER = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)
_WORD_BYTES = 64
_THREADS_FIELD = 3
_PARKED, _END = 1, 3
_ASLEEP = -1


def available_threads() -> int:
    """Return how many threads may run at once: the affinity mask, cut by the cgroup's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    if quota is not None:
        count = min(count, max(1, int(quota)))
    return max(1, count)


def _cgroup_quota() -> float | None:
    """Return the CPU quota of this process's control group in cores, or None without one."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        limit = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
        return None if limit <= 0 else limit / period
    except (OSError, ValueError, ZeroDivisionError):
        return None


class WorkerPool:
    """``threads - 1`` workers and the caller.

    ``worker`` and ``launch`` are addresses of native functions (see ``backends/spmd.py``);
    ``owner`` keeps their code alive.
    """

    def __init__(self, threads: int, worker: int, launch: int, owner: object) -> None:
        self.threads = threads
        self.owner = owner
        self._worker = _WORKER(worker)
        self._launch = _LAUNCH(launch)
        self._words = aligned_bytes(_WORD_BYTES * threads)
        self._words_address = self._words.ctypes.data
        self._word_values = self._words.view(np.int64)
        #: How many workers have left the last job; at first, all.
        self._left = ctypes.c_int64.from_address(self._words_address)
        self._left.value = threads - 1
        # Held while its worker has nothing to wake for.  A bare lock: Ctrl-C inside the methods of
        # an Event can leave it locked for good.
        self._asleep = [threading.Lock() for _ in range(threads)]
        for lock in self._asleep:
            lock.acquire()
        self._busy = threading.RLock()
        self._threads = [
            threading.Thread(
                target=self._serve, args=(number,), name=f"chainrule-{number}", daemon=True
            )
            for number in range(1, threads)
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self, number: int) -> None:
        while True:
            if self._worker(self._words_address, number) == _END:
                return
            self._asleep[number].acquire()

    def run(self, job: int, threads: int, alone: Callable[[int], int]) -> int:
        """Run the job at address ``job`` on ``threads`` threads and return its status.

        Where another caller is using the workers, ``alone`` runs it on this thread instead, which
        gives the same bits.
        """
        try:
            # The second condition: not from a signal handler in the middle of another launch.
            if self._busy.acquire(blocking=False) and self._left.value == threads - 1:
                return self._run_together(job, threads)
        finally:
            # Ctrl-C may come right after the lock was taken; releasing asks the lock who has it.
            try:  # noqa: SIM105 - once a call, and `suppress` takes longer
                self._busy.release()
            except RuntimeError:
                pass
        return self._run_alone(job, alone)

    def _run_together(self, job: int, threads: int) -> int:
        try:
            result = self._launch(self._words_address, job, threads, 0)
            if result == _ASLEEP:
                self._wake_workers(threads)
                result = self._launch(self._words_address, job, threads, 1)
            return result
        except BaseException:
            self._finish(job, threads)
            raise

    def _wake_workers(self, threads: int) -> None:
        for lock in self._asleep[1:threads]:
            if lock.locked():
                lock.release()

    def _finish(self, job: int, threads: int) -> None:
        """End a job that Ctrl-C cut off after it was handed out: workers wait in it for all."""
        while self._left.value < threads - 1:
            with contextlib.suppress(KeyboardInterrupt):
                self._wake_workers(threads)
                self._launch(self._words_address, job, threads, 1)

    @staticmethod
    def _run_alone(job: int, alone: Callable[[int], int]) -> int:
        fields = ctypes.cast(job, ctypes.POINTER(ctypes.c_uint64))
        threads, fields[_THREADS_FIELD] = fields[_THREADS_FIELD], 1
        try:
            return alone(job)
        finally:
            fields[_THREADS_FIELD] = threads

    def close(self) -> None:
        """End the workers."""
        with self._busy:
            for number in range(1, self.threads):
                self._word_values[number * _WORD_BYTES // 8] = _END
            self._left.value = -1  # whoever calls after this runs alone
            self._wake_workers(self.threads)
        for thread in self._threads:
            thread.join(timeout=1.0)


_pools: dict[int, WorkerPool] = {}
_pools_lock = threading.Lock()


def shared_pool(threads: int, worker: int, launch: int, owner: object) -> WorkerPool:
    """Return the process's pool of that many threads, made anew after a fork."""
    with _pools_lock:
        pool = _pools.get(threads)
        if pool is None:
            pool = _pools[threads] = WorkerPool(threads, worker, launch, owner)
        return pool


def _forget_pools() -> None:
    """In the child of a fork: the workers stayed in the parent, maybe with the lock held."""
    global _pools_lock
    _pools_lock = threading.Lock()
    _pools.clear()


def _close_pools() -> None:
    """Before the interpreter frees the code that idle workers stand in."""
    for pool in _pools.values():
        pool.close()


atexit.register(_close_pools)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
