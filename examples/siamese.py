"""Siamese network: a distance between images, learnt from pairs and from triplets.

    contrastive:  ½ d² for a pair of one class,  ½ max(0, margin - d)² for one of two classes
    triplet:      max(0, d(anchor, positive) - d(anchor, negative) + margin)

where d is the distance of the embeddings f(a), f(b), and f is one network applied to both: the
towers share their parameters (Bromley et al., 1993; contrastive: Hadsell, Chopra & LeCun, CVPR
2006; triplet: Schroff et al., "FaceNet", CVPR 2015).

Learns: an embedding of the digits in 3 numbers.
Expect: the nearest neighbour in the embedding names about 97 % of held-out digits, in the first
three principal components 76 %.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim


def build(kind="triplet", size=3, hidden=128):
    """Return the graph for ``kind`` "contrastive" or "triplet": one tower, used on each image."""
    tower = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, size))
    anchor = cr.input("anchor", ("batch", 64))
    if kind == "contrastive":
        other = cr.input("other", ("batch", 64))
        dissimilar = cr.input("dissimilar", ("batch",))
        loss = losses.contrastive_embedding(tower(anchor), tower(other), dissimilar, margin=2.0)
    else:
        positive = cr.input("positive", ("batch", 64))
        negative = cr.input("negative", ("batch", 64))
        loss = losses.triplet(tower(anchor), tower(positive), tower(negative), margin=1.0)
    return SimpleNamespace(embedding=tower(anchor), loss=loss)


def make_pairs(x, y, count, rng):
    """Return (anchor, other, dissimilar): every second pair is of one class."""
    first = rng.integers(len(x), size=count)
    partner = rng.integers(len(x), size=count)
    partner[::2] = same_class(y, first[::2], rng)
    return x[first], x[partner], (y[first] != y[partner]).astype("float32")


def make_triplets(x, y, count, rng):
    """Return (anchor, positive, negative)."""
    first, third = rng.integers(len(x), size=(2, count))
    usable = y[first] != y[third]
    first, third = first[usable], third[usable]
    return x[first], x[same_class(y, first, rng)], x[third]


def same_class(y, index, rng):
    """Return for each sample the index of a random one of its class."""
    members = [np.flatnonzero(y == c) for c in range(10)]
    return np.array([rng.choice(members[y[i]]) for i in index])


def neighbour_accuracy(x_known, y_known, x, y):
    """Return the share of ``x`` whose nearest known neighbour has its label."""
    squares = ((x[:, None] - x_known[None]) ** 2).sum(-1)
    return float((y_known[squares.argmin(1)] == y).mean())


def principal_components(x_train, x_test, size):
    """Return both sets in the coordinates of the largest variance."""
    center = x_train.mean(0)
    axes = np.linalg.svd(x_train - center, full_matrices=False)[2][:size].T
    return (x_train - center) @ axes, (x_test - center) @ axes


def train(epochs=20, verbose=1, seed=0, backend="native"):
    """Train both networks; return the accuracies in both embeddings and in as many components."""
    (x, y), (x_test, y_test) = cr.data.load_digits(seed=seed)
    near, far = principal_components(x, x_test, 3)
    metrics = {"components": neighbour_accuracy(near, y, far, y_test)}
    for kind, make in (("contrastive", make_pairs), ("triplet", make_triplets)):
        cr.manual_seed(seed)
        net = build(kind)
        examples = make(x, y, 20_000, np.random.default_rng(seed))
        program = cr.compile_train(net.loss, optim.Adam(2e-3), backend=backend, seed=seed)
        program.fit(examples, epochs, batch_size=64, verbose=verbose)
        embed = cr.compile(net.embedding, backend=backend)
        metrics[kind] = neighbour_accuracy(embed(anchor=x), y, embed(anchor=x_test), y_test)
    return metrics


if __name__ == "__main__":
    m = train()
    print("nearest neighbours: " + ", ".join(f"{name} {value:.3f}" for name, value in m.items()))
