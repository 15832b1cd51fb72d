"""DCGAN: handwritten digits invented by transposed convolutions.

    generator:      z (16) → 64@2×2 → 32@4×4 → 1@8×8       transposed convolutions, batch norm, ReLU
    discriminator:  1@8×8 → 32@4×4 → 64@2×2 → 1            strided convolutions, LeakyReLU

Two networks without pooling or hidden dense layers play the game of gan.py on images (Radford, Metz
& Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016).  Each of the two compiled steps changes the parameters, and the statistics of
batch normalisation, of its own network alone.

Learns: scikit-learn's digits; no labels.
Expect: all ten digits among the invented ones; precision (the share of invented images that lie
among real ones) about 0.7 and recall (real among invented) about 0.3, by the balls of Kynkäänniemi
et al. (2019) that hold three neighbours.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import nn, optim

NOISE = 16


def make_data(seed=0):
    """Return images (samples, 1, 8, 8) in [-1, 1] and labels, for training and for comparison."""
    parts = cr.data.load_digits(test_size=0.3, seed=seed)
    return [(2.0 * x.reshape(-1, 1, 8, 8) - 1.0, labels) for x, labels in parts]


def build(width=32, batch=32):
    """Return the two networks, both losses over them, and images from given noise."""
    generator = nn.Sequential(
        nn.ConvTranspose2d(NOISE, 2 * width, 2, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 2),
        nn.Flatten(0),
    )
    real = cr.input("real", ("batch", 1, 8, 8))
    fake = cr.stop_gradient(generator(cr.random.normal((batch, NOISE, 1, 1))))
    verdict, suspicion = discriminator(real), discriminator(fake)
    forged = discriminator(generator(cr.random.normal((batch, NOISE, 1, 1))))
    z = cr.input("z", ("n", NOISE, 1, 1))
    return SimpleNamespace(
        generator=generator,
        discriminator=discriminator,
        detective_loss=cr.softplus(-verdict).mean() + cr.softplus(suspicion).mean(),
        forger_loss=cr.softplus(-forged).mean(),
        images=generator(z),
    )


def distances(a, b):
    """Return the distance of each image of ``a`` to each of ``b``."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    squares = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return np.sqrt(np.maximum(squares, 0.0))


def share_near(images, known, neighbours=3):
    """Return the share of ``images`` in a ball around a known one that holds 3 others."""
    radius = np.sort(distances(known, known), axis=1)[:, neighbours]
    return float((distances(images, known) <= radius).any(1).mean())


def measure(invented, real, labels):
    """Return precision and recall, and the share of the digit that is invented least."""
    kinds = np.bincount(labels[distances(invented, real).argmin(1)], minlength=10)
    return {
        "precision": share_near(invented, real),
        "recall": share_near(real, invented),
        "rarest": float(kinds.min() / len(invented)),
    }


def train(epochs=50, verbose=1, seed=0, backend="native", width=32):
    """Alternate the two compiled steps; measure against real digits that were set aside."""
    (images, _), (held_out, labels) = make_data(seed)
    cr.manual_seed(seed)
    net = build(width)
    rate = {"lr": 1e-3, "betas": (0.5, 0.999)}
    detective = cr.compile_train(
        net.detective_loss, optim.Adam(**rate), params=net.discriminator, backend=backend
    )
    forger = cr.compile_train(
        net.forger_loss, optim.Adam(**rate), params=net.generator, backend=backend
    )
    generate = cr.compile(net.images, backend=backend)
    z = np.random.default_rng(seed).normal(size=(len(held_out), NOISE, 1, 1))
    for epoch in range(epochs):
        order = cr.data.shuffled_indices(len(images), seed, epoch)
        for start in range(0, len(order) - 31, 32):
            d = detective.step(real=images[order[start : start + 32]])["loss"]
            g = forger.step()["loss"]
        if verbose:
            m = measure(generate(z=z), held_out, labels)
            shares = "  ".join(f"{name} {value:.2f}" for name, value in m.items())
            print(f"epoch {epoch + 1}/{epochs}  D {d:.3f}  G {g:.3f}  {shares}")
    return measure(generate(z=z), held_out, labels)


if __name__ == "__main__":
    m = train()
    print(", ".join(f"{name} {value:.3f}" for name, value in m.items()))
