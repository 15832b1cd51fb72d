"""Physics-informed neural network (PINN): a differential equation solved by gradient descent.

Burgers' equation, the simplest model of a shock wave:

    u_t + u u_x = ν u_xx   for -1 < x < 1, 0 < t < 1,   u given at t = 0 and at x = ±1

A network u(x, t) is trained until the equation holds: its derivatives in x and t are graphs again,
the loss holds the second derivative u_xx, and training differentiates that once more (Raissi,
Perdikaris & Karniadakis, J. Comput. Phys. 378, 2019).  The points at which the equation is tested
are drawn anew in each compiled step; nothing is fed in.

Learns: the travelling front u = ½ (1 - tanh((x - t/2) / 4ν)), ν = 0.05, known in closed form.
Expect: a relative error of the solution of about 0.1 % (2-norm over a grid) after 4,000 steps.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

VISCOSITY = 0.05


def front(x, t, tanh=cr.tanh):
    """Return the exact solution; of tensors, or of arrays with ``tanh=np.tanh``."""
    return 0.5 * (1.0 - tanh((x - 0.5 * t) / (4.0 * VISCOSITY)))


def derivative(y, x):
    """Return ∂yᵢ/∂xᵢ for y (n, 1) that depends row by row on x (n, 1): the gradient of Σ yᵢ."""
    return cr.grad(y.sum(), [x])[0]


def build(points=256, hidden=32):
    """Return the graph of the loss, and of the solution at any points ``(x, t)``."""
    network = nn.Sequential(
        nn.Linear(2, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.Tanh(),
        nn.Linear(hidden, 1),
    )

    def solution(x, t):
        return network(cr.concatenate([x, t], axis=1))

    # inside: the equation
    x = cr.random.uniform((points, 1), -1.0, 1.0)
    t = cr.random.uniform((points, 1))
    u = solution(x, t)
    u_x, u_t = derivative(u, x), derivative(u, t)
    residual = u_t + u * u_x - VISCOSITY * derivative(u_x, x)
    equation = cr.square(residual).mean()

    # on the edge: known values at t = 0, and at x = -1 or 1
    start = cr.random.uniform((points, 1), -1.0, 1.0)
    side = cr.sign(cr.random.uniform((points, 1), -1.0, 1.0))
    moment = cr.random.uniform((points, 1))
    at_start = losses.mse(solution(start, cr.zeros((points, 1))), front(start, 0.0))
    at_sides = losses.mse(solution(side, moment), front(side, moment))

    asked_x, asked_t = cr.input("x", ("n", 1)), cr.input("t", ("n", 1))
    return SimpleNamespace(
        loss=equation + 10.0 * (at_start + at_sides),
        equation=equation,
        solution=solution(asked_x, asked_t),
    )


def train(epochs=20, verbose=1, seed=0, backend="native"):
    """Train; an epoch is 200 steps.  Return the relative error and the equation's residual."""
    cr.manual_seed(seed)
    net = build()
    schedule = cr.schedules.CosineAnnealingLR(5e-3, epochs)
    program = cr.compile_train(net.loss, optim.Adam(schedule), backend=backend, seed=seed)
    program.fit([{}] * 200, epochs, verbose=verbose)

    x, t = (g.reshape(-1, 1) for g in np.meshgrid(np.linspace(-1, 1, 101), np.linspace(0, 1, 51)))
    exact = front(x, t, np.tanh)
    found = cr.compile(net.solution, backend=backend)(x=x, t=t)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    residual = float(cr.compile(net.equation, backend=backend)()) ** 0.5
    return {"relative_error": float(error), "residual": residual}


if __name__ == "__main__":
    m = train()
    print(f"relative error {m['relative_error']:.4f}, residual {m['residual']:.4f}")
