"""Self-organising map (SOM): a sheet of units that folds itself over the data.

    winner     c = argmin_i ‖x - wᵢ‖²
    update     wᵢ ← wᵢ + α h(i, c) (x - wᵢ),   h(i, c) = exp(-‖rᵢ - r_c‖² / 2σ²)

rᵢ is the place of unit i on the sheet.  The winner and its neighbours on the sheet move towards
the sample, so neighbours come to stand for similar samples, without labels and without a gradient
(Kohonen, "Self-organized formation of topologically correct feature maps", 1982).  Here in the
batch form: each unit moves to the mean of the samples near it, weighted by h (Kohonen, 1993).  The
rule is compiled as an update of a variable; σ shrinks from call to call.

Learns: a map of 10 × 10 units of the digits' 64 pixels.
Expect: a quantisation error (mean distance of a sample to its winner) of about 1.3 where that to
the mean digit is 2.2; a topographic error (share of samples whose two nearest units are no
neighbours) below 15 %; and 90 % of held-out digits named by their unit's majority.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr


def build(side=10, features=64):
    """Return the graph: one step of the rule, and the distance of each sample to each unit."""
    x = cr.input("x", ("batch", features))
    radius = cr.input("radius")
    units = cr.Variable(
        0.5 + 0.1 * np.random.default_rng(0).normal(size=(side * side, features)),
        name="units",
        dtype="float32",
    )
    place = np.stack(np.divmod(np.arange(side * side), side), 1)
    sheet2 = cr.constant(((place[:, None] - place) ** 2).sum(2), "float32")  # ‖rᵢ - r_c‖²

    # ‖x - w‖² = ‖x‖² - 2 x·w + ‖w‖²: one matrix product, no (batch, units, features) array
    distance2 = (
        cr.square(x).sum(1, keepdims=True) - 2.0 * x @ units.T + cr.square(units).sum(1)
    ).clip(low=0.0)
    winner = distance2.argmin(1)
    nearness = cr.exp(-cr.take(sheet2, winner, axis=0) / (2.0 * cr.square(radius)))
    weight = nearness.sum(0).expand_dims(1)
    moved = (nearness.T @ x) / (weight + 1e-6)
    reached = weight > 1e-3  # units that no sample pulls stay where they are
    return SimpleNamespace(
        units=units,
        updates={units: cr.where(reached, moved, units)},
        error=cr.sqrt(distance2.min(1)).mean(),
        distance2=distance2,
    )


def neighbours(a, b, side):
    """Return whether units ``a`` and ``b`` touch on the sheet, corners included."""
    rows, columns = abs(a // side - b // side), abs(a % side - b % side)
    return np.maximum(rows, columns) <= 1


def measure(distance2, side):
    """Return the quantisation and the topographic error."""
    first, second = np.argsort(distance2, axis=1)[:, :2].T
    return {
        "quantisation": float(np.sqrt(distance2.min(1)).mean()),
        "topographic": float(1.0 - neighbours(first, second, side).mean()),
    }


def train(epochs=30, verbose=1, seed=0, backend="native", side=10):
    """Train with a radius that shrinks from half the sheet to less than a unit."""
    (x_train, y_train), (x_test, y_test) = cr.data.load_digits(seed=seed)
    net = build(side)
    step = cr.compile(net.error, updates=net.updates, backend=backend)
    for epoch, radius in enumerate(np.geomspace(side / 2, 0.6, epochs)):
        error = float(step(x=x_train, radius=radius))
        if verbose:
            print(f"epoch {epoch + 1}/{epochs}  radius {radius:.2f}  error {error:.3f}")

    distances = cr.compile(net.distance2, backend=backend)
    near_train, near_test = distances(x=x_train), distances(x=x_test)
    votes = np.zeros((side * side, 10))
    np.add.at(votes, (near_train.argmin(1), y_train), 1)
    named = votes.argmax(1)[near_test.argmin(1)]
    mean_distance = float(np.linalg.norm(x_test - x_train.mean(0), axis=1).mean())
    accuracy = float((named == y_test).mean())
    return measure(near_test, side) | {"mean_distance": mean_distance, "accuracy": accuracy}


if __name__ == "__main__":
    m = train()
    print(
        f"quantisation error {m['quantisation']:.3f} (to the mean digit {m['mean_distance']:.3f}), "
        f"topographic error {m['topographic']:.3f}, digits named {m['accuracy']:.3f}"
    )
