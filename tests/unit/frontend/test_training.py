"""The training program: the step, the loop, checkpoints and callbacks."""

from __future__ import annotations

import csv
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref

import numpy as np
import pytest

from chainrule.compiler.errors import (
    CheckpointError,
    GraphError,
    GraphTypeError,
    InputError,
)
from chainrule.frontend import callbacks as cb
from chainrule.frontend import metrics, nn, optim, random, schedules
from chainrule.frontend.build import build_executable
from chainrule.frontend.data import ArrayBatches, shuffled_indices, spirals, train_test_split
from chainrule.frontend.state import Variable, parameter, register_effect
from chainrule.frontend.tensor import apply, input
from chainrule.frontend.training import TrainingProgram, build_training_program
from chainrule.runtime.checkpoint import load_arrays, save_arrays
from chainrule.runtime.interpreted import InterpretedExecutable


def interpret(program, options, storage):
    """Compile by interpretation: the oracle."""
    return InterpretedExecutable(program, storage, training=options.training)


@pytest.fixture(params=["interpreter", "native"])
def compile_program(request):
    return {"interpreter": interpret, "native": build_executable}[request.param]


X, Y = spirals(200, classes=3, seed=3)


class Classifier:
    """A small network, its loss and its inputs."""

    def __init__(self, hidden=16, seed=0):
        generator = np.random.default_rng(seed)

        def weights(*shape):
            return parameter(generator.normal(0, 0.5, shape).astype("float32"), "weight")

        self.x = input("x", ("batch", 2))
        self.y = input("y", ("batch",), dtype="int64")
        self.params = [weights(2, hidden), weights(hidden), weights(hidden, 3)]
        w1, b1, w2 = self.params
        self.logits = (self.x @ w1 + b1).tanh() @ w2
        shifted = self.logits - self.logits.max(-1, keepdims=True)
        log_p = shifted - shifted.exp().sum(-1, keepdims=True).log()
        one_hot = apply("eq", self.y.expand_dims(1), np.arange(3)).astype("float32")
        self.loss = -(log_p * one_hot).sum(-1).mean()


def program(compile_program=interpret, optimizer=None, seed=0, model=None, **options):
    model = model or Classifier()
    options.setdefault("outputs", {"logits": model.logits})
    options.setdefault("metrics", ["accuracy"])
    return TrainingProgram(
        model.loss,
        optimizer or optim.Adam(0.02),
        compile_program=compile_program,
        seed=seed,
        **options,
    )


def weights_of(train):
    return [v.value.copy() for v in train.states]


def assert_same_bits(first, second):
    for a, b in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_array_equal(a, b)


# -- one step -------------------------------------------------------------------------------------


def test_a_step_returns_loss_outputs_and_metrics(compile_program):
    train = program(compile_program)
    before = [p.value.copy() for p in train.parameters]
    result = train.step(x=X[:50], y=Y[:50])
    assert set(result) == {"loss", "logits", "accuracy"}
    assert isinstance(result["loss"], float)
    right = (result["logits"].argmax(-1) == Y[:50]).mean()
    assert result["accuracy"] == pytest.approx(right)
    hidden = np.tanh(X[:50] @ before[0] + before[1])
    np.testing.assert_allclose(result["logits"], hidden @ before[2], rtol=1e-4, atol=1e-5)
    assert train.steps == 1
    assert all((a != p.value).any() for a, p in zip(before, train.parameters, strict=True))


def test_gradient_descent_by_hand(compile_program):
    x = input("x", ("batch", 3), dtype="float64")
    w = parameter(np.arange(3.0), "w")
    train = TrainingProgram(
        (x @ w).square().mean(), optim.SGD(0.1), compile_program=compile_program
    )
    data = np.random.default_rng(0).normal(size=(7, 3))
    loss = train.step(x=data)["loss"]
    assert loss == pytest.approx(((data @ np.arange(3.0)) ** 2).mean())
    gradient = 2 * data.T @ (data @ np.arange(3.0)) / 7
    np.testing.assert_allclose(w.value, np.arange(3.0) - 0.1 * gradient, rtol=1e-12)


