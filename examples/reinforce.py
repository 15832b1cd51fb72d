"""REINFORCE: a pole balanced on a cart, by trial and error, simulated inside the compiled step.

    θ ← θ + α Σ_t (R_t - b_t) ∇ log π(a_t | s_t),    R_t = r_t + γ R_{t+1}

Actions that were followed by more reward than usual become more probable; the baseline b_t, here
the mean of the returns of all carts at that moment, says what is usual and lowers the variance
(Williams, "Simple statistical gradient-following algorithms", Machine Learning 8, 1992).  The
cart-pole is that of Barto, Sutton & Anderson (1983): push left or right every 0.02 s, fail beyond
12° or 2.4 m.

The dynamics are operators of the graph and `cr.scan` rolls them out: one native call simulates 64
carts for 200 moments, differentiates the policy and updates it.  No simulator runs in Python.

Learns: a policy of 4 → 32 → 1 from nothing but how long the pole stayed up.
Expect: a mean of at least 195 of 200 moments.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import nn, optim

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02


def move(state, right):
    """Return the state (carts, 4) after one push; ``right`` (carts,) is 1 or 0.

    The equations of motion of Barto, Sutton & Anderson, appendix, without friction; Euler's method.
    """
    speed, angle, turning = (state[:, i] for i in (1, 2, 3))
    push = FORCE * (2.0 * right - 1.0)
    sine, cosine, mass = cr.sin(angle), cr.cos(angle), CART + POLE
    pressure = (push + POLE * HALF_LENGTH * cr.square(turning) * sine) / mass
    bend = (GRAVITY * sine - cosine * pressure) / (
        HALF_LENGTH * (4.0 / 3.0 - POLE * cr.square(cosine) / mass)
    )
    speed_up = pressure - POLE * HALF_LENGTH * bend * cosine / mass
    rates = (speed, speed_up, turning, bend)
    return state + SECONDS * cr.stack(rates, axis=1)


def is_up(state):
    """Return 1 where the pole stands and the cart is on its track, else 0."""
    inside = (cr.abs(state[:, 0]) < 2.4) & (cr.abs(state[:, 2]) < np.pi / 15)
    return inside.astype("float32")


def roll_out(policy, start, luck):
    """Return log π of each action and whether the cart was up, both (moments, carts).

    ``luck`` (moments, carts): uniform numbers that decide the actions.
    """

    def moment(carry, chance):
        state, alive = carry
        score = policy(state).squeeze(1)  # the log-odds of a push to the right
        right = (chance < cr.sigmoid(score)).astype("float32")
        log_probability = -cr.softplus(cr.where(right > 0, -score, score))
        state = cr.stop_gradient(move(state, right))
        return (state, alive * is_up(state)), (log_probability, alive)

    everyone = cr.ones((start.shape[0],))
    _, (log_probabilities, alive) = cr.scan(moment, (start, everyone), luck)
    return log_probabilities, alive


def discounted(rewards, gamma):
    """Return R_t = r_t + γ R_{t+1} for rewards (moments, carts): a scan from the end."""

    def back(later, reward):
        now = reward + gamma * later
        return now, now

    return cr.scan(back, cr.zeros(rewards.shape[1:]), rewards, reverse=True)[1]


def build(carts=64, moments=200, hidden=32, gamma=0.98):
    """Return the graph: the loss whose gradient is REINFORCE's, and the moments survived."""
    policy = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 1))
    start = cr.random.uniform((carts, 4), -0.05, 0.05)
    log_probabilities, alive = roll_out(policy, start, cr.random.uniform((moments, carts)))
    returns = discounted(alive, gamma)
    usual = (alive * returns).sum(1, keepdims=True) / (alive.sum(1, keepdims=True) + 1e-6)
    advantage = cr.stop_gradient(alive * (returns - usual))
    return SimpleNamespace(
        policy=policy,
        loss=-(advantage * log_probabilities).sum() / carts,
        survived=alive.sum(0).mean(),
    )


def train(epochs=15, steps=10, verbose=1, seed=0, backend="native"):
    """Train; return the mean number of moments survived by 64 new carts."""
    cr.manual_seed(seed)
    net = build()
    program = cr.compile_train(
        net.loss, optim.Adam(1e-2), {"survived": net.survived}, backend=backend, seed=seed
    )
    for epoch in range(epochs):
        survived = np.mean([program.step()["survived"] for _ in range(steps)])
        if verbose:
            print(f"epoch {epoch + 1}/{epochs}  {survived:.1f} of 200 moments")
    return {"survived": float(cr.compile(net.survived, backend=backend)())}


if __name__ == "__main__":
    print(f"the pole stays up for {train()['survived']:.1f} of 200 moments")
