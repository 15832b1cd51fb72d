"""Random loops: steps of random operators, as a scan and as the graph of all its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import chainrule as cr
from chainrule import F
from chainrule.compiler.ir.infer import broadcast_shapes
from chainrule.frontend.tensor import Tensor

SHAPES = ((), (3,), (2, 3))
LENGTH = 4


@dataclass
class LoopExample:
    """A loop's loss and results, what to differentiate, and arrays for the inputs."""

    loss: Tensor
    results: list[Tensor]
    wrt: list[Tensor]
    arrays: dict[str, np.ndarray]


def unroll(step: Callable, carry: object, xs: object, length: int, reverse: bool) -> tuple:
    """Return what `chainrule.scan` means, as one graph of all steps."""
    ys: list = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, ys[t] = step(carry, [x[t] for x in xs])  # type: ignore[attr-defined]
    return carry, [F.stack(list(parts)) for parts in zip(*ys, strict=True)]


class _Maker:
    """Draws one example; the same seed gives the same steps, whether as a loop or unrolled."""

    def __init__(self, seed: int, loop: bool, length: object = LENGTH) -> None:
        self.rng = np.random.default_rng(seed)
        self.loop, self.length = loop, length

    def pick(self, options: list) -> object:
        return options[self.rng.integers(len(options))]

    def to_shape(self, x: Tensor, shape: tuple) -> Tensor:
        """Return ``x`` summed or broadcast to ``shape``, and tamed."""
        if len(x.shape) > len(shape):
            x = x.sum(tuple(range(len(x.shape) - len(shape))))
        if any(a not in (1, b) for a, b in zip(x.shape[::-1], shape[::-1], strict=False)):
            x = x.sum()
        return F.tanh(F.broadcast_to(x, shape))

    def node(self, pool: list[Tensor], weight: Tensor) -> Tensor:
        a, b = self.pick(pool), self.pick(pool)
        assert isinstance(a, Tensor) and isinstance(b, Tensor)
        try:
            broadcast_shapes(a.shape, b.shape)
        except ValueError:
            b = F.sin(a)
        kinds = ["add", "sub", "mul", "unary", "where", "sum", "matmul", "slice", "turn", "max"]
        kinds.append("cond")
        kind = self.pick(kinds)
        if kind in {"add", "sub", "mul"}:
            return {"add": a + b, "sub": a - b, "mul": a * b}[str(kind)]
        if kind == "where":
            return F.where(a > b, F.sin(a), b * 0.5)
        if kind == "cond":
            return cr.cond(a.sum() > 0, lambda a: F.sin(a) * weight[0, 0], lambda a: a * b.sum(), a)
        if kind == "sum" and a.shape:
            return a.sum(int(self.rng.integers(len(a.shape))), keepdims=bool(self.rng.integers(2)))
        if kind == "max" and a.shape:
            return a.max(-1, keepdims=True)
        if kind == "matmul" and a.shape and a.shape[-1] == 3:
            return a @ weight
        if kind == "slice" and a.shape and a.shape[-1] == 3:
            return F.concatenate([a[..., 1:], b.sum() * F.ones_like(a[..., :1])], axis=-1)
        if kind == "turn" and a.shape == (2, 3):
            return (a.T @ a)[:2]
        return F.sigmoid(a) if self.rng.integers(2) else F.sin(a) * 0.7

    def step_of(self, shapes: list[tuple], depth: int, weight: Tensor, outer: list) -> Callable:
        seed = int(self.rng.integers(1 << 30))

        def step(carry: list[Tensor], items: list[Tensor]) -> tuple:
            inside = _Maker(seed, self.loop)
            pool = [*carry, *items, *outer]
            for _ in range(int(inside.rng.integers(2, 8))):
                pool.append(inside.node(pool, weight))
            if depth and inside.rng.integers(3) == 0:
                inner = inside.step_of(shapes, 0, weight, [pool[-1]])
                xs = [F.stack([inside.to_shape(pool[-2], (3,)), F.ones((3,), dtype="float64")])]
                run = cr.scan if self.loop else None
                last, ys = run(inner, carry, xs) if run else unroll(inner, carry, xs, 2, False)
                pool += [*last, *(y.sum(0) for y in ys)]
            new = [inside.to_shape(inside.pick(pool), shape) for shape in shapes]  # type: ignore[arg-type]
            if len(new) > 1 and shapes[0] == shapes[1] and inside.rng.integers(2):
                new[0] = carry[1]
            return new, [pool[-1], inside.pick(pool)]

        return step


def make_loop(seed: int, loop: bool) -> LoopExample:
    """Return example number ``seed`` as a loop or unrolled."""
    maker = _Maker(seed, loop)
    shapes = [maker.pick(list(SHAPES)) for _ in range(int(maker.rng.integers(1, 4)))]
    items = [maker.pick(list(SHAPES)) for _ in range(int(maker.rng.integers(1, 3)))]
    carry = [cr.input(f"c{k}", shape, "float64") for k, shape in enumerate(shapes)]
    xs = [cr.input(f"x{k}", (LENGTH, *shape), "float64") for k, shape in enumerate(items)]
    weight, bias = cr.input("w", (3, 3), "float64"), cr.input("b", (3,), "float64")
    reverse = bool(maker.rng.integers(2))
    step = maker.step_of(shapes, 1, weight, [bias])  # type: ignore[arg-type]
    if loop:
        last, ys = cr.scan(step, carry, xs, reverse=reverse)
    else:
        last, ys = unroll(step, carry, xs, LENGTH, reverse)
    results = [*last, *ys]
    scale = cr.input("s", (), "float64")
    loss = sum(((y * y).sum() for y in results), start=scale)
    rng = np.random.default_rng(seed)
    wrt = [*carry, *xs, weight, bias]
    arrays = {
        x.node.op.label: 0.5 * rng.normal(size=x.shape)  # type: ignore[attr-defined]
        for x in [*wrt, scale]
    }
    return LoopExample(loss, results, wrt, arrays)
