"""DenseNet: every layer reads all layers before it.

    x_l = H([x_0, x_1, …, x_{l-1}])

Each layer adds only a few channels (the growth rate) to what all others can read, so features are
used again rather than learned again, and the loss reaches every layer directly (Huang, Liu, van
der Maaten & Weinberger, "Densely connected convolutional networks", CVPR 2017).  The networks at
their full size are `chainrule.models.densenet121` to `densenet201`.

Learns: scikit-learn's digits of 8×8 pixels, enlarged to 16×16.
Expect: about 99 % of 359 held-out digits right with 34,586 parameters.
"""

from types import SimpleNamespace

import chainrule as cr
from chainrule import losses, nn, optim

GROWTH, DEPTH = 8, 4  # channels that a layer adds; layers in a block


class DenseBlock(nn.Module):
    """Layers of batch norm, ReLU and 3×3 convolution, each beside all that came before."""

    def __init__(self, channels):
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + GROWTH * i),
                nn.ReLU(),
                nn.Conv2d(channels + GROWTH * i, GROWTH, 3, padding=1, bias=False),
            )
            for i in range(DEPTH)
        )

    def forward(self, x):
        for layer in self.layers:
            x = cr.concatenate([x, layer(x)], 1)
        return x


def transition(channels):
    """Halve the channels and the image between two blocks."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels // 2, 1, bias=False),
        nn.AvgPool2d(2),
    )


def build():
    """Return the graph: a convolution and three dense blocks."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Upsample(size=16, mode="bilinear"),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        DenseBlock(16),
        transition(48),
        DenseBlock(24),
        transition(56),
        DenseBlock(28),
        nn.BatchNorm2d(60),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(60, 10),
    )
    x = cr.input("x", ("batch", 64))
    y = cr.input("y", ("batch",), dtype="int64")
    logits = model(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    return SimpleNamespace(model=model, logits=logits, loss=loss)


def train(epochs=15, verbose=1, seed=0, backend="native"):
    """Train on four fifths of the digits and measure on the rest."""
    training, held_out = cr.data.load_digits(seed=seed)
    cr.manual_seed(seed)
    net = build()
    program = cr.compile_train(
        net.loss,
        optim.Adam(cr.schedules.CosineAnnealingLR(5e-3, epochs)),
        outputs={"logits": net.logits},
        metrics=["accuracy"],
        backend=backend,
        seed=seed,
    )
    program.fit(training, epochs, batch_size=32, validation_data=held_out, verbose=verbose)
    parameters = sum(v.value.size for v in program.parameters)
    return program.evaluate(held_out) | {"parameters": parameters}


if __name__ == "__main__":
    m = train()
    print(f"test accuracy {m['accuracy']:.3f} with {m['parameters']:,} parameters")
