"""Cases of reductions, views and indexing."""

from __future__ import annotations

import itertools

import numpy as np
from cases import Case, M, N, program, sample, sampled, tensor
from closeness import EXACT, Tolerance

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import apply, make
from chainrule.compiler.ir.types import ITEM_BYTES

# -- reductions -----------------------------------------------------------------------------------

_REDUCERS = {
    "sum": lambda x, axis: np.sum(x.astype(_wide(x)), axis=axis).astype(x.dtype),
    "prod": lambda x, axis: np.prod(x.astype(_wide(x)), axis=axis).astype(x.dtype),
    "max": lambda x, axis: np.max(x, axis=axis),
    "min": lambda x, axis: np.min(x, axis=axis),
    "argmax": lambda x, axis: np.argmax(x, axis=axis[0]),
    "argmin": lambda x, axis: np.argmin(x, axis=axis[0]),
}


def _wide(x: np.ndarray) -> np.dtype:
    return np.dtype(np.float64) if x.dtype == np.float32 else x.dtype


def _reduction(kind: str, dtype: str, shape, axes: tuple[int, ...]) -> Case:
    sizes = [9, 1, 65] if any(not isinstance(d, int) for d in shape) else [0]
    shapes = [tuple({N: n, M: 5}.get(d, d) for d in shape) for n in sizes]
    if kind == "prod" and dtype.startswith("float"):
        calls = tuple({"x": (1 + 0.1 * sample(s, dtype)).astype(dtype)} for s in shapes)
    elif kind == "prod" or kind.startswith("arg"):
        # Small integers, so that arg reductions meet ties.
        calls = tuple({"x": (sample(s, dtype) * 2).astype(np.int64).astype(dtype)} for s in shapes)
    else:
        calls = sampled(*({"x": s} for s in shapes), dtype=dtype)
    terms = max(int(np.prod([s[a] for a in axes], dtype=np.int64)) for s in shapes)
    tolerance = {
        "sum": Tolerance(terms=max(terms, 1)),
        "prod": Tolerance(ulps=8 + 2 * terms),
    }.get(kind, EXACT)
    return Case(
        f"{kind}-{dtype}-{shape}-{axes}".replace(" ", ""),
        program(make(ops.Reduce(kind, axes), tensor("x", shape, dtype))),
        calls,
        lambda x: {"y": np.asarray(_REDUCERS[kind](x, axes))},
        tolerance if dtype.startswith("float") else EXACT,
        promote=dtype == "float32" and kind in {"sum", "prod"},
        differentiate=("x",) if dtype.startswith("float") and not kind.startswith("arg") else (),
    )


_REDUCED_SHAPES = [
    ((17,), (0,)),
    ((1,), (0,)),
    ((33, 7), (0,)),
    ((33, 7), (1,)),
    ((33, 7), (0, 1)),
    ((3, 4, 5), (1,)),
    ((3, 4, 5), (0, 2)),
    ((2, 3, 1, 5, 4), (0, 2, 4)),
    ((N, 7), (0,)),
    ((N, 7), (1,)),
    ((3, N, M), (1, 2)),
    ((1000,), (0,)),
    ((65, 129), (0,)),
]


