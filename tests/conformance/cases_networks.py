"""Cases that compose primitives: what fusion, memory planning and stability rewrites must keep."""

from __future__ import annotations

import numpy as np
import scipy.special
from cases import Case, N, program, sample, sampled, tensor
from cases_contract import convolution, einsum
from closeness import Tolerance

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Node, Program, apply, constant, make
from chainrule.compiler.ir.types import TensorType

NEAR = Tolerance(ulps=8, relative=4e-6)


def _keep(x: Node, kind: str, axis: int) -> Node:
    """Return a reduction over one axis that stays with size 1."""
    shape = tuple(1 if a == axis else d for a, d in enumerate(x.shape))
    return make(ops.Reshape(shape), make(ops.Reduce(kind, (axis,)), x))


def softmax(x: Node) -> Node:
    axis = x.type.rank - 1
    e = apply("exp", apply("sub", x, _keep(x, "max", axis)))
    return apply("div", e, _keep(e, "sum", axis))


def log_sum_exp(x: Node) -> Node:
    axis = x.type.rank - 1
    top = _keep(x, "max", axis)
    total = _keep(apply("exp", apply("sub", x, top)), "sum", axis)
    return apply("add", apply("log", total), top)


def normalize(x: Node) -> Node:
    axis = x.type.rank - 1
    count = constant(x.shape[axis], x.dtype)
    centred = apply("sub", x, apply("div", _keep(x, "sum", axis), count))
    variance = apply("div", _keep(apply("square", centred), "sum", axis), count)
    return apply("mul", centred, apply("rsqrt", apply("add", variance, constant(1e-5, x.dtype))))


def cross_entropy(logits: Node, labels: Node) -> Node:
    """Return the mean of ``logsumexp(logits) - logits[label]`` over the batch."""
    batch, classes = logits.shape
    flat = make(ops.Reshape((batch * classes,)), logits)
    rows = make(ops.Iota(TensorType("int64", (batch,)), 0))
    place = apply("add", apply("mul", rows, constant(classes, "int64")), labels)
    chosen = make(ops.Gather(0), flat, place)
    losses = apply("sub", make(ops.Reshape((batch,)), log_sum_exp(logits)), chosen)
    return apply(
        "div", make(ops.Reduce("sum", (0,)), losses), make(ops.Extent(batch, logits.dtype))
    )


def _one_layer() -> list[Case]:
    x = tensor("x", (N, 17))
    calls = sampled({"x": (9, 17)}, {"x": (1, 17)}, {"x": (65, 17)})
    large = tuple({"x": 300 * call["x"]} for call in calls)
    rows = [
        ("softmax", softmax(x), lambda x: scipy.special.softmax(x.astype("f8"), 1)),
        (
            "log-softmax",
            apply("sub", x, log_sum_exp(x)),
            lambda x: scipy.special.log_softmax(x.astype("f8"), 1),
        ),
        (
            "layer-norm",
            normalize(x),
            lambda x: (
                (x - x.mean(1, keepdims=True, dtype="f8"))
                / np.sqrt(x.astype("f8").var(1, keepdims=True) + 1e-5)
            ),
        ),
        (
            "residual-gelu",
            apply("add", x, apply("mul", x, apply("erf", x))),
            lambda x: x * (1.0 + scipy.special.erf(x.astype("f8"))),
        ),
        (
            "sum-of-squares-by-row",
            make(ops.Reduce("sum", (1,)), apply("square", x)),
            lambda x: (x.astype("f8") ** 2).sum(1),
        ),
        (
            "centre-columns",
            apply("sub", x, apply("div", _keep(x, "sum", 0), make(ops.Extent(N, "float32")))),
            lambda x: x - x.mean(0, dtype="f8"),
        ),
    ]
    return [
        Case(
            name,
            program(node),
            (*calls, *large) if "softmax" in name else calls,
            lambda x, expected=expected: {"y": expected(x).astype(np.float32)},
            NEAR,
            promote=True,
            differentiate=("x",),
        )
        for name, node, expected in rows
    ]


