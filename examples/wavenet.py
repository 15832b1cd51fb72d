"""WaveNet: the next sample of a sound, from hundreds of samples before it.

    causal:    y(t) depends on x(t), x(t-1), …  only: each convolution is padded on the left
    dilated:   layer l reads x(t) and x(t - 2^l), so eight layers see 256 samples
    gated:     z = tanh(W_f ∗ x) · σ(W_g ∗ x),  x ← x + W_r z,  skip ← skip + W_s z

The output is a distribution over quantised amplitudes, not a number (van den Oord et al., "WaveNet:
a generative model for raw audio", 2016).  All samples of a stretch of sound are trained at once.

Learns: a plucked string with two harmonics and a wandering pitch, in 32 levels of amplitude.
Expect: about 1.2 bits a sample on new sounds; a table of what follows two samples needs 1.74.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

LEVELS = 32


def make_data(sounds=96, length=257, seed=0):
    """Return quantised sounds, int64 (sounds, length), by the μ-law: louder is coarser."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    pitch = rng.uniform(0.15, 0.3, (sounds, 1))
    wander = 0.8 * np.sin(0.02 * t + rng.uniform(0, 6.3, (sounds, 1)))
    phase = pitch * t + wander + rng.uniform(0, 6.3, (sounds, 1))
    pluck = np.exp(-((t + rng.integers(0, 120, (sounds, 1))) % 120) / 60.0)
    wave = pluck * (np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase)) / 1.75
    wave = np.clip(wave + 0.005 * rng.normal(size=wave.shape), -1, 1)
    law = np.sign(wave) * np.log1p(31 * np.abs(wave)) / np.log(32)
    return np.minimum((law + 1) / 2 * LEVELS, LEVELS - 1).astype("int64")


class Layer(nn.Module):
    """``forward(x)`` (batch, channels, time) returns the next layer's input and the skip part."""

    def __init__(self, channels, dilation):
        self.dilation = dilation
        self.both = nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        past = cr.pad(x, ((0, 0), (0, 0), (self.dilation, 0)))
        signal, gate = cr.split(self.both(past), 2, axis=1)
        z = cr.tanh(signal) * cr.sigmoid(gate)
        return x + self.residual(z), self.skip(z)


class WaveNet(nn.Module):
    """``forward(samples)`` int64 (batch, time) returns logits (batch, time, LEVELS)."""

    def __init__(self, channels=16, layers=8):
        self.embedding = nn.Embedding(LEVELS, channels)
        self.layers = nn.ModuleList([Layer(channels, 2**i) for i in range(layers)])
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(channels, 2 * channels, 1),
            nn.ReLU(),
            nn.Conv1d(2 * channels, LEVELS, 1),
        )

    def forward(self, samples):
        x = self.embedding(samples).swapaxes(1, 2)
        total = 0.0
        for layer in self.layers:
            x, skip = layer(x)
            total = total + skip
        return self.head(total).swapaxes(1, 2)


def build(length=256, channels=16, layers=8):
    """Return the graph: each sample but the first is predicted from those before it."""
    sound = cr.input("sound", ("batch", length + 1), dtype="int64")
    model = WaveNet(channels, layers)
    logits = model(sound[:, :-1])
    loss = losses.sparse_categorical_crossentropy(logits, sound[:, 1:], from_logits=True)
    return SimpleNamespace(model=model, logits=logits, loss=loss)


def table_bits(training, held_out):
    """Return the bits a sample of counting what followed each pair of samples."""
    counts = np.full((LEVELS, LEVELS, LEVELS), 0.02)
    np.add.at(counts, (training[:, :-2], training[:, 1:-1], training[:, 2:]), 1)
    share = counts / counts.sum(2, keepdims=True)
    return float(-np.log2(share[held_out[:, :-2], held_out[:, 1:-1], held_out[:, 2:]]).mean())


def train(epochs=25, verbose=1, seed=0, backend="native", sounds=256):
    """Train and measure on sounds of other pitches."""
    training, held_out = make_data(sounds, seed=seed), make_data(32, seed=seed + 1)
    cr.manual_seed(seed)
    net = build()
    schedule = cr.schedules.CosineAnnealingLR(5e-3, epochs)
    program = cr.compile_train(net.loss, optim.Adam(schedule), backend=backend, seed=seed)
    program.fit((training,), epochs, batch_size=8, verbose=verbose)
    nats = program.evaluate((held_out,))["loss"]
    return {"bits": nats / np.log(2), "table_bits": table_bits(training, held_out)}


if __name__ == "__main__":
    m = train()
    print(f"{m['bits']:.2f} bits a sample, table of pairs {m['table_bits']:.2f}")
