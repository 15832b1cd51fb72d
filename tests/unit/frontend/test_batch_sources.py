"""Where batches come from: iterables of any length, epochs of endless ones, the prefetch thread."""

from __future__ import annotations

import itertools
import signal
import threading

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim
from chainrule.frontend import callbacks as cb
from chainrule.frontend.batch_sources import ArraySource, IterableSource
from chainrule.frontend.data import ArrayBatches
from chainrule.frontend.prefetch import PrefetchingSource

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")


def training(seed=0):
    cr.manual_seed(seed)
    x = cr.input("x", ("batch", 3))
    w = cr.parameter(np.ones(3, "float32"), "w")
    return cr.compile_train((x @ w - 1.0).square().mean(), optim.Adam(0.1), backend="numpy"), w


def endless(start=0):
    for number in itertools.count(start):
        yield np.full((2, 3), number, "float32")


def numbers(source, epoch, first=0):
    return [int(arrays["x"][0, 0]) for arrays, _ in source.epoch(epoch, first)]


def threads():
    return [t for t in threading.enumerate() if t.name == "chainrule-prefetch"]


def test_an_epoch_of_an_endless_iterable():
    source = IterableSource(endless, ["x"], 3)
    assert source.length == 3
    assert numbers(source, 0) == [0, 1, 2]
    assert numbers(source, 1) == [3, 4, 5]
    assert numbers(IterableSource(endless, ["x"], 3), 2, 1) == [7, 8]  # a resumed training
    running = endless()
    assert numbers(IterableSource(running, ["x"], 3), 0) == [0, 1, 2]
    assert numbers(IterableSource(running, ["x"], 3), 1) == [3, 4, 5]  # it stands where it stands


def test_a_spent_iterable_is_begun_again():
    data = list(itertools.islice(endless(), 4))
    source = IterableSource(data, ["x"], 3)
    assert [numbers(source, e) for e in range(3)] == [[0, 1, 2], [3, 0, 1], [2, 3, 0]]
    assert numbers(IterableSource(data, ["x"], 2), 1) == [2, 3]
    exact = IterableSource(data, ["x"], 4)
    assert [numbers(exact, e) for e in range(2)] == [[0, 1, 2, 3]] * 2
    with pytest.raises(cr.InputError, match="gave no batch"):
        numbers(IterableSource([], ["x"], 2), 0)
    with pytest.raises(cr.InputError, match="gave no batch"):
        numbers(IterableSource(itertools.islice(endless(), 2), ["x"], 3), 0)
    with pytest.raises(cr.InputError, match="at least 1"):
        IterableSource([], ["x"], 0)


def test_fit_with_steps_per_epoch_resumes(tmp_path):
    path = tmp_path / "run.safetensors"
    whole, w = training()
    whole.fit(endless, epochs=3, steps_per_epoch=4, verbose=0)
    assert whole.steps == 12 and len(whole.history["loss"]) == 3
    first, _ = training()
    first.fit(
        endless,
        epochs=3,
        steps_per_epoch=4,
        verbose=0,
        callbacks=[
            cb.LambdaCallback(
                on_batch_end=lambda p, b, logs: setattr(p, "stop_training", p.steps == 6)
            )
        ],
    )
    first.save(path)
    second, resumed = training()
    second.load(path)
    second.fit(endless, total_epochs=3, steps_per_epoch=4, verbose=0)
    np.testing.assert_array_equal(resumed.value, w.value)
    assert dict(second.history) == dict(whole.history)
    with pytest.raises(cr.InputError, match="not for arrays"):
        second.fit(X, steps_per_epoch=2, verbose=0)


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_prefetching_changes_nothing(depth):
    batches = ArrayBatches({"x": X}, 7, shuffle=True, seed=3)
    plain, ahead = ArraySource(batches), PrefetchingSource(ArraySource(batches), depth)
    assert ahead.length == plain.length
    for epoch, first in ((0, 0), (1, 2)):
        expected = [(a["x"].copy(), size) for a, size in plain.epoch(epoch, first)]
        found = list(ahead.epoch(epoch, first))
        assert [size for _, size in found] == [size for _, size in expected]
        for (a, _), (b, _) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a["x"], b)
    trained = []
    for prefetch in (0, depth):
        train, w = training()
        train.fit(X, epochs=3, batch_size=8, prefetch=prefetch, verbose=0)
        trained.append(w.numpy())
    np.testing.assert_array_equal(*trained)
    assert not threads()


def test_what_the_data_raises_arrives_in_its_place():
    def failing():
        yield from itertools.islice(endless(), 3)
        raise OSError("the disk is gone")

    train, _ = training()
    with pytest.raises(OSError, match="the disk is gone"):
        train.fit(failing, prefetch=8, verbose=0)
    assert train.steps == 3
    assert not threads()


def test_the_thread_ends_with_the_training():
    """By an error in the step, a callback that stops, an interrupt, and a source that is full."""

    def stop(program, batch, logs):
        program.stop_training = True

    def interrupt(program, batch, logs):
        signal.raise_signal(signal.SIGINT)

    def fail(program, batch, logs):
        raise RuntimeError("no more")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for action in (stop, interrupt, fail):
        train, _ = training()
        look = cb.LambdaCallback(on_batch_end=action)
        how = {"steps_per_epoch": 50, "prefetch": 2, "verbose": 0, "callbacks": [look]}
        if action is fail:
            with pytest.raises(RuntimeError, match="no more"):
                train.fit(endless, **how)
        else:
            history = train.fit(endless, **how)
            assert history.interrupted is (action is interrupt)
        assert train.steps == 1
        assert not threads()
    train, _ = training()
    with pytest.raises(cr.InputError):
        train.fit([(np.ones((2, 4), "float32"),)] * 9, prefetch=2, verbose=0)
    assert not threads()


def test_a_source_that_writes_over_its_batches_may_be_prefetched():
    def reusing():
        buffer = np.empty((2, 3), "float32")
        for number in range(20):
            buffer[...] = number
            yield {"x": buffer}

    source = PrefetchingSource(IterableSource(reusing, ["x"]), 4)
    assert numbers(source, 0) == list(range(20))
