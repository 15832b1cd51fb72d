"""Examples of convolutional networks reach what their docstrings state, at a smaller size."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_lenet(example):
    m = example("lenet").train(epochs=6, verbose=0)
    assert m["accuracy"] >= 0.92
    assert m["parameters"] == 61_706


def test_wavenet(example):
    m = example("wavenet").train(epochs=12, sounds=160, verbose=0)
    assert m["bits"] <= m["table_bits"] - 0.1
    assert m["table_bits"] <= 2.0


@pytest.mark.slow
def test_wavenet_at_full_size(example):
    assert example("wavenet").train(verbose=0)["bits"] <= 1.35


def test_wavenet_never_looks_ahead(example):
    """What is predicted up to a moment does not change with what comes after it."""
    import chainrule as cr

    wavenet = example("wavenet")
    cr.manual_seed(0)
    net = wavenet.build(length=64, channels=8, layers=5)
    predict = cr.compile(net.logits)
    sound = wavenet.make_data(2, 65)
    changed = sound.copy()
    changed[:, 40:] = (changed[:, 40:] + 7) % wavenet.LEVELS
    before, after = predict(sound=sound), predict(sound=changed)
    np.testing.assert_allclose(before[:, :40], after[:, :40], rtol=1e-5, atol=1e-5)
    assert (np.abs(before[:, 40:] - after[:, 40:]).max(axis=(0, 2)) > 1e-3).all()


def test_unet(example):
    m = example("unet").train(epochs=10, scenes=192, verbose=0)
    assert m["iou"] >= m["threshold_iou"] + 0.1
    assert m["threshold_iou"] == pytest.approx(0.466, abs=0.02)


@pytest.mark.slow
def test_unet_at_full_size(example):
    assert example("unet").train(verbose=0)["iou"] >= 0.8


def test_dcgan(example):
    m = example("dcgan").train(epochs=24, width=24, verbose=0)
    assert m["precision"] >= 0.15 and m["recall"] > 0.0 and m["rarest"] > 0.0


def test_precision_of_dcgan_tells_noise_from_digits(example):
    dcgan = example("dcgan")
    (some, _), (others, labels) = dcgan.make_data()
    noise = np.random.default_rng(0).uniform(-1, 1, others.shape)
    good, bad = dcgan.measure(some[:400], others, labels), dcgan.measure(noise, others, labels)
    assert good["precision"] >= 0.7 and good["recall"] >= 0.6 and good["rarest"] >= 0.06
    assert bad["precision"] <= 0.01 and bad["recall"] <= 0.01


@pytest.mark.slow
def test_dcgan_at_full_size(example):
    m = example("dcgan").train(verbose=0)
    assert m["precision"] >= 0.4 and m["recall"] >= 0.1 and m["rarest"] >= 0.02


def test_dcgan_statistics_belong_to_the_player_that_moves(example):
    """Batch normalisation of the generator moves in the forger's step only."""
    import chainrule as cr
    from chainrule import optim

    cr.manual_seed(0)
    net = example("dcgan").build(width=4, batch=8)
    real = np.zeros((8, 1, 8, 8), "float32")

    def statistics():
        return [v.numpy() for v in net.generator.buffers()]

    detective = cr.compile_train(net.detective_loss, optim.Adam(1e-3), params=net.discriminator)
    forger = cr.compile_train(net.forger_loss, optim.Adam(1e-3), params=net.generator)
    start = statistics()
    detective.step(real=real)
    assert all((a == b).all() for a, b in zip(start, statistics(), strict=True))
    forger.step()
    assert not any((a == b).all() for a, b in zip(start, statistics(), strict=True))


@pytest.mark.parametrize(
    ("name", "epochs", "accuracy"),
    [
        ("alexnet", 8, 0.85),
        ("vgg", 5, 0.85),
        ("inception", 6, 0.85),
        ("densenet", 3, 0.92),
        ("mobilenet", 3, 0.92),
    ],
)
def test_classifiers_of_digits(example, name, epochs, accuracy):
    assert example(name).train(epochs=epochs, verbose=0)["accuracy"] >= accuracy


def test_a_deep_network_needs_its_sums(example):
    m = example("resnet").train(epochs=5, verbose=0)
    assert m["accuracy"] >= 0.8
    assert m["accuracy"] >= m["plain_accuracy"] + 0.1
