"""Examples built on compiled loops reach what their docstrings state."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr

# -- forecasts ------------------------------------------------------------------------------------


def test_forecast(example):
    m = example("forecast").train(epochs=14, verbose=0)
    assert m["noise"] < min(m["lstm"], m["gru"])
    assert max(m["lstm"], m["gru"]) <= 0.8 * m["linear"]
    assert min(m["lstm_auc"], m["gru_auc"]) >= 0.9


def test_area_under_the_curve_counts_pairs(example):
    score, positive = np.array([0.1, 0.7, 0.4, 0.9]), np.array([False, True, True, False])
    assert example("forecast").area_under_curve(score, positive) == 0.5


# -- text -----------------------------------------------------------------------------------------


def test_character_rnn(example):
    character_rnn = example("character_rnn")
    m = character_rnn.train(epochs=5, verbose=0, hidden=96)
    assert m["entropy"] - 0.01 <= m["bits"] <= 1.15 * m["entropy"]
    known = {word for words in character_rnn.GRAMMAR for text in words for word in text.split()}
    words = [word.rstrip(".") for word in m["written"].split(" ")[:-1]]
    right = sum(word in known or word == "" for word in words)
    assert len(words) >= 50 and right >= 0.75 * len(words)


# -- translation ----------------------------------------------------------------------------------


def test_seq2seq_attention(example):
    m = example("seq2seq_attention").train(epochs=8, verbose=0)
    assert m["exact"] >= 0.93
    assert set(m["example"]) <= set("IVXLCDM")


@pytest.mark.parametrize(
    ("number", "numeral"),
    [(1, "I"), (4, "IV"), (9, "IX"), (40, "XL"), (1994, "MCMXCIV"), (3888, "MMMDCCCLXXXVIII")],
)
def test_roman_numerals(example, number, numeral):
    assert example("seq2seq_attention").roman(number) == numeral


def test_attention_never_falls_on_padding(example):
    seq2seq = example("seq2seq_attention")
    cr.manual_seed(0)
    net = seq2seq.build(hidden=16)
    (digits, _), _ = seq2seq.make_data()
    digits = np.concatenate([digits[:20], [[7, -1, -1, -1]]])
    attention = cr.compile(net.attention)(digits=digits)  # (batch, letters, digits)
    np.testing.assert_allclose(attention.sum(2), 1.0, rtol=1e-5)
    present = np.broadcast_to((digits != seq2seq.PAD)[:, None], attention.shape)
    assert (attention[~present] == 0).all() and (attention[present] > 0).all()


# -- the cart-pole --------------------------------------------------------------------------------


def test_reinforce(example):
    assert example("reinforce").train(epochs=10, verbose=0)["survived"] >= 190.0


def push(state, right):
    """Euler's step of the cart-pole, after the appendix of Barto, Sutton & Anderson (1983)."""
    x, v, angle, turning = state
    force = 10.0 if right else -10.0
    inner = (force + 0.05 * turning**2 * math.sin(angle)) / 1.1
    bend = (9.8 * math.sin(angle) - math.cos(angle) * inner) / (
        0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1)
    )
    speed_up = inner - 0.05 * bend * math.cos(angle) / 1.1
    return np.array([x, v, angle, turning]) + 0.02 * np.array([v, speed_up, turning, bend])


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_the_roll_out_is_a_simulation(example, backend):
    """Actions, log-probabilities and failures of 60 moments against a loop in Python."""
    reinforce = example("reinforce")
    cr.manual_seed(0)
    policy = reinforce.build(carts=2, moments=2).policy
    rng = np.random.default_rng(0)
    start, luck = rng.uniform(-0.05, 0.05, (5, 4)), rng.random((60, 5))
    tensors = cr.input("start", (5, 4)), cr.input("luck", (60, 5))
    roll_out = cr.compile(reinforce.roll_out(policy, *tensors), backend=backend, dtype="float64")
    log_probabilities, alive = roll_out(start=start, luck=luck)
    w1, b1, w2, b2 = (v.value.astype("f8") for v in policy.parameters())
    for cart in range(5):
        state, up = start[cart], 1.0
        for t in range(60):
            score = (w2 @ np.tanh(w1 @ state + b1) + b2)[0]
            right = luck[t, cart] < 1 / (1 + math.exp(-score))
            expected = -math.log1p(math.exp(-score if right else score))
            # constants of the graph, such as 9.8, are of float32
            assert log_probabilities[t, cart] == pytest.approx(expected, rel=1e-4)
            assert alive[t, cart] == up
            state = push(state, right)
            up *= abs(state[0]) < 2.4 and abs(state[2]) < math.pi / 15
    assert alive.min() == 0, "no cart failed, so failures were not tested"


def test_returns_are_discounted_from_the_end(example):
    rewards = cr.input("rewards", (5, 2))
    returns = cr.compile(example("reinforce").discounted(rewards, 0.5), dtype="float64")
    given = np.arange(10.0).reshape(5, 2)
    expected = [sum(0.5 ** (s - t) * given[s] for s in range(t, 5)) for t in range(5)]
    np.testing.assert_allclose(returns(rewards=given), expected, rtol=1e-12)
