"""Loops and branches: values, gradients against unrolled graphs, random numbers, bad input."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import F, nn, optim
from chainrule.compiler.backends import statements
from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.text import format_program, parse_program
from chainrule.runtime import executable

BACKENDS = ("numpy", "native")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def arrays(seed=0, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def double(name, *shape):
    return cr.input(name, shape, "float64")


def unrolled(step, carry, xs, length, reverse=False):
    """What `scan` means, as one graph of all steps."""
    ys = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, ys[t] = step(carry, None if xs is None else xs[t])
    return carry, F.stack(ys)


def recurrent(length, reverse, loop):
    x, h = double("x", length, 3, 2), double("h", 3, 4)
    u, w, b = double("u", 4, 4), double("w", 2, 4), double("b", 4)

    def step(h, x):
        h = F.tanh(x @ w + h @ u + b)
        return h, h * 2 + x.sum()

    if loop:
        h1, ys = cr.scan(step, h, x, reverse=reverse)
    else:
        h1, ys = unrolled(step, h, x, length, reverse)
    loss = (h1 * h1).sum() + F.sin(ys).sum()
    return loss, [h1, ys], [x, h, u, w, b]


def check_equal(actual, wanted, tolerance=1e-12):
    for a, b in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max()))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_scan_and_its_gradients_equal_the_unrolled_graph(length, reverse, backend):
    feeds = arrays(x=(length, 3, 2), h=(3, 4), u=(4, 4), w=(2, 4), b=4)
    results = []
    for loop in (True, False):
        loss, values, wrt = recurrent(length, reverse, loop)
        first = cr.grad(loss, wrt)
        again = cr.grad(sum((F.sin(g) * g).sum() for g in first), wrt)
        results.append(cr.compile([loss, *values, *first, *again], backend=backend)(**feeds))
    check_equal(*results)


def test_a_long_scan_equals_the_unrolled_graph(backend):
    feeds = arrays(x=(500, 3, 2), h=(3, 4), u=(4, 4), w=(2, 4), b=4)
    results = []
    for loop in (True, False):
        loss, values, wrt = recurrent(500, False, loop)
        which = backend if loop else "numpy"
        results.append(cr.compile([*values, *cr.grad(loss, wrt)], backend=which)(**feeds))
    check_equal(*results, tolerance=1e-10)


def test_a_scan_of_no_steps_gives_the_initial_carry(backend):
    x, h = double("x", "time", 2), double("h", 2)
    last, ys = cr.scan(lambda h, x: (h * x, h), h, x)
    grads = cr.grad(last.sum() + ys.sum(), [h, x])
    run = cr.compile([last, ys, *grads], backend=backend)
    last, ys, dh, dx = run(x=np.zeros((0, 2)), h=np.ones(2))
    assert last.tolist() == [1, 1]
    assert ys.shape == dx.shape == (0, 2)
    assert dh.tolist() == [1, 1]


def test_a_symbolic_length_is_compiled_once(backend):
    x, h = double("x", "time", 2), double("h", 2)
    last, ys = cr.scan(lambda h, x: (h * 0.5 + x, h), h, x)
    (dx,) = cr.grad((last * last).sum(), [x])
    run = cr.compile([last, ys, dx], backend=backend)
    for length in (1, 3, 11):
        feeds = arrays(x=(length, 2), h=2)
        state, before = feeds["h"], []
        for row in feeds["x"]:
            before.append(state)
            state = state * 0.5 + row
        slope = [2 * state * 0.5 ** (length - 1 - t) for t in range(length)]
        check_equal(run(**feeds), [state, np.stack(before), np.stack(slope)])


def test_structures_go_through(backend):
    x, a = double("x", 4, 2), double("a", 2)

    def step(carry, x):
        assert set(carry) == {"sum", "rest"}
        assert carry["rest"][1] is None
        total = carry["sum"] + x["value"] * x["scale"][0]
        return {"rest": (carry["rest"][0] * 2, None), "sum": total}, [total, None, {"x": x}]

    init = {"sum": a, "rest": (F.ones((), dtype="int64"), None)}
    carry, ys = cr.scan(step, init, {"value": x, "scale": [F.arange(4)]})
    feeds = arrays(x=(4, 2), a=2)
    run = cr.compile([carry["sum"], carry["rest"][0], ys[0], ys[2]["x"]["value"]], backend=backend)
    sums = feeds["a"] + np.cumsum(feeds["x"] * np.arange(4)[:, None], axis=0)
    check_equal(run(**feeds), [sums[-1], np.asarray(16), sums, feeds["x"]])
    assert ys[1] is None


def test_length_without_sequences(backend):
    carry, ys = cr.scan(lambda n, _: (n + 1, n * n), F.zeros((), dtype="int64"), length=5)
    total, squares = cr.compile([carry, ys], backend=backend)()
    assert total == 5
    assert squares.tolist() == [0, 1, 4, 9, 16]


def test_a_carry_that_exchanges_its_parts(backend):
    a, b = double("a", 2), double("b", 2)
    (p, q), ys = cr.scan(lambda c, _: ((c[1], c[0] + c[1]), c[0]), (a, b), length=6)
    feeds = {"a": np.array([0.0, 1]), "b": np.array([1.0, 1])}
    p, q, ys, da = cr.compile([p, q, ys, *cr.grad(q.sum(), [a])], backend=backend)(**feeds)
    assert ys[:, 0].tolist() == [0, 1, 1, 2, 3, 5]
    assert (p[0], q[0]) == (8, 13)
    assert da.tolist() == [8, 8]


def nested(loop):
    x, w = double("x", 3, 4, 2), double("w", 2, 2)

    def inner(h, x):
        h = F.tanh(h @ w + x)
        return h, h.sum()

    def outer(h, rows):
        if loop:
            h, sums = cr.scan(inner, h, rows)
        else:
            h, sums = unrolled(inner, h, rows, 4)
        return h * 0.9, sums * h.sum()

    start = w[0]
    if loop:
        h, ys = cr.scan(outer, start, x)
    else:
        h, ys = unrolled(outer, start, x, 3)
    loss = h.sum() + (ys * ys).sum()
    return loss, [x, w]


def test_nested_scans_equal_the_unrolled_graph(backend):
    results = []
    for loop in (True, False):
        loss, wrt = nested(loop)
        first = cr.grad(loss, wrt)
        again = cr.grad(sum((g * g).sum() for g in first), wrt)
        feeds = arrays(x=(3, 4, 2), w=(2, 2))
        results.append(cr.compile([loss, *first, *again], backend=backend)(**feeds))
    check_equal(*results, tolerance=1e-11)


def test_gradients_equal_finite_differences(backend):
    """A step with every kind of use of an outer value: product, sum, row, part, and twice."""
    x, w, v = double("x", 5, 3), double("w", 3, 3), double("v", 3)
    index = cr.input("i", (5,), "int64")

    def step(carry, item):
        x, i = item
        h, c = carry
        gate = F.sigmoid(h @ w + v * x + w[1])
        c = gate * c + (1 - gate) * F.tanh(x * w.sum() + w.T @ h) + w[i]
        h = c / (1 + (v * v).sum()) + F.softmax(h * v)
        return (h, c), (h * v, h.max())

    (h, c), (ys, tops) = cr.scan(step, (v * 0.5, F.ones(3, dtype="float64")), (x, index))
    loss = (h * c).sum() + (ys * ys * ys).sum() + tops.sum()
    feeds = arrays(x=(5, 3), w=(3, 3), v=3)
    feeds["i"] = np.array([0, 2, 2, 1, 0])
    run = cr.compile([loss, *cr.grad(loss, [x, w, v])], backend=backend)
    _, *grads = run(**feeds)
    rng = np.random.default_rng(1)
    for name, grad in zip("xwv", grads, strict=True):
        direction = rng.normal(size=grad.shape)
        ends = []
        for sign in (1, -1):
            moved = dict(feeds)
            moved[name] = feeds[name] + sign * 1e-6 * direction
            ends.append(run(**moved)[0])
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx((grad * direction).sum(), rel=1e-7)


def test_the_gradient_of_a_weight_is_one_contraction_after_the_loop():
    loss, _, wrt = recurrent(7, False, True)
    program = cr.compile(cr.grad(loss, wrt), backend="numpy").program
    loops = [node.op for node in program.nodes() if isinstance(node.op, ops.Scan)]
    backward = next(op for op in loops if op.reverse)
    assert backward.carries == 1
    contractions = [node.op for node in program.nodes() if isinstance(node.op, ops.Contract)]
    assert any(7 * 3 in op.sizes for op in contractions)


def test_cond_runs_one_branch_and_differentiates_it(backend):
    p, x = cr.input("p", (), "bool"), double("x", 3)
    w = double("w", 3)
    y, z = cr.cond(p, lambda x: (x * w, x.sum()), lambda x: (F.exp(x), w.max() * 2), x)
    grads = cr.grad((y * y).sum() + z, [x, w])
    run = cr.compile([y, z, *grads], backend=backend)
    feeds = arrays(x=3, w=3)
    x, w = feeds["x"], feeds["w"]
    check_equal(run(p=True, **feeds), [x * w, x.sum(), 2 * x * w * w + 1, 2 * x * x * w])
    top = 2.0 * (w == w.max())
    check_equal(run(p=False, **feeds), [np.exp(x), 2 * w.max(), 2 * np.exp(2 * x), top])


def test_cond_in_scan_and_scan_in_cond(backend):
    x, p = double("x", 6), cr.input("p", (), "bool")

    def step(total, x):
        total = cr.cond(x > 0, lambda t: t + x * x, lambda t: t * 0.5, total)
        return total, total

    def loop(x):
        return cr.scan(step, F.zeros((), dtype="float64"), x)[1].sum()

    y = cr.cond(p, loop, lambda x: x.sum(), x)
    run = cr.compile([y, *cr.grad(y, [x])], backend=backend)
    feeds = arrays(x=6)

    def value(x):
        total, sums = 0.0, 0.0
        for t in x:
            total = total + t * t if t > 0 else total * 0.5
            sums += total
        return sums

    value_, slope = run(p=True, **feeds)
    assert value_ == pytest.approx(value(feeds["x"]))
    for k in range(6):
        move = np.zeros(6)
        move[k] = 1e-6
        difference = (value(feeds["x"] + move) - value(feeds["x"] - move)) / 2e-6
        assert slope[k] == pytest.approx(difference, abs=1e-8)
    check_equal(run(p=False, **feeds), [feeds["x"].sum(), np.ones(6)])


def test_while_loop_stops_where_the_condition_fails(backend):
    n, limit = cr.input("n", (), "int64"), cr.input("limit", (), "int64")

    def collatz(state):
        n, steps = state
        return F.where(n % 2 == 0, n // 2, 3 * n + 1), steps + 1

    n_, steps = cr.while_loop(lambda s: (s[0] != 1) & (s[1] < limit), collatz, (n, 0))
    run = cr.compile([n_, steps], backend=backend)
    assert [int(v) for v in run(n=27, limit=1000)] == [1, 111]
    assert [int(v) for v in run(n=1, limit=1000)] == [1, 0]
    assert int(run(n=27, limit=5)[1]) == 5


def test_while_loop_has_no_gradient():
    x = cr.input("x")
    y = cr.while_loop(lambda x: x < 100, lambda x: x * x, x)
    with pytest.raises(GraphError, match=r"test_control_flow.py.*gradient of while_loop"):
        cr.grad(y, [x])


def test_training_through_a_scan(backend):
    """A recurrent net learns to remember its first input."""
    cr.manual_seed(3)
    x = cr.input("x", ("batch", 5, 1))
    cell, head = nn.Linear(9, 8), nn.Linear(8, 1)

    def step(h, x):
        h = F.tanh(cell(F.concatenate([h, x], axis=1)))
        return h, None

    h, ys = cr.scan(step, F.zeros((x.shape[0], 8)), F.swapaxes(x, 0, 1))
    assert ys is None
    loss = F.square(head(h)[:, 0] - x[:, 0, 0]).mean()
    train = cr.compile_train(loss, optim.Adam(2e-2), backend=backend)
    rng = np.random.default_rng(0)
    losses = [
        train.step(x=rng.normal(size=(32, 5, 1)).astype(np.float32))["loss"] for _ in range(150)
    ]
    assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])


def test_draws_differ_from_step_to_step_and_from_call_to_call(backend):
    cr.manual_seed(11)
    fixed = cr.random.uniform((3,))

    def step(total, _):
        u = cr.random.uniform((3,))
        return total + u.sum(), (u, fixed)

    _, (draws, same) = cr.scan(step, F.zeros(()), length=4)
    run = cr.compile([draws, same], backend=backend)
    first, same = run()
    second, _ = run()
    values = np.concatenate([first, second]).reshape(-1)
    assert len(set(values.tolist())) == 24
    assert (same == same[0]).all()
    assert ((values >= 0) & (values < 1)).all()


def test_draws_of_a_scan_are_one_sequence_for_value_and_gradient():
    cr.manual_seed(1)
    w = cr.input("w", (3,))
    last, _ = cr.scan(lambda h, _: (h + cr.random.uniform((3,)) * w, None), F.zeros((3,)), length=4)
    last, slope = cr.compile([last, *cr.grad(last.sum(), [w])], backend="numpy")(w=np.ones(3))
    np.testing.assert_allclose(last, slope, rtol=1e-6)


def test_labels_used_in_a_step_are_checked(backend):
    table, labels = cr.input("table", (4, 2)), cr.input("labels", (5,), "int64")
    _, rows = cr.scan(lambda _, i: (None, table[i]), None, labels)
    run = cr.compile(rows, backend=backend)
    assert run(table=np.eye(4)[:, :2], labels=np.zeros(5, int)).shape == (5, 2)
    with pytest.raises((IndexRangeError, IndexError)):
        run(table=np.eye(4)[:, :2], labels=np.array([0, 1, 4, 2, 3]))


def test_programs_with_bodies_print_and_parse():
    loss, wrt = nested(True)
    program = cr.compile([loss, *cr.grad(loss, wrt)], backend="numpy").program
    text = format_program(program, sources=True)
    again = parse_program(text)
    assert again.roots == program.roots
    assert format_program(again, sources=True) == text


def test_code_and_kernels_do_not_depend_on_the_length():
    """Kernels outside of the loops may differ a little: the weights' gradient is deeper."""
    sizes = []
    h, w = double("h", 3, 4), double("w", 4, 4)
    for length in (16, 512):
        x = double("x", length, 3, 2)
        last, _ = cr.scan(lambda h, x: (F.tanh(h @ w + x.sum()), None), h, x)
        loss = (last * last).sum()
        artifact = cr.compile([loss, *cr.grad(loss, [w, h])]).executable.artifact
        lines = artifact.modules[0].emit().splitlines()
        sizes.append((len(artifact.loops.kernels), len(artifact.loops.steps), len(lines)))
    assert sizes[0][:2] == sizes[1][:2]
    assert sizes[0][0] < 20
    assert sizes[1][2] < 1.05 * sizes[0][2]


