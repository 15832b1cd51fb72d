"""chainrule.nn.functional has torch.nn.functional's names, argument orders and defaults."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn

torch = pytest.importorskip("torch")
theirs, ours = torch.nn.functional, nn.functional

#: What is left out, and why.
LEFT_OUT = {
    "conv_tbc": "a layout of one library",
    "grouped_mm": "a kernel, not an operator",
    "multi_head_attention_forward": "the layer's inside; see nn.MultiheadAttention",
    "native_channel_shuffle": "channel_shuffle",
    "scaled_grouped_mm": "a kernel, not an operator",
    "scaled_mm": "a kernel, not an operator",
}
NOT_OPERATORS = ("has_torch", "handle_torch", "assert_", "boolean_dispatch")
#: PyTorch's arguments that mean nothing here.
DROPPED = {"_stacklevel", "out", "options", "_random_samples", "generator"}


def operators() -> list[str]:
    names = [n for n in dir(theirs) if n[0].islower() and callable(getattr(theirs, n))]
    return [
        n
        for n in names
        if not n.startswith(NOT_OPERATORS) and not n.endswith(("_", "_with_indices"))
    ]


def test_every_operator_has_its_name() -> None:
    missing = {name for name in operators() if not hasattr(ours, name)}
    assert missing == LEFT_OUT.keys()
    assert set(ours.__all__) <= set(operators())


def signature_of(function) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        return None


@pytest.mark.parametrize("name", sorted(set(operators()) - LEFT_OUT.keys()))
def test_arguments_and_defaults_are_torchs(name) -> None:
    expected, found = signature_of(getattr(theirs, name)), signature_of(getattr(ours, name))
    assert found is not None
    if expected is None or expected[0].kind is inspect.Parameter.VAR_POSITIONAL:
        pytest.skip("built in: it does not tell its arguments")
    kept = [p for p in expected if p.name not in DROPPED]
    # operands are positional and may be called x; options have names
    for wanted, given in zip(kept, [p for p in found if p.name not in DROPPED], strict=False):
        if wanted.default is inspect.Parameter.empty:
            continue
        assert given.name == wanted.name
        if name not in {"affine_grid", "grid_sample"}:
            assert given.default == wanted.default, given.name


X = np.random.default_rng(0).normal(size=(3, 4, 6))
W = np.random.default_rng(1).normal(size=(3, 4, 6))
CALLS = [
    ("linear", [X, W[0, :2]], {}),
    ("linear", [X, W[0, 0]], {}),
    ("bilinear", [X[0], W[0], np.ones((5, 6, 6)), np.arange(5.0)], {}),
    ("cosine_similarity", [X, W], {}),
    ("pairwise_distance", [X, W], {"p": 1.0, "keepdim": True}),
    ("pdist", [X[0]], {"p": 3.0}),
    ("normalize", [X], {"p": 1.0}),
    ("normalize", [X], {"dim": 2}),
    ("softmax", [X], {"dim": 1}),
    ("log_softmax", [X[0]], {"dim": 0}),
    ("softmin", [X], {"dim": -1}),
    ("glu", [X], {"dim": 1}),
    ("mse_loss", [X, W], {"weight": np.abs(W)}),
    ("l1_loss", [X, W], {"reduction": "sum", "weight": np.abs(W)}),
    ("l1_loss", [X, W], {"size_average": False}),
    ("smooth_l1_loss", [X, W], {"reduce": False, "beta": 0.5}),
    ("huber_loss", [X, W], {"delta": 0.5}),
    ("binary_cross_entropy_with_logits", [X, np.abs(np.tanh(W))], {"reduction": "none"}),
    ("kl_div", [X, np.abs(W)], {"reduction": "batchmean"}),
    ("poisson_nll_loss", [X, np.abs(W)], {"full": True}),
    ("gaussian_nll_loss", [X, W, np.abs(W) + 0.1], {}),
    ("hinge_embedding_loss", [X, np.sign(W)], {}),
    ("cosine_embedding_loss", [X[0], W[0], np.array([1.0, -1.0, -1.0, 1.0])], {"margin": 0.2}),
    ("margin_ranking_loss", [X, W, np.sign(W)], {"margin": 0.5}),
    ("soft_margin_loss", [X, np.sign(W)], {}),
    ("multilabel_soft_margin_loss", [X[0], (W[0] > 0) * 1.0], {}),
    ("triplet_margin_loss", [X, W, X * W], {"swap": True}),
    ("triplet_margin_with_distance_loss", [X, W, X * W], {}),
    ("layer_norm", [X, (4, 6), np.abs(W[0]), W[1]], {}),
    ("rms_norm", [X, (6,), W[0, 0]], {}),
    ("group_norm", [X, 2, W[0, :, 0], W[1, :, 0]], {}),
    ("batch_norm", [X, W[0, :, 0], np.abs(W[1, :, 0]), W[0, :, 1]], {}),
    ("instance_norm", [X], {}),
    ("local_response_norm", [X, 2], {}),
    ("dropout", [X], {"training": False}),
    ("alpha_dropout", [X], {}),
    ("rrelu", [X], {}),
    ("hardtanh", [X, -0.3, 0.4], {}),
    ("threshold", [X, 0.1, 7.0], {}),
    ("pad", [X, (1, 2, 0, 1)], {"value": 3.0}),
    ("max_pool1d", [X, 2], {}),
    ("upsample_nearest", [X], {"scale_factor": 2}),
]


@pytest.mark.parametrize(
    ("name", "arrays", "options"), CALLS, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(CALLS)]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_and_gradients_are_torchs(name, arrays, options) -> None:
    def leaf(value):
        return isinstance(value, np.ndarray) and value.dtype.kind == "f"

    def torch_of(value):
        return torch.tensor(value) if isinstance(value, np.ndarray) else value

    names = [f"a{i}" if leaf(a) else None for i, a in enumerate(arrays)]
    nodes = [
        a if n is None else cr.input(n, a.shape, dtype="float64")
        for n, a in zip(names, arrays, strict=True)
    ]
    expected_options = {
        k: getattr(torch, v) if k == "dtype" else torch_of(v) for k, v in options.items()
    }
    first = torch.tensor(arrays[0], requires_grad=True)
    expected = getattr(theirs, name)(first, *map(torch_of, arrays[1:]), **expected_options)
    result = getattr(ours, name)(*nodes, **options)
    weights = np.random.default_rng(3).normal(size=tuple(expected.shape))
    (expected * torch.tensor(weights)).sum().backward()
    (slope,) = cr.grad((result * weights).sum(), [nodes[0]])
    compiled = cr.compile([result, slope], backend="numpy")
    fed = {n: a for n, a in zip(names, arrays, strict=True) if n is not None}
    value, gradient = compiled(**fed)
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, first.grad, rtol=1e-9, atol=1e-12)


def test_one_hot_of_a_constant_counts_its_classes() -> None:
    assert cr.evaluate(ours.one_hot(np.array([0, 2]))).tolist() == [[1, 0, 0], [0, 0, 1]]
    with pytest.raises(cr.GraphError, match="number of classes"):
        ours.one_hot(cr.input("x", (3,), dtype="int64"))


def test_a_sample_of_gumbel_softmax_is_a_distribution() -> None:
    logits = cr.input("logits", (5, 4))
    soft, hard = ours.gumbel_softmax(logits), ours.gumbel_softmax(logits, hard=True)
    (slope,) = cr.grad((hard * np.arange(4.0, dtype=np.float32)).sum(), [logits])
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    soft, hard, slope = cr.compile([soft, hard, slope], backend="numpy")(logits=values)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    assert (np.sort(hard, 1) == [0, 0, 0, 1]).all()
    assert np.abs(slope).min(1).any()


def test_linear_cross_entropy_is_cross_entropy_of_a_linear_map() -> None:
    x, weight, target = X[0], W[0, :3], np.array([0, 2, 1, 1])
    found = cr.evaluate(ours.linear_cross_entropy(x, weight, target))
    expected = theirs.cross_entropy(torch.tensor(x @ weight.T), torch.tensor(target))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
