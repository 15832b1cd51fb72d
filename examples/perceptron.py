"""The perceptron, by Rosenblatt's rule and by logistic regression.

    Rosenblatt:  f = w · x + b;  where y f ≤ 0 (a mistake):  w ← w + y x,  b ← b + y
    logistic:    minimise the mean of log(1 + exp(-y f)) by gradient descent,      y = ±1

The first is a rule, not the gradient of a loss of a whole batch: one sample at a time, and only
mistakes teach (Rosenblatt, "The perceptron", Psychological Review 65, 1958).  It is compiled like
anything else, as an update of two variables.  The second asks for a margin on every sample.

Learns: benign from malignant tumours, scikit-learn's breast-cancer data: 569 samples, 30 features.
Expect: about 96 % of 142 held-out samples right by the rule, which moves to and fro where no line
divides the classes, and about 97 % by logistic regression.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim


def make_data(seed=0):
    """Return training and test samples: standardised features (n, 30) and labels -1 and 1."""
    from sklearn.datasets import load_breast_cancer

    x, benign = load_breast_cancer(return_X_y=True)
    y = 2.0 * benign - 1.0
    x_train, x_test, y_train, y_test = cr.data.train_test_split(x, y, test_size=0.25, seed=seed)
    center, scale = x_train.mean(0), x_train.std(0)
    return ((x_train - center) / scale, y_train), ((x_test - center) / scale, y_test)


def build(features=30):
    """Return the graph: the score of a sample, the rule's updates, and the logistic loss."""
    x, y = cr.input("x", ("batch", features)), cr.input("y", ("batch",))
    linear = nn.Linear(features, 1)
    w, b = linear.weight, linear.bias
    score = linear(x).squeeze(1)

    # y where the sample is a mistake, else 0; a batch of one sample gives the classical rule
    push = cr.where(y * score <= 0, y, 0.0)
    updates = {w: w + push @ x, b: b + push.sum()}
    return SimpleNamespace(
        linear=linear,
        score=score,
        mistakes=(push != 0).astype("float32").sum(),
        updates=updates,
        loss=losses.soft_margin(score, y),
    )


def accuracy(net, data, backend):
    """Return the share of samples on the right side."""
    x, y = data
    return float((np.sign(cr.compile(net.score, backend=backend)(x=x)) == y).mean())


def train(epochs=20, verbose=1, seed=0, backend="native"):
    """Train by the rule and by gradient descent; return both held-out accuracies."""
    (x, y), held_out = make_data(seed)
    cr.manual_seed(seed)

    rosenblatt = build()
    learn = cr.compile(rosenblatt.mistakes, updates=rosenblatt.updates, backend=backend)
    for epoch in range(epochs):
        order = cr.data.shuffled_indices(len(x), seed, epoch)
        mistakes = sum(int(learn(x=x[i : i + 1], y=y[i : i + 1])) for i in order)
        if verbose:
            print(f"epoch {epoch + 1}/{epochs}  {mistakes} mistakes in {len(x)} samples")

    logistic = build()
    program = cr.compile_train(logistic.loss, optim.SGD(0.1), backend=backend, seed=seed)
    program.fit((x, y), epochs, batch_size=16, verbose=verbose)

    return {
        "rosenblatt": accuracy(rosenblatt, held_out, backend),
        "logistic": accuracy(logistic, held_out, backend),
    }


if __name__ == "__main__":
    m = train()
    print(f"held-out accuracy: rule {m['rosenblatt']:.3f}, logistic {m['logistic']:.3f}")