def test_threads_that_share_every_kernel_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(executable, "LAUNCH_WORK", 0)
    monkeypatch.setattr(executable, "BARRIER_WORK", 0)
    monkeypatch.setattr(executable, "PAYS", 1.1)
    monkeypatch.setattr(statements, "SERIAL_WORK", 0)
    n = 64
    x, p = double("x", "time", n, 3), cr.input("p", (), "bool")
    h, w, v = double("h", n, 32), double("w", 32, 32), double("v", 3, 32)

    def step(h, x):
        h = F.tanh(h @ w + x @ v)
        h = cr.cond(p & (h[0, 0] > 0), lambda h: h @ w * 0.1, lambda h: F.sin(h), h)
        count = cr.while_loop(lambda c: c.sum() < 1e3, lambda c: c * 1.5 + 1, F.abs(h[:, 0]))
        return h, (h.sum(0), count)

    last, (sums, counts) = cr.scan(step, h, x)
    value = sums.sum() + (last * last).sum()
    outputs = [value, counts, last, sums]
    runs = {t: cr.compile(outputs, threads=t, cache=None) for t in (1, 2)}
    for length in (0, 1, 6):
        feeds = arrays(x=(length, n, 3), h=(n, 32), w=(32, 32), v=(3, 32))
        for flag in (True, False):
            alone = runs[1](p=flag, **feeds)
            for _ in range(3):
                for a, b in zip(alone, runs[2](p=flag, **feeds), strict=True):
                    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert runs[2].executable.choose_threads({"time": 6})[0] == 2