def _reductions() -> list[Case]:
    cases = []
    for kind in sorted(ops.REDUCTIONS):
        for dtype in ("float32", "float64", "int32", "int64", "uint32"):
            shapes = _REDUCED_SHAPES if dtype == "float32" else _REDUCED_SHAPES[::3]
            for shape, axes in shapes:
                if len(axes) == 1 or not kind.startswith("arg"):
                    if kind == "prod" and 1000 in shape:
                        continue
                    cases.append(_reduction(kind, dtype, shape, axes))
    for kind in ("max", "min", "argmax", "argmin"):
        values = np.array(
            [[1, np.nan, 3], [np.inf, -np.inf, 2], [-0.0, 0.0, -0.0], [5, 5, 5]], "f4"
        )
        cases.append(
            Case(
                f"{kind}-edges",
                program(make(ops.Reduce(kind, (1,)), tensor("x", (N, 3)))),
                ({"x": values}, {"x": -values}, {"x": np.full((2, 3), -np.inf, "f4")}),
                lambda x, kind=kind: {"y": np.asarray(_REDUCERS[kind](x, (1,)))},
            )
        )
        if not kind.startswith("arg"):
            flags = sample((4, 5), "bool")
            cases.append(
                Case(
                    f"{kind}-bool",
                    program(make(ops.Reduce(kind, (1,)), tensor("x", (N, 5), "bool"))),
                    ({"x": flags}, {"x": flags[:1]}),
                    lambda x, kind=kind: {"y": np.asarray(_REDUCERS[kind](x, (1,)))},
                )
            )
    for kind, empty in (("sum", 0.0), ("prod", 1.0)):
        cases.append(
            Case(
                f"{kind}-of-nothing",
                program(make(ops.Reduce(kind, (1,)), tensor("x", (3, N)))),
                ({"x": np.zeros((3, 0), "f4")}, {"x": np.ones((3, 2), "f4")}),
                lambda x, kind=kind, empty=empty: {
                    "y": np.asarray(_REDUCERS[kind](x, (1,))) if x.size else np.full(3, empty, "f4")
                },
            )
        )
    x = tensor("x", (N, 4))
    mean = apply("div", make(ops.Reduce("sum", (0,)), x), make(ops.Extent(N, "float32")))
    cases.append(
        Case(
            "mean-over-a-symbolic-batch",
            program(mean),
            sampled({"x": (33, 4)}, {"x": (1, 4)}, {"x": (7, 4)}),
            lambda x: {"y": x.astype("f8").mean(0).astype("f4")},
            Tolerance(relative=1e-6),
            promote=True,
            differentiate=("x",),
        )
    )
    return cases


# -- views ----------------------------------------------------------------------------------------


def _view(name: str, op: ops.Op, shapes, expected, dtypes=("float32",)) -> list[Case]:
    """Return cases of one view of inputs of ``shapes``; symbolic sizes take several values."""
    names = "abcd"[: len(shapes)]
    symbolic = any(not isinstance(d, int) for shape in shapes for d in shape)
    cases = []
    for dtype in dtypes:
        calls = sampled(
            *(
                {
                    x: tuple({N: n, M: 6}.get(d, d) for d in s)
                    for x, s in zip(names, shapes, strict=True)
                }
                for n in ((9, 4, 33) if symbolic else (0,))
            ),
            dtype=dtype,
        )
        operands = [tensor(x, s, dtype) for x, s in zip(names, shapes, strict=True)]
        cases.append(
            Case(
                f"{name}-{dtype}".replace(" ", ""),
                program(make(op, *operands)),
                calls,
                lambda **inputs: {"y": np.asarray(expected(*inputs.values()))},
                differentiate=tuple(names) if dtype.startswith("float") else (),
            )
        )
    return cases


_EVERY = tuple(ITEM_BYTES)


