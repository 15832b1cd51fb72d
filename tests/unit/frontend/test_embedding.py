"""Embeddings and bags against PyTorch: values, gradients, norms kept in the table, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import F, nn, optim
from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError

from .peer import assert_close, measure

torch = pytest.importorskip("torch", reason="the reference is PyTorch")

BACKENDS = ["numpy", "native"]
ROWS, WIDTH = 6, 3
TABLE = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
PLACES = np.array([[0, 2, 4, 2], [2, 2, 4, 5], [1, 1, 1, 1]])


def _cotangent(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding_idx": 2},
        {"padding_idx": -2},
        {"scale_grad_by_freq": True},
        {"scale_grad_by_freq": True, "padding_idx": 1},
        {"max_norm": 1.0},
        {"max_norm": 0.8, "norm_type": 1.0, "padding_idx": 2},
        {"max_norm": 0.5, "norm_type": float("inf"), "scale_grad_by_freq": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_embedding_agrees_with_torch(arguments: dict, backend: str) -> None:
    ours = nn.Embedding(ROWS, WIDTH, **arguments, dtype="float64")
    theirs = torch.nn.Embedding(ROWS, WIDTH, **arguments, dtype=torch.float64)
    assert theirs.padding_idx == ours.padding_idx
    ours.weight.assign(TABLE)
    theirs.load_state_dict({"weight": torch.tensor(TABLE)})
    expected = theirs(torch.tensor(PLACES))
    cotangent = _cotangent(*expected.shape)
    expected.backward(torch.tensor(cotangent))
    at = cr.input("at", ("n", 4), "int64")
    found = measure([ours(at)], [ours.weight], [cotangent], {"at": PLACES}, backend)
    assert_close(found, [expected, theirs.weight.grad], "float64")
    np.testing.assert_allclose(ours.weight.value, theirs.weight.detach(), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_starts_from_the_rows_that_the_lookup_shortened(
    backend: str, momentum: float
) -> None:
    ours = nn.Embedding(ROWS, WIDTH, max_norm=1.0, dtype="float64")
    theirs = torch.nn.Embedding(ROWS, WIDTH, max_norm=1.0, dtype=torch.float64)
    ours.weight.assign(TABLE)
    theirs.load_state_dict({"weight": torch.tensor(TABLE)})
    at = cr.input("at", ("n",), "int64")
    train = cr.compile_train(
        (ours(at) ** 3).sum(),
        optim.SGD(0.1, momentum=momentum, weight_decay=0.1),
        backend=backend,
    )
    peer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=momentum, weight_decay=0.1)
    for places in ([0, 1, 1], [2, 3], [1, 4, 5, 0]):
        result = train.step(at=np.array(places))
        peer.zero_grad()
        loss = (theirs(torch.tensor(places)) ** 3).sum()
        loss.backward()
        peer.step()
        np.testing.assert_allclose(result["loss"], loss.item(), rtol=1e-10)
        np.testing.assert_allclose(ours.weight.value, theirs.weight.detach(), rtol=1e-10)


def test_places_outside_of_the_table_are_refused() -> None:
    lookup = cr.compile(nn.Embedding(5, 2)(cr.input("at", ("n",), "int64")))
    for wrong in (5, -1):
        with pytest.raises(IndexRangeError, match=str(wrong)):
            lookup(at=np.array([0, wrong]))


def test_pretrained_tables() -> None:
    layer = nn.Embedding.from_pretrained(torch.tensor(TABLE))
    assert layer.weight.dtype == "float64"
    assert not layer.weight.trainable
    assert nn.Embedding.from_pretrained(TABLE, freeze=False).weight.trainable
    np.testing.assert_array_equal(layer.weight.value, TABLE)
    bags = nn.EmbeddingBag.from_pretrained(TABLE, mode="max", padding_idx=1)
    assert (bags.mode, bags.padding_idx, bags.weight.trainable) == ("max", 1, False)
    with pytest.raises(GraphError, match=r"\(rows, width\)"):
        nn.Embedding.from_pretrained(TABLE[0])
    with pytest.raises(GraphError, match=r"\(6, 3\) is not \(5, 3\)"):
        nn.Embedding(5, 3, _weight=TABLE)


# -- bags -----------------------------------------------------------------------------------------

FLAT = np.array([0, 2, 4, 2, 2, 5, 1, 1, 3])
OFFSETS = np.array([0, 3, 3, 7, 9])
ENDED = np.array([0, 3, 3, 7, 9])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding_idx": 2},
        {"include_last_offset": True},
        {"include_last_offset": True, "padding_idx": 1},
        {"max_norm": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["even", "offsets"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_bags_agree_with_torch(mode: str, arguments: dict, form: str, backend: str) -> None:
    if form == "even" and "include_last_offset" in arguments:
        pytest.skip("there are no offsets")
    ours = nn.EmbeddingBag(ROWS, WIDTH, mode=mode, **arguments, dtype="float64")
    theirs = torch.nn.EmbeddingBag(ROWS, WIDTH, mode=mode, **arguments, dtype=torch.float64)
    ours.weight.assign(TABLE)
    theirs.load_state_dict({"weight": torch.tensor(TABLE)})
    if form == "even":
        arrays = {"at": PLACES}
        tensors = [cr.input("at", ("bags", 4), "int64")]
    else:
        arrays = {"at": FLAT, "offsets": OFFSETS}
        tensors = [cr.input("at", ("total",), "int64"), cr.input("offsets", ("marks",), "int64")]
    expected = theirs(*map(torch.tensor, arrays.values()))
    cotangent = _cotangent(*expected.shape)
    expected.backward(torch.tensor(cotangent))
    output = ours(*tensors)
    found = measure([output], [ours.weight], [cotangent], arrays, backend)
    assert_close(found, [expected, theirs.weight.grad], "float64")
    np.testing.assert_allclose(ours.weight.value, theirs.weight.detach(), rtol=1e-12)


@pytest.mark.parametrize("form", ["even", "offsets"])
def test_bags_divide_a_gradient_by_how_often_a_row_is_looked_up(form: str) -> None:
    """PyTorch's own division takes the frequency of other rows, so this one is checked by hand."""
    at, offsets = (PLACES, None) if form == "even" else (FLAT, OFFSETS)
    table = cr.parameter(TABLE)
    slopes = []
    for scaled in (False, True):
        bags = F.embedding_bag(at, table, offsets, scale_grad_by_freq=scaled)
        (slope,) = cr.grad((bags * _cotangent(*map(int, bags.shape))).sum(), [table])
        slopes.append(cr.evaluate(slope))
    frequency = np.maximum(np.bincount(at.ravel(), minlength=ROWS), 1)
    np.testing.assert_allclose(slopes[1], slopes[0] / frequency[:, None], rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padding", [None, 2])
def test_weights_of_samples(backend: str, padding: int | None) -> None:
    table = cr.parameter(TABLE)
    for arrays in ({"at": PLACES}, {"at": FLAT, "offsets": OFFSETS}):
        at = cr.input("at", arrays["at"].shape, "int64")
        weights = cr.input("w", at.shape, "float64")
        arrays["w"] = _cotangent(*at.shape)
        offsets = cr.input("offsets", (5,), "int64") if "offsets" in arrays else None
        ours = F.embedding_bag(
            at, table, offsets, mode="sum", per_sample_weights=weights, padding_idx=padding
        )
        leaves = [torch.tensor(TABLE), torch.tensor(arrays["w"])]
        for leaf in leaves:
            leaf.requires_grad_()
        expected = torch.nn.functional.embedding_bag(
            torch.tensor(arrays["at"]),
            leaves[0],
            torch.tensor(OFFSETS) if offsets is not None else None,
            mode="sum",
            per_sample_weights=leaves[1],
            padding_idx=padding,
        )
        cotangent = _cotangent(*expected.shape)
        expected.backward(torch.tensor(cotangent))
        found = measure([ours], [table, weights], [cotangent], arrays, backend)
        assert_close(found, [expected, leaves[0].grad, leaves[1].grad], "float64")


def test_bags_of_nothing(evaluate) -> None:
    table = cr.constant(TABLE)
    nothing = np.zeros((3, 0), int)
    np.testing.assert_array_equal(evaluate(F.embedding_bag(nothing, table)), np.zeros((3, WIDTH)))
    empty = F.embedding_bag(np.zeros(0, int), table, np.array([0, 0]), mode="max")
    np.testing.assert_array_equal(evaluate(empty), np.zeros((2, WIDTH)))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda t: F.embedding([0.5], t), GraphTypeError, "integer indices, not float32"),
        (lambda t: F.embedding([0], t[0]), GraphError, r"\(rows, width\), not \(3,\)"),
        (lambda t: F.embedding([0], t, 6), GraphError, "padding_idx 6 leaves the 6 rows"),
        (lambda t: F.embedding([0], t, None, 1.0, -1.0), GraphError, "norm_type"),
        (lambda t: F.embedding_bag([0], t), GraphError, r"\(total,\) with offsets"),
        (lambda t: F.embedding_bag([[0]], t, [0]), GraphError, "bags already"),
        (lambda t: F.embedding_bag([[0]], t, mode="min"), GraphError, "sum, mean, max"),
        (lambda t: F.embedding_bag([0], t, [0.0]), GraphError, "offsets are integers"),
        (
            lambda t: F.embedding_bag([[0]], t, per_sample_weights=[[1.0]]),
            GraphError,
            "mode 'sum', not 'mean'",
        ),
        (
            lambda t: F.embedding_bag([[0]], t, mode="sum", per_sample_weights=[1.0]),
            GraphError,
            "they must be equal",
        ),
    ],
)
def test_refusals(build, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        build(cr.constant(TABLE))
    assert "test_embedding.py:" in str(caught.value)
