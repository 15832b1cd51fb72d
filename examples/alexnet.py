"""AlexNet: the network that made deep learning's name, at the size of a digit.

What was new together in 2012: rectified units that do not saturate; normalisation across
neighbouring channels, b = a / (k + α Σ a²)^β; pooling windows that overlap (3 wide, 2 apart);
convolutions in two groups that do not see each other; dropout before the dense layers
(Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural
networks", NIPS 2012).  The network at its full size is `chainrule.models.alexnet`.

Learns: scikit-learn's digits of 8×8 pixels, enlarged to 32×32.
Expect: about 97 % of 359 held-out digits right.
"""

from types import SimpleNamespace

import chainrule as cr
from chainrule import losses, nn, optim


def build():
    """Return the graph: five convolutions and two dense layers, an eighth of the paper's width."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Upsample(size=32, mode="bilinear"),
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 32, 5, padding=2, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(32, 48, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(48, 32, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 3 * 3, 128),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(128, 10),
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    x = cr.input("x", ("batch", 64))
    y = cr.input("y", ("batch",), dtype="int64")
    logits = model(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    return SimpleNamespace(model=model, logits=logits, loss=loss)


def train(epochs=20, verbose=1, seed=0, backend="native"):
    """Train on four fifths of the digits and measure on the rest."""
    training, held_out = cr.data.load_digits(seed=seed)
    cr.manual_seed(seed)
    net = build()
    program = cr.compile_train(
        net.loss,
        optim.Adam(cr.schedules.CosineAnnealingLR(2e-3, epochs)),
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