def test_only_the_given_parameters_are_trained():
    model = Classifier()
    train = program(model=model, params=model.params[:1])
    before = [p.value.copy() for p in model.params]
    train.step(x=X, y=Y)
    changed = [bool((a != p.value).any()) for a, p in zip(before, model.params, strict=True)]
    assert changed == [True, False, False]


def test_effects_are_part_of_the_step():
    x = input("x", ("batch",), dtype="float64")
    w = parameter(np.ones(()), "w")
    mean = Variable(np.zeros(()), "mean", "buffer")
    y = x * w
    total = x.sum()
    register_effect(mean, y.node, lambda old: old + total, training_only=True)
    train = TrainingProgram(y.sum(), optim.SGD(0.0), {"y": y}, compile_program=interpret)
    train.step(x=np.ones(3))
    train.step(x=np.ones(3))
    assert mean.value == 6.0
    train.evaluate((np.ones(4),))
    train.predict(np.ones(4))
    assert mean.value == 6.0


def test_what_cannot_be_trained_is_refused():
    x = input("x", ("batch", 2))
    w = parameter(np.ones(2, "float32"), "w")
    cases = [
        (x @ w, GraphError, "0-d"),
        (x.sum(), GraphError, "nothing to train"),
        ((x @ w).sum().astype("int64"), GraphTypeError, "float"),
    ]
    for loss, error, message in cases:
        with pytest.raises(error, match=message):
            build_training_program(loss, optim.SGD())
    with pytest.raises(GraphError, match="called 'loss'"):
        build_training_program((x @ w).sum(), optim.SGD(), {"loss": x})


# -- the loop -------------------------------------------------------------------------------------


def test_fit_learns_the_spirals(compile_program):
    train = program(compile_program, model=Classifier(32), optimizer=optim.Adam(0.05))
    history = train.fit((X, Y), epochs=60, batch_size=32, verbose=0)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["accuracy"][-1] > 0.8
    assert len(history["loss"]) == len(history.epochs) == 60
    assert train.epoch == 60 and train.steps == 60 * 7
    measured = train.evaluate((X, Y))
    predicted = train.predict(X)
    assert predicted.shape == (200, 3)
    assert measured["accuracy"] == pytest.approx((predicted.argmax(-1) == Y).mean())


def test_the_forms_of_data_are_equal():
    def batches():
        return [(X[i : i + 50], Y[i : i + 50]) for i in range(0, 200, 50)]

    forms = [
        (X, Y),
        [X, Y],
        {"y": Y, "x": X},
        (X.astype("float64"), Y.astype("int32")),
        batches(),
        batches,
        [{"x": x, "y": y} for x, y in batches()],
        ([list(x), list(y)] for x, y in []),
    ]
    trained = []
    for data in forms[:-1]:
        train = program()
        train.fit(data, epochs=2, batch_size=50, shuffle=False, verbose=0)
        trained.append(train)
    for other in trained[1:]:
        assert_same_bits(trained[0], other)
    with pytest.raises(InputError, match="gave no batch"):
        program().fit(forms[-1], verbose=0)


