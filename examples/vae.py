"""Variational autoencoder (VAE) and β-VAE: a model of digits that can invent new ones.

    encoder:  μ, log σ² = f(x)                          decoder:  p(x | z) = N(sigmoid(g(z)), s²)
    z = μ + σ ε,  ε ~ N(0, 1)                           (the reparameterisation trick)
    loss = -log p(x | z) + β KL(N(μ, σ²) ‖ N(0, 1)),    KL = ½ Σ (μ² + σ² - 1 - log σ²)

With β = 1 the loss is the negative evidence lower bound, in nats an image (Kingma & Welling,
"Auto-encoding variational Bayes", 2013).  With β > 1 the code must be cheaper: fewer of its
dimensions stay in use and the images get blurrier (Higgins et al., "β-VAE", ICLR 2017).

Learns: 8×8 digits, no labels; noise of a pixel s = 0.2.
Expect: a bound of about 25 nats (without the constant of the Gaussian) for β = 1, ten of them for
the code; β = 4 keeps a third of those and costs reconstruction.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

NOISE = 0.2  # standard deviation of a pixel


class VAE(nn.Module):
    """``forward(x)`` (batch, 64) returns the grey values of the decoder, μ and log σ²."""

    def __init__(self, code=10, hidden=128):
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def forward(self, x):
        mu, logvar = cr.split(self.encoder(x), 2, axis=1)
        z = mu + cr.exp(0.5 * logvar) * cr.random.normal(mu.shape)
        return cr.sigmoid(self.decoder(z)), mu, logvar


def build(beta=1.0, code=10, hidden=128):
    """Return the graph of the loss for ``beta`` and of new images from codes ``z``."""
    x = cr.input("x", ("batch", 64))
    model = VAE(code, hidden)
    rebuilt, mu, logvar = model(x)
    reconstruction = (cr.square(x - rebuilt) / (2 * NOISE**2)).sum(axis=1).mean()
    divergence = losses.gaussian_kl(mu, logvar)
    z = cr.input("z", ("batch", code))
    return SimpleNamespace(
        loss=reconstruction + beta * divergence,
        reconstruction=reconstruction,
        divergence=divergence,
        mu=mu,
        invented=cr.sigmoid(model.decoder(z)),
    )


def train_one(beta, epochs, verbose, seed, backend):
    """Train for one β; return the held-out terms of the loss, and 100 invented digits."""
    (x_train, _), (x_test, _) = cr.data.load_digits(seed=seed)
    cr.manual_seed(seed)
    net = build(beta)
    program = cr.compile_train(net.loss, optim.Adam(2e-3), backend=backend, seed=seed)
    program.fit((x_train,), epochs, batch_size=32, verbose=verbose)
    terms = cr.compile([net.reconstruction, net.divergence], backend=backend)
    reconstruction, divergence = (float(term) for term in terms(x=x_test))
    z = np.random.default_rng(seed).normal(size=(100, 10)).astype("float32")
    return reconstruction, divergence, cr.compile(net.invented, backend=backend)(z=z)


def train(epochs=40, verbose=1, seed=0, backend="native"):
    """Train with β = 1 and β = 4 and measure both on held-out digits."""
    reconstruction, divergence, invented = train_one(1.0, epochs, verbose, seed, backend)
    blurred, cheaper, _ = train_one(4.0, epochs, verbose, seed, backend)
    return {
        "bound": reconstruction + divergence,
        "reconstruction": reconstruction,
        "divergence": divergence,
        "beta_reconstruction": blurred,
        "beta_divergence": cheaper,
        "invented": invented,
    }


def draw(image):
    """Return an image of 8×8 grey values in [0, 1] as text."""
    rows = (image.reshape(8, 8) * 4.999).astype(int)
    return "\n".join("".join(" ░▒▓█"[v] * 2 for v in row) for row in rows)


if __name__ == "__main__":
    m = train()
    print(draw(m["invented"][0]))
    print(f"β = 1: bound {m['bound']:.2f} nats, divergence {m['divergence']:.2f}")
    print(f"β = 4: divergence {m['beta_divergence']:.2f}")
