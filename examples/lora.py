"""LoRA: a trained network learns a new task through corrections of low rank, itself unchanged.

    y = W x + (α / r) B A x,      A (r, in) random, B (out, r) zero at first

Only A and B are trained: a few numbers for each task, which can be kept beside one W, or added to
it when training is over (Hu et al., "LoRA: low-rank adaptation of large language models", 2022).

Learns: a transformer reads digits, as eight rows of eight pixels; then digits of which every image
lies on its side, with its weights frozen and corrections of rank 8 in its linear layers.
Expect: upright digits 0.97; those on their side 0.1 before and 0.95 after, through a fifth as many
parameters; the merged network gives the same answers.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, models, nn, optim


class Reader(nn.Module):
    """``forward(images)`` (batch, 64) returns logits (batch, 10)."""

    def __init__(self, width=48, layers=2):
        self.rows = nn.Linear(8, width)
        self.places = nn.LearnedPositionalEmbedding(8, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width))
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        x = self.places(self.rows(images.reshape((images.shape[0], 8, 8))))
        return self.head(self.encoder(x).mean(1))


def build(rank=None):
    """Return the model, with corrections where there is a ``rank``, and the graph of its loss."""
    model = Reader()
    return trace(model, None if rank is None else models.add_lora(model, rank))


def trace(model, adapters=None):
    """Return the graph of ``model`` as it is now."""
    image = cr.input("image", ("batch", 64))
    label = cr.input("label", ("batch",), dtype="int64")
    logits = model(image)
    loss = losses.sparse_categorical_crossentropy(logits, label, from_logits=True)
    return SimpleNamespace(model=model, loss=loss, logits=logits, adapters=adapters)


def fit(net, data, epochs, rate, verbose, seed, backend):
    """Train what is not frozen."""
    steps = epochs * -(-len(data[0]) // 50)
    schedule = cr.schedules.CosineAnnealingLR(rate, steps, interval="step")
    program = cr.compile_train(net.loss, optim.AdamW(schedule), backend=backend, seed=seed)
    program.fit(data, epochs, batch_size=50, verbose=verbose)


def train(epochs=20, rank=8, verbose=1, seed=0, backend="native"):
    """Train on upright digits, then corrections on turned ones; return accuracies and sizes."""
    (x, y), (x_test, y_test) = cr.data.load_digits(seed=seed)

    def turn(images):
        return np.ascontiguousarray(np.rot90(images.reshape(-1, 8, 8), axes=(1, 2))).reshape(-1, 64)

    def answers(net, images):
        return cr.compile(net.logits, backend=backend)(image=images)

    def accuracy(net, images):
        return float((answers(net, images).argmax(1) == y_test).mean())

    cr.manual_seed(seed)
    net = build()
    fit(net, (x, y), epochs, 3e-3, verbose, seed, backend)
    m = {"upright": accuracy(net, x_test), "turned_before": accuracy(net, turn(x_test))}
    base = net.model.state_dict()

    tuned = trace(net.model, models.add_lora(net.model, rank))
    fit(tuned, (turn(x), y), epochs, 1e-2, verbose, seed, backend)
    m["turned"] = accuracy(tuned, turn(x_test))
    m["share"] = sum(v.value.size for v in tuned.adapters) / sum(v.size for v in base.values())
    kept = {n.replace(".base.", "."): v for n, v in net.model.state_dict().items()}
    m["unchanged"] = float(all(np.array_equal(kept[n], v) for n, v in base.items()))

    apart = answers(tuned, turn(x_test))
    merged = answers(trace(models.merge_lora(net.model)), turn(x_test))
    m["merging_error"] = float(np.abs(merged - apart).max() / np.abs(apart).max())
    return m


if __name__ == "__main__":
    m = train()
    print(", ".join(f"{name} {value:.3g}" for name, value in m.items()))
    print(f"accuracy of turned digits: {m['turned_before']:.3f} before, {m['turned']:.3f} after")
