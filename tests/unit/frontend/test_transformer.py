"""Transformers against PyTorch: parameter names, values, every gradient, masks, both layouts."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler.errors import GraphError

from .peer import assert_close, measure

torch = pytest.importorskip("torch", reason="the reference is PyTorch")
pytestmark = pytest.mark.filterwarnings(
    "ignore:enable_nested_tensor:UserWarning", "ignore:Support for mismatched:UserWarning"
)

WIDTH, HEADS, BATCH, SOURCE, TARGET = 8, 2, 3, 5, 4
SMALL = {"dim_feedforward": 16, "dropout": 0.0}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


PADDING = np.array([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
LATER = ~np.tri(TARGET, dtype=bool)
LATER_SOURCE = np.where(np.tri(SOURCE, dtype=bool), 0.0, -np.inf)


def _pair(build, **arguments):
    """Return ours and PyTorch's, the same parameters in both, none of them zero."""
    dtype = arguments.pop("dtype")
    torch.manual_seed(0)
    ours = build(nn, {**arguments, "dtype": dtype})
    theirs = build(torch.nn, {**arguments, "dtype": getattr(torch, dtype)})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for value in theirs.parameters():
        torch.nn.init.normal_(value, std=0.4)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _encoder(module, arguments):
    layer = module.TransformerEncoderLayer(WIDTH, HEADS, **arguments)
    return module.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def _encoder_with_norm(module, arguments):
    layer = module.TransformerEncoderLayer(WIDTH, HEADS, **arguments)
    norm = module.LayerNorm(WIDTH, dtype=arguments["dtype"])
    return module.TransformerEncoder(layer, 1, norm, False)


def _decoder(module, arguments):
    return module.TransformerDecoder(module.TransformerDecoderLayer(WIDTH, HEADS, **arguments), 2)


def _transformer(module, arguments):
    return module.Transformer(WIDTH, HEADS, 1, 2, **arguments)


