"""Autoencoder and denoising autoencoder: an image squeezed through a few numbers.

    z = W₂ relu(W₁ x̃ + b₁) + b₂,  x̂ = W₄ relu(W₃ z + b₃) + b₄,  loss = mean (x̂ - x)²

The code z is the bottleneck: what the decoder rebuilds, the encoder must have put there (Hinton &
Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006).
A linear autoencoder finds the principal components at best; the two relu layers beat them.
The denoising autoencoder sees a corrupted image x̃ = x + σ ε, ε ~ N(0, 1), and must give back the
clean one, so it learns what digits look like (Vincent et al., ICML 2008).  The noise is drawn
inside the compiled step.

Learns: 8×8 digits, no labels; codes of 8 numbers, 32 when denoising.
Expect: held-out error about half that of as many principal components; the denoiser removes about
four fifths of the noise's power.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim


def build(code=8, hidden=128, noise=0.0):
    """Return the graph; with ``noise`` > 0 the encoder sees a corrupted image."""
    x = cr.input("x", ("batch", 64))
    seen = x + noise * cr.random.normal(x.shape) if noise else x
    encoder = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, code))
    decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, 64))
    z = encoder(seen)
    rebuilt = decoder(z)
    loss = losses.mse(rebuilt, x)
    return SimpleNamespace(code=z, seen=seen, rebuilt=rebuilt, loss=loss)


def principal_components_error(x_train, x_test, components):
    """Return the mean squared error of the best linear code of so many numbers."""
    center = x_train.mean(0)
    _, _, axes = np.linalg.svd(x_train - center, full_matrices=False)
    axes = axes[:components]
    rebuilt = (x_test - center) @ axes.T @ axes + center
    return float(np.mean((rebuilt - x_test) ** 2))


def fit(net, x_train, epochs, verbose, seed, backend):
    """Train one of the two networks."""
    schedule = cr.schedules.CosineAnnealingLR(3e-3, epochs)
    program = cr.compile_train(net.loss, optim.Adam(schedule), backend=backend, seed=seed)
    program.fit((x_train,), epochs, batch_size=32, verbose=verbose)


def train(epochs=60, verbose=1, seed=0, backend="native", noise=0.3):
    """Train both and measure them on held-out digits."""
    (x_train, _), (x_test, _) = cr.data.load_digits(seed=seed)
    cr.manual_seed(seed)

    plain = build(code=8)
    fit(plain, x_train, epochs, verbose, seed, backend)
    rebuilt = cr.compile(plain.rebuilt, backend=backend)(x=x_test)

    denoising = build(code=32, noise=noise)
    fit(denoising, x_train, epochs, verbose, seed, backend)
    seen, cleaned = cr.compile([denoising.seen, denoising.rebuilt], backend=backend)(x=x_test)

    return {
        "error": float(np.mean((rebuilt - x_test) ** 2)),
        "pca_error": principal_components_error(x_train, x_test, components=8),
        "noise_power": float(np.mean((seen - x_test) ** 2)),
        "power_left": float(np.mean((cleaned - x_test) ** 2)),
    }


if __name__ == "__main__":
    m = train()
    print(f"squared error {m['error']:.4f}, of 8 principal components {m['pca_error']:.4f}")
    print(f"noise power {m['noise_power']:.4f} before denoising, {m['power_left']:.4f} after")
