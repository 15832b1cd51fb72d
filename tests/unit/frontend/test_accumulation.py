"""Gradient accumulation, averages of weights, weights of samples: against one step by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.frontend import callbacks as cb
from chainrule.frontend import schedules

GENERATOR = np.random.default_rng(5)
X = GENERATOR.normal(size=(50, 3))
Y = GENERATOR.integers(0, 4, 50)


@pytest.fixture(params=["numpy", "native"])
def backend(request):
    return request.param


def training(optimizer, backend="numpy", seed=0, norm=False, reduction="mean", **options):
    cr.manual_seed(seed)
    x = cr.input("x", ("batch", 3), dtype="float64")
    y = cr.input("y", ("batch",), dtype="int64")
    hidden = [nn.Linear(3, 5, dtype="float64"), nn.Tanh()]
    if norm:
        hidden.append(nn.BatchNorm1d(5, dtype="float64"))
    model = nn.Sequential(*hidden, nn.Linear(5, 4, dtype="float64"))
    logits = model(x)
    loss = losses.cross_entropy(logits, y, reduction=reduction)
    train = cr.compile_train(
        loss, optimizer, {"logits": logits}, backend=backend, seed=seed, **options
    )
    return train, model


def values(model):
    return [p.numpy() for p in model.parameters()]


def assert_close(first, second, rtol=1e-12, atol=1e-13):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# -- accumulation ---------------------------------------------------------------------------------

CUTS = [0, 7, 20, 33, 50]


@pytest.mark.parametrize(
    "make",
    [lambda: optim.SGD(0.3, momentum=0.9), lambda: optim.AdamW(0.05, clip_norm=0.1, l1=1e-3)],
    ids=["sgd", "adamw-clipped"],
)
def test_small_batches_of_any_size_make_one_large(backend, make):
    whole, reference = training(make(), backend)
    parts, model = training(make(), backend, accumulate=4)
    for _ in range(3):
        expected = whole.step(x=X, y=Y)["loss"]
        before = values(model)
        measured = []
        for a, b in pairwise(CUTS):
            assert_same(before, values(model))
            measured.append(parts.step(x=X[a:b], y=Y[a:b])["loss"] * (b - a))
        assert sum(measured) / 50 == pytest.approx(expected, rel=1e-12)
        assert_close(values(model), values(reference))
    assert parts.steps == 12 and int(parts.optimizer.step_count.value) == 3


def test_a_loss_that_is_a_sum_adds_up(backend):
    whole, reference = training(optim.SGD(0.01), backend, reduction="sum")
    parts, model = training(
        optim.SGD(0.01), backend, reduction="sum", accumulate=4, accumulate_reduction="sum"
    )
    whole.step(x=X, y=Y)
    for a, b in pairwise(CUTS):
        parts.step(x=X[a:b], y=Y[a:b])
    assert_close(values(model), values(reference))


def test_fit_ends_a_group_with_the_epoch():
    train, model = training(optim.SGD(0.1), accumulate=4)
    reference, expected = training(optim.SGD(0.1))
    train.fit((X, Y), epochs=2, batch_size=8, shuffle=False, verbose=0)
    # 7 batches: 4 of 8 samples, then 8 + 8 + 2
    for _ in range(2):
        reference.step(x=X[:32], y=Y[:32])
        reference.step(x=X[32:], y=Y[32:])
    assert_close(values(model), values(expected))
    assert train.steps == 14 and int(train.optimizer.step_count.value) == 4
    assert not train.flush()


def test_schedules_count_updates():
    schedule = schedules.ExponentialLR(1.0, 0.5, interval="step")
    train, _ = training(optim.SGD(schedule), accumulate=2)
    rates = []
    for _ in range(4):
        train.step(x=X, y=Y)
        rates.append(train.optimizer.lr)
    assert rates == [1.0, 0.5, 0.5, 0.25]
    train.step(x=X, y=Y)
    assert train.flush() and train.optimizer.lr == 0.125


def test_accumulation_resumes_within_a_group(tmp_path):
    path = tmp_path / "run.safetensors"
    whole, expected = training(optim.Adam(0.05), accumulate=3, ema=0.9)
    whole.fit((X, Y), epochs=2, batch_size=8, verbose=0)

    def stop(program, batch, logs):
        if program.steps == 9:  # one batch into the second epoch's first group, plus one
            program.stop_training = True

    first, _ = training(optim.Adam(0.05), accumulate=3, ema=0.9)
    first.fit(
        (X, Y), epochs=2, batch_size=8, verbose=0, callbacks=[cb.LambdaCallback(on_batch_end=stop)]
    )
    first.save(path)
    second, model = training(optim.Adam(0.05), seed=0, accumulate=3, ema=0.9)
    second.load(path)
    assert int(second.graph.sums.pending.value) == 2
    second.fit((X, Y), total_epochs=2, batch_size=8, verbose=0)
    assert_same(values(model), values(expected))
    assert_same([v.value for v in second.states], [v.value for v in whole.states])
    assert dict(second.history) == dict(whole.history)


def test_fixed_batches_accumulate():
    x = cr.input("x", (4, 2), dtype="float64")
    w = cr.parameter(np.ones(2), "w")
    data = GENERATOR.normal(size=(8, 2))
    train = cr.compile_train((x @ w).square().mean(), optim.SGD(0.1), accumulate=2, backend="numpy")
    train.step(x=data[:4])
    train.step(x=data[4:])
    gradient = 2 * data.T @ (data @ np.ones(2)) / 8
    np.testing.assert_allclose(w.value, 1 - 0.1 * gradient, rtol=1e-12)


def test_what_cannot_accumulate_is_refused():
    with pytest.raises(cr.GraphError, match="accumulate must be at least 1"):
        training(optim.SGD(), accumulate=0)
    with pytest.raises(cr.GraphError, match="accumulate_reduction 'max'"):
        training(optim.SGD(), accumulate=2, accumulate_reduction="max")


# -- averages of the weights ----------------------------------------------------------------------


@pytest.mark.parametrize("bias_corrected", [False, True])
def test_averages_by_hand(backend, bias_corrected):
    how = optim.WeightAverage(0.8, bias_corrected)
    train, model = training(optim.SGD(0.5), backend, ema=how)
    data = {"x": X, "y": Y}
    np.testing.assert_array_equal(train.predict(X), train.predict(X, averaged=False))
    average = [np.zeros_like(p) for p in values(model)] if bias_corrected else values(model)
    for step in range(1, 6):
        train.step(**data)
        average = [0.8 * a + 0.2 * p for a, p in zip(average, values(model), strict=True)]
        share = 1 - 0.8**step if bias_corrected else 1.0
        kept = [a.value for a in train.graph.average.averages.values()]
        assert_close(kept, [a / share for a in average])
    trained = values(model)
    plain, averaged = train.predict(X, averaged=False), train.predict(X)
    assert np.abs(plain - averaged).max() > 1e-3
    with train.averaged_weights():
        assert_close(values(model), [a / share for a in average])
        np.testing.assert_array_equal(train.predict(X, averaged=False), averaged)
    assert_same(values(model), trained)
    losses_of = [train.evaluate((X, Y), averaged=flag)["loss"] for flag in (None, True, False)]
    assert losses_of[0] == losses_of[1] != losses_of[2]


def test_averages_are_saved_and_loaded(tmp_path):
    path = tmp_path / "run.safetensors"
    train, _ = training(optim.Adam(0.1), ema=0.9)
    train.fit((X, Y), epochs=3, verbose=0)
    train.save(path)
    other, _ = training(optim.Adam(0.1), seed=9, ema=0.9)
    assert np.abs(other.predict(X) - train.predict(X)).max() > 1e-3
    other.load(path)
    np.testing.assert_array_equal(other.predict(X), train.predict(X))
    plain, _ = training(optim.Adam(0.1))
    with pytest.raises(cr.CheckpointError, match="ema"):
        plain.load(path)


def test_weights_loaded_before_the_first_step_are_what_is_averaged():
    train, model = training(optim.SGD(0.0), ema=0.5)
    for p in model.parameters():
        p.assign(p.value + 1.0)
    train.step(x=X, y=Y)
    kept = [a.value for a in train.graph.average.averages.values()]
    assert_close(kept, values(model))


def test_the_best_epoch_brings_its_averages_back():
    train, _ = training(optim.SGD(0.5), ema=0.5)
    seen = []

    def spoil(program, epoch, logs):
        seen.append([a.value.copy() for a in train.graph.average.averages.values()])
        for p in program.parameters:
            p.value[...] *= 3.0

    stop = cb.EarlyStopping("loss", patience=1, restore_best=True)
    train.fit((X, Y), epochs=9, verbose=0, callbacks=[cb.LambdaCallback(on_epoch_end=spoil), stop])
    assert train.epoch > stop.best_epoch + 1
    kept = [a.value for a in train.graph.average.averages.values()]
    assert_same(kept, seen[stop.best_epoch])


def test_what_has_no_average_is_refused():
    train, _ = training(optim.SGD())
    with pytest.raises(cr.GraphError, match="no averages"):
        train.predict(X, averaged=True)
    with pytest.raises(cr.GraphError, match="no averages"), train.averaged_weights():
        pass
    with pytest.raises(ValueError, match="decay"):
        training(optim.SGD(), ema=1.0)


# -- weights of samples and classes ---------------------------------------------------------------


def weighted(backend="numpy", **options):
    return training(optim.SGD(0.5), backend, reduction="none", weighted=True, **options)


def test_a_weight_is_a_number_of_copies(backend):
    counts = GENERATOR.integers(0, 4, 50)
    train, model = weighted(backend)
    copies, expected = weighted(backend)
    for _ in range(3):
        first = train.step(x=X, y=Y, sample_weight=counts)["loss"]
        second = copies.step(x=np.repeat(X, counts, 0), y=np.repeat(Y, counts))["loss"]
        assert first == pytest.approx(second, rel=1e-12)
    assert_close(values(model), values(expected))


def test_fit_takes_weights_of_samples_and_of_classes():
    of_class = {0: 2.0, 3: 0.5}
    own = GENERATOR.uniform(0, 2, 50)
    product = own * np.array([2.0, 1.0, 1.0, 0.5])[Y]
    forms = [
        ((X, Y), {"sample_weight": product}),
        ((X, Y), {"sample_weight": own, "class_weight": of_class}),
        ((X, Y, product), {}),
        ({"x": X, "y": Y, "sample_weight": own}, {"class_weight": [2.0, 1.0, 1.0, 0.5]}),
        ([(X[:32], Y[:32], product[:32]), (X[32:], Y[32:], product[32:])], {}),
        ([(X[:32], Y[:32], own[:32]), (X[32:], Y[32:], own[32:])], {"class_weight": of_class}),
    ]
    found = []
    for data, how in forms:
        train, model = weighted()
        train.fit(data, epochs=2, batch_size=32, shuffle=False, verbose=0, **how)
        found.append((values(model), train.history["loss"]))
    for model_values, measured in found[1:]:
        assert_close(model_values, found[0][0], rtol=1e-10)
        assert measured == pytest.approx(found[0][1], rel=1e-10)
    train, _ = weighted()
    train.fit((X, Y), verbose=0)  # no weights: all are 1


def test_the_loss_of_an_epoch_is_weighted():
    own = GENERATOR.uniform(0, 2, 50)
    train, _ = training(optim.SGD(0.0), reduction="none", weighted=True)
    history = train.fit(
        (X, Y), batch_size=8, sample_weight=own, validation_data=(X, Y, own), verbose=0
    )
    whole = train.step(x=X, y=Y, sample_weight=own)["loss"]
    assert history["loss"][0] == pytest.approx(whole)
    assert history["val_loss"][0] == pytest.approx(whole)
    assert train.evaluate((X, Y), sample_weight=own)["loss"] == pytest.approx(whole)
    split = train.fit((X, Y), sample_weight=own, validation_split=0.2, shuffle=False, verbose=0)
    part = train.evaluate((X[:40], Y[:40]), sample_weight=own[:40])["loss"]
    assert split["loss"][0] == pytest.approx(part)


def test_balanced_classes_count_the_same():
    train, _ = weighted()
    seen = []
    execute = train.executable
    train.executable = lambda arrays: seen.append(arrays) or execute(arrays)
    train.fit((X, Y), batch_size=50, class_weight="balanced", verbose=0)
    labels, weights = seen[0]["y"], seen[0]["sample_weight"]
    totals = [weights[labels == label].sum() for label in range(4)]
    np.testing.assert_allclose(totals, 50 / 4)


def test_weights_of_zero_and_of_unequal_batches_accumulate(backend):
    own = GENERATOR.uniform(0, 2, 50)
    own[:7] = 0.0
    whole, expected = weighted(backend)
    parts, model = weighted(backend, accumulate=4)
    whole.step(x=X, y=Y, sample_weight=own)
    for a, b in pairwise(CUTS):
        loss = parts.step(x=X[a:b], y=Y[a:b], sample_weight=own[a:b])["loss"]
        assert np.isfinite(loss)
    assert_close(values(model), values(expected))


def test_weights_that_do_not_fit_are_refused():
    train, _ = weighted()
    plain, _ = training(optim.SGD())
    cases = [
        (plain, {"sample_weight": np.ones(50)}, "weighted=True"),
        (train, {"sample_weight": np.ones(49)}, "does not fit 50 samples"),
        (train, {"sample_weight": -np.ones(50)}, "not negative"),
        (train, {"class_weight": "equal"}, "balanced"),
        (train, {"class_weight": [1.0, 2.0]}, "labels go to 3"),
    ]
    for program, how, message in cases:
        with pytest.raises(cr.InputError, match=message):
            program.fit((X, Y), verbose=0, **how)
    with pytest.raises(cr.InputError, match="batches bring their own"):
        train.fit([(X, Y)], sample_weight=np.ones(50), verbose=0)
    with pytest.raises(cr.GraphError, match="reduction='none'"):
        training(optim.SGD(), weighted=True)