#: Name -> what is built, its arguments, the arguments of the call, whether it takes a target.
MODELS = {
    "encoder": (_encoder, {}, {}, False),
    "encoder_masked": (
        _encoder,
        {"norm_first": True, "activation": "gelu"},
        {"mask": LATER_SOURCE, "src_key_padding_mask": np.where(PADDING, -np.inf, 0.0)},
        False,
    ),
    "encoder_norm": (_encoder_with_norm, {"layer_norm_eps": 1e-3}, {}, False),
    "encoder_no_bias": (_encoder, {"bias": False}, {"src_key_padding_mask": PADDING}, False),
    "decoder": (_decoder, {}, {"tgt_mask": LATER}, True),
    "decoder_masked": (
        _decoder,
        {"norm_first": True},
        {
            "tgt_mask": LATER,
            "memory_mask": np.eye(TARGET, SOURCE, dtype=bool),
            "memory_key_padding_mask": PADDING,
        },
        True,
    ),
    "transformer": (_transformer, {"activation": "gelu"}, {"tgt_mask": LATER}, True),
    "transformer_masked": (
        _transformer,
        {"norm_first": True},
        {
            "src_mask": LATER_SOURCE < -1,
            "tgt_mask": LATER,
            "src_key_padding_mask": PADDING,
            "memory_key_padding_mask": PADDING,
            "tgt_key_padding_mask": PADDING[:, 1:],
        },
        True,
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("backend", "dtype", "batch_first"),
    [("numpy", "float64", True), ("native", "float32", False)],
)
def test_models_agree_with_torch(name: str, backend: str, dtype: str, batch_first: bool) -> None:
    build, made, called, has_target = MODELS[name]
    ours, theirs = _pair(build, **SMALL, **made, batch_first=batch_first, dtype=dtype)

    def lay_out(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array if batch_first else array.swapaxes(0, 1), dtype)

    arrays = {"source": lay_out(draw(BATCH, SOURCE, WIDTH))}
    if has_target:
        target = lay_out(draw(BATCH, TARGET, WIDTH, seed=1))
        order = ("source", "target") if build is _transformer else ("target", "source")
        arrays = {label: {**arrays, "target": target}[label] for label in order}
    padded = any("padding" in key for key in called)
    batch = BATCH if padded else "batch"
    tensors = [
        cr.input(
            label,
            (batch, array.shape[1], WIDTH) if batch_first else (array.shape[0], batch, WIDTH),
            dtype,
        )
        for label, array in arrays.items()
    ]
    masks = {k: v if v.dtype == bool else v.astype(dtype) for k, v in called.items()}
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
    expected = theirs(*leaves, **{k: torch.tensor(v) for k, v in masks.items()})
    cotangent = np.random.default_rng(2).normal(size=tuple(expected.shape)).astype(dtype)
    torch_grads = torch.autograd.grad(
        expected, [*leaves, *theirs.parameters()], torch.tensor(cotangent)
    )
    parameters = dict(ours.named_parameters())
    wrt = [*tensors, *(parameters[n] for n, _ in theirs.named_parameters())]
    found = measure([ours(*tensors, **masks)], wrt, [cotangent], arrays, backend)
    assert_close(found, [expected, *torch_grads], dtype)


def test_lengths_and_batch_may_be_symbolic_and_the_mask_implied() -> None:
    ours, theirs = _pair(_encoder, **SMALL, batch_first=True, dtype="float32")
    x = cr.input("x", ("batch", "length", WIDTH))
    encode = cr.compile(ours(x, is_causal=True))
    for batch, length in ((1, 1), (2, 7)):
        array = draw(batch, length, WIDTH).astype("float32")
        hide = torch.nn.Transformer.generate_square_subsequent_mask(length)
        expected = theirs(torch.tensor(array), hide)
        assert_close([encode(x=array)], [expected], "float32")


def test_one_sequence_needs_no_batch(evaluate) -> None:
    ours, theirs = _pair(_transformer, **SMALL, dtype="float64")
    source, target = draw(SOURCE, WIDTH), draw(TARGET, WIDTH)
    expected = theirs(torch.tensor(source), torch.tensor(target))
    found = evaluate(ours(cr.constant(source), cr.constant(target)))
    assert_close([found], [expected], "float64")


def test_layers_are_copies_that_start_equal() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 16), 2)
    state = model.state_dict()
    assert len(model.parameters()) == 24
    np.testing.assert_array_equal(
        state["layers.0.linear1.weight"], state["layers.1.linear1.weight"]
    )
    first, second = model.layers[0].linear1.weight, model.layers[1].linear1.weight
    assert first.node is not second.node


def test_the_square_mask_and_other_activations(evaluate) -> None:
    mask = evaluate(nn.Transformer.generate_square_subsequent_mask(4))
    expected = torch.nn.Transformer.generate_square_subsequent_mask(4)
    np.testing.assert_array_equal(mask, expected)
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, activation=lambda x: x.tanh())
    assert layer(cr.input("x", (3, 1, 4))).shape == (3, 1, 4)


def test_dropout_acts_in_training_alone(evaluate) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.5)
    out = layer(cr.constant(draw(SOURCE, BATCH, WIDTH).astype("f")))
    np.testing.assert_array_equal(evaluate(out), evaluate(out))
    assert np.abs(evaluate(out, training=True) - evaluate(out)).max() > 0.1


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ((5, 3, 8), (4, 2, 8), "differ in the batch, axis 1"),
        ((5, 3, 8), (4, 3, 6), "must end in d_model, 8"),
        ((5, 3, 8), (4, 8), "rank 3, or 2"),
    ],
)
def test_refusals(source: tuple, target: tuple, words: str) -> None:
    model = nn.Transformer(WIDTH, HEADS, 1, 1, 16)
    with pytest.raises(GraphError, match=words) as caught:
        model(cr.input("s", source), cr.input("t", target))
    assert "test_transformer.py:" in str(caught.value)
