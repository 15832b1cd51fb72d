"""Recurrent layers and cells against PyTorch: outputs, states, gradients, lengths."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError

torch = pytest.importorskip("torch")

STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6
LENGTHS = np.array([5, 2, 3])
BACKENDS = ["numpy", "native"]
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}


def flat(values) -> list:
    if isinstance(values, (tuple, list)):
        return [leaf for value in values for leaf in flat(value)]
    return [values]


def both(name: str, dtype: str, **arguments):
    """Return our layer and PyTorch's with the same weights."""
    torch.manual_seed(1)
    theirs = getattr(torch.nn, name)(FEATURES, HIDDEN, **arguments).to(getattr(torch, dtype))
    ours = getattr(nn, name)(FEATURES, HIDDEN, dtype=dtype, **arguments)
    missing = ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    assert not any(missing)
    return ours, theirs


def check(ours, theirs, x, states, backend, call=None, our_call=None) -> None:
    """Compare outputs, final states, and the gradients of a weighted sum of them all."""
    dtype = x.dtype.name
    held = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    names = [f"a{i}" for i in range(len(held))]
    nodes = [cr.input(n, a.shape, dtype=dtype) for n, a in zip(names, (x, *states), strict=True)]

    def state(parts):
        return (parts[0] if len(parts) == 1 else tuple(parts)) if parts else None

    expected = flat((call or theirs)(held[0], state(held[1:])))
    results = flat((our_call or ours)(nodes[0], state(nodes[1:])))
    assert [r.shape for r in results] == [tuple(e.shape) for e in expected]
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=tuple(e.shape)).astype(dtype) for e in expected]
    sum((e * torch.tensor(w)).sum() for e, w in zip(expected, weights, strict=True)).backward()
    loss = sum((r * w).sum() for r, w in zip(results, weights, strict=True))
    parameters = dict(ours.named_parameters())
    gradients = cr.grad(loss, [*nodes, *parameters.values()])
    wanted = [t.grad for t in held]
    wanted += [dict(theirs.named_parameters())[name].grad for name in parameters]
    compiled = cr.compile([*results, *gradients], backend=backend)
    found = compiled(**dict(zip(names, (x, *states), strict=True)))
    for value, reference in zip(found, [*expected, *wanted], strict=True):
        limit = TOLERANCE[dtype]
        np.testing.assert_allclose(value, reference.detach().numpy(), rtol=limit, atol=limit)


LAYERS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("GRU", {}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 3, "num_layers": 2, "bidirectional": True, "batch_first": True}),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [False, True], ids=["zero", "initial"])
@pytest.mark.parametrize(("name", "arguments"), LAYERS)
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_layers_agree_with_torch(name, arguments, given, dtype, backend) -> None:
    ours, theirs = both(name, dtype, **arguments)
    rng = np.random.default_rng(0)
    shape = (BATCH, STEPS) if arguments.get("batch_first") else (STEPS, BATCH)
    x = rng.normal(size=(*shape, FEATURES)).astype(dtype)
    rows = arguments.get("num_layers", 1) * (2 if arguments.get("bidirectional") else 1)
    sizes = [arguments.get("proj_size", HIDDEN), HIDDEN][: 2 if name == "LSTM" else 1]
    states = [rng.normal(size=(rows, BATCH, size)).astype(dtype) for size in sizes]
    check(ours, theirs, x, states if given else [], backend)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_one_sequence_without_a_batch(name) -> None:
    ours, theirs = both(name, "float64")
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(1, HIDDEN)) for _ in range(2 if name == "LSTM" else 1)]
    check(ours, theirs, rng.normal(size=(STEPS, FEATURES)), states, "numpy")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_lengths_are_torchs_packed_sequences(name, batch_first) -> None:
    arguments = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first}
    ours, theirs = both(name, "float64", **arguments)
    shape = (BATCH, STEPS) if batch_first else (STEPS, BATCH)
    x = np.random.default_rng(0).normal(size=(*shape, FEATURES))

    def packed(data, state):
        sequence = torch.nn.utils.rnn.pack_padded_sequence(
            data, torch.tensor(LENGTHS), batch_first, enforce_sorted=False
        )
        output, last = theirs(sequence, state)
        padded, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first)
        return padded, last

    def ours_packed(data, state):
        output, last = ours(nn.pack_padded_sequence(data, LENGTHS, batch_first), state)
        return nn.pad_packed_sequence(output, batch_first)[0], last

    check(ours, theirs, x, [], "numpy", packed, lambda d, s: ours(d, s, lengths=LENGTHS))
    theirs.zero_grad()
    check(ours, theirs, x, [], "numpy", packed, ours_packed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_and_steps_may_be_symbolic(backend) -> None:
    ours, theirs = both("LSTM", "float64", bidirectional=True)
    x = cr.input("x", ("steps", "batch", FEATURES), dtype="float64")
    lengths = cr.input("lengths", ("batch",), dtype="int64")
    output, (hidden, cell) = ours(x, lengths=lengths)
    predict = cr.compile([output, hidden, cell], backend=backend)
    for steps, batch in ((5, 3), (1, 1), (9, 2)):
        values = np.random.default_rng(steps).normal(size=(steps, batch, FEATURES))
        expected = flat(theirs(torch.tensor(values)))
        found = predict(x=values, lengths=np.full(batch, steps))
        for value, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, reference.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("GRUCell", {}), ("LSTMCell", {})],
)
def test_cells_agree_with_torch(name, arguments) -> None:
    ours, theirs = both(name, "float64", **arguments)
    rng = np.random.default_rng(0)
    for lead in ((BATCH,), ()):
        x = rng.normal(size=(*lead, FEATURES))
        states = [rng.normal(size=(*lead, HIDDEN)) for _ in range(2 if name == "LSTMCell" else 1)]
        theirs.zero_grad()
        check(ours, theirs, x, states, "numpy")
        theirs.zero_grad()
        check(ours, theirs, x, [], "numpy")


