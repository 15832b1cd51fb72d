"""Gradients of every primitive against finite differences in float64, to the third order."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.autodiff.reverse import gradient, hessian_vector_product
from chainrule.compiler.errors import GraphError, GraphTypeError
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.bodies import make_branch
from chainrule.compiler.ir.construct import reduce_sum, reshape
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.graph import Program, apply, constant, make, topological
from chainrule.compiler.ir.ops import Affine
from chainrule.compiler.ir.scalars import SCALAR_FUNCTIONS, Formula, parse_term
from chainrule.compiler.ir.types import TensorType
from chainrule.runtime.interpreter import run_program


def leaf(name, shape, dtype="float64"):
    return make(ops.Input(name, TensorType(dtype, shape)))


def scalar(node):
    """A scalar that depends on every element with its own weight."""
    index = leaf("weight", node.shape)
    return reduce_sum(apply("mul", node, index), range(node.type.rank))


def evaluate(nodes, arrays):
    program = Program(tuple((f"o{i}", n) for i, n in enumerate(nodes)))
    needed = {n.op.label for n in program.inputs()}
    outputs, _ = run_program(program, {k: v for k, v in arrays.items() if k in needed})
    return [outputs[f"o{i}"] for i in range(len(nodes))]


def check(loss, leaves, arrays, order=2, tolerance=1e-6):
    """Compare the gradient along a random direction with a central difference, order times."""
    rng = np.random.default_rng(7)
    for depth in range(order):
        slopes = gradient([loss], leaves)
        directions = [rng.standard_normal(arrays[x.op.label].shape) for x in leaves]
        expected_steps = []
        for h in (1e-5, -1e-5):
            moved = dict(arrays)
            for x, d in zip(leaves, directions, strict=True):
                moved[x.op.label] = arrays[x.op.label] + h * d
            expected_steps.append(evaluate([loss], moved)[0])
        expected = (expected_steps[0] - expected_steps[1]) / 2e-5
        values = evaluate(slopes, arrays)
        got = sum(np.vdot(v, d) for v, d in zip(values, directions, strict=True))
        scale = 1 + abs(expected)
        assert abs(got - expected) < tolerance * 10**depth * scale, (depth, got, expected)
        terms = []
        for i, (slope, x) in enumerate(zip(slopes, leaves, strict=True)):
            name = f"along{depth}_{i}"
            arrays[name] = rng.standard_normal(arrays[x.op.label].shape)
            product = apply("mul", slope, leaf(name, x.shape))
            terms.append(reduce_sum(product, range(x.type.rank)))
        loss = terms[0]
        for term in terms[1:]:
            loss = apply("add", loss, term)


DOMAIN = {
    "acosh": (1.2, 3), "asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "atanh": (-0.9, 0.9),
    "log": (0.2, 3), "log2": (0.2, 3), "log10": (0.2, 3), "log1p": (-0.5, 3), "sqrt": (0.2, 3),
    "rsqrt": (0.2, 3), "reciprocal": (0.3, 3), "cbrt": (0.2, 3), "div": (0.4, 3), "pow": (0.3, 3),
    "lgamma": (0.5, 3), "digamma": (0.5, 3), "trigamma": (0.5, 3), "mod": (1.1, 1.9),
    "floordiv": (1.1, 1.9), "tan": (-1, 1),
}  # fmt: skip
REAL = sorted(
    name
    for name, row in SCALAR_FUNCTIONS.items()
    if row.kind in {"arithmetic", "float"} and name not in {"trigamma", "stop_gradient"}
)


@pytest.mark.parametrize("name", REAL)
def test_elementary_functions(name):
    low, high = DOMAIN.get(name, (-2, 2))
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (4,)][: SCALAR_FUNCTIONS[name].arity]
    leaves = [leaf(f"x{i}", shape) for i, shape in enumerate(shapes)]
    arrays = {f"x{i}": rng.uniform(low, high, shape) for i, shape in enumerate(shapes)}
    node = apply(name, *leaves)
    arrays["weight"] = rng.standard_normal((3, 4))
    order = {"digamma": 1, "lgamma": 2}.get(name, 3)
    check(scalar(node), leaves, arrays, order=order)


def matmul(x, w):
    (n, k), m = x.shape, w.shape[1]
    row, column, inner = (Affine(((i, 1),)) for i in range(3))
    op = ops.Contract((n, m, k), ((row, inner), (inner, column)), (row, column), (n, m))
    return make(op, x, w)


def convolution(x, w):
    """A 1-D convolution, stride 2, padding 1, dilation 2, of (n, c, t) by (o, c, r)."""
    n, c, t = x.shape
    o, _, r = w.shape
    size = (t + 2 - (2 * (r - 1) + 1)) // 2 + 1
    axis = [Affine(((i, 1),)) for i in range(5)]
    place = Affine(((2, 2), (4, 2)), -1)
    op = ops.Contract(
        (n, o, size, c, r),
        ((axis[0], axis[3], place), (axis[1], axis[3], axis[4])),
        (axis[0], axis[1], axis[2]),
        (n, o, size),
    )
    return make(op, x, w)


def view(op):
    return lambda x: make(op, apply("sin", x))


def nonlinear(node):
    return apply("mul", node, apply("sin", node))


NODES = {
    "matmul": (lambda x, w: nonlinear(matmul(x, w)), (3, 4), (4, 2)),
    "matmul with itself": (lambda x: matmul(x, x), (3, 3)),
    "convolution": (lambda x, w: nonlinear(convolution(x, w)), (2, 3, 9), (2, 3, 3)),
    "sum": (lambda x: nonlinear(make(ops.Reduce("sum", (0, 2)), x)), (2, 3, 4)),
    "prod": (lambda x: make(ops.Reduce("prod", (0, 2)), x), (2, 3, 2)),
    "max": (lambda x: nonlinear(make(ops.Reduce("max", (1,)), x)), (2, 5)),
    "min": (lambda x: nonlinear(make(ops.Reduce("min", (0, 1)), x)), (2, 5)),
    "reshape": (view(ops.Reshape((6, 2))), (3, 4)),
    "transpose": (view(ops.Transpose((2, 0, 1))), (2, 3, 4)),
    "broadcast": (lambda x: nonlinear(make(ops.Broadcast((5, 3, 4)), x)), (3, 1)),
    "slice": (lambda x: nonlinear(make(ops.Slice((1, 0), (2, 2), (2, 3)), x)), (6, 5)),
    "pad": (lambda x: nonlinear(make(ops.Pad((1, 0), (2, 1), (0, 2)), x)), (3, 4)),
    "crop": (lambda x: nonlinear(make(ops.Pad((-1, 0), (2, -1), (0, 2)), x)), (3, 4)),
    "flip": (view(ops.Flip((0,))), (3, 4)),
    "concat": (lambda x, y: nonlinear(make(ops.Concat(1), x, y, x)), (3, 2), (3, 4)),
    "gather": (
        lambda x: nonlinear(make(ops.Gather(1), x, constant([[0, 2], [2, 1]], "int64"))),
        (3, 4),
    ),
    "scatter_add": (
        lambda x: nonlinear(make(ops.ScatterAdd(0, 5), x, constant([1, 3, 1], "int64"))),
        (3, 2),
    ),
    "recurrence": (
        lambda a, b: nonlinear(make(ops.LinearRecurrence(1, False), a, b)),
        (2, 5, 2),
        (2, 5, 2),
    ),
    "recurrence backwards": (
        lambda a, b: nonlinear(make(ops.LinearRecurrence(0, True), a, b)),
        (4,),
        (4,),
    ),
    "running maximum": (
        lambda x: nonlinear(make(ops.RunningExtremum("max", 1, False), x)),
        (3, 6),
    ),
    "running minimum backwards": (
        lambda x: nonlinear(make(ops.RunningExtremum("min", 0, True), x)),
        (6, 2),
    ),
    "cast": (lambda x: make(ops.Cast("float64"), apply("sin", x)), (3,)),
}


@pytest.mark.parametrize("name", NODES)
def test_primitives(name):
    build, *shapes = NODES[name]
    rng = np.random.default_rng(1)
    leaves = [leaf(f"x{i}", shape) for i, shape in enumerate(shapes)]
    arrays = {f"x{i}": rng.standard_normal(shape) for i, shape in enumerate(shapes)}
    node = build(*leaves)
    arrays["weight"] = rng.standard_normal(node.shape)
    check(scalar(node), leaves, arrays, order=3)


def test_product_is_right_where_factors_are_zero():
    x = leaf("x", (4,))
    (slope,) = gradient([make(ops.Reduce("prod", (0,)), x)], [x])
    assert evaluate([slope], {"x": np.array([2.0, 0, 3, 5])})[0].tolist() == [0, 30, 0, 0]
    assert evaluate([slope], {"x": np.array([2.0, 0, 0, 5])})[0].tolist() == [0, 0, 0, 0]


def test_a_recurrence_is_right_where_factors_are_zero():
    a, b = leaf("a", (4,)), leaf("b", (4,))
    total = reduce_sum(make(ops.LinearRecurrence(0, False), a, b), (0,))
    arrays = {"a": np.array([7.0, 0, 2, 0]), "b": np.array([1.0, 2, 3, 4])}
    slopes = evaluate(gradient([total], [a, b]), arrays)
    assert [s.tolist() for s in slopes] == [[0, 3, 2, 7], [1, 3, 1, 1]]


def test_of_equal_leaders_the_last_one_gets_the_cotangent():
    x = leaf("x", (5,))
    total = reduce_sum(make(ops.RunningExtremum("max", 0, False), x), (0,))
    (slope,) = evaluate(gradient([total], [x]), {"x": np.array([2.0, 1, 2, 2, 1])})
    assert slope.tolist() == [2, 0, 1, 2, 0]


def test_a_rule_replaces_the_derivative_in_every_order():
    x, cotangent = leaf("x", (3,)), leaf("cotangent", (3,))
    doubled = apply("mul", apply("mul", cotangent, constant(2, "float64")), x)
    rule = make_branch([cotangent, x], [doubled])
    y = make(ops.CustomGradient(rule, 1, 0), apply("sin", x), x, x)
    (slope,) = gradient([reduce_sum(y, (0,))], [x])
    (second,) = gradient([reduce_sum(slope, (0,))], [x])
    given = {"x": np.array([1.0, 2, 3])}
    value, first, again = evaluate([y, slope, second], given)
    np.testing.assert_array_equal(value, np.sin(given["x"]))
    assert first.tolist() == [2, 4, 6]
    assert again.tolist() == [2, 2, 2]


def test_symbolic_batch():
    n = SymbolicDim.of("batch")
    x, w = leaf("x", (n, 4)), leaf("w", (4,))
    loss = reduce_sum(nonlinear(apply("mul", x, w)), (0, 1))
    arrays = {"x": np.random.default_rng(0).standard_normal((5, 4)), "w": np.arange(4.0)}
    check(loss, [x, w], arrays)
    x = leaf("x", (n, 4))
    loss = reduce_sum(make(ops.Reduce("prod", (0,)), x), (0,))
    check(loss, [x], arrays)


def test_extrema_split_ties_equally():
    x = leaf("x", (4,))
    (slope,) = gradient([make(ops.Reduce("max", (0,)), x)], [x])
    assert evaluate([slope], {"x": np.array([1.0, 3, 3, 2])})[0].tolist() == [0, 0.5, 0.5, 0]


def test_the_extremum_of_a_choice():
    """The share of each tie has size 1 along the reduced axis, the condition has not."""
    x, condition = leaf("x", (2, 4, 3)), leaf("condition", (2, 4, 1), "bool")
    chosen = apply("where", condition, x, constant(-9.0, "float64"))
    (slope,) = gradient([scalar(make(ops.Reduce("max", (1,)), chosen))], [x])
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((2, 4, 3)), "weight": rng.standard_normal((2, 3))}
    arrays["condition"] = np.array([[1, 0, 1, 1], [0, 1, 0, 0]], bool).reshape(2, 4, 1)
    masked = np.where(arrays["condition"], arrays["x"], -9.0)
    expected = np.where(masked == masked.max(1, keepdims=True), arrays["weight"][:, None], 0.0)
    np.testing.assert_array_equal(evaluate([slope], arrays)[0], expected)


@pytest.mark.parametrize(
    ("name", "at", "slope"),
    [("relu", 0, 0), ("abs", 0, 0), ("sign", 2, 0), ("floor", 1, 0), ("stop_gradient", 3, 0)],
)
def test_kinks(name, at, slope):
    x = leaf("x", ())
    (found,) = gradient([apply(name, x)], [x])
    assert evaluate([found], {"x": np.array(float(at))})[0] == slope


def test_a_choice_shields_the_branch_that_is_not_taken():
    x = leaf("x", (2,))
    zero = constant(0, "float64")
    y = apply("where", apply("gt", x, zero), apply("log", x), zero)
    (slope,) = gradient([reduce_sum(y, (0,))], [x])
    assert evaluate([slope], {"x": np.array([0.0, 2.0])})[0].tolist() == [0, 0.5]


def test_the_gradient_graph_is_lean():
    x, b = leaf("x", (3, 4)), leaf("b", (4,))
    loss = reduce_sum(apply("relu", apply("add", x, b)), (0, 1))
    slopes = gradient([loss], [x, b])
    names = sorted(n.op.name for n in topological(slopes))
    constants = ["constant", "constant"]
    expected = [*constants, "add", "gt", "input", "input", "reduce", "where", "broadcast"]
    assert set(names) <= set(expected), names
    assert names.count("mul") == 0


def test_nothing_flows():
    x, y = leaf("x", (3,)), leaf("y", (2,))
    loss = reduce_sum(x, (0,))
    (slope,) = gradient([loss], [y])
    assert slope.type == y.type
    assert evaluate([slope], {})[0].tolist() == [0, 0]


def test_intermediate_nodes_and_repeated_outputs():
    x = leaf("x", ())
    y = apply("square", x)
    loss = apply("mul", y, x)
    dy, dx = gradient([loss], [y, x])
    assert [float(v) for v in evaluate([dy, dx], {"x": np.array(3.0)})] == [3, 27]
    (twice,) = gradient([loss, loss], [x])
    assert evaluate([twice], {"x": np.array(3.0)})[0] == 54


def test_hessian_vector_product():
    rng = np.random.default_rng(0)
    x = leaf("x", (3,))
    v = leaf("v", (3,))
    loss = reduce_sum(apply("mul", apply("exp", x), apply("square", x)), (0,))
    (product,) = hessian_vector_product(loss, [x], [v])
    at, along = rng.standard_normal(3), rng.standard_normal(3)
    expected = np.exp(at) * (at**2 + 4 * at + 2) * along
    np.testing.assert_allclose(evaluate([product], {"x": at, "v": along})[0], expected)


def test_composite_formulas_differentiate_to_any_order():
    formula = Formula("f", ("a", "b"), parse_term("mul(exp(mul(a, b)), sin(a))"))
    a, b = leaf("a", (3,)), leaf("b", ())
    arrays = {"a": np.array([0.3, -1, 2]), "b": np.array(0.7), "weight": np.ones(3)}
    check(scalar(apply(formula, a, b)), [a, b], arrays, order=4)


def test_errors_name_the_cause():
    x, i = leaf("x", (3,)), leaf("i", (3,), "int64")
    with pytest.raises(GraphError, match="no scalar"):
        gradient([x], [x])
    with pytest.raises(GraphTypeError, match="floating-point"):
        gradient([reduce_sum(x, (0,))], [i])
    with pytest.raises(GraphTypeError, match="floating-point"):
        gradient([reduce_sum(i, (0,))], [x])
    with pytest.raises(GraphError, match="trigamma"):
        gradient([reduce_sum(apply("trigamma", x), (0,))], [x])
    with pytest.raises(GraphError, match="cotangent"):
        gradient([x], [x], [leaf("c", (2,))])


def test_a_masked_cotangent_that_is_thinner_than_its_mask():
    """The value that a mask lets through may be one number for all."""
    x = leaf("x", (4,))
    row, column = reshape(x, (1, 4)), reshape(x, (4, 1))
    zero = constant(0, "float64")
    gap = apply("sub", column, row)
    clipped = apply("where", apply("lt", gap, constant(2, "float64")), gap, zero)
    loss = reduce_sum(apply("where", apply("lt", row, column), clipped, zero), (0, 1))
    (slope,) = gradient([loss], [x])
    values = np.array([0.1, 1.5, 0.7, 4.0])
    difference = values[:, None] - values[None]
    counted = ((difference > 0) & (difference < 2)).astype(float)
    np.testing.assert_allclose(evaluate([slope], {"x": values})[0], counted.sum(1) - counted.sum(0))
