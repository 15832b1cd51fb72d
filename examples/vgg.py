"""VGG: deep, and of one kind of layer only.

Two 3×3 convolutions see as much of the image as one of 5×5, with fewer weights and one more
rectification between; so all convolutions are 3×3, in stacks between poolings, and each pooling
is followed by twice the channels (Simonyan & Zisserman, "Very deep convolutional networks for
large-scale image recognition", ICLR 2015).  The networks at their full size are
`chainrule.models.vgg11` to `vgg19`, with or without batch normalisation.

Learns: scikit-learn's digits of 8×8 pixels, enlarged to 16×16.
Expect: about 98 % of 359 held-out digits right.
"""

from types import SimpleNamespace

import chainrule as cr
from chainrule import losses, nn, optim

#: Channels of each convolution; "pool" halves the image.
LAYERS = [12, 12, "pool", 24, 24, "pool", 48, 48, 48, "pool"]


def make_layers(channels=1):
    """Return the stacks of 3×3 convolutions."""
    for layer in LAYERS:
        if layer == "pool":
            yield nn.MaxPool2d(2)
        else:
            yield from (nn.Conv2d(channels, layer, 3, padding=1), nn.ReLU())
            channels = layer


def build():
    """Return the graph: seven convolutions and two dense layers."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Upsample(size=16, mode="bilinear"),
        *make_layers(),
        nn.Flatten(),
        nn.Linear(48 * 2 * 2, 96),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(96, 10),
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):  # keeps the size of the signal from layer to layer
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
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
