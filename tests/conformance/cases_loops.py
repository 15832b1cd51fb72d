"""Cases of loops and branches: every kind of carry, item and result, nested loops, draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cases import Case, M, N, program, sample, tensor
from closeness import Tolerance

import chainrule as cr
from chainrule import F
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Program, make
from chainrule.compiler.ir.types import TensorType
from chainrule.frontend.tensor import Tensor

NEAR = Tolerance(ulps=16, relative=4e-6)


def inputs(dtype: str, **shapes: tuple) -> list[Tensor]:
    return [Tensor(tensor(name, shape, dtype)) for name, shape in shapes.items()]


def results(*values: Tensor) -> Program:
    return program(*(value.node for value in values))


def calls(dtype: str, *sizes: dict[str, tuple]) -> tuple:
    return tuple(
        {name: 0.5 * sample(shape, dtype, seed) for seed, (name, shape) in enumerate(each.items())}
        for each in sizes
    )


def lengths(*steps: int, **shapes: tuple) -> list[dict[str, tuple]]:
    """Return a table of shapes for each number of steps; ``None`` in a shape stands for it."""
    return [
        {k: tuple(n if d is None else d for d in shape) for k, shape in shapes.items()}
        for n in steps
    ]


def _case(
    name: str, build: Callable[[], Program], given: tuple, smooth: str = "", **more: object
) -> Case:
    return Case(f"scan-{name}", build(), given, differentiate=tuple(smooth), tolerance=NEAR, **more)  # type: ignore[arg-type]


def running_sum(reverse: bool, dtype: str) -> Program:
    (x,) = inputs(dtype, x=(N, 3))
    return results(*cr.scan(lambda c, x: (c + x, c), x[0] * 0, x, reverse=reverse))


def recurrent(dtype: str) -> Program:
    """A layer of a recurrent net over a symbolic batch and a symbolic length."""
    x, h, w, u, b = inputs(dtype, x=(N, M, 5), h=(M, 17), w=(5, 17), u=(17, 17), b=(17,))

    def step(h: Tensor, x: Tensor) -> tuple:
        h = F.tanh(x @ w + h @ u + b)
        return h, h

    return results(*cr.scan(step, h, x))


def gated(dtype: str) -> Program:
    """Two carries, gates cut from one product, a projection of each state."""
    x, h, c, u, v = inputs(dtype, x=(N, 4, 12), h=(4, 3), c=(4, 3), u=(3, 12), v=(3, 2))

    def step(carry: tuple, x: Tensor) -> tuple:
        h, c = carry
        z = x + h @ u
        i, f, g, o = z[:, :3], z[:, 3:6], z[:, 6:9], z[:, 9:]
        c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
        h = F.sigmoid(o) * F.tanh(c)
        return (h, c), h @ v

    (h, c), ys = cr.scan(step, (h, c), x, reverse=True)
    return results(h, c, ys)


def trading(dtype: str) -> Program:
    """Carries that trade places, one that stands still, one that no result needs."""
    x, y = inputs(dtype, x=(3,), y=(3,))

    def step(c: dict, _: None) -> tuple:
        new = {"a": c["b"], "b": c["a"] + c["still"], "still": c["still"], "idle": c["idle"] * 2}
        return new, c["a"] * c["b"]

    start = {"a": x, "b": y, "still": x * y, "idle": y}
    carry, ys = cr.scan(step, start, length=5)
    return results(carry["a"], carry["b"], carry["still"], ys)


def items_and_wholes(dtype: str) -> Program:
    """Results that are items, equal in all steps, views of carries; slices and sums of items."""
    x, w = inputs(dtype, x=(N, 2, 3), w=(3, 2))

    def step(c: Tensor, x: Tensor) -> tuple:
        c = c * 0.5 + x.T @ x
        return c, (x, w * 2, c.T, x.sum(0), c[0], F.concatenate([x[0], w[:, 0]]))

    last, ys = cr.scan(step, w @ w.T, x)
    return results(last, *ys)


def reused_carry(dtype: str) -> Program:
    """Loops that follow one another, and a carry that begins as what is needed elsewhere."""
    x, h = inputs(dtype, x=(4, 3), h=(3,))
    start = F.exp(h)
    first, ys = cr.scan(lambda h, x: (F.sin(h + x), h), start, x)
    second, zs = cr.scan(lambda h, y: (h * 0.9 + y, None), first, ys, reverse=True)
    assert zs is None
    return results(first, second, start, ys.sum())


def nested(dtype: str) -> Program:
    x, w = inputs(dtype, x=(N, 4, 3), w=(3, 3))

    def inner(h: Tensor, x: Tensor) -> tuple:
        h = F.tanh(h @ w + x)
        return h, h * x

    def outer(h: Tensor, rows: Tensor) -> tuple:
        h, ys = cr.scan(inner, h, rows, reverse=True)
        return h * 0.7, ys.sum(0)

    return results(*cr.scan(outer, w[0], x))


def branching(dtype: str) -> Program:
    """A branch that depends on the item, with values of its own; a loop in a branch."""
    x, w = inputs(dtype, x=(N, 3), w=(3,))

    def up(c: Tensor, x: Tensor) -> tuple:
        total, _ = cr.scan(lambda t, r: (t + r * w, None), c, F.stack([x, x * x]))
        return total, x.sum()

    def step(c: Tensor, x: Tensor) -> tuple:
        return cr.cond(x[0] > 0, up, lambda c, x: (c * 0.5, c[1]), c, x)

    return results(*cr.scan(step, w * 0, x))


def table_rows(dtype: str) -> Program:
    """Rows of a table, each step its own: the gradient scatters."""
    (table,) = inputs(dtype, t=(6, 3))
    i = Tensor(tensor("i", (N, 2), "int64"))
    return results(*cr.scan(lambda c, i: (c * 0.5 + table[i].sum(0), table[i]), table[0], i))


def squares_mod(limit: int) -> Program:
    """A while loop of integers with a counter."""
    x = Tensor(tensor("x", (4,), "int64"))

    def go_on(state: tuple) -> Tensor:
        value, count = state
        return (value.max() < limit) & (count < 20)

    value, count = cr.while_loop(go_on, lambda s: (s[0] * s[0] % 101 + 1, s[1] + 1), (x, 0))
    return results(value, count)


def while_in_scan() -> Program:
    """Each step halves until small: the inner loop's length depends on data."""
    (x,) = inputs("float32", x=(N, 2))

    def step(c: Tensor, x: Tensor) -> tuple:
        y = cr.while_loop(lambda y: (y * y).sum() > 0.1, lambda y: y * 0.5, x)
        return c + y, y

    return results(*cr.scan(step, F.zeros((2,)), x))