def test_the_loss_of_an_epoch_is_weighted_by_the_batch_sizes():
    train = program(optimizer=optim.SGD(0.0))
    history = train.fit((X, Y), batch_size=64, verbose=0, validation_data=(X, Y))
    whole = train.step(x=X, y=Y)
    assert history["loss"][0] == pytest.approx(whole["loss"], rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(whole["accuracy"])
    assert history["val_loss"][0] == pytest.approx(whole["loss"], rel=1e-5)
    assert history["val_accuracy"][0] == pytest.approx(whole["accuracy"])


def test_the_last_batch():
    train = program()
    train.fit((X, Y), batch_size=64, verbose=0)
    assert train.steps == 4
    train.fit((X, Y), batch_size=64, drop_last=True, verbose=0)
    assert train.steps == 7
    train.fit((X[:5], Y[:5]), batch_size=64, verbose=0)
    assert train.steps == 8


def test_a_fixed_batch_axis_is_respected():
    x = input("x", (32, 2))
    w = parameter(np.ones(2, "float32"), "w")
    train = TrainingProgram(
        (x @ w).square().mean(), optim.SGD(), {"z": x @ w}, compile_program=interpret
    )
    train.fit(X, drop_last=True, verbose=0)
    assert train.steps == 6
    with pytest.raises(InputError, match="fixed at 32"):
        train.fit(X, verbose=0)
    with pytest.raises(InputError, match="fixed at 32"):
        train.fit(X, batch_size=64, drop_last=True, verbose=0)
    assert train.predict(X[:32]).shape == (32,)


def test_validation_split_sets_the_end_aside():
    train = program(optimizer=optim.SGD(0.0))
    history = train.fit((X, Y), validation_split=0.25, verbose=0)
    assert train.steps == 5  # 150 samples
    assert history["val_loss"][0] == pytest.approx(train.evaluate((X[150:], Y[150:]))["loss"])
    with pytest.raises(InputError, match="validation_split"):
        train.fit([(X, Y)], validation_split=0.5, verbose=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X,), "2 inputs"),
        ((X, Y[:-1]), "same number of samples"),
        ((X[:0], Y[:0]), "no samples"),
        ({"x": X}, "y missing"),
        ({"x": X, "y": Y, "z": Y}, "z unknown"),
        (3, "int is no data"),
        ([(X, Y), 3], "must be arrays"),
    ],
)
def test_data_that_does_not_fit_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        program().fit(data, verbose=0)


def test_the_order_depends_on_seed_and_epoch_alone():
    def orders(seed, epochs=2):
        seen = []
        train = program(seed=seed)
        execute = train.executable

        def spy(arrays):
            seen.append(arrays["x"].copy())
            return execute(arrays)

        train.executable = spy
        train.fit((X, Y), epochs=epochs, batch_size=100, verbose=0)
        return [np.concatenate(seen[2 * i : 2 * i + 2]) for i in range(epochs)]

    first, again, other = orders(1), orders(1), orders(2)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any() and (first[0] != other[0]).any()
    np.testing.assert_array_equal(np.sort(first[0], axis=0), np.sort(X, axis=0))


def test_metrics_can_be_chosen_at_fit():
    model = Classifier()
    train = program(model=model, metrics=())
    history = train.fit(
        (X, Y), metrics=["accuracy", metrics.f1(), metrics.top_k_accuracy(2)], verbose=0
    )
    assert set(history) == {"loss", "accuracy", "f1", "top_2_accuracy"}
    assert set(train.evaluate((X, Y))) == set(history)


