"""MobileNet: a convolution in two steps, at an eighth of the cost.

    expand 1×1 → filter each channel by itself 3×3 → reduce 1×1, plus what entered

A 3×3 convolution of C channels into C costs 9 C² multiplications a pixel.  Filtering every channel
by itself (9 C) and then mixing channels (C²) costs nearly nine times less.  In an inverted
residual the many channels are inside the block and the few between blocks, and the last step of a
block is linear, so that nothing is cut off (Sandler et al., "MobileNetV2: inverted residuals and
linear bottlenecks", CVPR 2018).  The network at its full size is `chainrule.models.mobilenet_v2`.

Learns: scikit-learn's digits of 8×8 pixels, enlarged to 16×16.
Expect: about 99 % of 359 held-out digits right.
"""

from types import SimpleNamespace

import chainrule as cr
from chainrule import losses, nn, optim


def normalized(channels, out, size, stride=1, groups=1):
    """Return a convolution and batch normalisation."""
    return [
        nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]


class InvertedResidual(nn.Module):
    """Expands ``channels`` ``times``, filters each by itself, and reduces to ``out``."""

    def __init__(self, channels, out, stride, times=4):
        wide = channels * times
        self.skips = stride == 1 and channels == out
        self.layers = nn.Sequential(
            *normalized(channels, wide, 1),
            nn.ReLU6(),
            *normalized(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            *normalized(wide, out, 1),
        )

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.skips else y


def build():
    """Return the graph: a convolution, five inverted residuals, and the mean of every channel."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Upsample(size=16, mode="bilinear"),
        *normalized(1, 12, 3),
        nn.ReLU6(),
        InvertedResidual(12, 12, 1),
        InvertedResidual(12, 20, 2),
        InvertedResidual(20, 20, 1),
        InvertedResidual(20, 32, 2),
        InvertedResidual(32, 32, 1),
        *normalized(32, 96, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
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