def _dense() -> list[Case]:
    x, labels = tensor("x", (N, 13)), tensor("labels", (N,), "int64")
    shapes = {"w1": (13, 33), "b1": (33,), "w2": (33, 5), "b2": (5,)}
    weights = {name: tensor(name, shape) for name, shape in shapes.items()}

    def network(w: dict[str, Node]) -> tuple[Node, Node]:
        hidden = apply("relu", apply("add", einsum("nk,km->nm", x, w["w1"]), w["b1"]))
        logits = apply("add", einsum("nk,km->nm", hidden, w["w2"]), w["b2"])
        return logits, cross_entropy(logits, labels)

    logits, loss = network(weights)
    calls = []
    for n in (33, 1, 7):
        call = {name: 0.3 * sample(shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
        call["x"] = sample((n, 13))
        call["labels"] = np.random.default_rng(n).integers(0, 5, n)
        calls.append({k: v if k == "labels" else v.astype("f4") for k, v in call.items()})

    def expected(x, labels, w1, b1, w2, b2):
        wide = np.maximum(x.astype("f8") @ w1 + b1, 0) @ w2 + b2
        losses = -scipy.special.log_softmax(wide, 1)[np.arange(len(x)), labels]
        return {"logits": wide.astype("f4"), "loss": losses.mean().astype("f4")}

    return [
        Case(
            "perceptron-loss",
            program(logits=logits, loss=loss),
            tuple(calls),
            expected,
            NEAR,
            promote=True,
            differentiate=("x", *shapes),
        )
    ]


def _attention() -> list[Case]:
    q, k, v = (tensor(name, (N, 2, 7, 8)) for name in "qkv")
    scores = apply("mul", einsum("bhqd,bhkd->bhqk", q, k), constant(8**-0.5, "float32"))
    rows, columns = (make(ops.Iota(TensorType("int32", (7, 7)), axis)) for axis in (0, 1))
    masked = apply("where", apply("ge", rows, columns), scores, constant(-np.inf, "float32"))
    causal = einsum("bhqk,bhkd->bhqd", softmax(masked), v)
    plain = einsum("bhqk,bhkd->bhqd", softmax(scores), v)

    def expected(q, k, v, causal=False):
        weights = np.einsum("bhqd,bhkd->bhqk", q.astype("f8"), k) * 8**-0.5
        if causal:
            weights = np.where(np.tril(np.ones((7, 7), bool)), weights, -np.inf)
        weights = scipy.special.softmax(weights, 3)
        return {"y": np.einsum("bhqk,bhkd->bhqd", weights, v).astype("f4")}

    calls = sampled(*({name: (n, 2, 7, 8) for name in "qkv"} for n in (3, 1)))
    return [
        Case("attention", program(plain), calls, expected, NEAR, True, ("q", "k", "v")),
        Case(
            "attention-causal",
            program(causal),
            calls,
            lambda **x: expected(**x, causal=True),
            NEAR,
            True,
            ("q", "k", "v"),
        ),
    ]


def _convolutional() -> list[Case]:
    x, w, b = tensor("x", (N, 3, 8, 8)), tensor("w", (16, 3, 3, 3)), tensor("b", (16, 1, 1))
    y = apply("relu", apply("add", convolution(x, w, padding=1), b))
    corners = [
        make(ops.Slice((0, 0, i, j), (N, 16, 4, 4), (1, 1, 2, 2)), y)
        for i in (0, 1)
        for j in (0, 1)
    ]
    pooled = apply("maximum", apply("maximum", *corners[:2]), apply("maximum", *corners[2:]))
    calls = sampled(*({"x": (n, 3, 8, 8), "w": (16, 3, 3, 3), "b": (16, 1, 1)} for n in (3, 1)))
    flat = make(ops.Reduce("sum", (2, 3)), pooled)
    return [
        Case("conv-relu-pool", program(pooled, flat), calls, None, NEAR, True, ("x", "w", "b")),
    ]


def _recurrent() -> list[Case]:
    x, w, u = tensor("x", (N, 5, 4)), tensor("w", (4, 6)), tensor("u", (6, 6))
    hidden = make(ops.Broadcast((N, 6)), constant(0, "float32"))
    for step in range(5):
        now = make(ops.Slice((0, step, 0), (N, 1, 4), (1, 1, 1)), x)
        now = make(ops.Reshape((N, 4)), now)
        mixed = apply("add", einsum("nk,km->nm", now, w), einsum("nk,km->nm", hidden, u))
        hidden = apply("tanh", mixed)
    calls = sampled(*({"x": (n, 5, 4), "w": (4, 6), "u": (6, 6)} for n in (7, 1)))

    def expected(x, w, u):
        state = np.zeros((len(x), 6))
        for step in range(5):
            state = np.tanh(x[:, step].astype("f8") @ w + state @ u)
        return {"y": state.astype("f4")}

    return [Case("recurrent", program(hidden), calls, expected, NEAR, True, ("x", "w", "u"))]


def _momentum_step() -> list[Case]:
    """Return one optimizer step on least squares, with the momentum and a step count as states."""
    x, t = tensor("x", (N, 6)), tensor("t", (N, 3))
    w = make(ops.State("w", TensorType("float32", (6, 3)), "parameter", 940))
    m = make(ops.State("m", TensorType("float32", (6, 3)), "slot", 941))
    count = make(ops.State("count", TensorType("int64", ()), "slot", 942))
    error = apply("sub", einsum("nk,km->nm", x, w), t)
    loss = make(ops.Reduce("sum", (0, 1)), apply("square", error))
    gradient = apply("mul", einsum("nk,nm->km", x, error), constant(2, "float32"))
    momentum = apply("add", apply("mul", m, constant(0.9, "float32")), gradient)
    moved = apply("sub", w, apply("mul", momentum, constant(1e-3, "float32")))
    later = apply("add", count, constant(1, "int64"))
    states = {w: sample((6, 3)), m: np.zeros((6, 3), "f4"), count: np.array(0)}
    calls = sampled(*({"x": (n, 6), "t": (n, 3)} for n in (33, 7, 33, 1)))
    step = Program((("loss", loss), ("count", count)), ((w, moved), (m, momentum), (count, later)))
    return [Case("momentum-step", step, calls, None, NEAR, True, states=states)]


CASES = [
    *_one_layer(),
    *_dense(),
    *_attention(),
    *_convolutional(),
    *_recurrent(),
    *_momentum_step(),
]
