"""Losses against PyTorch: values, first and second derivatives, reductions, weights, labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.errors import GraphError, GraphTypeError
from chainrule.frontend import losses, nn
from chainrule.frontend.checks import checks_reaching
from chainrule.frontend.state import Variable
from chainrule.frontend.tensor import constant
from chainrule.frontend.tensor import input as tensor_input

torch = pytest.importorskip("torch")

rng = np.random.default_rng(0)
SHAPE = (5, 4)
X = rng.normal(size=SHAPE) * 2
Y = rng.normal(size=SHAPE)
Z = rng.normal(size=SHAPE)
P = rng.uniform(0.05, 0.95, SHAPE)
ONE_ZERO = rng.integers(0, 2, SHAPE).astype(float)
SIGNS = ONE_ZERO * 2 - 1
ROW_SIGNS = np.array([1.0, -1.0, -1.0, 1.0, 1.0])
SIMPLEX = P / P.sum(1, keepdims=True)
LABELS = np.array([3, 0, 2, 0, 1])
COUNTS = rng.integers(0, 6, SHAPE).astype(float)
CLASS_WEIGHTS = np.array([0.5, 2.0, 0.0, 1.5])
IGNORED = np.array([3, -100, 2, 0, -100])

#: Module, its arguments, and the arrays it is called with; floats are differentiated.
CASES = [
    ("MSELoss", {}, [X, Y]),
    ("L1Loss", {}, [X, Y]),
    ("HuberLoss", {"delta": 0.7}, [X, Y]),
    ("SmoothL1Loss", {"beta": 0.7}, [X, Y]),
    ("SmoothL1Loss", {"beta": 0.0}, [X, Y]),
    ("BCELoss", {}, [P, ONE_ZERO]),
    ("BCELoss", {"weight": np.arange(1.0, 5.0)}, [P, SIMPLEX]),
    ("BCEWithLogitsLoss", {}, [X, ONE_ZERO]),
    ("BCEWithLogitsLoss", {"pos_weight": np.arange(1.0, 5.0)}, [X, SIMPLEX]),
    ("BCEWithLogitsLoss", {"weight": np.arange(1.0, 5.0)}, [X, ONE_ZERO]),
    ("CrossEntropyLoss", {}, [X, LABELS]),
    ("CrossEntropyLoss", {}, [X, IGNORED]),
    ("CrossEntropyLoss", {"weight": CLASS_WEIGHTS}, [X, LABELS]),
    ("CrossEntropyLoss", {"weight": CLASS_WEIGHTS, "label_smoothing": 0.2}, [X, IGNORED]),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, [X, LABELS]),
    ("CrossEntropyLoss", {"ignore_index": 0}, [X, LABELS]),
    ("CrossEntropyLoss", {}, [X, SIMPLEX]),
    ("CrossEntropyLoss", {"weight": CLASS_WEIGHTS, "label_smoothing": 0.2}, [X, SIMPLEX]),
    ("CrossEntropyLoss", {}, [rng.normal(size=(2, 4, 3)), rng.integers(0, 4, (2, 3))]),
    ("CrossEntropyLoss", {}, [rng.normal(size=4), np.array(2)]),
    ("NLLLoss", {}, [np.log(SIMPLEX), LABELS]),
    ("NLLLoss", {"weight": CLASS_WEIGHTS, "ignore_index": 1}, [np.log(SIMPLEX), LABELS]),
    ("KLDivLoss", {}, [np.log(P), SIMPLEX]),
    ("KLDivLoss", {}, [np.log(P), ONE_ZERO]),
    ("KLDivLoss", {"log_target": True}, [np.log(P), np.log(SIMPLEX)]),
    ("PoissonNLLLoss", {}, [X, COUNTS]),
    ("PoissonNLLLoss", {"full": True}, [X, COUNTS]),
    ("PoissonNLLLoss", {"log_input": False, "eps": 1e-3, "full": True}, [P, COUNTS]),
    ("GaussianNLLLoss", {}, [X, Y, P]),
    ("GaussianNLLLoss", {"full": True, "eps": 0.4}, [X, Y, P]),
    ("GaussianNLLLoss", {}, [X, Y, P[:, :1]]),
    ("GaussianNLLLoss", {}, [X, Y, P[:, 0]]),
    ("HingeEmbeddingLoss", {"margin": 0.8}, [P * 2, SIGNS]),
    ("CosineEmbeddingLoss", {"margin": 0.1}, [X, Y, ROW_SIGNS]),
    ("TripletMarginLoss", {}, [X, Y, Z]),
    ("TripletMarginLoss", {"margin": 3.0, "swap": True, "p": 2}, [X, Y, Z]),
    ("MarginRankingLoss", {"margin": 0.2}, [X, Y, SIGNS]),
    ("SoftMarginLoss", {}, [X, SIGNS]),
    ("MultiMarginLoss", {"margin": 0.6}, [X, LABELS]),
    ("MultiMarginLoss", {"p": 2}, [X, LABELS]),
    ("MultiMarginLoss", {"weight": CLASS_WEIGHTS}, [X, LABELS]),
    ("MarginRankingLoss", {}, [X, Y, SIGNS.astype(np.int64)]),
    ("MultiLabelSoftMarginLoss", {"weight": CLASS_WEIGHTS}, [X, ONE_ZERO]),
    ("GaussianNLLLoss", {}, [X, Y, P[:1]]),
    ("MultiLabelSoftMarginLoss", {}, [X, ONE_ZERO]),
    ("TripletMarginWithDistanceLoss", {"swap": True, "margin": 3.0}, [X, Y, Z]),
]
#: Arguments of PyTorch's losses that take labels, not values to differentiate.
LABEL_LOSSES = {"HingeEmbeddingLoss", "CosineEmbeddingLoss", "MarginRankingLoss", "SoftMarginLoss"}
NOT_DIFFERENTIABLE_TARGETS = {
    "BCELoss",
    "BCEWithLogitsLoss",
    "MultiLabelSoftMarginLoss",
    "PoissonNLLLoss",
    "KLDivLoss",
    "CrossEntropyLoss",
    *LABEL_LOSSES,
}


def wrapped(arguments: dict, wrap) -> dict:
    return {k: wrap(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "arguments", "arrays"), CASES, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(CASES)]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_modules_agree_with_torch(
    name: str, arguments: dict, arrays: list[np.ndarray], reduction: str, differentiate
) -> None:
    ours = getattr(nn, name)(reduction=reduction, **arguments)
    theirs = getattr(torch.nn, name)(reduction=reduction, **wrapped(arguments, torch.tensor))
    last = len(arrays) - (name in NOT_DIFFERENTIABLE_TARGETS)
    wrt = [i for i, a in enumerate(arrays) if i < last and a.dtype == np.float64]
    leaves = [Variable(a) if i in wrt else constant(a) for i, a in enumerate(arrays)]
    torch_leaves = [torch.tensor(a, requires_grad=i in wrt) for i, a in enumerate(arrays)]
    output, expected = ours(*leaves), theirs(*torch_leaves)
    assert output.shape == tuple(expected.shape)
    generator = np.random.default_rng(1)
    cotangent = generator.normal(size=output.shape)
    second = [generator.normal(size=arrays[i].shape) for i in wrt]
    value, first, again = differentiate(output, [leaves[i] for i in wrt], cotangent, second)
    targets = [torch_leaves[i] for i in wrt]
    torch_first = torch.autograd.grad(expected, targets, torch.tensor(cotangent), create_graph=True)
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-9, atol=1e-11)
    for a, b in zip(first, torch_first, strict=True):
        np.testing.assert_allclose(a, b.detach(), rtol=1e-8, atol=1e-11)
    if name == "MultiMarginLoss" or not any(g.requires_grad for g in torch_first):
        return  # PyTorch has no second derivative
    total = sum((g * torch.tensor(s)).sum() for g, s in zip(torch_first, second, strict=True))
    torch_again = torch.autograd.grad(total, targets, allow_unused=True)
    for a, b in zip(again, torch_again, strict=True):
        b = torch.zeros(a.shape) if b is None else b
        np.testing.assert_allclose(a, b.numpy(force=True), rtol=1e-7, atol=1e-9)


def test_no_labels_at_all_give_nan(evaluate) -> None:
    x, y = constant(X), constant(np.full(5, -100))
    assert np.isnan(evaluate(nn.CrossEntropyLoss()(x, y)))
    assert evaluate(nn.CrossEntropyLoss(reduction="sum")(x, y)) == 0


def test_logits_far_out_stay_exact(differentiate) -> None:
    x = np.array([-200.0, -90.0, -20.0, 0.0, 20.0, 90.0, 200.0], np.float32)
    for label in (0.0, 1.0):
        leaf = Variable(x)
        loss = losses.binary_crossentropy(leaf, np.full(7, label, "f"), True, reduction="sum")
        value, (first,), (again,) = differentiate(loss, [leaf], np.float32(1), [np.ones(7, "f")])
        wide = x.astype(float)
        expected = 1 / (1 + np.exp(-wide)) if label == 0 else -1 / (1 + np.exp(wide))
        tails = np.abs(expected) > 1e-38
        np.testing.assert_allclose(first[tails], expected[tails], rtol=1e-5)
        assert np.isfinite(value) and np.isfinite(again).all()
    leaf = Variable(np.array([[1e4, -1e4, 0.0]], np.float32))
    loss = losses.sparse_categorical_crossentropy(leaf, np.array([1]), from_logits=True)
    value, (first,), _ = differentiate(loss, [leaf], np.float32(1), [np.ones((1, 3), "f")])
    assert value == 2e4
    np.testing.assert_array_equal(first, [[1, -1, 0]])


def test_probabilities_of_zero_and_one(differentiate) -> None:
    p = np.array([0.0, 1.0, 0.0, 1.0], np.float32)
    y = np.array([0.0, 1.0, 1.0, 0.0], np.float32)
    leaf = Variable(p)
    loss = losses.binary_crossentropy(leaf, y, reduction="none")
    value, (first,), _ = differentiate(loss, [leaf], np.ones(4, "f"), [np.ones(4, "f")])
    np.testing.assert_array_equal(value, [0, 0, 100, 100])
    np.testing.assert_allclose(first[2:], [-1e12, 1e12], rtol=1e-6)
    assert np.isfinite(first).all()


def test_probabilities_and_logits_agree(evaluate) -> None:
    exp = np.exp(X) / np.exp(X).sum(1, keepdims=True)
    for function, y in (
        (losses.sparse_categorical_crossentropy, LABELS),
        (losses.categorical_crossentropy, SIMPLEX),
    ):
        np.testing.assert_allclose(
            evaluate(function(constant(exp), y)), evaluate(function(constant(X), y, True))
        )
    np.testing.assert_allclose(
        evaluate(losses.binary_crossentropy(constant(1 / (1 + np.exp(-X))), ONE_ZERO)),
        evaluate(losses.binary_crossentropy(constant(X), ONE_ZERO, True)),
    )


def test_class_axis(evaluate) -> None:
    x = constant(X)
    np.testing.assert_allclose(
        evaluate(losses.sparse_categorical_crossentropy(x.T, LABELS, True, axis=0)),
        evaluate(losses.sparse_categorical_crossentropy(x, LABELS, True)),
    )


def test_losses_without_a_peer(evaluate) -> None:
    close = dict(rtol=1e-12)
    np.testing.assert_allclose(
        evaluate(losses.gaussian_kl(X, constant(Y))),
        0.5 * (X**2 + np.exp(Y) - 1 - Y).sum() / 5,
        **close,
    )
    np.testing.assert_allclose(
        evaluate(losses.hinge(constant(X), SIGNS)), np.maximum(0, 1 - X * SIGNS).mean(), **close
    )
    np.testing.assert_allclose(
        evaluate(losses.squared_hinge(constant(X), SIGNS)),
        (np.maximum(0, 1 - X * SIGNS) ** 2).mean(),
        **close,
    )
    hot = np.eye(4)[LABELS]
    expected = np.maximum(0, ((1 - hot) * X).max(1) - (hot * X).sum(1) + 1)
    np.testing.assert_allclose(
        evaluate(losses.categorical_hinge(constant(X), hot)), expected.mean(), **close
    )
    d, y = np.abs(X[:, 0]), np.array([0.0, 1, 1, 0, 1])
    expected = (1 - y) * d**2 / 2 + y * np.maximum(0, 1.5 - d) ** 2 / 2
    np.testing.assert_allclose(
        evaluate(losses.contrastive(constant(d), y, 1.5)), expected.mean(), **close
    )
    d = np.linalg.norm(X - Y, axis=1)
    expected = (1 - y) * d**2 / 2 + y * np.maximum(0, 4.0 - d) ** 2 / 2
    np.testing.assert_allclose(
        evaluate(losses.contrastive_embedding(constant(X), Y, y, 4.0)), expected.mean(), **close
    )


def test_equal_embeddings_have_a_finite_derivative(differentiate) -> None:
    a = Variable(np.ones((2, 3)))
    loss = losses.contrastive_embedding(a, np.ones((2, 3)), np.array([0.0, 1.0]))
    _, (first,), (again,) = differentiate(loss, [a], np.ones(()), [np.ones((2, 3))])
    assert np.isfinite(first).all() and np.isfinite(again).all()


def test_batchmean_divides_by_a_symbolic_batch(evaluate) -> None:
    x = tensor_input("x", ("n", 4), "float64")
    y = tensor_input("y", ("n", 4), "float64")
    loss = losses.kl_divergence(x, y, "batchmean")
    expected = torch.nn.functional.kl_div(
        torch.tensor(np.log(P)), torch.tensor(SIMPLEX), reduction="batchmean"
    )
    np.testing.assert_allclose(evaluate(loss, x=np.log(P), y=SIMPLEX), expected)


def test_labels_are_range_checked() -> None:
    x, y = tensor_input("x", ("n", 10)), tensor_input("y", ("n",), "int32")
    loss = losses.sparse_categorical_crossentropy(x, y, True, ignore_index=-1)
    ((node, check),) = checks_reaching([loss.node])
    assert node is y.node
    assert (check.low, check.high, check.ignore) == (0, 10, -1)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda x: losses.mse(x, tensor_input("t", ("n", 1))), GraphError, r"mse: .*\(n, 1\)"),
        (lambda x: losses.mse(x, x, "avg"), GraphError, "'avg' is not one of mean, sum, none"),
        (lambda x: losses.mse(x, x, "batchmean"), GraphError, "batchmean"),
        (
            lambda x: losses.sparse_categorical_crossentropy(x, tensor_input("t", ("n",))),
            GraphTypeError,
            "labels are integers, not float32",
        ),
        (
            lambda x: losses.sparse_categorical_crossentropy(
                x, tensor_input("t", ("n", 1), "int64")
            ),
            GraphError,
            r"\(n,\) would fit",
        ),
        (
            lambda x: losses.categorical_crossentropy(x, x, label_smoothing=2.0),
            GraphError,
            "label_smoothing",
        ),
        (
            lambda x: losses.categorical_crossentropy(x, x, class_weights=[1.0]),
            GraphError,
            "4 classes",
        ),
        (lambda x: losses.huber(x, x, 0.0), GraphError, "delta"),
        (lambda x: losses.binary_crossentropy(x, x, pos_weight=2.0), GraphError, "from_logits"),
        (lambda x: losses.cosine_embedding(x, x, x), GraphError, "would fit"),
        (lambda x: losses.gaussian_nll(x, x, tensor_input("v", ("n", 2))), GraphError, "var"),
    ],
)
def test_errors(build, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        build(tensor_input("x", ("n", 4)))
    assert "test_losses.py:" in str(caught.value)


def test_log_floor_is_torchs() -> None:
    assert math.log(losses._SMALLEST) == -100.0


def test_models_that_share_their_labels_keep_their_own_numbers_of_classes():
    labels = tensor_input("y", ("batch",), dtype="int64")
    few, many = tensor_input("few", ("batch", 2)), tensor_input("many", ("batch", 10))
    small, large = (
        losses.sparse_categorical_crossentropy(x, labels, from_logits=True) for x in (few, many)
    )
    assert [check.high for _, check in checks_reaching([small.node])] == [2]
    assert [check.high for _, check in checks_reaching([large.node])] == [10]


def test_weights_are_saved_as_in_torch() -> None:
    ours = nn.CrossEntropyLoss(weight=np.ones(4, np.float32))
    theirs = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 0.0, 1.5]))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    assert ours.state_dict()["weight"].tolist() == [0.5, 2.0, 0.0, 1.5]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_multilabel_margin_agrees_with_torch(reduction: str, evaluate) -> None:
    labels = np.array([[3, 0, -1, 1]] * 3 + [[-1] * 4, [0, 1, 2, 3]])
    for scores, target in ((X, labels), (X[0], labels[0])):
        x, theirs = Variable(scores), torch.tensor(scores, requires_grad=True)
        loss = nn.MultiLabelMarginLoss(reduction)(x, target)
        expected = torch.nn.MultiLabelMarginLoss(reduction=reduction)(theirs, torch.tensor(target))
        expected.sum().backward()
        np.testing.assert_allclose(evaluate(loss), expected.detach(), rtol=1e-12)
        (slope,) = cr.grad(loss.sum(), [x])
        np.testing.assert_allclose(evaluate(slope), theirs.grad, rtol=1e-12)


def test_models_of_other_classes_may_share_the_name_of_their_labels():
    """Equal nodes are one: what one model requires of the labels must not hold for the other."""
    x = cr.input("x", ("batch", 4))
    y = cr.input("y", ("batch",), dtype="int64")
    rng = np.random.default_rng(0)
    few, many = (
        losses.cross_entropy(x @ cr.constant(rng.normal(size=(4, n)).astype("float32")), y)
        for n in (2, 3)
    )
    data = {"x": np.ones((2, 4), "float32"), "y": np.array([2, -100])}
    assert np.isfinite(cr.compile(many, backend="numpy")(**data))
    with pytest.raises(cr.IndexRangeError, match="outside 0 to 1"):
        cr.compile(few, backend="numpy")(**data)
