"""LeNet-5: convolutions for handwritten digits.

    32×32 → C1 6@28×28 → S2 6@14×14 → C3 16@10×10 → S4 16@5×5 → C5 120 → F6 84 → 10

A convolution looks for one pattern at every place with one set of weights, and subsampling makes
its answer less dependent on where exactly that was.  As in the paper the units are tanh,
subsampling averages, and each image is distorted a little, anew whenever it is shown; those
images are drawn inside the compiled step (LeCun, Bottou, Bengio & Haffner, "Gradient-based
learning applied to document recognition", Proc. IEEE 86, 1998).  Here C3 sees all of S2, and the
output is a softmax.

Learns: scikit-learn's digits of 8×8 pixels, enlarged to 28×28 within the 32×32 of the paper.
Expect: about 98 % of 359 held-out digits right with 61,706 parameters.
"""

from types import SimpleNamespace

import chainrule as cr
from chainrule import losses, nn, optim


def build():
    """Return the graph of LeNet-5, which enlarges its input itself."""
    x = cr.input("x", ("batch", 64))
    y = cr.input("y", ("batch",), dtype="int64")
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Upsample(size=28, mode="bilinear"),
        nn.ZeroPad2d(2),
        cr.augment.RandomAffine(degrees=8, translate=(0.06, 0.06), scale=(0.9, 1.1)),
        nn.Conv2d(1, 6, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )
    logits = model(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)
    return SimpleNamespace(model=model, logits=logits, loss=loss)


def train(epochs=25, verbose=1, seed=0, backend="native"):
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
