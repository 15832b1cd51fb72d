"""Random well-typed programs of all primitives, with a symbolic batch.

Two bookkeepings keep the comparison of backends meaningful.  `Growing.bounds` holds a bound on
every value, so that products and exponentials never overflow.  `Growing.exact` holds the values
that every backend computes without rounding: only those decide a comparison, an argmax or a cast.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.graph import Node, Program, apply, constant, make
from chainrule.compiler.ir.infer import broadcast_shapes
from chainrule.compiler.ir.ops import Affine
from chainrule.compiler.ir.scalars import Formula, parse_term
from chainrule.compiler.ir.types import TensorType

N = SymbolicDim.of("n")
BATCHES = (1, 2, 5, 9, 33)
#: What N counts as in bounds and work estimates.
LARGEST = max(BATCHES)
_MOST_ELEMENTS = 20_000
_LARGE = 50.0
_STATE_KEYS = itertools.count(7000)

SWISH = Formula("swish", ("x", "b"), parse_term("div(x, add(1, exp(neg(mul(b, x)))))"))
HUBER = Formula(
    "huber", ("x",), parse_term("where(le(abs(x), 1), mul(0.5, square(x)), sub(abs(x), 0.5))")
)
INSIDE = Formula("inside", ("x", "y"), parse_term("logical_and(gt(x, y), lt(x, 2))"))


@dataclass
class Growing:
    """A graph under construction."""

    draw: Callable
    pool: list[Node] = field(default_factory=list)
    bounds: dict[Node, float] = field(default_factory=dict)
    exact: set[Node] = field(default_factory=set)

    def add(self, node: Node, bound: float, exact: bool = False) -> Node:
        if node not in self.bounds:
            self.pool.append(node)
            self.bounds[node] = bound
            if exact:
                self.exact.add(node)
        return node

    def pick(self, fits: Callable[[Node], bool]) -> Node | None:
        found = [node for node in self.pool if fits(node)]
        if not found:
            return None
        # Late nodes first: programs grow deep rather than wide, and shrink to shallow ones.
        return found[-1 - self.draw(st.integers(0, len(found) - 1))]

    def choose(self, *options):
        return options[self.draw(st.integers(0, len(options) - 1))]

    def pick_float(self, most: float = math.inf, rank: int | None = None) -> Node | None:
        return self.pick(
            lambda n: (
                n.type.is_float and self.bounds[n] <= most and (rank is None or n.type.rank == rank)
            )
        )


def elements(shape: tuple) -> int:
    return math.prod(LARGEST if dim == N else _size(dim) for dim in shape)


def _size(dim) -> int:
    from chainrule.compiler.ir.dims import evaluate

    return evaluate(dim, {"n": LARGEST})


def _broadcasting(g: Growing, first: Node) -> Node | None:
    def fits(other: Node) -> bool:
        try:
            return (
                other.dtype == first.dtype
                and elements(broadcast_shapes(first.shape, other.shape)) <= _MOST_ELEMENTS
            )
        except ValueError:
            return False

    return g.pick(fits)


# -- steps: each adds a node, or does nothing where no operand fits -------------------------------

_BOUNDED = ("tanh", "sigmoid", "sin", "cos", "erf", "atan")
_CONTINUOUS = ("neg", "abs", "relu", "softplus", "stop_gradient")


def unary(g: Growing) -> None:
    x = g.pick_float()
    if x is None:
        return
    name = g.choose(*_BOUNDED, *_CONTINUOUS)
    bound = 2.0 if name in _BOUNDED else g.bounds[x] + 1
    g.add(apply(name, x), bound, x in g.exact and name in {"neg", "abs", "relu", "stop_gradient"})


def growing_unary(g: Growing) -> None:
    x = g.pick_float(most=5)
    if x is not None:
        name = g.choose("exp", "expm1", "square", "sinh", "exp2")
        g.add(apply(name, x), math.exp(g.bounds[x]) + g.bounds[x] ** 2)


def guarded_unary(g: Growing) -> None:
    """Roots, logarithms and reciprocals, of ``1 + x*x``."""
    x = g.pick_float(most=_LARGE)
    if x is not None:
        above = apply("add", constant(1, x.dtype), apply("square", x))
        name = g.choose("sqrt", "rsqrt", "log", "log1p", "reciprocal", "cbrt", "log2")
        g.add(apply(name, above), g.bounds[x] + 2)


def binary(g: Growing) -> None:
    x = g.pick_float()
    other = x and _broadcasting(g, x)
    if x is None or other is None:
        return
    name = g.choose("add", "sub", "minimum", "maximum", "mul", "div")
    a, b = g.bounds[x], g.bounds[other]
    if name == "mul":
        if max(a, b) <= _LARGE:
            g.add(apply("mul", x, other), a * b)
    elif name == "div":
        g.add(apply("div", x, apply("add", constant(1, x.dtype), apply("abs", other))), a)
    else:
        both = x in g.exact and other in g.exact and name in {"minimum", "maximum"}
        g.add(apply(name, x, other), a + b, both)


def formula(g: Growing) -> None:
    x = g.pick_float(most=10)
    other = x and _broadcasting(g, x)
    if x is None or other is None:
        return
    if g.choose(True, False):
        g.add(make(ops.Map(HUBER), x), g.bounds[x] ** 2 + 1)
    elif g.bounds[other] <= 5:
        g.add(make(ops.Map(SWISH), x, other), 10 * math.exp(min(10 * g.bounds[other], 3)))


def select(g: Growing) -> None:
    condition = g.pick(lambda n: n.dtype == "bool")
    x = g.pick(lambda n: n.dtype != "bool")
    other = x and _broadcasting(g, x)
    if condition is None or x is None or other is None:
        return
    try:
        shape = broadcast_shapes(condition.shape, x.shape, other.shape)
    except ValueError:
        return
    if elements(shape) <= _MOST_ELEMENTS:
        g.add(
            apply("where", condition, x, other),
            max(g.bounds[x], g.bounds[other]),
            x in g.exact and other in g.exact,
        )


def compare(g: Growing) -> None:
    x = g.pick(lambda n: n in g.exact)
    other = x and g.pick(lambda n: n in g.exact and n.dtype == x.dtype and n.shape == x.shape)
    if x is not None and other is not None:
        name = g.choose("lt", "le", "gt", "ge", "eq", "ne")
        if x.dtype.startswith("float") and g.choose(True, False):
            g.add(make(ops.Map(INSIDE), x, other), 1, True)
        else:
            g.add(apply(name, x, other), 1, True)


def logic(g: Growing) -> None:
    x = g.pick(lambda n: n.dtype == "bool")
    other = x and _broadcasting(g, x)
    if x is not None and other is not None:
        g.add(
            apply("logical_not", apply(g.choose("logical_and", "logical_xor"), x, other)), 1, True
        )


def integer(g: Growing) -> None:
    x = g.pick(lambda n: n.dtype in {"int32", "int64"} and g.bounds[n] <= 1000)
    other = x and _broadcasting(g, x)
    if x is not None and other is not None and g.bounds[other] <= 1000:
        name = g.choose("add", "sub", "mul", "bit_and", "bit_xor", "minimum")
        g.add(apply(name, x, other), 2 * max(g.bounds[x], 1) * max(g.bounds[other], 1) + 2, True)


def cast(g: Growing) -> None:
    x = g.pick(lambda n: n in g.exact and g.bounds[n] <= 1e6)
    if x is not None:
        wanted = g.choose("float32", "float32", "int32", "int64", "bool")
        g.add(make(ops.Cast(wanted), x), g.bounds[x] + 1, True)


def reduce(g: Growing) -> None:
    x = g.pick(lambda n: n.type.rank > 0 and n.dtype != "bool" and elements(n.shape) > 0)
    if x is None:
        return
    axis = g.draw(st.integers(0, x.type.rank - 1))
    length = elements((x.shape[axis],))
    kind = g.choose("sum", "sum", "max", "min", "argmax", "prod")
    bound, exact = g.bounds[x], x in g.exact
    everything = kind in {"sum", "max"} and g.choose(False, False, True)
    axes = tuple(range(x.type.rank)) if everything else (axis,)
    if kind == "argmax":
        if exact:
            g.add(make(ops.Reduce(kind, axes), x), length, True)
    elif kind == "prod":
        if bound <= 2 and length <= 9:
            g.add(make(ops.Reduce(kind, axes), x), bound**length)
    elif kind == "sum":
        total = elements(tuple(x.shape[a] for a in axes))
        exact = exact and not x.type.is_float
        if x.type.is_float or bound * total < 2**30:
            g.add(make(ops.Reduce(kind, axes), x), bound * total, exact)
    else:
        g.add(make(ops.Reduce(kind, axes), x), bound, exact)


def mean(g: Growing) -> None:
    x = g.pick(lambda n: n.dtype == "float32" and n.type.rank > 0 and n.shape[0] == N)
    if x is not None:
        total = make(ops.Reduce("sum", (0,)), x)
        g.add(apply("div", total, make(ops.Extent(N, "float32"))), g.bounds[x])


def softmax(g: Growing) -> None:
    x = g.pick(lambda n: n.type.is_float and n.type.rank > 0 and elements(n.shape[-1:]) > 0)
    if x is None:
        return
    axis = x.type.rank - 1
    kept = (*x.shape[:-1], 1)
    top = make(ops.Reshape(kept), make(ops.Reduce("max", (axis,)), x))
    e = apply("exp", apply("sub", x, top))
    total = make(ops.Reshape(kept), make(ops.Reduce("sum", (axis,)), e))
    g.add(apply("div", e, total), 1.0)


def view(g: Growing) -> None:
    x = g.pick(lambda n: n.type.rank > 0)
    if x is None:
        return
    rank, shape = x.type.rank, x.shape
    kind = g.choose("transpose", "reshape", "flip", "slice", "pad", "broadcast", "merge")
    axis = g.draw(st.integers(0, rank - 1))
    if kind == "transpose":
        op: ops.Op = ops.Transpose(tuple(g.draw(st.permutations(range(rank)))))
    elif kind == "reshape":
        op = ops.Reshape((*shape[:axis], 1, *shape[axis:]) if rank < 5 else (x.type.size,))
    elif kind == "merge":
        if rank < 2 or axis == rank - 1:
            return
        op = ops.Reshape((*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))
    elif kind == "flip":
        op = ops.Flip((axis,))
    elif kind == "slice":
        starts, sizes, steps = [0] * rank, list(shape), [1] * rank
        if isinstance(shape[axis], int) and shape[axis] >= 3:
            starts[axis], sizes[axis], steps[axis] = 1, (shape[axis] - 1) // 2, 2
        elif shape[axis] == N:
            starts[axis], sizes[axis] = 1, N - 1
        op = ops.Slice(tuple(starts), tuple(sizes), tuple(steps))
    elif kind == "pad":
        low, high = [0] * rank, [0] * rank
        low[axis], high[axis] = g.choose((1, 0), (0, 2), (2, 1))
        op = ops.Pad(tuple(low), tuple(high), (0,) * rank)
    else:
        if rank > 4 or elements((2, *shape)) > _MOST_ELEMENTS:
            return
        op = ops.Broadcast((2, *shape))
    node = make(op, x)
    if elements(node.shape) <= _MOST_ELEMENTS:
        g.add(node, g.bounds[x], x in g.exact)


def concat(g: Growing) -> None:
    x = g.pick(lambda n: n.type.rank > 0)
    if x is None:
        return
    axis = g.draw(st.integers(0, x.type.rank - 1))

    def fits(other: Node) -> bool:
        return (
            other.dtype == x.dtype
            and other.type.rank == x.type.rank
            and all(
                a == b
                for i, (a, b) in enumerate(zip(x.shape, other.shape, strict=True))
                if i != axis
            )
        )

    other = g.pick(fits)
    node = other and make(ops.Concat(axis), x, other, x)
    if node is not None and elements(node.shape) <= _MOST_ELEMENTS:
        g.add(node, max(g.bounds[x], g.bounds[other]), x in g.exact and other in g.exact)


def gather(g: Growing) -> None:
    indices = g.pool[4]
    x = g.pick(lambda n: any(isinstance(d, int) and d >= 3 for d in n.shape) and n.type.rank < 4)
    if x is None:
        return
    axes = [a for a, d in enumerate(x.shape) if isinstance(d, int) and d >= 3]
    axis = g.choose(*axes)
    node = make(ops.Gather(axis), x, indices)
    if elements(node.shape) <= _MOST_ELEMENTS:
        g.add(node, g.bounds[x], x in g.exact)


def scatter(g: Growing) -> None:
    indices = g.pool[4]
    x = g.pick(lambda n: n.dtype == "float32" and N in n.shape)
    if x is not None:
        axis = x.shape.index(N)
        g.add(make(ops.ScatterAdd(axis, 3), x, indices), g.bounds[x] * LARGEST)


def running(g: Growing) -> None:
    kind = g.choose("max", "min", "sum", "order")
    # what is not exact may be in another order on another backend
    x = g.pick(
        lambda n: n.dtype != "bool" and n.type.rank > 0 and (kind != "order" or n in g.exact)
    )
    if x is None:
        return
    axis, backwards = g.draw(st.integers(0, x.type.rank - 1)), g.choose(False, True)
    if kind == "order":
        g.add(make(ops.ArgSort(axis, backwards), x), LARGEST * _MOST_ELEMENTS, True)
    elif kind == "sum":
        if x.type.is_float and g.bounds[x] <= _LARGE:
            ones = make(ops.Broadcast(x.shape), constant(1, x.dtype))
            bound = g.bounds[x] * elements((x.shape[axis],))
            g.add(make(ops.LinearRecurrence(axis, backwards), ones, x), bound)
    else:
        g.add(make(ops.RunningExtremum(kind, axis, backwards), x), g.bounds[x], x in g.exact)


def matmul(g: Growing) -> None:
    x = g.pick_float(most=_LARGE, rank=2)
    if x is None:
        return
    inner = x.shape[1]
    w = g.pick(
        lambda n: (
            n.dtype == x.dtype
            and n.type.rank == 2
            and g.bounds[n] <= _LARGE
            and inner in n.shape
            and elements((x.shape[0], *n.shape)) <= 50 * _MOST_ELEMENTS
        )
    )
    if w is None:
        return
    i, j, k = (Affine(((axis, 1),)) for axis in range(3))
    plain = w.shape[0] == inner
    outer = w.shape[1] if plain else w.shape[0]
    w_map = (k, j) if plain else (j, k)
    y_map, y_shape = ((i, j), (x.shape[0], outer))
    if g.choose(False, False, True):
        y_map, y_shape = ((j, i), (outer, x.shape[0]))
    op = ops.Contract((x.shape[0], outer, inner), ((i, k), w_map), y_map, y_shape)
    bound = g.bounds[x] * g.bounds[w] * elements((inner,))
    if elements(y_shape) <= _MOST_ELEMENTS:
        g.add(make(op, x, w), bound)


def window(g: Growing) -> None:
    """A one-dimensional convolution along the last axis with a window of three, padded."""
    x = g.pick_float(most=_LARGE, rank=2)
    if x is None:
        return
    rows, length = x.shape
    i, j, k = (Affine(((axis, 1),)) for axis in range(3))
    taps = g.pool[3]
    moved = Affine(((1, 1), (2, 1)), -1)
    op = ops.Contract((rows, length, 3), ((i, moved), (k,)), (i, j), (rows, length))
    g.add(make(op, x, taps), 3 * g.bounds[x] * g.bounds[taps])


def leaf(g: Growing) -> None:
    kind = g.choose("constant", "iota", "extent", "random", "training")
    if kind == "constant":
        value = np.random.default_rng(g.draw(st.integers(0, 9))).uniform(-2, 2, (3,))
        g.add(constant(value, "float32"), 2, True)
    elif kind == "iota":
        dtype = g.choose("int32", "float32", "int64")
        g.add(make(ops.Iota(TensorType(dtype, (N, 3)), g.choose(0, 1))), LARGEST, True)
    elif kind == "extent":
        g.add(make(ops.Extent(N * 2 + 1, g.choose("float32", "int64"))), 2 * LARGEST + 1, True)
    elif kind == "training":
        g.add(make(ops.Training()), 1, True)
    else:
        bits = make(ops.RandomBits((N, 3), g.choose(1, 2), g.choose(0, 1)), g.pool[6])
        small = apply("shift_right", bits, constant(8, "uint32"))
        uniform = apply("mul", make(ops.Cast("float32"), small), constant(2.0**-24, "float32"))
        g.add(uniform, 1, True)


STEPS = (
    *(unary, unary, growing_unary, guarded_unary, binary, binary, formula, select, compare, logic),
    *(integer, cast, reduce, reduce, mean, softmax, view, view, concat, gather, scatter),
    running,
    *(matmul, matmul, window, leaf, leaf),
)


@dataclass(frozen=True)
class Example:
    """A random program with states and inputs that fit it."""

    program: Program
    states: dict[Node, np.ndarray]
    batch: int
    seed: int

    def inputs(self, batch: int | None = None) -> dict[str, np.ndarray]:
        n = self.batch if batch is None else batch
        rng = np.random.default_rng(self.seed)
        shapes = {"x": (n, 3), "y": (n, 3), "w": (3, 4), "v": (3,)}
        arrays = {k: rng.uniform(-2, 2, s).astype(np.float32) for k, s in shapes.items()}
        return {**arrays, "i": rng.integers(0, 3, n)}

    def __repr__(self) -> str:
        from chainrule.compiler.ir.text import format_program

        return f"Example(batch={self.batch}, seed={self.seed})\n{format_program(self.program)}"


@st.composite
def examples(draw) -> Example:
    """Return a random program of three to twenty-five steps."""
    g = Growing(draw)
    for name, shape in (("x", (N, 3)), ("y", (N, 3)), ("w", (3, 4)), ("v", (3,))):
        g.add(make(ops.Input(name, TensorType("float32", shape))), 2, True)
    g.add(make(ops.Input("i", TensorType("int64", (N,)))), 2, True)
    key = next(_STATE_KEYS)
    held = make(ops.State("held", TensorType("float32", (3,)), "parameter", 2 * key))
    seed = make(ops.State("seed", TensorType("int64", ()), "random", 2 * key + 1))
    g.add(held, 2, True)
    g.add(seed, 2**63)
    leaves = list(g.pool)
    for _ in range(draw(st.integers(3, 25))):
        STEPS[draw(st.integers(0, len(STEPS) - 1))](g)
    grown = [node for node in g.pool if node not in leaves] or leaves[:1]
    last = [
        grown[-1 - draw(st.integers(0, len(grown) - 1))] for _ in range(draw(st.integers(1, 3)))
    ]
    outputs = [(f"y{i}", node) for i, node in enumerate((grown[-1], *last))]
    fitting = [n for n in grown if n.type == held.type and g.bounds[n] < 1e4]
    updates = [(held, fitting[-1])] if fitting else []
    if draw(st.booleans()):
        updates.append((seed, apply("add", seed, constant(1, "int64"))))
    # The inputs themselves are outputs, so that each is there whatever the graph uses.
    outputs += [(node.op.label, node) for node in leaves[:5]]
    batch = draw(st.sampled_from(BATCHES))
    number = draw(st.integers(0, 999))
    rng = np.random.default_rng(number)
    states = {held: rng.uniform(-2, 2, 3).astype(np.float32), seed: np.array(number << 32)}
    program = Program(tuple(outputs), tuple(updates))
    used = set(program.states())
    return Example(program, {k: v for k, v in states.items() if k in used}, batch, number)