def test_dropout_in_a_step_is_drawn_anew_in_training_and_idle_in_inference(backend):
    cr.manual_seed(0)
    x, w = cr.input("x", (40, 3)), cr.parameter(np.ones(3, np.float32), "w")
    _, ys = cr.scan(lambda c, x: (c, nn.Dropout(0.5)(x * w)), F.zeros(()), x)
    train = cr.compile_train(ys.sum(), optim.SGD(0.0), outputs={"ys": ys}, backend=backend)
    ones = np.ones((40, 3))
    first, second = (train.step(x=ones)["ys"] for _ in range(2))
    assert set(first.ravel().tolist()) == {0.0, 2.0}
    assert len({row.tobytes() for row in first}) > 4
    assert (first != second).any()
    assert (cr.compile(ys, backend=backend)(x=ones) == 1).all()


def test_steps_are_profiled_and_checked():
    x = cr.input("x", (6, 3))
    last, _ = cr.scan(lambda c, x: (F.log(c + x), None), F.ones((3,)), x)
    run = cr.compile(last, profile=True)
    run(x=np.ones((6, 3)))
    assert "log" in run.profile()
    run = cr.compile(last, checks=frozenset({"nan", "bounds"}))
    run(x=np.ones((6, 3)))
    with pytest.raises(cr.CheckFailed, match=r"test_control_flow.py.*log gives nan"):
        run(x=np.full((6, 3), -5.0))