def test_progress_is_one_line_an_epoch_where_there_is_no_terminal(capsys):
    program().fit((X, Y), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ") and "samples/s" in lines[1]
    program().fit((X, Y), verbose=0)
    assert not capsys.readouterr().out


def test_progress_is_a_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    program().fit((X, Y), epochs=2)
    assert "epoch 2/2" in capsys.readouterr().out


# -- interruption ---------------------------------------------------------------------------------


def test_an_interrupt_waits_for_the_step_and_returns_the_history():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    train, reference = program(), program()
    calls = []

    def interrupt(program, batch, logs):
        calls.append(batch)
        if len(calls) == 10:
            signal.raise_signal(signal.SIGINT)

    history = train.fit(
        (X, Y), epochs=5, verbose=0, callbacks=[cb.LambdaCallback(on_batch_end=interrupt)]
    )
    assert history.interrupted and len(history["loss"]) == 1
    assert (train.epoch, train.batch, train.steps) == (1, 3, 10)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train.fit((X, Y), total_epochs=2, verbose=0)
    reference.fit((X, Y), epochs=2, verbose=0)
    assert_same_bits(train, reference)
    assert dict(train.history) == dict(reference.history)
    assert len(history["loss"]) == 1  # what the first fit returned is its own


# -- checkpoints ----------------------------------------------------------------------------------


def make_resumable(compile_program=interpret):
    schedule = schedules.OneCycleLR(None, 0.1, 100)
    return program(compile_program, optimizer=optim.Adam(schedule, clip_norm=1.0))


def test_a_resumed_training_gives_the_same_bits(tmp_path, compile_program):
    path = tmp_path / "run.safetensors"
    whole = make_resumable(compile_program)
    whole.fit((X, Y), epochs=5, verbose=0)

    first = make_resumable(compile_program)
    first.fit((X, Y), epochs=2, verbose=0)
    first.save(path)
    second = make_resumable(compile_program)
    second.load(path)
    second.fit((X, Y), epochs=3, verbose=0)
    assert_same_bits(whole, second)
    assert second.epoch == 5 and second.steps == whole.steps
    assert second.history["loss"] == whole.history["loss"][2:]


def test_random_numbers_and_running_statistics_go_on(tmp_path, compile_program):
    def make():
        model = Classifier()
        x = model.x
        generator = random.Generator(5)
        init = np.random.default_rng(0)
        w1, w2 = (
            parameter(init.normal(0, 0.5, shape).astype("float32"), "w") for shape in [(2, 8), (8,)]
        )
        norm = nn.BatchNorm1d(8)
        hidden = nn.Dropout(0.5, generator=generator)(norm(x @ w1))
        loss = (hidden @ w2 - model.y.astype("float32")).square().mean()
        return TrainingProgram(loss, optim.SGD(0.01), compile_program=compile_program)

    path = tmp_path / "run.safetensors"
    whole, first, second = make(), make(), make()
    whole.fit((X, Y), epochs=4, verbose=0)
    first.fit((X, Y), epochs=2, verbose=0)
    first.save(path)
    second.load(path)
    second.fit((X, Y), epochs=2, verbose=0)
    assert_same_bits(whole, second)
    assert {v.role for v in second.states} == {"parameter", "buffer", "random", "slot"}
    assert second.history["loss"] == whole.history["loss"][2:]


def test_a_training_stopped_within_an_epoch_goes_on_there(tmp_path):
    path = tmp_path / "run.safetensors"
    whole = make_resumable()
    whole.fit((X, Y), epochs=3, verbose=0)

    first = make_resumable()
    first.fit(
        (X, Y),
        total_epochs=3,
        verbose=0,
        callbacks=[
            cb.Checkpoint(path, every_batches=3),
            cb.LambdaCallback(
                on_batch_end=lambda p, b, logs: setattr(p, "stop_training", p.steps == 10)
            ),
        ],
    )
    second = make_resumable()
    second.load(path)
    assert (second.epoch, second.batch) == (1, 2)
    second.fit((X, Y), total_epochs=3, verbose=0)
    assert_same_bits(whole, second)
    assert dict(second.history) == dict(whole.history)


def test_callbacks_and_their_schedules_go_on(tmp_path):
    def parts():
        return [
            cb.EarlyStopping("loss", patience=50, restore_best=True),
            schedules.ReduceLROnPlateau(None, patience=0, threshold=0.5, monitor="loss"),
            schedules.StepLR(None, 1),
            cb.Checkpoint(tmp_path / "c.safetensors"),
        ]

    def make():
        return program(optimizer=optim.SGD(0.5))

    whole = make()
    whole.fit((X, Y), epochs=6, verbose=0, callbacks=parts()[:1] + parts()[1:2])
    first = make()
    first.fit((X, Y), epochs=3, verbose=0, callbacks=[*parts()[:2], parts()[3]])
    second = make()
    second.load(tmp_path / "c.safetensors")
    chosen = parts()[:2]
    second.fit((X, Y), epochs=3, verbose=0, callbacks=chosen)
    assert second.optimizer.lr == whole.optimizer.lr < 0.5
    assert chosen[1].position == 6
    assert_same_bits(whole, second)


def test_a_new_fit_starts_its_callbacks_anew(tmp_path):
    train, path = program(), tmp_path / "c.safetensors"
    first, second = cb.EarlyStopping("loss", patience=9), cb.EarlyStopping("loss", patience=9)
    train.fit((X, Y), verbose=0, callbacks=[first, cb.Checkpoint(path)])
    seen = []
    look = cb.LambdaCallback(on_train_begin=lambda program: seen.append(second.monitor.best))
    train.fit((X, Y), verbose=0, callbacks=[second, look])
    assert seen == [None]
    train.save(path)
    resumed, third = program(), cb.EarlyStopping("loss", patience=9)
    resumed.load(path)
    look = cb.LambdaCallback(on_train_begin=lambda program: seen.append(third.monitor.best))
    resumed.fit((X, Y), verbose=0, callbacks=[third, look])
    assert seen == [None, second.monitor.best]


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path):
    path = tmp_path / "run.safetensors"
    other = program(model=Classifier(hidden=8))
    other.fit((X, Y), verbose=0)
    other.save(path)
    train = program()
    train.fit((X, Y), verbose=0)
    before, steps = weights_of(train), train.steps
    for bad in (path, *damaged(path, tmp_path)):
        with pytest.raises(CheckpointError):
            train.load(bad)
        for a, b in zip(before, weights_of(train), strict=True):
            np.testing.assert_array_equal(a, b)
        assert train.steps == steps
    own = tmp_path / "own.safetensors"
    program(optimizer=optim.SGD(0.1)).save(own)
    with pytest.raises(CheckpointError, match="of SGD, this training uses Adam"):
        train.load(own)
    with pytest.raises(FileNotFoundError):
        train.load(tmp_path / "none")


