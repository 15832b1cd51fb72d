"""Running values and sorting against PyTorch: values, gradients, both backends."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import F

from .torch_cases import TorchCase, alike, check

torch = pytest.importorskip("torch", reason="PyTorch is the reference")
rng = np.random.default_rng(0)


def floats(*shape: int, dtype: str = "float64") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def ints(*shape: int, low: int = -5, high: int = 6, dtype: str = "int64") -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


def with_zeros(*shape: int) -> np.ndarray:
    x = floats(*shape)
    x.reshape(-1)[::3] = 0
    return x


def with_nan(*shape: int) -> np.ndarray:
    x = floats(*shape)
    x.reshape(-1)[1::4] = np.nan
    return x


FACTORS, TERMS = floats(3, 6), floats(3, 6)


def recurrence(a, b):
    y, rows = torch.zeros_like(b[:, 0]), []
    for i in range(b.shape[1]):
        y = a[:, i] * y + b[:, i]
        rows.append(y)
    return torch.stack(rows, 1)


def case(name, ours, theirs, *arrays, smooth=None, **options):
    return TorchCase(name, ours, theirs, arrays, smooth, options)


RUNNING = [
    case(f"{name}-{x.shape}-{axis}-{x.dtype}",
         *alike(name, axis), x)
    for name in ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
    for x, axis in (
        (floats(7), 0), (floats(3, 5), -1), (floats(3, 5, dtype="float32"), 0),
        (with_zeros(2, 4, 3), 1), (floats(1, 4), 0), (floats(0, 3), 1), (floats(3, 0), 1),
        (np.float64(2.5), 0), (np.array([-np.inf, 1.0, 2.0, -3.0]), 0), (ints(4, 3), 0),
        (ints(5, dtype="int32"), 0),
    )
    if not (name == "logcumsumexp" and np.asarray(x).dtype.kind == "i")
    and not (name == "logcumsumexp" and 0 in np.shape(x))
    and not (name in ("cummax", "cummin", "cumprod") and not np.isfinite(x).all())
] + [
    case("cumsum-bool", lambda x: F.cumsum(x, 0), lambda x: x.cumsum(0), ints(6) > 0),
    case("cummax-bool", lambda x: F.cummax(x, 0), lambda x: torch.cummax(x, 0), ints(6) > 0),
    case("cummax-ties", lambda x: F.cummax(x, 1), lambda x: torch.cummax(x, 1),
         np.round(floats(4, 9))),
    case("cummax-nan", lambda x: F.cummax(x, 1), lambda x: torch.cummax(x, 1), with_nan(3, 6),
         smooth=()),
    case("cummin-nan", lambda x: F.cummin(x, 1), lambda x: torch.cummin(x, 1), with_nan(3, 6),
         smooth=()),
    case("cumsum-reverse", lambda x: F.cumsum(x, 1, reverse=True),
         lambda x: x.flip(1).cumsum(1).flip(1), floats(3, 5)),
    case("cumprod-reverse", lambda x: F.cumprod(x, 0, reverse=True),
         lambda x: x.flip(0).cumprod(0).flip(0), with_zeros(5, 2)),
    case("cummax-reverse", lambda x: F.cummax(x, 0, reverse=True)[0],
         lambda x: x.flip(0).cummax(0)[0].flip(0), floats(6, 2)),
    case("cummax-reverse-indices", lambda x: F.cummax(x, 0, reverse=True)[1],
         lambda x: 5 - x.flip(0).cummax(0)[1].flip(0), floats(6, 2)),
    case("logcumsumexp-reverse", lambda x: F.logcumsumexp(x, 1, reverse=True),
         lambda x: x.flip(1).logcumsumexp(1).flip(1), 30 * floats(2, 7)),
    case("logcumsumexp-wide", lambda x: F.logcumsumexp(x, 0), lambda x: x.logcumsumexp(0),
         np.array([-np.inf, -1000.0, 0.0, 1000.0, 999.0])),
    case("linear-recurrence", lambda a, b: F.linear_recurrence(a, b), recurrence, FACTORS, TERMS),
    case("linear-recurrence-constant", lambda b: F.linear_recurrence(0.9, b, 1),
         lambda b: recurrence(torch.full_like(b, 0.9), b), TERMS),
    case("linear-recurrence-back", lambda a, b: F.linear_recurrence(a, b, 1, reverse=True),
         lambda a, b: recurrence(a.flip(1), b.flip(1)).flip(1), FACTORS, TERMS),
    case("prod", lambda x: F.prod(x, 1), lambda x: x.prod(1), with_zeros(3, 4, 2)),
    case("prod-all", lambda x: F.prod(x), lambda x: x.prod(), with_zeros(2, 3)),
    case("prod-nothing", lambda x: F.prod(x, 0), lambda x: x.prod(0), floats(0, 3)),
    case("diff", lambda x: F.diff(x), lambda x: x.diff(), floats(3, 5)),
    case("diff-2", lambda x: F.diff(x, 2, 0), lambda x: x.diff(2, 0), floats(4, 2)),
    case("diff-bool", lambda x: F.diff(x), lambda x: x.diff(), ints(7) > 0),
    case("diff-joined", lambda x, a, b: F.diff(x, 1, 0, a, b),
         lambda x, a, b: torch.diff(x, 1, 0, a, b), floats(3, 2), floats(1, 2), floats(2, 2)),
    case("diff-one", lambda x: F.diff(x, 3), lambda x: x.diff(3), floats(2)),
    case("trapezoid", lambda y: F.trapezoid(y, dx=0.5), lambda y: torch.trapezoid(y, dx=0.5),
         floats(3, 4)),
    case("trapezoid-points", lambda y, x: F.trapezoid(y, x, axis=0),
         lambda y, x: torch.trapezoid(y, x[:, None], dim=0), floats(4, 2), floats(4)),
    case("cumulative-trapezoid", lambda y: F.cumulative_trapezoid(y),
         lambda y: torch.cumulative_trapezoid(y), floats(3, 4)),
]  # fmt: skip

SORTING = [
    case(f"sort-{x.shape}-{axis}-{descending}-{x.dtype}",
         lambda x, a=axis, d=descending: (F.sort(x, a, d), F.argsort(x, a, d)),
         lambda x, a=axis, d=descending: torch.sort(x, dim=a, descending=d, stable=True), x,
         smooth=() if x.dtype.kind == "f" and np.isnan(x).any() else None)
    for x, axis in (
        (floats(7), 0), (np.round(floats(4, 9)), -1), (floats(3, 5, dtype="float32"), 0),
        (with_nan(3, 6), 1), (floats(2, 4, 3), 1), (floats(1, 4), 0), (floats(0, 3), 1),
        (floats(3, 0), 1), (np.float64(2.5), 0), (ints(4, 7), 1), (ints(5, dtype="int32"), 0),
        (ints(6) > 0, 0),
    )
    for descending in (False, True)
] + [
    case(f"topk-{k}-{largest}", lambda x, k=k, b=largest: F.topk(x, k, 1, b),
         lambda x, k=k, b=largest: torch.topk(x, k, 1, b), floats(3, 7))
    for k in (0, 1, 3, 7) for largest in (True, False)
] + [
    case("topk-scalar", lambda x: F.topk(x, 1), lambda x: torch.topk(x, 1), np.float64(2)),
    case("kthvalue", lambda x: F.kthvalue(x, 3), lambda x: torch.kthvalue(x, 3), floats(2, 5)),
    case("kthvalue-keep", lambda x: F.kthvalue(x, 1, 0, True),
         lambda x: torch.kthvalue(x, 1, 0, True), floats(4, 2)),
    case("kthvalue-scalar", lambda x: F.kthvalue(x, 1), lambda x: torch.kthvalue(x, 1),
         np.float64(2)),
    case("median-odd", lambda x: F.median(x, 1), lambda x: x.median(1)[0], floats(3, 5)),
    case("median-nan", lambda x: F.median(x, 1), lambda x: x.quantile(0.5, 1), with_nan(3, 6),
         smooth=()),
    *(case(f"quantile-{q}-{axis}-{keep}-{how}",
           lambda x, q=q, a=axis, k=keep, h=how: F.quantile(x, q, a, k, h),
           lambda x, q=q, a=axis, k=keep, h=how: torch.quantile(
               x, torch.tensor(q, dtype=x.dtype), a, k, interpolation=h), floats(4, 6))
      for q in (0.0, 0.3, 1.0, [0.25, 0.5, 0.9]) for axis in (None, 0, -1)
      for keep in (False, True) for how in ("linear",)),
    *(case(f"quantile-{how}", lambda x, h=how: F.quantile(x, [0.1, 0.5, 0.77], 0, False, h),
           lambda x, h=how: torch.quantile(
               x, torch.tensor([0.1, 0.5, 0.77], dtype=x.dtype), 0, interpolation=h), floats(6, 2))
      for how in ("lower", "higher", "nearest", "midpoint")),
    case("quantile-of-a-tensor", lambda x, q: F.quantile(x, q, 0),
         lambda x, q: torch.quantile(x, q, 0), floats(6, 2), np.array([0.0, 0.45, 1.0]),
         smooth=(0,)),
    case("quantile-scalar", lambda x: F.quantile(x, 0.3), lambda x: torch.quantile(x, 0.3),
         np.float64(2)),
    *(case(f"searchsorted-{right}", lambda s, v, r=right: F.searchsorted(s, v, right=r),
           lambda s, v, r=right: torch.searchsorted(s, v, right=r),
           np.sort(ints(9)), ints(3, 4), smooth=()) for right in (False, True)),
    case("searchsorted-rows", lambda s, v: F.searchsorted(s, v, "right"),
         lambda s, v: torch.searchsorted(s, v, side="right"),
         np.sort(floats(2, 5)), floats(2, 3), smooth=()),
    case("bucketize", lambda v: F.bucketize(v, [-1.0, 0.0, 1.0], right=True),
         lambda v: torch.bucketize(v, torch.tensor([-1.0, 0.0, 1.0], dtype=v.dtype), right=True),
         floats(3, 4), smooth=()),
]  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("cases", [RUNNING, SORTING], ids=["running", "sorting"])
def test_agrees_with_torch(cases, backend):
    check(cases, backend)


@pytest.mark.parametrize("side", ["left", "right"])
def test_nan_stands_behind_the_numbers(side):
    line, values = np.array([1.0, 2, np.nan, np.nan]), np.array([0.5, 2, np.inf, np.nan])
    found = cr.compile(F.searchsorted(line, cr.input("v", (4,), "float64"), side))(v=values)
    np.testing.assert_array_equal(found, np.searchsorted(line, values, side))


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_symbolic_lengths(backend):
    x = cr.input("x", ("rows", "n"), "float64")
    best, at = F.cummax(x, 1)
    total = (F.cumsum(x, 1) * F.cumprod(x, 0)).sum() + (F.sort(x, 1) * F.sort(x, 0)).sum()
    total = total + best.sum() + F.logcumsumexp(x, 1).sum() + F.quantile(x, 0.3, 1).sum()
    run = cr.compile({"t": total, "at": at, "g": cr.grad(total, [x])[0]}, backend=backend)
    for shape in ((3, 5), (1, 1), (4, 17)):
        given = np.random.default_rng(1).standard_normal(shape)
        t = torch.tensor(given, requires_grad=True)
        reference = (t.cumsum(1) * t.cumprod(0)).sum() + (t.sort(1)[0] * t.sort(0)[0]).sum()
        reference = reference + t.cummax(1)[0].sum() + t.logcumsumexp(1).sum()
        reference = reference + t.quantile(0.3, 1).sum()
        reference.backward()
        found = run(x=given)
        np.testing.assert_allclose(found["t"], reference.item(), rtol=1e-10)
        np.testing.assert_allclose(found["g"], t.grad.numpy(), rtol=1e-9, atol=1e-10)
        np.testing.assert_array_equal(found["at"], t.cummax(1)[1].numpy())


def test_a_cumulative_sum_costs_as_many_operations_as_elements():
    x = cr.input("x", (4096,))
    total = (F.cumsum(x) * F.prod(x)).sum()
    run = cr.compile([F.cumsum(x), *cr.grad(total, [x])], backend="native")
    assert "contract" not in run.explain()
    sizes = [place.size for place in run.executable.artifact.loops.storage]
    assert max(sizes) <= 4096


def test_bad_arguments_are_named():
    x = cr.input("x", (3, 4))
    for call, message in (
        (lambda: F.topk(x, 5), "topk: k=5 does not fit axis -1 of size 4; 0 to 4 would fit"),
        (lambda: F.kthvalue(x, 0), "kthvalue: k=0"),
        (lambda: F.quantile(x, 1.5), r"quantile: q must lie in \[0, 1\]"),
        (lambda: F.quantile(x, 0.5, interpolation="cubic"), "'cubic' is none of linear, lower"),
        (lambda: F.quantile(cr.input("e", (0,)), 0.5), "quantile: .* has no elements"),
        (lambda: F.cumsum(x, 2), "axis 2 does not fit rank 2"),
        (lambda: F.searchsorted(x, cr.input("v", (2, 2))), "searchsorted: .* would fit"),
        (lambda: F.linear_recurrence(x, cr.input("w", (5,))), "linear_recurrence: .*broadcast"),
        (lambda: F.diff(cr.constant(1.0)), "diff: takes at least one axis"),
    ):
        with pytest.raises(cr.GraphError, match=message):
            call()