def test_a_loop_is_explained_and_verified():
    x = cr.input("x", ("time", 3))
    last, ys = cr.scan(lambda c, x: (F.sin(c) * x, c), F.ones((3,)), x, reverse=True)
    text = cr.compile([last, ys]).explain(time=5)
    assert "time steps in reverse of" in text
    assert cr.verify((last * last).sum(), {"x": np.ones((4, 3), np.float32)}).ok


X = np.zeros((4, 2), np.float32)
BAD = {
    "carry changes shape": (
        lambda: cr.scan(lambda h, x: (F.concatenate([h, x]), h), F.zeros(2), X),
        GraphError,
        r"carry begins as float32\(2,\) and the step gives float32\(4,\)",
    ),
    "a leaf is named": (
        lambda: cr.scan(
            lambda h, x: ({"a": h["a"], "b": (h["b"][0][:1],)}, None),
            {"a": F.zeros(2), "b": (F.zeros(2),)},
            X,
        ),
        GraphError,
        r"carry\['b'\]\[0\] begins",
    ),
    "carry changes element type": (
        lambda: cr.scan(lambda h, x: (h + x.sum(), None), 0, X),
        GraphTypeError,
        r"begins as int64\(\) and the step gives float32\(\); begin with a float32 value",
    ),
    "carry changes structure": (
        lambda: cr.scan(lambda h, x: ((h, h), None), F.zeros(2), X),
        GraphError,
        "must keep its structure",
    ),
    "no pair": (lambda: cr.scan(lambda h, x: h, F.zeros(2), X), GraphTypeError, r"\(carry, y\)"),
    "lengths differ": (
        lambda: cr.scan(lambda h, x: (h, h), F.zeros(2), (X, X[:3])),
        GraphError,
        r"xs\[0\] has 4 items and xs\[1\] has 3",
    ),
    "length and sequence differ": (
        lambda: cr.scan(lambda h, x: (h, h), F.zeros(2), X, length=5),
        GraphError,
        "length is 5 and xs has 4",
    ),
    "no length": (
        lambda: cr.scan(lambda h, x: (h, h), F.zeros(2)),
        GraphError,
        "length must say how many",
    ),
    "a scalar sequence": (
        lambda: cr.scan(lambda h, x: (h, h), F.zeros(2), 3.0),
        GraphError,
        "first axis",
    ),
    "negative length": (
        lambda: cr.scan(lambda h, x: (h, h), F.zeros(2), length=-1),
        GraphError,
        "negative",
    ),
    "running statistics": (
        lambda: cr.scan(lambda h, x: (nn.BatchNorm1d(2)(h), None), F.zeros((3, 2)), length=2),
        GraphError,
        "carry it along",
    ),
    "predicate is no bool": (
        lambda: cr.cond(F.ones(()), lambda: 1.0, lambda: 2.0),
        GraphTypeError,
        "one bool, not float32",
    ),
    "branches differ in structure": (
        lambda: cr.cond(cr.input("p", (), "bool"), lambda: (1.0, 2.0), lambda: 2.0),
        GraphError,
        "same structure",
    ),
    "branches differ in type": (
        lambda: cr.cond(cr.input("p", (), "bool"), lambda: F.ones(2), lambda: F.ones(3)),
        GraphError,
        r"result is float32\(2,\) from true_fn",
    ),
    "condition is no bool": (
        lambda: cr.while_loop(lambda x: x, lambda x: x, F.ones(())),
        GraphTypeError,
        "cond_fn gives one bool",
    ),
    "carry of a while loop changes": (
        lambda: cr.while_loop(lambda x: x.sum() > 0, lambda x: x[:1], F.ones(2)),
        GraphError,
        "shapes must agree",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_line(case):
    build, error, message = BAD[case]
    with pytest.raises(error, match=message) as info:
        build()
    assert "test_control_flow.py" in str(info.value)