def _views() -> list[Case]:
    cases: list[Case] = []
    for given, wanted in [
        ((6,), (2, 3)),
        ((2, 3, 4), (4, 6)),
        ((1,), ()),
        ((), (1, 1)),
        ((3, 1, 5), (15,)),
        ((0, 3), (3, 0)),
        ((2, 3, 1, 5, 4), (6, 20)),
    ]:
        cases += _view(
            f"reshape-{given}-{wanted}",
            ops.Reshape(wanted),
            [given],
            lambda a, s=wanted: a.reshape(s),
            _EVERY if given == (6,) else ("float32",),
        )
    cases += _view(
        "reshape-flatten", ops.Reshape((N, 12)), [(N, 3, 4)], lambda a: a.reshape(-1, 12)
    )
    cases += _view(
        "reshape-merge", ops.Reshape((N * 3, 4)), [(N, 3, 4)], lambda a: a.reshape(-1, 4)
    )
    for permutation in itertools.permutations(range(3)):
        cases += _view(
            f"transpose-{permutation}",
            ops.Transpose(permutation),
            [(3, 17, 5)],
            lambda a, p=permutation: a.transpose(p),
        )
    cases += _view(
        "transpose-5d",
        ops.Transpose((4, 2, 0, 3, 1)),
        [(2, 3, 1, 5, 4)],
        lambda a: a.transpose(4, 2, 0, 3, 1),
    )
    cases += _view("transpose", ops.Transpose((1, 0)), [(N, 33)], lambda a: a.T, _EVERY)
    cases += _view("transpose-large", ops.Transpose((1, 0)), [(65, 129)], lambda a: a.T)
    for given, wanted in [
        ((), (4,)),
        ((3, 1), (3, 5)),
        ((3,), (2, 3)),
        ((1, 4, 1), (2, 4, 3)),
        ((1,), (0,)),
        ((2, 1, 1, 1, 3), (2, 2, 4, 1, 3)),
    ]:
        cases += _view(
            f"broadcast-to-{given}-{wanted}",
            ops.Broadcast(wanted),
            [given],
            lambda a, s=wanted: np.broadcast_to(a, s),
            _EVERY if given == () else ("float32",),
        )
    cases += _view(
        "broadcast-to-symbolic",
        ops.Broadcast((2, N, 3)),
        [(N, 1)],
        lambda a: np.broadcast_to(a, (2, len(a), 3)),
    )
    for shape, starts, sizes, steps in [
        ((10,), (2,), (3,), (2,)),
        ((10,), (0,), (10,), (1,)),
        ((10,), (4,), (0,), (1,)),
        ((7, 9), (1, 0), (5, 3), (1, 4)),
        ((2, 3, 1, 5, 4), (1, 0, 0, 1, 0), (1, 2, 1, 2, 2), (1, 2, 1, 3, 2)),
    ]:
        cuts = tuple(slice(s, s + n * k, k) for s, n, k in zip(starts, sizes, steps, strict=True))
        cases += _view(
            f"slice-{shape}-{starts}",
            ops.Slice(starts, sizes, steps),
            [shape],
            lambda a, c=cuts: a[c],
            _EVERY if sizes == (3,) else ("float32",),
        )
    cases += _view(
        "slice-symbolic", ops.Slice((1, 1), (N - 1, 2), (1, 2)), [(N, 5)], lambda a: a[1:, 1:5:2]
    )
    cases += _view("slice-last", ops.Slice((N - 1, 0), (1, 5), (1, 1)), [(N, 5)], lambda a: a[-1:])
    cases += _view(
        "slice-half",
        ops.Slice((N // 2, 0), (N - N // 2, 5), (1, 1)),
        [(N, 5)],
        lambda a: a[len(a) // 2 :],
    )
    for shape, low, high in [
        ((5,), (1,), (2,)),
        ((3, 4), (0, 2), (1, 0)),
        ((0,), (2,), (1,)),
        ((), (), ()),
    ]:
        cases += _view(
            f"pad-{shape}-{low}-{high}",
            ops.Pad(low, high, (0,) * len(low)),
            [shape],
            lambda a, low=low, high=high: np.pad(a, [*zip(low, high, strict=True)]) if low else a,
            _EVERY if shape == (5,) else ("float32",),
        )
    cases += _view(
        "pad-symbolic",
        ops.Pad((N, 0), (2, 1), (0, 0)),
        [(N, 3)],
        lambda a: np.pad(a, ((len(a), 2), (0, 1))),
    )
    cases += _view(
        "pad-crop",
        ops.Pad((-1, 2), (-2, -1), (0, 0)),
        [(7, 4)],
        lambda a: np.pad(a[1:-2, :-1], ((0, 0), (2, 0))),
    )
    cases += _view("pad-interior", ops.Pad((1, 0), (2, 0), (2, 1)), [(3, 4)], _spread)
    cases += _view(
        "pad-interior-symbolic",
        ops.Pad((0,), (1,), (1,)),
        [(N,)],
        lambda a: np.append(np.insert(a, np.arange(1, len(a)), 0), np.float32(0)),
    )
    for axes in ((), (0,), (1,), (0, 2)):
        cases += _view(f"flip-{axes}", ops.Flip(axes), [(3, 4, 5)], lambda a, x=axes: np.flip(a, x))
    cases += _view("flip", ops.Flip((0,)), [(N, 3)], lambda a: a[::-1], _EVERY)
    for axis in range(3):
        shapes = [
            tuple(k if a == axis else d for a, d in enumerate((2, 3, 4))) for k in (1, 5, 0, 3)
        ]
        cases += _view(
            f"concat-{axis}", ops.Concat(axis), shapes, lambda *xs, a=axis: np.concatenate(xs, a)
        )
    cases += _view(
        "concat", ops.Concat(1), [(N, 3), (N, 17)], lambda a, b: np.concatenate([a, b], 1), _EVERY
    )
    cases += _view(
        "concat-symbolic", ops.Concat(0), [(N, 3), (2, 3), (M, 3)], lambda *xs: np.concatenate(xs)
    )
    cases += _view("concat-one", ops.Concat(0), [(N, 3)], lambda a: a)
    return cases


def _spread(a: np.ndarray) -> np.ndarray:
    result = np.zeros((10, 7), a.dtype)
    result[1:8:3, 0:7:2] = a
    return result


# -- indexing -------------------------------------------------------------------------------------


def _indices(shape: tuple[int, ...], size: int, dtype: str) -> np.ndarray:
    return np.random.default_rng([size, *shape]).integers(0, size, shape).astype(dtype)


def _indexing() -> list[Case]:
    cases = []
    for axis, index_shape, index_dtype, dtype in [
        (0, (4,), "int64", "float32"),
        (1, (4,), "int32", "float32"),
        (2, (2, 3), "int64", "float32"),
        (0, (), "int64", "float32"),
        (1, (0,), "int64", "float32"),
        (0, (3, 1, 2), "uint32", "float64"),
        *((0, (65,), "int64", kind) for kind in ITEM_BYTES),
    ]:
        shape = (5, 7, 3)
        indices = _indices(index_shape, shape[axis], index_dtype)
        x, i = tensor("x", shape, dtype), tensor("i", index_shape, index_dtype)
        label = f"axis{axis}-{index_shape}-{index_dtype}-{dtype}".replace(" ", "")
        cases.append(
            Case(
                f"gather-{label}",
                program(make(ops.Gather(axis), x, i)),
                ({"x": sample(shape, dtype), "i": indices},),
                lambda x, i, axis=axis: {"y": np.take(x, i, axis)},
                differentiate=("x",) if dtype.startswith("float") else (),
            )
        )
        if dtype == "bool":
            continue
        update_shape = (*shape[:axis], *index_shape, *shape[axis + 1 :])
        u = tensor("u", update_shape, dtype)
        cases.append(
            Case(
                f"scatter-add-{label}",
                program(make(ops.ScatterAdd(axis, shape[axis]), u, i)),
                ({"u": sample(update_shape, dtype), "i": indices},),
                lambda u, i, axis=axis: {"y": _scatter(u, i, axis, (5, 7, 3)[axis])},
                Tolerance(terms=max(i.type.size if isinstance(i.type.size, int) else 1, 1)),
                differentiate=("u",) if dtype.startswith("float") else (),
            )
        )
    table, i = tensor("x", (50, 8)), tensor("i", (N, 3), "int64")
    calls = tuple({"x": sample((50, 8)), "i": _indices((n, 3), 50, "int64")} for n in (33, 1, 0))
    cases.append(
        Case(
            "gather-embedding",
            program(make(ops.Gather(0), table, i)),
            calls,
            lambda x, i: {"y": x[i]},
            differentiate=("x",),
        )
    )
    u, j = tensor("u", (N, 4)), tensor("i", (N,), "int64")
    calls = tuple({"u": sample((n, 4)), "i": _indices((n,), 6, "int64")} for n in (33, 1, 0))
    cases.append(
        Case(
            "scatter-add-symbolic",
            program(make(ops.ScatterAdd(0, 6), u, j)),
            calls,
            lambda u, i: {"y": _scatter(u, i, 0, 6)},
            Tolerance(terms=33),
            differentiate=("u",),
        )
    )
    return cases


def _scatter(updates: np.ndarray, indices: np.ndarray, axis: int, size: int) -> np.ndarray:
    before, after = updates.shape[:axis], updates.shape[axis + indices.ndim :]
    result = np.zeros((*before, size, *after), updates.dtype)
    for position in np.ndindex(indices.shape):
        head = (slice(None),) * axis
        result[(*head, indices[position])] += updates[head + position]
    return result


CASES = [*_reductions(), *_views(), *_indexing()]
