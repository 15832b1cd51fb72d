"""Examples that learn without labels reach what their docstrings state."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the data sets come with scikit-learn")


def test_autoencoder(example):
    m = example("autoencoder").train(epochs=30, verbose=0)
    assert m["error"] <= 0.75 * m["pca_error"]
    assert m["power_left"] <= 0.3 * m["noise_power"]
    assert m["noise_power"] == pytest.approx(0.09, rel=0.05)


def test_vae(example):
    m = example("vae").train(epochs=20, verbose=0)
    assert m["bound"] <= 28.0
    assert 7.0 <= m["divergence"] <= 13.0
    assert m["beta_divergence"] <= 0.6 * m["divergence"]
    assert m["beta_reconstruction"] > m["reconstruction"]
    assert m["invented"].shape == (100, 64) and m["invented"].std(0).mean() > 0.1


def test_gan(example):
    m = example("gan").train(epochs=10, verbose=0)
    assert m["modes"] == 8
    assert m["quality"] >= 0.6


def test_each_player_of_the_gan_moves_itself_alone(example):
    import chainrule as cr
    from chainrule import optim

    cr.manual_seed(0)
    net = example("gan").build(hidden=16, batch=32)
    players = {"detective": net.discriminator, "forger": net.generator}
    losses = {"detective": net.detective_loss, "forger": net.forger_loss}
    for name, player in players.items():
        (other,) = (p for n, p in players.items() if n != name)
        program = cr.compile_train(losses[name], optim.Adam(1e-3), params=player.parameters())
        before = player.state_dict(), other.state_dict()
        program.step()
        assert all((before[0][k] != v).any() for k, v in player.state_dict().items())
        assert all((before[1][k] == v).all() for k, v in other.state_dict().items())


def test_self_organizing_map(example):
    m = example("self_organizing_map").train(verbose=0)
    assert m["quantisation"] <= 0.65 * m["mean_distance"]
    assert m["topographic"] <= 0.2
    assert m["accuracy"] >= 0.88


def test_the_map_moves_as_kohonen_says(example):
    """One step against the rule written with loops."""
    import chainrule as cr

    side, sigma = 3, 0.8
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(20, 5)).astype("float32")
    net = example("self_organizing_map").build(side, 5)
    units = net.units.numpy().astype("f8")
    cr.compile(net.error, updates=net.updates)(x=x, radius=sigma)
    place = [(i // side, i % side) for i in range(side * side)]
    top, bottom = np.zeros_like(units), np.zeros(len(units))
    for sample in x:
        c = min(range(len(units)), key=lambda i: ((sample - units[i]) ** 2).sum())
        for i in range(len(units)):
            gap = (place[i][0] - place[c][0]) ** 2 + (place[i][1] - place[c][1]) ** 2
            h = np.exp(-gap / (2 * sigma**2))
            top[i], bottom[i] = top[i] + h * sample, bottom[i] + h
    np.testing.assert_allclose(net.units.value, top / bottom[:, None], rtol=1e-4)


def test_physics_informed(example):
    m = example("physics_informed").train(epochs=8, verbose=0)
    assert m["relative_error"] <= 0.01
    assert m["residual"] <= 0.05