def damaged(path, folder):
    data = path.read_bytes()
    arrays, notes = load_arrays(path)
    cut = folder / "cut"
    cut.write_bytes(data[:-10])
    flipped = folder / "flipped"
    flipped.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    foreign = folder / "foreign"
    save_arrays(foreign, arrays, {})
    garbled = folder / "garbled"
    save_arrays(garbled, arrays, {**notes, "training": "[1, 2"})
    partial = folder / "partial"
    save_arrays(partial, arrays, {**notes, "training": '{"epoch": "one"}'})
    return [cut, flipped, foreign, garbled, partial]


KILLED = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from chainrule.frontend import optim
from chainrule.frontend.tensor import input
from chainrule.frontend.state import parameter
from chainrule.frontend.training import TrainingProgram
from chainrule.runtime.interpreted import InterpretedExecutable

def interpret(program, options, storage):
    return InterpretedExecutable(program, storage, options.training)

def make():
    x = input("x", ("batch", 300))
    w = parameter(np.ones((300, 300), "float32"), "w")
    return TrainingProgram((x @ w).square().mean(), optim.Adam(), compile_program=interpret)
"""


def test_a_kill_never_leaves_a_broken_checkpoint(tmp_path):
    source = KILLED.format(folder=str(tmp_path))
    path = tmp_path / "run.safetensors"
    loop = textwrap.dedent(f"""
        train = make()
        x = np.random.default_rng(0).normal(size=(4, 300)).astype("float32")
        train.save({str(path)!r})
        print("ready", flush=True)
        while True:
            train.step(x=x)
            train.save({str(path)!r})
    """)
    scope = {}
    exec(source, scope)
    x = np.random.default_rng(0).normal(size=(4, 300)).astype("float32")
    for delay in (0.0, 0.05, 0.11, 0.173):
        with subprocess.Popen(
            [sys.executable, "-c", source + loop], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        resumed, whole = scope["make"](), scope["make"]()
        resumed.load(path)
        for _ in range(resumed.steps):
            whole.step(x=x)
        assert_same_bits(resumed, whole)


# -- callbacks ------------------------------------------------------------------------------------


def test_early_stopping_restores_the_best_epoch():
    train = program(optimizer=optim.SGD(0.5))
    seen = []
    stop = cb.EarlyStopping("loss", patience=2, restore_best=True)

    def spoil(program, epoch, logs):
        seen.append(program.parameters[0].value.copy())
        if epoch >= 3:
            for parameter in program.parameters:
                parameter.value[...] *= 5.0

    history = train.fit(
        (X, Y), epochs=50, verbose=0, callbacks=[cb.LambdaCallback(on_epoch_end=spoil), stop]
    )
    assert train.epoch < 50
    best, _ = history.best("loss")
    assert stop.best_epoch == best
    expected = seen[best] * (5.0 if best >= 3 else 1.0)
    np.testing.assert_array_equal(train.parameters[0].value, expected.astype("float32"))


def test_checkpoints_of_the_best_epoch_only(tmp_path):
    train = program(optimizer=optim.SGD(0.1))
    path = tmp_path / "epoch-{epoch:02d}.safetensors"
    train.fit(
        (X, Y), epochs=3, verbose=0, callbacks=[cb.Checkpoint(path, "loss", save_best_only=True)]
    )
    losses = train.history["loss"]
    best = [e for e in range(3) if losses[e] == min(losses[: e + 1])]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"epoch-{e:02d}.safetensors" for e in best
    ]


def test_checkpoints_of_some_epochs_and_the_latest_files(tmp_path):
    path = tmp_path / "epoch-{epoch}"
    keep = cb.Checkpoint(path, every_epochs=2, keep=2)
    program().fit((X, Y), epochs=9, verbose=0, callbacks=[keep])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-5", "epoch-7"]
    resumed, again = program(), cb.Checkpoint(path, every_epochs=2, keep=2)
    resumed.load(tmp_path / "epoch-7")
    resumed.fit((X, Y), total_epochs=10, verbose=0, callbacks=[again])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-7", "epoch-9"]
    for how in ({"keep": 0}, {"every_epochs": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            cb.Checkpoint(path, **how)


def test_a_csv_log_replaces_the_epochs_that_are_trained_again(tmp_path):
    path, saved = tmp_path / "log.csv", tmp_path / "run"
    train = program()
    train.fit((X, Y), epochs=2, verbose=0, callbacks=[cb.CSVLogger(path)])
    train.save(saved)
    expected = train.fit((X, Y), epochs=1, verbose=0, callbacks=[cb.CSVLogger(path, append=True)])
    with path.open("a") as file:
        file.write("3,0.")  # a line that a kill cut off
    resumed = program()
    resumed.load(saved)
    resumed.fit((X, Y), total_epochs=3, verbose=0, callbacks=[cb.CSVLogger(path, append=True)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert float(rows[2]["loss"]) == expected["loss"][0]


def test_a_training_ends_with_its_time():
    train = program()
    train.fit((X, Y), epochs=50, verbose=0, callbacks=[cb.TimeLimit(0.0)])
    assert train.steps == 1
    train.fit((X, Y), total_epochs=1, verbose=0, callbacks=[cb.TimeLimit(3600.0)])
    assert train.epoch == 1
    with pytest.raises(ValueError, match="negative"):
        cb.TimeLimit(-1.0)


def test_a_csv_log_can_be_continued(tmp_path):
    path = tmp_path / "log.csv"
    train = program()
    train.fit((X, Y), epochs=2, verbose=0, callbacks=[cb.CSVLogger(path)])
    train.fit((X, Y), epochs=1, verbose=0, callbacks=[cb.CSVLogger(path, append=True)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert float(rows[2]["loss"]) == train.history["loss"][0]


def test_schedules_are_advanced_by_what_they_count():
    train = program(optimizer=optim.SGD(schedules.ExponentialLR(1.0, 0.5)))
    history = train.fit((X, Y), epochs=3, verbose=0)
    assert history["lr"] == [1.0, 0.5, 0.25]
    train = program(optimizer=optim.SGD(schedules.ExponentialLR(1.0, 0.5, interval="step")))
    train.step(x=X, y=Y)
    train.step(x=X, y=Y)
    assert train.optimizer.lr == 0.25
    train = program(optimizer=optim.SGD(1.0))
    train.fit(
        (X, Y),
        batch_size=50,
        verbose=0,
        callbacks=[schedules.StepLR(None, 2, 0.1, interval="step")],
    )
    assert train.optimizer.lr == pytest.approx(0.01)
    train = program(optimizer=optim.SGD(1.0))
    train.fit(
        (X, Y),
        epochs=3,
        verbose=0,
        callbacks=[cb.LearningRateScheduler(lambda epoch, lr: lr * 0.5)],
    )
    assert train.optimizer.lr == 0.125
    with pytest.raises(InputError, match="monitors 'val_loss'"):
        train.fit((X, Y), verbose=0, callbacks=[schedules.ReduceLROnPlateau(None)])


def test_training_stops_at_a_loss_that_is_not_finite():
    train = program(optimizer=optim.SGD(0.1))
    train.fit((X * np.nan, Y), epochs=5, verbose=0, callbacks=[cb.TerminateOnNaN()])
    assert train.steps == 1


def test_a_missing_measurement_is_named():
    with pytest.raises(KeyError, match="validation_data"):
        program().fit((X, Y), verbose=0, callbacks=[cb.EarlyStopping("val_loss")])


# -- data -----------------------------------------------------------------------------------------


def test_shuffling_is_the_same_everywhere():
    assert sorted(shuffled_indices(1000, 3, 4)) == list(range(1000))
    np.testing.assert_array_equal(shuffled_indices(8, 1, 2), [7, 6, 2, 5, 4, 3, 1, 0])


def test_batches_start_in_the_middle():
    batches = ArrayBatches({"a": np.arange(10)}, 4, shuffle=True, seed=1)
    whole = [b["a"].copy() for b, _ in batches.epoch(3)]
    assert [len(b) for b in whole] == [4, 4, 2]
    np.testing.assert_array_equal(
        np.concatenate(whole[1:]),
        np.concatenate([b["a"].copy() for b, _ in batches.epoch(3, first=1)]),
    )


def test_a_split_is_disjoint_and_covers():
    a, b, c, d = train_test_split(np.arange(20), np.arange(20) * 2, test_size=0.3, seed=5)
    assert len(a) == 14 and len(b) == 6
    assert sorted([*a, *b]) == list(range(20))
    np.testing.assert_array_equal(c, a * 2)
    np.testing.assert_array_equal(d, b * 2)
    with pytest.raises(InputError):
        train_test_split(np.arange(3), test_size=0.01)


def test_the_digits_are_loaded_or_the_extra_is_named(monkeypatch):
    pytest.importorskip("sklearn")
    from chainrule.frontend.data import load_digits

    (x, y), (x_test, y_test) = load_digits()
    assert x.shape == (1438, 64) and x_test.shape == (359, 64)
    assert x.dtype == "float32" and y.dtype == "int64" and 0 <= x.min() <= x.max() <= 1
    assert len(y) == len(x) and len(y_test) == len(x_test)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "chainrule\[demo\]"'):
        load_digits()


@pytest.mark.bench
def test_a_step_costs_little_beside_the_program():
    train = program(metrics=())
    result = {"loss": np.zeros(())}
    train.executable = lambda arrays: dict(result)
    plain = train.executable
    rounds = 20000

    def cost(function):
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(rounds):
                function()
            best = min(best, time.perf_counter() - start)
        return best / rounds

    overhead = cost(lambda: train.step(x=X, y=Y)) - cost(lambda: plain({"x": X, "y": Y}))
    assert overhead < 2e-6


def test_nothing_keeps_a_training_that_is_no_longer_used():
    """Without the garbage collector: a cycle would keep graphs and arrays for long."""

    def make():
        model = Classifier()
        train = program(model=model, metrics=["accuracy", "auc"], ema=0.9, accumulate=2)
        train.fit((X, Y), validation_data=(X, Y), verbose=0)
        train.predict(X)
        return weakref.ref(train), weakref.ref(model.logits.node), weakref.ref(model.loss.node)

    gc.collect()
    gc.disable()
    try:
        assert [reference() for reference in make()] == [None] * 3
    finally:
        gc.enable()
