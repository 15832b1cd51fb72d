"""Scattering, filling and counting against PyTorch: values, gradients, both backends."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import F

from .torch_cases import TorchCase, check

torch = pytest.importorskip("torch", reason="PyTorch is the reference")
rng = np.random.default_rng(0)


def floats(*shape: int, dtype: str = "float64") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def ints(high: int, *shape: int) -> np.ndarray:
    return rng.integers(0, high, shape)


def case(name, ours, theirs, *arrays, smooth=None, **options):
    return TorchCase(name, ours, theirs, arrays, smooth, options)


UNIQUE = np.argsort(floats(3, 5), 1)[:, :4]
MASK = floats(3, 4) > 0
CASES = [
    *(case(f"scatter_add-{axis}", lambda x, i, s, a=axis: F.scatter_add(x, a, i, s),
           lambda x, i, s, a=axis: x.scatter_add(a, i, s),
           floats(3, 5, 2), ints((3, 5, 2)[axis], 3, 4, 2) if axis != 0 else ints(3, 7, 4, 2),
           floats(*((3, 4, 2) if axis else (7, 4, 2)))) for axis in (0, 1, -1)),
    case("scatter_add-part", lambda x, i, s: F.scatter_add(x, 1, i, s),
         lambda x, i, s: x.scatter_add(1, i, s), floats(3, 5), ints(5, 2, 9), floats(4, 9),
         smooth=(0,)),
    case("scatter_add-empty", lambda x, i, s: F.scatter_add(x, 0, i, s),
         lambda x, i, s: x.scatter_add(0, i, s), floats(3), ints(3, 0), floats(0)),
    case("scatter_add-scalar", lambda x, s: F.scatter_add(x, 0, 0, s),
         lambda x, s: x.scatter_add(0, torch.tensor(0), s), np.float64(2), np.float64(3)),
    case("scatter_add-integers", lambda x, i, s: F.scatter_add(x, 0, i, s),
         lambda x, i, s: x.scatter_add(0, i, s), ints(9, 4), ints(4, 6), ints(9, 6)),
    case("scatter", lambda x, i, s: F.scatter(x, 1, i, s), lambda x, i, s: x.scatter(1, i, s),
         floats(3, 5), UNIQUE, floats(3, 4)),
    case("scatter-float32", lambda x, i, s: F.scatter(x, 0, i, s),
         lambda x, i, s: x.scatter(0, i, s), floats(5, 3, dtype="float32"), UNIQUE.T.copy(),
         floats(4, 3, dtype="float32")),
    case("scatter-number", lambda x, i: F.scatter(x, 1, i, 2.5),
         lambda x, i: x.scatter(1, i, 2.5), floats(3, 5), ints(5, 3, 4)),
    case("scatter-bool", lambda x, i: F.scatter(x, 1, i, True),
         lambda x, i: x.scatter(1, i, True), floats(3, 5) > 0, ints(5, 3, 2)),
    case("scatter-scalar", lambda x: F.scatter(x, 0, 0, 7.0),
         lambda x: x.scatter(0, torch.tensor(0), 7.0), np.float64(2)),
    *(case(f"scatter_reduce-{kind}-{own}",
           lambda x, i, s, k=kind, o=own: F.scatter_reduce(x, 1, i, s, k, o),
           lambda x, i, s, k=kind, o=own: x.scatter_reduce(1, i, s, k, include_self=o),
           floats(3, 5), ints(4, 3, 7), floats(3, 7))
      for kind in ("sum", "mean", "amax", "amin", "prod") for own in (True, False)),
    case("scatter_reduce-integers", lambda x, i, s: F.scatter_reduce(x, 0, i, s, "amax"),
         lambda x, i, s: x.scatter_reduce(0, i, s, "amax"), ints(9, 5), ints(4, 8), ints(20, 8)),
    case("index_reduce", lambda x, i, s: F.index_reduce(x, 1, i, s, "amax"),
         lambda x, i, s: x.scatter_reduce(1, i[None, :, None].expand_as(s), s, "amax"),
         floats(3, 5, 2), ints(5, 7),
         floats(3, 7, 2)),
    case("index_select", lambda x, i: F.index_select(x, 1, i), lambda x, i: x.index_select(1, i),
         floats(3, 5, 2), ints(5, 7)),
    case("index_select-scalar", lambda x, i: F.index_select(x, 0, i),
         lambda x, i: x.index_select(0, i), np.float64(3), ints(1, 1)),
    case("index_add", lambda x, i, s: F.index_add(x, 1, i, s, alpha=0.5),
         lambda x, i, s: x.index_add(1, i, s, alpha=0.5), floats(3, 5, 2), ints(5, 7),
         floats(3, 7, 2)),
    case("index_add-rows", lambda x, i, s: F.index_add(x, 0, i, s),
         lambda x, i, s: x.index_add(0, i, s), floats(5, 33, dtype="float32"), ints(5, 70),
         floats(70, 33, dtype="float32")),
    case("index_copy", lambda x, i, s: F.index_copy(x, 1, i, s),
         lambda x, i, s: x.index_copy(1, i, s), floats(3, 5), np.array([4, 0, 2]), floats(3, 3)),
    case("index_fill", lambda x, i: F.index_fill(x, -1, i, 9.0),
         lambda x, i: x.index_fill(-1, i, 9.0), floats(3, 5), np.array([4, 0, 4])),
    case("index_put", lambda x, i, j, v: F.index_put(x, (i, j), v),
         lambda x, i, j, v: x.index_put((i, j), v), floats(3, 5, 2), np.array([0, 2, 1]),
         np.array([4, 4, 0]), floats(3, 2)),
    case("index_put-accumulate", lambda x, i, j, v: F.index_put(x, (i, j), v, accumulate=True),
         lambda x, i, j, v: x.index_put((i, j), v, accumulate=True), floats(3, 5),
         ints(3, 4, 1), ints(5, 6), floats(4, 6)),
    case("masked_fill", lambda x, m: F.masked_fill(x, m, -1.0),
         lambda x, m: x.masked_fill(m, -1.0), floats(3, 4), MASK),
    case("masked_fill-broadcast", lambda x, m: F.masked_fill(x, m, 2),
         lambda x, m: x.masked_fill(m, 2), floats(2, 3, 4), MASK),
    case("masked_scatter", lambda x, m, s: F.masked_scatter(x, m, s),
         lambda x, m, s: x.masked_scatter(m, s), floats(3, 4), MASK, floats(20)),
    case("bincount", lambda x: F.bincount(x, minlength=8),
         lambda x: torch.bincount(x, minlength=8), ints(8, 30)),
    case("bincount-weights", lambda x, w: F.bincount(x, w, 8),
         lambda x, w: torch.zeros(8, dtype=w.dtype).index_add(0, x, w), ints(8, 30), floats(30)),
    case("histc", lambda x: F.histc(x, 7, -1, 1.5), lambda x: torch.histc(x, 7, -1, 1.5),
         floats(50), smooth=()),
    case("histc-all", lambda x: F.histc(x, 5), lambda x: torch.histc(x, 5), floats(3, 9),
         smooth=()),
    case("histc-one", lambda x: F.histc(x, 4), lambda x: torch.histc(x, 4), np.ones(3), smooth=()),
]  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_agrees_with_torch(backend):
    check(CASES, backend)


def test_bits_do_not_depend_on_the_thread_count():
    chosen = [c for c in CASES if c.name in {"index_add-rows", "scatter-float32", "scatter_add-1"}]
    for threads in (1, 2, 3):
        check(chosen, "native", threads=threads)
    x, i = cr.input("x", ("n", 100)), cr.input("i", ("n",), "int64")
    total = F.index_add(cr.constant(np.zeros((20, 100), np.float32)), 0, i, x)
    given = {"x": floats(3000, 100, dtype="float32"), "i": ints(20, 3000)}
    results = [cr.compile(total, threads=n)(**given).tobytes() for n in (1, 2, 3)]
    assert len(set(results)) == 1


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_the_last_of_several_values_stays_and_gets_the_gradient(backend):
    x, values = cr.input("x", (4,), "float64"), cr.input("v", (5,), "float64")
    y = F.scatter(x, 0, np.array([1, 3, 1, 0, 1]), values)
    dx, dv = cr.grad((y * np.arange(1.0, 5)).sum(), [x, values])
    run = cr.compile({"y": y, "dx": dx, "dv": dv}, backend=backend)
    found = run(x=np.zeros(4), v=np.arange(10.0, 15))
    assert found["y"].tolist() == [13, 14, 0, 11]
    assert found["dx"].tolist() == [0, 0, 3, 0]
    assert found["dv"].tolist() == [0, 4, 0, 1, 2]


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_histogram_is_numpys(backend):
    x = floats(200)
    given, weights = cr.input("x", (200,), "float64"), np.linspace(0, 1, 200)
    edges = [-2.0, -0.5, 0.0, 0.1, 1.0]
    calls = ((10, None, None), (7, (-1.0, 1.0), None), (edges, None, None), (edges, None, weights))
    for bins, span, heavy in calls:
        counts, found_edges = cr.compile(
            list(F.histogram(given, bins, span, heavy)), backend=backend
        )(x=x)
        expected, expected_edges = np.histogram(x, bins, span, weights=heavy)
        np.testing.assert_allclose(counts, expected, rtol=1e-12)
        np.testing.assert_allclose(found_edges, expected_edges, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_an_index_outside_its_axis_is_refused_when_called(backend):
    x, i = cr.input("x", (3, 4)), cr.input("i", (3, 2), "int64")
    run = cr.compile(F.scatter_add(x, 1, i, cr.constant(np.ones((3, 2), np.float32))),
                     backend=backend)  # fmt: skip
    bad = np.zeros((3, 2), np.int64)
    bad[1, 1] = 4  # in another row of the flattened array: it must not land there
    with pytest.raises(cr.IndexRangeError, match="scatter_add: index 4"):
        run(x=np.zeros((3, 4), np.float32), i=bad)
    computed = cr.compile(F.scatter_add(x, 1, i + 1, np.ones((3, 2), np.float32)), backend=backend)
    with pytest.raises(cr.IndexRangeError):
        computed(x=np.zeros((3, 4), np.float32), i=bad)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_what_one_use_of_an_index_requires_binds_no_other(backend):
    """Equal inputs are one node; a smaller table elsewhere must not limit this one."""
    i = cr.input("i", (2,), "int64")
    small = F.bincount(i, minlength=3), F.scatter_add(np.zeros(3), 0, i, 1.0)
    taken = F.take_along_axis(np.zeros(3), i, 0)
    large = F.bincount(i, minlength=9), F.scatter_add(np.zeros(9), 0, i, 1.0)
    run = cr.compile([*large, F.take_along_axis(np.arange(9.0), i, 0)], backend=backend)
    assert run(i=np.array([8, 8]))[2].tolist() == [8, 8]
    with pytest.raises(cr.IndexRangeError):
        cr.compile([*small, taken], backend=backend)(i=np.array([2, 3]))


def test_bad_arguments_are_named():
    x = cr.input("x", (3, 4))
    wide, rows = np.zeros((4, 2), int), np.zeros((3, 2), int)
    for call, message, error in (
        (lambda: F.scatter(x, 1, wide, 0.0), "exceeds", cr.GraphError),
        (lambda: F.scatter(x, 1, rows, np.ones((2, 2))), "do not cover", cr.GraphError),
        (lambda: F.scatter(x, 1, rows[0], 0.0), "another rank", cr.GraphError),
        (lambda: F.scatter_add(x, 1, rows + 0.5, 0.0), "integer indices", cr.GraphTypeError),
        (lambda: F.scatter_add(x, 1, rows + 9, 0.0), "scatter_add: index 9", cr.IndexRangeError),
        (lambda: F.scatter_reduce(x, 1, rows, 0.0, "max"), "sum, prod, mean", cr.GraphError),
        (lambda: F.masked_select(x, x > 0), "where", cr.GraphTypeError),
        (lambda: F.nonzero(x), "count_nonzero", cr.GraphTypeError),
        (lambda: F.unique(x), "sort", cr.GraphTypeError),
        (lambda: F.masked_fill(x, x, 0), "mask of bools", cr.GraphTypeError),
        (lambda: F.bincount(cr.input("b", (3,), "int64")), "minlength", cr.GraphError),
        (lambda: F.index_add(x, 0, [0, 1], np.ones((3, 4))), r"\(2, 4\) would", cr.GraphError),
    ):
        with pytest.raises(error, match=message):
            call()
