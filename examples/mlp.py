"""Multi-layer perceptron: handwritten digits, learnt by back-propagation.

    h₁ = relu(W₁ x + b₁),  h₂ = relu(W₂ dropout(h₁) + b₂),  logits = W₃ dropout(h₂) + b₃
    loss = -log softmax(logits)[y]

Layers of weighted sums with a non-linearity between them, trained by following the gradient of a
loss backwards through the layers (Rumelhart, Hinton & Williams, "Learning representations by
back-propagating errors", Nature 323, 1986).  Dropout (Srivastava et al., 2014) silences a random
third of the hidden units in each training step and does nothing in inference.

Learns: which of ten digits an image of 8×8 pixels shows; scikit-learn's 1,797 samples.
Expect: about 98 % of 359 held-out digits right.
"""

from types import SimpleNamespace

import chainrule as cr
from chainrule import losses, nn, optim


def build(hidden=256, dropout=0.3):
    """Return the network as a graph; nothing is compiled yet."""
    x = cr.input("x", ("batch", 64))
    y = cr.input("y", ("batch",), dtype="int64")
    model = nn.Sequential(
        nn.Linear(64, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 10),
    )
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
        optim.Adam(cr.schedules.CosineAnnealingLR(3e-3, epochs)),
        outputs={"logits": net.logits},
        metrics=["accuracy"],
        backend=backend,
        seed=seed,
    )
    program.fit(training, epochs, batch_size=32, validation_data=held_out, verbose=verbose)
    return program.evaluate(held_out)


if __name__ == "__main__":
    print(f"test accuracy {train()['accuracy']:.3f}")
