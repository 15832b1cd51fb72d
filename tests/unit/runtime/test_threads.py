"""Worker threads: same bits for any number, parking, forks, interrupts, many callers at once."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.runtime import threads as threads_module
from chainrule.runtime.threads import (
    _PARKED,
    _WORD_BYTES,
    WorkerPool,
    available_threads,
    shared_pool,
)

BATCH, WORDS, FEATURES, CLASSES = 64, 300, 24, 10


def training(threads, seed=7):
    """A step with every kind of state: slots, running statistics, random numbers, a table."""
    cr.manual_seed(seed)
    x = cr.input("x", ("batch", FEATURES))
    words = cr.input("words", ("batch", 4), dtype="int64")
    y = cr.input("y", ("batch",), dtype="int64")
    table = nn.Embedding(WORDS, 10)
    model = nn.Sequential(
        nn.Linear(FEATURES + 40, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(96, 96), nn.LayerNorm(96), nn.GELU(), nn.Linear(96, CLASSES),
    )  # fmt: skip
    logits = model(cr.concatenate([x, table(words).reshape((-1, 40))], 1))
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    return cr.compile_train(
        loss, optim.Adam(1e-2), {"logits": logits}, threads=threads, seed=seed, verify=False
    )


def batch(number):
    rng = np.random.default_rng(number)
    return {
        "x": rng.normal(size=(BATCH, FEATURES)).astype("f4"),
        "words": rng.integers(0, WORDS, (BATCH, 4)),
        "y": rng.integers(0, CLASSES, BATCH),
    }


def digest_of(train, steps=4):
    """A hash of everything that some steps of training return and change."""
    digest = hashlib.blake2b(digest_size=16)
    for number in range(steps):
        result = train.step(**batch(number))
        digest.update(repr(result["loss"]).encode())
        digest.update(result["logits"].tobytes())
    for variable in train.states:
        digest.update(variable.value.tobytes())
    return digest.hexdigest()


def python(code, **environment):
    """Run code in a new process that fails where it does not end; return what it prints."""
    preamble = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", preamble + textwrap.dedent(code)],
        env={**os.environ, "CHAINRULE_VERIFY": "0", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


# -- bits -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serial():
    return digest_of(training(1))


@pytest.mark.parametrize("threads", [2, 3])
def test_a_training_step_has_the_same_bits_on_any_number_of_threads(serial, threads):
    train = training(threads)
    chosen, reason = train.executable.choose_threads({"batch": BATCH})
    assert chosen == threads, reason
    assert digest_of(train) == serial


def test_a_step_has_the_same_bits_in_another_process(serial):
    code = "import test_threads as t; print(t.digest_of(t.training({})))"
    assert python(code.format(2), PYTHONHASHSEED="1") == serial
    assert python(code.format(1), PYTHONHASHSEED="2") == serial


def test_small_calls_stay_on_one_thread():
    x = cr.input("x", ("n", 4))
    function = cr.compile(x * 2, threads=2, verify=False)
    assert function.executable.choose_threads({"n": 3})[0] == 1
    assert function.executable.choose_threads({"n": 1_000_000})[0] == 2


# -- parking --------------------------------------------------------------------------------------


def product(size=128, threads=2, scale=1.0):
    """A function whose calls with 64 rows use that many threads."""
    x = cr.input("x", ("n", size))
    weight = cr.constant(np.full((size, size), scale, np.float32))
    function = cr.compile(x @ weight, threads=threads, verify=False)
    assert function.executable.choose_threads({"n": 64})[0] == threads
    return function


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def pool_of(function):
    code = function.executable.code
    return shared_pool(function.executable.threads, code.worker_address, code.launch_address, code)


def words_of(pool):
    return pool._word_values[:: _WORD_BYTES // 8][1 : pool.threads]


def cpu_seconds_while_idle(seconds):
    start = time.process_time()
    time.sleep(seconds)
    return time.process_time() - start


def test_workers_park_and_wake():
    function = product(threads=3)
    x = np.ones((64, 128), np.float32)
    for _ in range(4):
        assert (function(x=x) == 128).all()
        wait_for(lambda: (words_of(pool_of(function)) == _PARKED).all())
    assert cpu_seconds_while_idle(0.3) < 0.15


def test_workers_that_are_about_to_park_are_woken():
    """Pauses around the millisecond after which workers park."""
    function = product()
    x = np.ones((64, 128), np.float32)
    for microseconds in range(0, 3000, 15):
        time.sleep(1e-6 * microseconds)
        assert function(x=x)[63, 127] == 128


# -- many callers ---------------------------------------------------------------------------------


def test_python_threads_call_at_the_same_time():
    """The same and different executables; those that find the workers busy run alone."""
    functions = [product(128), product(192, scale=2.0)]
    failures, start = [], threading.Barrier(4)

    def call(number):
        start.wait()
        function, width, scale = (functions[0], 128, 1) if number % 2 else (functions[1], 192, 2)
        for turn in range(150):
            rows = 64 + (turn + number) % 3
            found = function(x=np.full((rows, width), number, np.float32))
            if found.shape != (rows, width) or (found != number * width * scale).any():
                failures.append((number, turn))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert not failures


def test_an_executable_may_go_while_workers_still_spin():
    code = """
        import gc, numpy as np, chainrule as cr
        x = cr.input("x", ("n", 128))
        for turn in range(25):
            weight = cr.constant(np.full((128, 128), 1 + turn % 2, np.float32))
            function = cr.compile((x @ weight).tanh() * 0 + x @ weight, threads=2)
            for _ in range(3):
                assert (function(x=np.ones((64, 128), np.float32)) == 128 * (1 + turn % 2)).all()
            del function
            gc.collect()
        print("done")
    """
    assert python(code) == "done"


# -- forks, interrupts, the end -------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_fork_has_workers_of_its_own():
    code = """
        import os, signal, warnings
        import numpy as np
        from test_threads import pool_of, product
        warnings.simplefilter("ignore")  # that a process with threads forks
        x = np.ones((64, 128), np.float32)
        function = product()
        expected = function(x=x).tobytes()
        before = pool_of(function)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            fine = function(x=x).tobytes() == expected and pool_of(function) is not before
            fine = fine and product(192)(x=np.ones((64, 192), np.float32))[0, 0] == 192
            os._exit(0 if fine else 1)
        assert function(x=x).tobytes() == expected
        assert pool_of(function) is before
        assert os.waitpid(child, 0)[1] == 0
        print("done")
    """
    assert python(code) == "done"


class InterruptedLock:
    """Ctrl-C, the first time, between handing a job out and waking the worker for it."""

    def __init__(self, lock):
        self.interrupted = False
        self.locked, self.acquire, self._release = lock.locked, lock.acquire, lock.release

    def release(self):
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        self._release()


def test_an_interrupt_before_the_workers_wake_leaves_them_usable():
    code = """
        import numpy as np
        from test_threads import InterruptedLock, pool_of, product, wait_for, words_of
        function = product(threads=3)
        x = np.ones((64, 128), np.float32)
        function(x=x)
        pool = pool_of(function)
        for number in (1, 2):
            wait_for(lambda: (words_of(pool) == 1).all())
            pool._asleep[number] = InterruptedLock(pool._asleep[number])
            try:
                function(x=x)
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError("not interrupted")
            for _ in range(3):
                assert (function(x=2 * x) == 256).all()
                wait_for(lambda: (words_of(pool) == 1).all())
        print("done")
    """
    assert python(code) == "done"


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs setitimer")
def test_interrupts_at_any_moment():
    code = """
        import signal, time
        import numpy as np
        from test_threads import product
        function = product()
        x = np.ones((64, 128), np.float32)
        function(x=x)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        caught = 0
        for turn in range(400):
            if turn % 2:
                time.sleep(0.002)  # parked
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + turn % 150))
                for _ in range(20):
                    function(x=x)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                caught += 1
            assert (function(x=x) == 128).all()
        assert caught > 100, caught
        print("done")
    """
    assert python(code) == "done"


def test_a_process_ends_while_workers_spin():
    code = "from test_threads import *; product()(x=np.ones((64, 128), 'f4')); print('done')"
    assert python(code) == "done"


def test_a_pool_can_be_closed():
    function = product()
    code = function.executable.code
    pool = WorkerPool(4, code.worker_address, code.launch_address, code)
    mine = [t for t in threading.enumerate() if getattr(t, "_target", None) == pool._serve]
    assert len(mine) == 3
    pool.close()
    assert not any(thread.is_alive() for thread in mine)
    job = (ctypes.c_uint64 * 6)(0, 0, 0, 4)
    seen = []
    assert pool.run(ctypes.addressof(job), 4, lambda _: seen.append(job[3]) or 7) == 7
    assert seen == [1] and job[3] == 4


# -- how many -------------------------------------------------------------------------------------


def limit(monkeypatch, cores=8, files=None):
    """Pretend to an affinity mask and to the files of a control group."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)

    def read_text(path):
        try:
            return (files or {})[str(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    monkeypatch.setattr(threads_module.Path, "read_text", read_text)


V2 = "/sys/fs/cgroup/cpu.max"
V1 = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
V1_PERIOD = "/sys/fs/cgroup/cpu/cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({V2: "max 100000\n"}, 8),
        ({V2: "300000 100000\n"}, 3),
        ({V2: "250000 100000\n"}, 2),
        ({V2: "50000 100000\n"}, 1),
        ({V2: "1600000 100000\n"}, 8),
        ({V2: "nonsense\n"}, 8),
        ({V2: "1 0 0\n"}, 8),
        ({V2: "100000 0\n"}, 8),
        ({V1: "-1\n", V1_PERIOD: "100000\n"}, 8),
        ({V1: "200000\n", V1_PERIOD: "100000\n"}, 2),
        ({V1: "20000\n", V1_PERIOD: "100000\n"}, 1),
    ],
)
def test_threads_respect_the_control_group(monkeypatch, files, expected):
    limit(monkeypatch, files=files)
    assert available_threads() == expected


def test_threads_respect_the_affinity_mask(monkeypatch):
    limit(monkeypatch, cores=3)
    assert available_threads() == 3
    limit(monkeypatch, cores=3, files={V2: "800000 100000"})
    assert available_threads() == 3


def test_without_affinity_masks_the_cores_count(monkeypatch):
    limit(monkeypatch)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_threads() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads() == 1


def test_an_executable_asks_how_many_may_run(monkeypatch):
    monkeypatch.setattr("chainrule.runtime.executable.available_threads", lambda: 5)
    x = cr.input("x", ("n", 4))
    assert cr.compile(x + 1, verify=False).executable.threads == 5
    assert cr.compile(x + 1, threads=2, verify=False).executable.threads == 2
