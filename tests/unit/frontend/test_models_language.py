"""GPT, BERT and LoRA: names, values and gradients against PyTorch, cached generation, merging."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule import models, nn
from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError

from .peer import assert_close, measure

torch = pytest.importorskip("torch", reason="the reference is PyTorch")

WORDS, PLACES, WIDTH, HEADS = 11, 12, 8, 2
TOKENS = np.random.default_rng(0).integers(0, WORDS, (3, 5))


def scrambled(model: nn.Module) -> dict[str, torch.Tensor]:
    """Give every parameter values that matter, and return them by name."""
    rng = np.random.default_rng(1)
    for variable in model.parameters():
        variable.assign(rng.normal(size=variable.value.shape) * 0.4)
    return {name: torch.tensor(v, requires_grad=True) for name, v in model.state_dict().items()}


def norm(x, state, name: str, eps: float):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def heads_first(x):
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)


def gpt_by_hand(state, tokens):
    """GPT-2 as its paper and checkpoint define it, in plain PyTorch."""

    def project(x, name):
        return x @ state[f"{name}.weight"] + state[f"{name}.bias"]

    x = state["wte.weight"][tokens] + state["wpe.weight"][: tokens.shape[1]]
    for layer in range(2):
        h = f"h.{layer}"
        parts = project(norm(x, state, f"{h}.ln_1", 1e-5), f"{h}.attn.c_attn").chunk(3, -1)
        out = torch.nn.functional.scaled_dot_product_attention(
            *map(heads_first, parts), is_causal=True
        )
        x = x + project(out.transpose(1, 2).reshape(x.shape), f"{h}.attn.c_proj")
        inner = project(norm(x, state, f"{h}.ln_2", 1e-5), f"{h}.mlp.c_fc")
        x = x + project(torch.nn.functional.gelu(inner, approximate="tanh"), f"{h}.mlp.c_proj")
    return norm(x, state, "ln_f", 1e-5) @ state["wte.weight"].T


def bert_by_hand(state, tokens, seen):
    """BERT with its head for masked tokens, in plain PyTorch."""

    def dense(x, name):
        return torch.nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    e = "bert.embeddings"
    x = state[f"{e}.word_embeddings.weight"][tokens]
    x = x + state[f"{e}.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(x + state[f"{e}.token_type_embeddings.weight"][0], state, f"{e}.LayerNorm", 1e-12)
    for layer in range(2):
        a = f"bert.encoder.layer.{layer}"
        parts = [dense(x, f"{a}.attention.self.{p}") for p in ("query", "key", "value")]
        out = torch.nn.functional.scaled_dot_product_attention(
            *map(heads_first, parts), seen[:, None, None]
        )
        out = dense(out.transpose(1, 2).reshape(x.shape), f"{a}.attention.output.dense")
        x = norm(out + x, state, f"{a}.attention.output.LayerNorm", 1e-12)
        inner = torch.nn.functional.gelu(dense(x, f"{a}.intermediate.dense"))
        x = norm(dense(inner, f"{a}.output.dense") + x, state, f"{a}.output.LayerNorm", 1e-12)
    p = "cls.predictions"
    x = torch.nn.functional.gelu(dense(x, f"{p}.transform.dense"))
    x = norm(x, state, f"{p}.transform.LayerNorm", 1e-12)
    return x @ state[f"{e}.word_embeddings.weight"].T + state[f"{p}.bias"]


def gpt(dtype: str = "float32") -> models.GPT:
    return models.GPT(WORDS, PLACES, WIDTH, 2, HEADS, dropout=0.0, dtype=dtype)


def bert(dtype: str = "float32") -> models.BertForMaskedLM:
    return models.BertForMaskedLM(
        WORDS,
        WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        max_position_embeddings=PLACES,
        dropout=0.0,
        dtype=dtype,
    )


@pytest.mark.parametrize(("backend", "dtype"), [("numpy", "float64"), ("native", "float32")])
def test_gpt_agrees_with_torch(backend: str, dtype: str) -> None:
    model = gpt(dtype)
    state = scrambled(model)
    tokens = cr.input("tokens", ("batch", "length"), "int64")
    expected = gpt_by_hand(state, torch.tensor(TOKENS))
    cotangent = np.random.default_rng(2).normal(size=tuple(expected.shape)).astype(dtype)
    wrt = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        expected, [state[name] for name in wrt], torch.tensor(cotangent)
    )
    found = measure([model(tokens)], list(wrt.values()), [cotangent], {"tokens": TOKENS}, backend)
    assert_close(found, [expected, *gradients], dtype)


@pytest.mark.parametrize(("backend", "dtype"), [("numpy", "float64"), ("native", "float32")])
def test_bert_agrees_with_torch(backend: str, dtype: str) -> None:
    model = bert(dtype)
    state = scrambled(model)
    seen = np.arange(5) < np.array([[5], [3], [4]])
    tokens = cr.input("tokens", ("batch", "length"), "int64")
    mask = cr.input("mask", ("batch", "length"), "int64")
    expected = bert_by_hand(state, torch.tensor(TOKENS), torch.tensor(seen))
    cotangent = np.random.default_rng(2).normal(size=tuple(expected.shape)).astype(dtype)
    wrt = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        expected, [state[name] for name in wrt], torch.tensor(cotangent)
    )
    arrays = {"tokens": TOKENS, "mask": seen.astype(int)}
    output = model(tokens, mask)
    found = measure([output], list(wrt.values()), [cotangent], arrays, backend)
    assert_close(found, [expected, *gradients], dtype)
    assert len(model.bert.hidden_states(tokens)) == 3


def continued(model: models.GPT, prompt: np.ndarray, length: int) -> np.ndarray:
    """Greedy generation that reads everything again for each token."""
    tokens = cr.input("tokens", ("batch", "length"), "int64")
    read = cr.compile(model(tokens), backend="numpy")
    whole = prompt
    for _ in range(length):
        whole = np.concatenate([whole, read(tokens=whole)[:, -1].argmax(-1)[:, None]], 1)
    return whole[:, prompt.shape[1] :]


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_cached_generation_is_that_of_reading_again(backend: str, length: int) -> None:
    model = gpt()
    scrambled(model)
    tokens = cr.input("tokens", ("batch", "length"), "int64")
    write = cr.compile(models.generate(model, tokens, length, temperature=0.0), backend=backend)
    for prompt in (TOKENS, TOKENS[:1, :1]):
        np.testing.assert_array_equal(write(tokens=prompt), continued(model, prompt, length))
    with pytest.raises(IndexRangeError):
        write(tokens=np.zeros((1, PLACES + 1), int))


def test_drawn_tokens_follow_the_temperature() -> None:
    model = gpt()
    scrambled(model)
    prompt = np.repeat(TOKENS[:1], 3000, 0)
    for temperature in (0.5, 2.0):
        drawn = models.generate(model, prompt, 2, temperature)
        run = cr.compile([drawn, model(prompt)[0, -1]], backend="numpy", seed=3)
        tokens, logits = run()
        again, _ = run()
        assert (tokens != again).any()
        weights = np.exp(logits / temperature - np.max(logits / temperature))
        share = np.bincount(tokens[:, 0], minlength=WORDS) / 3000
        np.testing.assert_allclose(share, weights / weights.sum(), atol=0.04)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize(
    ("limits", "kept"),
    [({"top_k": 3}, 3), ({"top_p": 0.6}, None), ({"top_k": 1}, 1), ({"top_p": 1e-6}, 1)],
    ids=str,
)
def test_unlikely_tokens_are_left_out(limits: dict, kept: int | None, backend: str) -> None:
    model = gpt()
    scrambled(model)
    prompt = np.repeat(TOKENS[:1], 600, 0)
    given = cr.input("prompt", ("batch", "length"), "int64")
    run = cr.compile(models.generate(model, given, 3, **limits), backend=backend, seed=3)
    drawn = run(prompt=prompt)
    logits = cr.compile(model(given)[0, -1], backend="numpy")(prompt=prompt)
    order = np.argsort(-logits)
    if kept is None:
        chances = np.exp(logits[order]) / np.exp(logits).sum()
        kept = int((np.cumsum(chances) - chances < limits["top_p"]).sum())
        assert 1 < kept < WORDS
    assert set(drawn[:, 0]) == set(order[:kept])


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: models.generate(gpt(), TOKENS, 2, top_k=12), GraphError, "top_k 12 .* 11"),
        (lambda: models.generate(gpt(), TOKENS, 2, top_p=0.0), GraphError, "top_p must lie"),
        (lambda: models.GPT(5, 4, 6, 1, 4), GraphError, "4 heads do not divide the width 6"),
        (lambda: gpt()(np.ones((2, 3))), GraphTypeError, "tokens are integers"),
        (lambda: gpt()(np.ones(3, int)), GraphError, r"\(batch, length\), not \(3,\)"),
        (lambda: models.generate(gpt(), TOKENS, 0), GraphError, "length must be positive"),
        (lambda: models.generate(gpt(), TOKENS, 9), GraphError, "5 tokens and 9 more .* 12"),
        (lambda: models.generate(gpt(), TOKENS, 2, -1.0), GraphError, "temperature"),
        (lambda: models.Bert(5, 6, 1, 4), GraphError, "4 heads do not divide the width 6"),
        (lambda: bert()(TOKENS, TOKENS[:2]), GraphError, r"attention_mask \(2, 5\)"),
        (lambda: bert()(TOKENS[0]), GraphError, r"\(batch, length\), not \(5,\)"),
        (lambda: models.add_lora(gpt(), targets=["query"]), GraphError, "is called query"),
        (lambda: models.LoRA(nn.Linear(2, 2), 0), GraphError, "rank"),
    ],
)
def test_refusals(build, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()


# -- LoRA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_lora_trains_its_corrections_alone_and_merges(backend: str) -> None:
    cr.manual_seed(0)
    model = gpt()
    scrambled(model)
    before = model.state_dict()
    tokens = cr.input("tokens", ("batch", "length"), "int64")
    plain = cr.compile(model(tokens), backend=backend)(tokens=TOKENS)
    adapters = models.add_lora(model, rank=2, alpha=8, targets=["c_attn", "mlp.c_proj"])
    assert len(adapters) == 8
    assert [v for v in model.parameters() if v.trainable] == adapters
    logits = model(tokens)
    read = cr.compile(logits, backend=backend)
    np.testing.assert_allclose(read(tokens=TOKENS), plain, rtol=1e-5, atol=1e-6)
    loss = cr.losses.cross_entropy(logits.transpose(0, 2, 1), tokens)
    train = cr.compile_train(loss, cr.optim.Adam(0.05), backend=backend)
    assert {v.name for v in train.parameters if v.trainable} == {"lora_A", "lora_B"}
    found = [train.step(tokens=TOKENS)["loss"] for _ in range(20)]
    assert found[-1] < 0.93 * found[0]
    tuned = read(tokens=TOKENS)
    for name, value in model.state_dict().items():
        original = name.replace(".base.", ".")
        if original in before:
            np.testing.assert_array_equal(value, before[original], err_msg=name)
    models.merge_lora(model)
    assert list(model.state_dict()) == list(before)
    merged = cr.compile(model(tokens), backend=backend)(tokens=TOKENS)
    np.testing.assert_allclose(merged, tuned, rtol=1e-4, atol=1e-4)
    assert np.abs(merged - plain).max() > 0.1


def test_lora_in_containers() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2, bias=False))
    x = cr.constant(np.random.default_rng(0).normal(size=(5, 4)).astype("f"))
    twin = copy.deepcopy(model)
    adapters = models.add_lora(model, rank=1)
    assert [v.shape for v in adapters] == [(1, 4), (3, 1), (1, 3), (2, 1)]
    for variable in adapters:
        variable.assign(np.random.default_rng(1).normal(size=variable.value.shape))
    tuned = cr.evaluate(model(x))
    assert np.abs(tuned - cr.evaluate(twin(x))).max() > 0.1
    models.merge_lora(model)
    assert isinstance(model[0], nn.Linear)
    np.testing.assert_allclose(cr.evaluate(model(x)), tuned, rtol=1e-5, atol=1e-5)