_RANDOM_STATE = make(ops.State("random", TensorType("int64", ()), "random", 970))


def draws() -> Program:
    """Random bits of each step, inside a nested loop and a branch as well."""
    generator_state = Tensor(_RANDOM_STATE)

    def bits() -> Tensor:
        return Tensor(make(ops.RandomBits((3,), 5, 1), generator_state.node))

    def step(c: Tensor, x: Tensor) -> tuple:
        inner, all_inner = cr.scan(lambda c, _: (c + bits(), bits()), c, length=2)
        chosen = cr.cond(x > 0, bits, lambda: c)
        return inner, (bits(), all_inner, chosen)

    x = Tensor(tensor("x", (N,), "int64"))
    last, ys = cr.scan(step, F.zeros((3,), dtype="uint32"), x)
    return results(last, *ys)


_INDICES = tuple(
    {"t": sample((6, 3)), "i": np.random.default_rng(n).integers(0, 6, (n, 2))} for n in (4, 1)
)

CASES = [
    *(
        _case(
            f"running-sum{'-reverse' * reverse}-{dtype}",
            lambda reverse=reverse, dtype=dtype: running_sum(reverse, dtype),
            calls(dtype, *lengths(7, 1, 2, 65, x=(None, 3))),
            "x",
        )
        for reverse in (False, True)
        for dtype in ("float32", "float64")
    ),
    _case(
        "recurrent",
        lambda: recurrent("float64"),
        calls(
            "float64",
            *(
                {"x": (n, m, 5), "h": (m, 17), "w": (5, 17), "u": (17, 17), "b": (17,)}
                for n, m in ((6, 4), (0, 3), (1, 1), (20, 33))
            ),
        ),
        "xhwub",
    ),
    *(
        _case(
            f"gated-{dtype}",
            lambda dtype=dtype: gated(dtype),
            calls(
                dtype,
                *lengths(5, 1, 0, x=(None, 4, 12), h=(4, 3), c=(4, 3), u=(3, 12), v=(3, 2)),
            ),
            "xhcuv",
        )
        for dtype in ("float32", "float64")
    ),
    _case("trading", lambda: trading("float32"), calls("float32", {"x": (3,), "y": (3,)}), "xy"),
    _case(
        "items-and-wholes",
        lambda: items_and_wholes("float32"),
        calls("float32", *lengths(4, 0, 1, x=(None, 2, 3), w=(3, 2))),
        "xw",
    ),
    _case(
        "after-scan",
        lambda: reused_carry("float32"),
        calls("float32", {"x": (4, 3), "h": (3,)}),
        "xh",
    ),
    _case(
        "nested",
        lambda: nested("float32"),
        calls("float32", *lengths(3, 0, 5, x=(None, 4, 3), w=(3, 3))),
        "xw",
    ),
    _case(
        "branching",
        lambda: branching("float32"),
        calls("float32", *lengths(6, 1, 0, x=(None, 3), w=(3,))),
        "xw",
    ),
    _case("table-rows", lambda: table_rows("float32"), _INDICES, "t"),
    _case(
        "while",
        lambda: squares_mod(90),
        tuple({"x": np.array(x)} for x in ([2, 3, 5, 7], [95, 0, 0, 0], [1, 1, 1, 1])),
    ),
    _case("while-inside", while_in_scan, calls("float32", *lengths(5, 0, x=(None, 2)))),
    _case(
        "draws",
        draws,
        ({"x": np.array([1, -1, 2])}, {"x": np.array([], np.int64)}),
        states={_RANDOM_STATE: np.array((7 << 32) + 3)},
    ),
]