def test_dropout_between_layers_is_for_training_alone() -> None:
    layer = nn.GRU(FEATURES, HIDDEN, num_layers=2, dropout=0.5)
    plain = nn.GRU(FEATURES, HIDDEN, num_layers=2)
    plain.load_state_dict(layer.state_dict())
    x = np.random.default_rng(0).normal(size=(STEPS, BATCH, FEATURES)).astype(np.float32)
    dropped, kept = layer(x)[0], plain(x)[0]
    np.testing.assert_array_equal(*(cr.compile(o, backend="numpy")() for o in (dropped, kept)))
    train = [cr.compile(o, backend="numpy", training=True)() for o in (dropped, kept)]
    assert not np.allclose(*train)


def test_bad_input_is_refused() -> None:
    layer = nn.LSTM(FEATURES, HIDDEN)
    x = cr.input("x", (STEPS, BATCH, FEATURES))
    with pytest.raises(GraphError, match=r"last axis of 4"):
        layer(cr.input("y", (STEPS, BATCH, 7)))
    with pytest.raises(GraphError, match=r"initial state of shape \(2, 3, 6\).*\(1, 3, 6\)"):
        layer(x, (np.zeros((2, BATCH, HIDDEN)), np.zeros((1, BATCH, HIDDEN))))
    with pytest.raises(GraphError, match="one length for each sequence"):
        layer(x, lengths=np.array([1, 2]))
    with pytest.raises(GraphTypeError, match="integers"):
        layer(x, lengths=np.array([1.0, 2.0, 3.0]))
    with pytest.raises(IndexRangeError, match="tensor of 5 steps"):
        layer(x, lengths=np.array([1, 2, 6]))
    with pytest.raises(GraphError, match="smaller than hidden_size"):
        nn.LSTM(FEATURES, HIDDEN, proj_size=6)
    with pytest.raises(GraphError, match="'gelu' is not one of"):
        nn.RNN(FEATURES, HIDDEN, nonlinearity="gelu")
    lengths = cr.input("lengths", (BATCH,), dtype="int64")
    predict = cr.compile(layer(x, lengths=lengths)[0], backend="numpy")
    with pytest.raises(IndexRangeError, match="tensor of 5 steps"):
        predict(x=np.zeros(x.shape, np.float32), lengths=[1, 6, 2])


def test_sequences_are_padded_at_their_ends() -> None:
    rows = [np.ones((2, 3)), np.ones((4, 3))]
    padded = nn.pad_sequence(rows, batch_first=True, padding_value=-1.0)
    expected = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(r) for r in rows], batch_first=True, padding_value=-1.0
    )
    np.testing.assert_array_equal(padded, expected)
    assert nn.pad_sequence(rows).shape == (4, 2, 3)
