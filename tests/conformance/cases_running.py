"""Cases of sorting, and of values that run along an axis."""

from __future__ import annotations

import numpy as np
from cases import Case, M, N, program, sample, tensor
from closeness import Tolerance

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Node, apply, constant, make
from chainrule.compiler.ir.types import ITEM_BYTES

_NUMBERS = [dtype for dtype in ITEM_BYTES if dtype != "bool"]
_SHAPES = [
    ((17,), 0),
    ((33, 7), 0),
    ((7, 33), 1),
    ((3, 17, 5), 1),
    ((1, 9), 1),
    ((5, 0, 3), 1),
    ((0, 5), 1),
    ((N, 5), 0),
    ((3, N), 1),
    ((N, 3, M), 2),
]


def _arrays(shape, dtype: str, ties: bool) -> list[np.ndarray]:
    sizes = [9, 1, 65, 0] if any(not isinstance(d, int) for d in shape) else [0]
    made = []
    for n in sizes:
        x = sample(tuple({N: n, M: 4}.get(d, d) for d in shape), dtype)
        if ties and dtype != "bool":
            x = (x / 2 if dtype.startswith("float") else x // 10).astype(np.int64).astype(dtype)
        made.append(x)
    return made


def _label(*parts: object) -> str:
    return "-".join(str(part).replace(" ", "") for part in parts)


# -- sorting --------------------------------------------------------------------------------------


def _order(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """Insertion, row by row: an element moves ahead of those that must stand behind it."""
    rows = np.moveaxis(x, axis, -1)
    result = np.empty(rows.shape, np.int64)
    for place in np.ndindex(rows.shape[:-1]):
        row = rows[place]
        order: list[int] = []
        for i, value in enumerate(row):
            at = len(order)
            while at and _ahead(value, row[order[at - 1]], descending):
                at -= 1
            order.insert(at, i)
        result[place] = order
    return np.moveaxis(result, -1, axis)


def _ahead(a: float, b: float, descending: bool) -> bool:
    a, b = (b, a) if descending else (a, b)
    return bool(a < b) or (a == a and b != b)


def _sorting() -> list[Case]:
    cases = []
    for shape, axis in _SHAPES:
        for descending in (False, True):
            op = ops.ArgSort(axis, descending)
            cases.append(
                Case(
                    _label("argsort", shape, axis, descending),
                    program(make(op, tensor("x", shape))),
                    tuple({"x": x} for x in _arrays(shape, "float32", ties=True)),
                    lambda x, op=op: {"y": _order(x, op.axis, op.descending)},
                )
            )
    for dtype in ITEM_BYTES:
        for descending in (False, True):
            op = ops.ArgSort(0, descending)
            x = sample((70, 3), dtype)
            edge = x.copy()
            if dtype.startswith("float"):
                edge[::7] = np.nan
                edge[1::5], edge[2::5], edge[3::5] = 0.0, -0.0, np.inf
                edge[4::5] = -np.inf
            elif dtype != "bool":
                edge[::3], edge[1::3] = np.iinfo(dtype).min, np.iinfo(dtype).max
            cases.append(
                Case(
                    _label("argsort", dtype, descending),
                    program(make(op, tensor("x", (70, 3), dtype))),
                    ({"x": x}, {"x": edge}),
                    lambda x, op=op: {"y": _order(x, 0, op.descending)},
                )
            )
    long = tensor("x", (1025,))
    for n in (1, 2, 3, 4, 5, 8, 9, 1025):
        x = np.random.default_rng(n).standard_normal(1025).astype(np.float32)
        cases.append(
            Case(
                f"argsort-length-{n}",
                program(make(ops.ArgSort(0, False), make(ops.Slice((0,), (n,), (1,)), long))),
                ({"x": x},),
                lambda x, n=n: {"y": np.argsort(x[:n], kind="stable")},
            )
        )
    x = tensor("x", (N, 7))
    inside = make(ops.ArgSort(1, True), apply("exp", apply("neg", x)))
    cases.append(
        Case(
            "argsort-of-a-function-and-function-of-it",
            program(apply("mul", inside, constant(2, "int64"))),
            tuple({"x": v} for v in _arrays((N, 7), "float32", ties=False)),
            lambda x: {"y": 2 * _order(-x, 1, True)},
        )
    )
    return cases


# -- running values -------------------------------------------------------------------------------


def _recur(a: np.ndarray, b: np.ndarray, op: ops.LinearRecurrence) -> np.ndarray:
    """The sum over all earlier summands of each times the factors since."""
    axis = op.axis
    if op.reverse:
        flipped = ops.LinearRecurrence(axis, False)
        return np.flip(_recur(np.flip(a, axis), np.flip(b, axis), flipped), axis)
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    result = np.zeros_like(b)
    for last in range(len(b)):
        for first in range(last + 1):
            result[last] += b[first] * np.prod(a[first + 1 : last + 1], axis=0, dtype=a.dtype)
    return np.moveaxis(result, 0, axis)


def _case(name: str, node: Node, calls, expected, dtype: str, wrt: tuple[str, ...]) -> Case:
    floats = dtype.startswith("float")
    return Case(
        name,
        program(node),
        tuple(calls),
        expected,
        # products of factors up to 3 cancel: bounded by the largest result
        Tolerance(ulps=64, terms=65, relative=1e-5 if dtype == "float32" else 1e-13)
        if floats
        else Tolerance(),
        promote=dtype == "float32",
        differentiate=wrt if floats else (),
    )


def _recurrences() -> list[Case]:
    cases = []
    wanted = [(*place, "float32", reverse) for place in _SHAPES for reverse in (False, True)]
    wanted += [((9, 5), 0, dtype, False) for dtype in _NUMBERS]
    wanted += [((5, 9), 1, "float64", True)]
    for shape, axis, dtype, reverse in wanted:
        op = ops.LinearRecurrence(axis, reverse)
        a, b = tensor("a", shape, dtype), tensor("b", shape, dtype)
        values = _arrays(shape, dtype, ties=not dtype.startswith("float"))
        calls = [{"a": np.flip(x).copy(), "b": x} for x in values]
        name = _label("linearrecurrence", shape, axis, dtype, reverse)
        node = make(op, a, b)
        expected = lambda a, b, op=op: {"y": _recur(a, b, op)}  # noqa: E731
        cases.append(_case(name, node, calls, expected, dtype, ("a", "b")))
        one = make(ops.Broadcast(shape), constant(1, dtype))
        summed = make(op, one, b)
        slices = (slice(None),) * axis + ((slice(None, None, -1),) if reverse else ())
        cases.append(
            _case(
                _label("cumsum", shape, axis, dtype, reverse),
                summed,
                [{"b": x} for x in values],
                lambda b, axis=axis, cut=slices: {
                    "y": np.cumsum(b[cut], axis=axis, dtype=b.dtype)[cut]
                },
                dtype,
                ("b",),
            )
        )
    return cases


def _first_factor() -> Case:
    """What the first factor holds does not matter, nor do zeros and infinities before."""
    a, b = tensor("a", (2, 5)), tensor("b", (2, 5))
    factors = np.array([[np.inf, 2, 0, 3, 1], [np.nan, 0, 0, 2, 2]], np.float32)
    summands = np.array([[1, -0.0, 4, 0, 2], [-0.0, 1, 2, 3, 4]], np.float32)
    return Case(
        "linearrecurrence-first-factor",
        program(make(ops.LinearRecurrence(1, False), a, b)),
        ({"a": factors, "b": summands},),
        lambda a, b: {
            "y": np.array([[1, 2, 4, 12, 14], [-0.0, 1, 2, 7, 18]], np.float32),
        },
    )


def _fused() -> Case:
    """Cheap producers are pulled in, elementwise consumers join."""
    a, b = tensor("a", (N, 5)), tensor("b", (N, 5))
    decay = apply("mul", a, constant(0.9, "float32"))
    node = make(ops.LinearRecurrence(0, False), decay, make(ops.Flip((0,)), b))
    return Case(
        "linearrecurrence-fused",
        program(apply("add", apply("exp", node), b)),
        tuple({"a": x, "b": np.flip(x).copy() / 8} for x in _arrays((N, 5), "float32", ties=False)),
        tolerance=Tolerance(ulps=256, relative=1e-4),
        promote=True,
        differentiate=("a", "b"),
    )


def _extrema() -> list[Case]:
    cases = []
    wanted = [(*place, "float32", kind) for place in _SHAPES for kind in ("max", "min")]
    wanted += [((9, 5), 0, dtype, kind) for dtype in _NUMBERS for kind in ("max", "min")]
    for position, (shape, axis, dtype, kind) in enumerate(wanted):
        reverse = position % 4 > 1
        op = ops.RunningExtremum(kind, axis, reverse)
        best = {"max": np.maximum, "min": np.minimum}[kind]
        cut = (slice(None),) * axis + ((slice(None, None, -1),) if reverse else ())
        cases.append(
            Case(
                _label("running", kind, shape, axis, dtype, reverse),
                program(make(op, tensor("x", shape, dtype))),
                tuple({"x": x} for x in _arrays(shape, dtype, ties=False)),
                lambda x, best=best, axis=axis, cut=cut: {
                    "y": best.accumulate(x[cut], axis=axis)[cut]
                },
                differentiate=("x",) if dtype.startswith("float") else (),
            )
        )
    edge = np.array([[1, np.nan, 2, 3], [-np.inf, -np.inf, 0, np.inf]], np.float32)
    for kind in ("max", "min"):
        best = {"max": np.maximum, "min": np.minimum}[kind]
        cases.append(
            Case(
                f"running-{kind}-edges",
                program(make(ops.RunningExtremum(kind, 1, False), tensor("x", (2, 4)))),
                ({"x": edge},),
                lambda x, best=best: {"y": best.accumulate(x, axis=1)},
            )
        )
    return cases


CASES = [*_sorting(), *_recurrences(), _first_factor(), _fused(), *_extrema()]
