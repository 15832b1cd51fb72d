"""Attention against PyTorch: values, weights, gradients, masks of every form, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import F, nn
from chainrule.compiler.errors import GraphError, GraphTypeError

from .peer import assert_close, measure

torch = pytest.importorskip("torch", reason="the reference is PyTorch")

BACKENDS = ["numpy", "native"]


def draw(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


BOOL = np.random.default_rng(3).random((5, 7)) < 0.6
BOOL[2] = False  # a query that sees no key
FLOAT = np.where(BOOL, draw(5, 7), -np.inf)
#: Name -> shapes of query, key, value; arguments.
ATTENTIONS = {
    "plain": ([(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], {}),
    "rank_2": ([(5, 4), (7, 4), (7, 6)], {}),
    "rank_3": ([(2, 5, 4), (2, 7, 4), (2, 7, 6)], {"scale": 0.3}),
    "rank_5": ([(2, 2, 3, 5, 4), (2, 2, 3, 7, 4), (2, 2, 3, 7, 6)], {}),
    "bool": ([(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], {"attn_mask": BOOL}),
    "float": ([(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], {"attn_mask": FLOAT}),
    "padding": (
        [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)],
        {"attn_mask": np.array([[True] * 4 + [False] * 3, [False] * 7]).reshape(2, 1, 1, 7)},
    ),
    "causal": ([(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], {"is_causal": True}),
    "causal_few_keys": ([(2, 3, 5, 4), (2, 3, 2, 4), (2, 3, 2, 4)], {"is_causal": True}),
    "grouped": ([(2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)], {"enable_gqa": True}),
    "grouped_causal": (
        [(2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)],
        {"enable_gqa": True, "is_causal": True},
    ),
    "grouped_mask": ([(6, 5, 4), (3, 7, 4), (3, 7, 4)], {"enable_gqa": True, "attn_mask": BOOL}),
    "one_key": ([(2, 3, 5, 4), (2, 3, 1, 4), (2, 3, 1, 4)], {}),
}


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_agrees_with_torch(name: str, backend: str) -> None:
    shapes, arguments = ATTENTIONS[name]
    arrays = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    symbolic = len(shapes[0]) == 4 and name != "padding"
    tensors = [
        cr.input(label, ("batch", *shape[1:]) if symbolic else shape, "float64")
        for label, shape in zip("qkv", shapes, strict=True)
    ]
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    masks = {k: torch.tensor(v) if k == "attn_mask" else v for k, v in arguments.items()}
    expected = torch.nn.functional.scaled_dot_product_attention(*leaves, **masks)
    cotangent = draw(*expected.shape, seed=9)
    torch_grads = torch.autograd.grad(expected, leaves, torch.tensor(cotangent))
    output = F.scaled_dot_product_attention(*tensors, **arguments)
    found = measure([output], tensors, [cotangent], dict(zip("qkv", arrays, strict=True)), backend)
    assert_close(found, [expected, *torch_grads], "float64")


def test_masks_and_causality_combine(evaluate) -> None:
    q, k, v = draw(4, 3), draw(6, 3, seed=1), draw(6, 3, seed=2)
    mask = draw(4, 6, seed=3) > -0.5
    mask[:, 0] = True
    found = evaluate(F.scaled_dot_product_attention(q, k, v, mask, is_causal=True))
    both = torch.tensor(np.tril(mask))
    expected = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), both)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_size_may_be_symbolic(backend: str) -> None:
    q = cr.input("q", ("batch", 2, "length", 4))
    k = cr.input("k", ("batch", 2, "keys", 4))
    output = F.scaled_dot_product_attention(q, k, k, is_causal=True)
    attend = cr.compile(output, backend=backend)
    for batch, length, keys in ((1, 1, 1), (3, 5, 9), (2, 9, 5)):
        a, b = draw(batch, 2, length, 4, dtype="float32"), draw(batch, 2, keys, 4, dtype="float32")
        expected = torch.nn.functional.scaled_dot_product_attention(
            *map(torch.tensor, (a, b, b)), is_causal=True
        )
        np.testing.assert_allclose(attend(q=a, k=b), expected, rtol=1e-5, atol=1e-6)


def test_large_scores_do_not_overflow(evaluate) -> None:
    q = np.full((2, 4), 300.0, np.float32)
    out = evaluate(F.scaled_dot_product_attention(q, q, q, np.zeros((2, 2), np.float32)))
    np.testing.assert_array_equal(out, q)


def test_no_keys_give_zeros(evaluate) -> None:
    q, k = np.ones((2, 3, 4), "f"), np.ones((2, 0, 4), "f")
    np.testing.assert_array_equal(
        evaluate(F.scaled_dot_product_attention(q, k, k)), np.zeros((2, 3, 4))
    )


def test_dropout_drops_weights_in_training_alone(evaluate) -> None:
    n = 400
    q, v = np.zeros((n, 2), "f"), np.eye(n, dtype="f")
    out = F.scaled_dot_product_attention(q, q, v, dropout_p=0.25)
    np.testing.assert_allclose(evaluate(out), 1 / n, rtol=1e-5)
    drawn = evaluate(out, training=True)
    assert set(np.unique(drawn.round(8))) == {np.float32(0), np.float32(1 / n / 0.75).round(8)}
    assert abs((drawn == 0).mean() - 0.25) < 0.01


def _input(*shape: object, dtype: str = "float32") -> cr.Tensor:
    return cr.input("x" + str(len(shape)) + str(shape[0]), shape, dtype)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (
            lambda: F.scaled_dot_product_attention(
                _input(2, 5, 4), _input(2, 7, 3), _input(2, 7, 3)
            ),
            GraphError,
            r"last axes of query and key have 4 and 3",
        ),
        (
            lambda: F.scaled_dot_product_attention(_input(5, 4), _input(7, 4), _input(6, 4)),
            GraphError,
            "7 keys and 6 values",
        ),
        (
            lambda: F.scaled_dot_product_attention(_input(4), _input(7, 4), _input(7, 4)),
            GraphError,
            r"each must be \(\.\.\., length, width\)",
        ),
        (
            lambda: F.scaled_dot_product_attention(
                _input(6, 5, 4), _input(2, 7, 4), _input(2, 7, 4)
            ),
            GraphError,
            "enable_gqa=True",
        ),
        (
            lambda: F.scaled_dot_product_attention(
                _input(6, 5, 4), _input(4, 7, 4), _input(4, 7, 4), enable_gqa=True
            ),
            GraphError,
            "4 heads of the key do not divide the query's 6",
        ),
        (
            lambda: F.scaled_dot_product_attention(
                _input(5, 4), _input(7, 4), _input(7, 4), np.zeros((7, 5), bool)
            ),
            GraphError,
            r"attn_mask \(7, 5\) .* \(5, 7\) would fit",
        ),
        (
            lambda: F.scaled_dot_product_attention(
                _input(5, 4), _input(7, 4), _input(7, 4), np.zeros((5, 7), int)
            ),
            GraphTypeError,
            "bool .* or float .* not int64",
        ),
        (lambda: nn.MultiheadAttention(12, 5), GraphError, "1, 2, 3, 4, 6, 12 would"),
        (lambda: nn.MultiheadAttention(0, 1), GraphError, "must be positive"),
        (lambda: nn.MultiheadAttention(4, 2, dropout=1.5), GraphError, "probability"),
        (
            lambda: nn.MultiheadAttention(4, 2)(*[_input(3, 2, 5)] * 3),
            GraphError,
            "last axes must be 4, 4, 4",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(_input(3, 2, 4), *[_input(5, 3, 4)] * 2),
            GraphError,
            r"axis 1 of \(length, batch, width\)",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(_input(3, 4), *[_input(5, 3, 4)] * 2),
            GraphError,
            r"\(length, width\)",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(
                *[_input(3, 2, 4)] * 3, attn_mask=np.zeros((2, 3), bool)
            ),
            GraphError,
            r"attn_mask \(2, 3\) does not fit; \(3, 3\) or \(4, 3, 3\) would",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(
                *[_input(3, 2, 4)] * 3, key_padding_mask=np.zeros((3, 2), bool)
            ),
            GraphError,
            r"key_padding_mask \(3, 2\) does not fit; \(2, 3\) would",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(
                *[_input(3, 2, 4)] * 3, key_padding_mask=np.zeros((2, 3), int)
            ),
            GraphTypeError,
            "bool .* or float .* not int64",
        ),
    ],
)
def test_refusals_say_what_would_fit(build, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        build()
    assert "test_attention.py:" in str(caught.value)


# -- multi-head attention -------------------------------------------------------------------------

PADDING = np.array([[False] * 5 + [True] * 2, [False] * 7])
HIDE = np.random.default_rng(5).random((5, 7)) < 0.3
HIDE[:, 0] = False
HIDE_EACH = np.random.default_rng(6).random((8, 5, 7)) < 0.3
HIDE_EACH[:, :, 0] = False
#: Name -> arguments of the layer, of the call.
LAYERS = {
    "plain": ({}, {}),
    "no_weights": ({}, {"need_weights": False}),
    "no_bias": ({"bias": False}, {}),
    "widths": ({"kdim": 5, "vdim": 6}, {"average_attn_weights": False}),
    "bias_kv": ({"add_bias_kv": True}, {"attn_mask": HIDE}),
    "zero_attn": ({"add_zero_attn": True}, {"key_padding_mask": PADDING}),
    "both_extra": ({"add_bias_kv": True, "add_zero_attn": True, "kdim": 3}, {}),
    "padding": ({}, {"key_padding_mask": PADDING}),
    "mask": ({}, {"attn_mask": HIDE}),
    "mask_of_heads": ({}, {"attn_mask": HIDE_EACH, "average_attn_weights": False}),
    "float_mask": ({}, {"attn_mask": np.where(HIDE, -np.inf, draw(5, 7))}),
    "both_masks": ({}, {"attn_mask": HIDE, "key_padding_mask": PADDING}),
    "mixed_masks": (
        {"add_zero_attn": True},
        {"attn_mask": draw(5, 7), "key_padding_mask": np.where(PADDING, -np.inf, 0.0)},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("layout", "backend", "dtype"),
    [
        ("batch_first", "numpy", "float64"),
        ("length_first", "native", "float32"),
        ("unbatched", "numpy", "float64"),
    ],
)
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_layers_agree_with_torch(name: str, layout: str, backend: str, dtype: str) -> None:
    made, called = LAYERS[name]
    made = {"batch_first": layout == "batch_first", **made}
    called = dict(called)
    ours = nn.MultiheadAttention(8, 4, **made, dtype=dtype)
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(8, 4, **made, dtype=getattr(torch, dtype))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for value in theirs.parameters():
        torch.nn.init.normal_(value, std=0.5)
    ours.load_state_dict(theirs.state_dict())
    widths = (8, made.get("kdim", 8), made.get("vdim", 8))
    lead = {"batch_first": (2, "n"), "length_first": ("n", 2), "unbatched": ("n",)}[layout]
    batch: object = "batch"
    if layout == "unbatched":
        for key, rows in (("key_padding_mask", 0), ("attn_mask", slice(4))):
            if key in called and called[key].shape[0] in (2, 8):
                called[key] = called[key][rows]
    elif called.get("attn_mask", HIDE).ndim == 3:
        batch = 2
    masks = {
        k: v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype != bool else v
        for k, v in called.items()
    }
    arrays, tensors = {}, []
    for label, length, width in zip("qkv", (5, 7, 7), widths, strict=True):
        sizes = [length if dim == "n" else dim for dim in lead]
        arrays[label] = draw(*sizes, width, dtype=dtype, seed=ord(label))
        shape = [length if dim == "n" else batch for dim in lead]
        if "key_padding_mask" in called:
            shape = sizes
        tensors.append(cr.input(label, (*shape, width), dtype))
    leaves = [torch.tensor(arrays[label], requires_grad=True) for label in "qkv"]
    torch_masks = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()}
    expected = [x for x in theirs(*leaves, **torch_masks) if x is not None]
    outputs = [x for x in ours(*tensors, **masks) if x is not None]
    assert len(expected) == len(outputs) == 1 + called.get("need_weights", True)
    cotangents = [draw(*x.shape, dtype=dtype, seed=7) for x in expected]
    loss = sum((x * torch.tensor(c)).sum() for x, c in zip(expected, cotangents, strict=True))
    torch_grads = torch.autograd.grad(loss, [*leaves, *theirs.parameters()])
    names = [n for n, _ in theirs.named_parameters()]
    parameters = dict(ours.named_parameters())
    wrt = [*tensors, *(parameters[n] for n in names)]
    found = measure(outputs, wrt, cotangents, arrays, backend)
    assert_close(found, [*expected, *torch_grads], dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_product_with_ones_of_three_axes(backend: str) -> None:
    """What the gradient of a sum makes of a projection."""
    w = cr.input("w", (5, 4))
    product = cr.compile(F.einsum("nle,oe->nlo", F.ones((2, 3, 4)), w), backend=backend)
    array = draw(5, 4, dtype="float32")
    expected = np.broadcast_to(array.sum(1), (2, 3, 5))
    np.testing.assert_allclose(product(w=array), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_self_attention_is_one_projection_and_may_be_causal(backend: str) -> None:
    ours, theirs = nn.MultiheadAttention(8, 2), torch.nn.MultiheadAttention(8, 2)
    ours.load_state_dict(theirs.state_dict())
    x = cr.input("x", ("length", "batch", 8))
    output, weights = ours(x, x, x, is_causal=True)
    run = cr.compile([output, weights], backend=backend)
    for length in (1, 6):
        array = draw(length, 3, 8, dtype="float32")
        hide = torch.nn.Transformer.generate_square_subsequent_mask(length)
        expected = theirs(*[torch.tensor(array)] * 3, attn_mask=hide)
        assert_close(run(x=array), expected, "float32")


def test_causal_self_attention_beside_padding_and_extra_keys(evaluate) -> None:
    arguments = {"add_bias_kv": True, "add_zero_attn": True, "dtype": "float64"}
    ours = nn.MultiheadAttention(8, 2, **arguments)
    theirs = torch.nn.MultiheadAttention(8, 2, **{**arguments, "dtype": torch.float64})
    ours.load_state_dict(theirs.state_dict())
    array = draw(5, 2, 8)
    padding = np.array([[False] * 5, [True] + [False] * 4])
    found = ours(*[cr.constant(array)] * 3, key_padding_mask=padding, is_causal=True)
    hide = torch.tensor(~np.tri(5, dtype=bool))
    expected = theirs(
        *[torch.tensor(array)] * 3, key_padding_mask=torch.tensor(padding), attn_mask=hide
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(evaluate(a), b.detach(), rtol=1e-10, atol=1e-12)


def test_a_sample_that_is_all_padding_gives_zero_weights_and_finite_gradients() -> None:
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    x = cr.input("x", (2, 3, 4))
    padding = np.array([[True] * 3, [False] * 3])
    output, weights = layer(x, x, x, key_padding_mask=padding)
    gradient = cr.grad(output.sum(), [x, layer.in_proj_weight])
    for backend in BACKENDS:
        found = cr.compile([weights, *gradient], backend=backend)(x=draw(2, 3, 4, dtype="float32"))
        assert not found[0][0].any() and found[0][1].any()
        assert all(np.isfinite(value).all() for value in found)


def test_initial_values_follow_torch() -> None:
    cr.manual_seed(0)
    ours = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    theirs = torch.nn.MultiheadAttention(64, 4, add_bias_kv=True)
    for name, value in theirs.state_dict().items():
        found = ours.state_dict()[name]
        assert abs(found.std() - float(value.std())) < 0.15 * float(value.std()) + 1e-9, name
        assert np.abs(found).max() <= max(float(value.abs().max()) * 1.3, 1e-9), name


# -- what is compiled -----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"is_causal": True}, {"attn_mask": np.tri(6) > 0}])
def test_attention_is_three_kernels_and_its_gradient_seven(arguments: dict) -> None:
    """Forward: product, softmax, product, with scale and mask within.

    Back: the scores and weights again, the cotangent of the weights, that of the scores with its
    sums over rows, and one product for each of query, key and value.
    """
    q, k, v = (cr.input(name, ("batch", 2, 6, 8)) for name in "qkv")
    output = F.scaled_dot_product_attention(q, k, v, **arguments)
    assert cr.compile(output).explain().startswith("3 kernels")
    slopes = cr.grad([output], [q, k, v], [cr.input("c", output.shape)])
    kernels = int(cr.compile(slopes).explain().split(" ", 1)[0])
    assert kernels <= 7, cr.compile(slopes).explain()
