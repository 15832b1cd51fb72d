"""Products, norms, arithmetic, statistics and rearrangements against PyTorch, on both backends."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import F

from .torch_cases import TorchCase, alike, check

torch = pytest.importorskip("torch", reason="PyTorch is the reference")
rng = np.random.default_rng(0)


def floats(*shape: int, dtype: str = "float64") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def ints(*shape: int, low: int = -6, high: int = 7, dtype: str = "int64") -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


def nonzero(*shape: int) -> np.ndarray:
    x = ints(*shape)
    return np.where(x == 0, 3, x)


def special(*shape: int) -> np.ndarray:
    x = floats(*shape)
    flat = x.reshape(-1)
    flat[::5], flat[1::5], flat[2::7] = np.nan, np.inf, -np.inf
    return x


def case(name, ours, theirs, *arrays, smooth=None, **options):
    return TorchCase(name, ours, theirs, arrays, smooth, options)


def same(name, *arrays, smooth=None, theirs=None, **options):
    """A function that both call alike."""
    return case(name, getattr(F, name), theirs or getattr(torch, name), *arrays, smooth=smooth,
                **options)  # fmt: skip


SQUARE = floats(4, 4)
PRODUCTS = [
    same("addmm", floats(2, 3), floats(2, 4), floats(4, 3)),
    case("addmm-scaled", lambda x, a, b: F.addmm(x, a, b, beta=0.5, alpha=-2.0),
         lambda x, a, b: torch.addmm(x, a, b, beta=0.5, alpha=-2.0), floats(3), floats(2, 4),
         floats(4, 3)),
    case("addmm-nothing", lambda x, a, b: F.addmm(x, a, b, beta=0),
         lambda x, a, b: torch.addmm(x, a, b, beta=0), np.full((2, 3), np.nan), floats(2, 4),
         floats(4, 3), smooth=(1, 2)),
    same("addmv", floats(2), floats(2, 4), floats(4)),
    same("addr", floats(2, 3), floats(2), floats(3)),
    same("baddbmm", floats(5, 2, 3), floats(5, 2, 4), floats(5, 4, 3)),
    same("addbmm", floats(2, 3), floats(5, 2, 4), floats(5, 4, 3)),
    same("mm", floats(2, 4), floats(4, 3)), same("mv", floats(2, 4), floats(4)),
    same("mm", floats(0, 4), floats(4, 3)), same("mm", floats(2, 0), floats(0, 3)),
    same("bmm", floats(5, 2, 4), floats(5, 4, 3)),
    *(same("matmul", floats(*a), floats(*b)) for a, b in (
        ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((4, 2, 3), (3,)), ((3,), (4, 3, 2)),
        ((4, 1, 2, 3), (5, 3, 2)), ((1, 1), (1, 1)), ((2, 0), (0, 2)))),
    same("inner", floats(2, 4), floats(3, 4)), same("inner", floats(4), floats(4)),
    same("outer", floats(3), floats(2)), same("vdot", floats(4), floats(4)),
    *(same("kron", floats(*a), floats(*b))
      for a, b in (((2, 3), (4, 1)), ((2,), (3, 2)), ((), (2, 2)), ((2, 2, 2), (3,)))),
    case("cross", lambda a, b: F.cross(a, b), torch.linalg.cross, floats(2, 3), floats(2, 3)),
    case("cross-axis", lambda a, b: F.cross(a, b, 1), lambda a, b: torch.cross(a, b, dim=1),
         floats(2, 3, 2), floats(1, 3, 2)),
    case("multi_dot", lambda a, b, c: F.multi_dot([a, b, c]),
         lambda a, b, c: torch.linalg.multi_dot([a, b, c]), floats(4), floats(4, 2), floats(2, 5)),
    case("tensordot", lambda a, b: F.tensordot(a, b, 1), lambda a, b: torch.tensordot(a, b, 1),
         floats(2, 3), floats(3, 4)),
    case("einsum-diagonal", lambda a: F.einsum("ii->i", a), lambda a: torch.einsum("ii->i", a),
         SQUARE),
    case("einsum-trace", lambda a: F.einsum("ii", a), lambda a: torch.einsum("ii", a), SQUARE),
    case("einsum-three", lambda a, b, c: F.einsum("ij,jk,kl->il", a, b, c),
         lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), floats(2, 3), floats(3, 4),
         floats(4, 2)),
    same("mm", ints(2, 3), ints(3, 2)),
    *(case(f"matrix_power-{n}", lambda x, n=n: F.matrix_power(x, n),
           lambda x, n=n: torch.matrix_power(x, n), floats(2, 3, 3)) for n in (0, 1, 2, 5)),
    case("vander", F.vander, lambda x: torch.stack([x**k for k in (3, 2, 1, 0)], 1), floats(4)),
    case("vander-increasing", lambda x: F.vander(x, 3, True),
         lambda x: torch.stack([x**k for k in range(3)], 1), floats(4)),
]  # fmt: skip

ORIGIN = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.0]])
NORMS = [
    *(case(f"norm-{p}-{axis}-{keep}", lambda x, p=p, a=axis, k=keep: F.norm(x, p, a, k),
           lambda x, p=p, a=axis, k=keep: torch.linalg.vector_norm(x, p, a, k), floats(3, 4))
      for p in (0, 0.5, 1, 2, 3, math.inf, -math.inf, -1)
      for axis, keep in ((None, False), (1, True), ((0, 1), False))),
    *(case(f"norm-origin-{p}", lambda x, p=p: F.norm(x, p, 1),
           lambda x, p=p: torch.linalg.vector_norm(x, p, 1), ORIGIN) for p in (0, 1, 2, 3)),
    case("norm-fro", lambda x: F.norm(x, "fro"), lambda x: torch.linalg.norm(x, "fro"),
         floats(3, 4)),
    case("norm-empty", lambda x: F.norm(x, 2, 1), lambda x: torch.linalg.vector_norm(x, 2, 1),
         floats(3, 0)),
    case("norm-scalar", lambda x: F.norm(x, 2), lambda x: torch.linalg.vector_norm(x, 2),
         np.float64(-2)),
    case("norm-float32", lambda x: F.norm(x, 3, 0), lambda x: torch.linalg.vector_norm(x, 3, 0),
         floats(5, 2, dtype="float32")),
    *(case(f"normalize-{p}", lambda x, p=p: F.normalize(x, p),
           lambda x, p=p: torch.nn.functional.normalize(x, p), floats(3, 4)) for p in (1, 2, 3.0)),
    case("normalize-origin", lambda x: F.normalize(x), torch.nn.functional.normalize, ORIGIN),
    *(case(f"cdist-{p}", lambda x, y, p=p: F.cdist(x, y, p),
           lambda x, y, p=p: torch.cdist(x, y, p), floats(2, 3, 4), floats(2, 5, 4))
      for p in (0.0, 1.0, 2.0, 3.0, math.inf)),
    case("cdist-same", lambda x: F.cdist(x, x), lambda x: torch.cdist(
        x, x, compute_mode="donot_use_mm_for_euclid_dist"), floats(3, 2)),
    case("cdist-empty", lambda x, y: F.cdist(x, y), torch.cdist, floats(0, 4), floats(5, 4)),
    case("pairwise_distance", F.pairwise_distance, torch.nn.functional.pairwise_distance,
         floats(3, 4), floats(3, 4)),
    case("dist", lambda x, y: F.dist(x, y, 3), lambda x, y: torch.dist(x, y, 3), floats(3, 4),
         floats(4)),
    case("cosine_similarity", lambda x, y: F.cosine_similarity(x, y, 1),
         lambda x, y: torch.cosine_similarity(x, y, 1), floats(3, 4), floats(3, 4)),
    case("renorm", lambda x: F.renorm(x, 2, 0, 1.0), lambda x: torch.renorm(x, 2, 0, 1.0),
         floats(3, 4, 2)),
]  # fmt: skip

SIGNS = (np.array([7, -7, 7, -7, 6, 0]), np.array([3, 3, -3, -3, 3, 5]))
ARITHMETIC = [
    same("remainder", *SIGNS), same("fmod", *SIGNS), same("floor_divide", *SIGNS),
    case("trunc_divide", F.trunc_divide, lambda a, b: torch.div(a, b, rounding_mode="trunc"),
         *SIGNS),
    case("trunc_divide-float", F.trunc_divide,
         lambda a, b: torch.div(a, b, rounding_mode="trunc"), floats(9), floats(9)),
    same("remainder", floats(3, 4), floats(4)), same("fmod", floats(3, 4), floats(4)),
    same("fmod", ints(9), np.array(2.5), smooth=()),
    same("floor_divide", floats(9), floats(9), smooth=()),
    case("lerp", lambda x, y: F.lerp(x, y, 0.3), lambda x, y: torch.lerp(x, y, 0.3),
         floats(3, 4), floats(4)),
    same("lerp", floats(5), floats(5), rng.uniform(-0.5, 1.5, 5)),
    case("addcmul", lambda x, a, b: F.addcmul(x, a, b, 0.5),
         lambda x, a, b: torch.addcmul(x, a, b, value=0.5), floats(3), floats(2, 3), floats(3)),
    case("addcdiv", lambda x, a, b: F.addcdiv(x, a, b, -2.0),
         lambda x, a, b: torch.addcdiv(x, a, b, value=-2.0), floats(3), floats(2, 3), floats(3)),
    same("nan_to_num", special(3, 7)),
    case("nan_to_num-given", lambda x: F.nan_to_num(x, 1.0, 2.0, 3.0),
         lambda x: torch.nan_to_num(x, 1.0, 2.0, 3.0), special(20).astype("float32")),
    same("isclose", special(12), special(12), smooth=()),
    case("isclose-nan", lambda x, y: F.isclose(x, y, 0.3, 0.1, True),
         lambda x, y: torch.isclose(x, y, 0.3, 0.1, True), special(12), special(12), smooth=()),
    same("isclose", ints(20), ints(20)),
    case("allclose", lambda x: F.allclose(x, x + 1e-9), lambda x: torch.tensor(True), floats(4),
         smooth=()),
    same("fmax", special(15), special(15), smooth=()), same("fmin", floats(9), floats(9)),
    same("fmax", ints(9), ints(9)), same("frac", floats(9)), same("float_power", ints(5, low=1),
                                                                  floats(5)),
    same("logit", rng.uniform(0.05, 0.95, 7)),
    case("logit-eps", lambda x: F.logit(x, 0.2), lambda x: torch.logit(x, 0.2),
         rng.uniform(0, 1, 9)),
    same("xlogy", np.array([0.0, 1.0, 2.0, 0.0]), np.array([0.0, 2.0, 3.0, np.nan]), smooth=()),
    same("xlogy", rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, 5)),
    case("xlog1py", F.xlog1py, torch.special.xlog1py, np.array([0.0, 1.0]), np.array([-1.0, 2.0]),
         smooth=()),
    case("entr", F.entr, torch.special.entr, np.array([-1.0, 0.0, 0.5, 2.0, np.nan]), smooth=()),
    case("entr-inside", F.entr, torch.special.entr, rng.uniform(0.1, 2, 5)),
    same("sinc", np.array([0.0, 0.5, -1.25, 3.0])),
    same("heaviside", np.array([-1.0, 0.0, 2.0]), np.array([5.0, 6.0, 7.0]), smooth=()),
    same("deg2rad", floats(4)), same("rad2deg", floats(4)),
    same("power", ints(8, low=-3, high=4), ints(8, low=0, high=9), theirs=torch.pow),
    same("ldexp", floats(4), floats(4)),
    same("bitwise_and", ints(9), ints(9)), same("bitwise_or", ints(9), ints(9)),
    same("bitwise_xor", ints(9), ints(9)), same("bitwise_not", ints(9)),
    same("bitwise_not", ints(9) > 0),
    same("bitwise_left_shift", ints(9, low=0), ints(9, low=0)),
    same("bitwise_right_shift", ints(9), ints(9, low=0)),
    same("isin", ints(3, 5), ints(4)), case("ndtr", F.ndtr, torch.special.ndtr, floats(9)),
    same("signbit", np.array([-0.0, 0.0, -2.0, np.inf, -np.inf]), smooth=()),
    same("isposinf", special(20), smooth=()), same("isneginf", special(20), smooth=()),
    same("logaddexp2", floats(5), floats(5)), same("hypot", floats(5), floats(5)),
    same("logaddexp2", np.array([np.inf, -np.inf, 1.0]), np.array([np.inf, -np.inf, -np.inf]),
         smooth=()),
    same("logaddexp", floats(5), floats(5)), same("copysign", floats(5), floats(5), smooth=(0,)),
    same("clip", floats(9), np.array(-0.5), np.array(0.5), smooth=(0,)),
]  # fmt: skip

STATISTICS = [
    case("var_mean", lambda x: F.var_mean(x, 1, 1), lambda x: torch.var_mean(x, 1), floats(3, 4)),
    case("std_mean", lambda x: F.std_mean(x, None, 0),
         lambda x: torch.std_mean(x, correction=0), floats(3, 4)),
    *(case(f"nanquantile-{q}-{a}-{k}", lambda x, q=q, a=a, k=k: F.nanquantile(x, q, a, k),
           lambda x, q=q, a=a, k=k: torch.nanquantile(x, torch.tensor(q, dtype=x.dtype), a, k),
           np.where(floats(4, 6) > 1, np.nan, floats(4, 6)), smooth=())
      for q in (0.3, [0.0, 0.5, 1.0]) for a in (None, 0, 1) for k in (False, True)),
    case("amax", lambda x: F.amax(x, (0, 2)), lambda x: x.amax((0, 2)), np.round(floats(3, 4, 5))),
    case("var-fraction", lambda x: F.var(x, 1, 1.3), lambda x: x.var(1, correction=1.3),
         floats(3, 4)),
    case("aminmax", lambda x: F.aminmax(x, 1), lambda x: tuple(torch.aminmax(x, dim=1)),
         floats(3, 4)),
    case("count_nonzero", lambda x: F.count_nonzero(x, 1), lambda x: torch.count_nonzero(x, 1),
         ints(3, 9)),
    case("count_nonzero-all", F.count_nonzero, torch.count_nonzero, special(3, 4), smooth=()),
    case("nansum", lambda x: F.nansum(x, 0), lambda x: x.nansum(0),
         np.array([[1.0, np.nan], [2.0, np.nan]]), smooth=()),
    case("nanmean", lambda x: F.nanmean(x, 0), lambda x: x.nanmean(0),
         np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan]]), smooth=()),
    same("cov", floats(3, 6)), same("cov", floats(6)), same("corrcoef", floats(3, 6)),
]  # fmt: skip

REARRANGED = [
    *(case(f"chunk-{n}-{axis}", lambda x, n=n, a=axis: F.chunk(x, n, a),
           lambda x, n=n, a=axis: torch.chunk(x, n, a), floats(7, 5))
      for n in (1, 3, 4, 9) for axis in (0, -1)),
    case("tensor_split", lambda x: F.tensor_split(x, 3), lambda x: torch.tensor_split(x, 3),
         floats(7, 2)),
    case("tensor_split-cuts", lambda x: F.tensor_split(x, [2, 2, 5], 1),
         lambda x: torch.tensor_split(x, [2, 2, 5], 1), floats(2, 7)),
    case("unbind", lambda x: F.unbind(x, 1), lambda x: torch.unbind(x, 1), floats(2, 3)),
    case("narrow", lambda x: F.narrow(x, 1, 1, 3), lambda x: x.narrow(1, 1, 3), floats(2, 5)),
    case("select", lambda x: F.select(x, 1, -1), lambda x: x.select(1, -1), floats(2, 5)),
    case("unflatten", lambda x: F.unflatten(x, 1, (2, -1)), lambda x: x.unflatten(1, (2, -1)),
         floats(3, 8)),
    case("movedim", lambda x: F.movedim(x, (0, 1), (2, 0)), lambda x: x.movedim((0, 1), (2, 0)),
         floats(2, 3, 4)),
    *(case(f"rot90-{k}", lambda x, k=k: F.rot90(x, k, (0, 2)),
           lambda x, k=k: torch.rot90(x, k, (0, 2)), floats(2, 3, 4)) for k in range(-1, 4)),
    *(case(f"sliding-{axis}-{size}-{step}",
           lambda x, a=axis, n=size, s=step: F.sliding_window(x, a, n, s),
           lambda x, a=axis, n=size, s=step: x.unfold(a, n, s), floats(3, 7))
      for axis, size, step in ((1, 3, 1), (-1, 3, 2), (0, 1, 1), (1, 7, 3), (0, 2, 5))),
    *(case(f"diagonal-{offset}", lambda x, o=offset: F.diagonal(x, o),
           lambda x, o=offset: torch.diagonal(x, o), floats(3, 5)) for offset in range(-4, 6)),
    case("diagonal-axes", lambda x: F.diagonal(x, 1, -1, 0), lambda x: x.diagonal(1, -1, 0),
         floats(3, 2, 4)),
    *(case(f"diag_embed-{o}-{a}-{b}", lambda x, o=o, a=a, b=b: F.diag_embed(x, o, a, b),
           lambda x, o=o, a=a, b=b: torch.diag_embed(x, o, a, b), floats(2, 3))
      for o, a, b in ((0, -2, -1), (1, -2, -1), (-2, -2, -1), (1, 0, 2), (1, 2, 0))),
    same("diagflat", floats(2, 2)), same("trace", floats(3, 5)), same("trace", ints(4, 4)),
    *(case(f"diag-{shape}-{k}", lambda x, k=k: F.diag(x, k), lambda x, k=k: torch.diag(x, k),
           floats(*shape)) for shape in ((3,), (3, 4), (4, 2)) for k in (-1, 0, 1)),
    *(case(f"{name}-{k}", *alike(name, k), floats(2, 3, 4))
      for name in ("tril", "triu") for k in (-1, 0, 2)),
    case("block_diag", F.block_diag, torch.block_diag, floats(2, 3), floats(2), floats(1, 1)),
    case("meshgrid", lambda a, b: F.meshgrid(a, b, indexing="ij"),
         lambda a, b: torch.meshgrid(a, b, indexing="ij"), floats(2), floats(3)),
    case("meshgrid-xy", lambda a, b, c: F.meshgrid(a, b, c),
         lambda a, b, c: torch.meshgrid(a, b, c, indexing="xy"), floats(2), floats(3), floats(4)),
    case("hstack", lambda a, b: F.hstack([a, b]), lambda a, b: torch.hstack([a, b]), floats(2),
         floats(3)),
    case("hstack-2", lambda a, b: F.hstack([a, b]), lambda a, b: torch.hstack([a, b]),
         floats(2, 1), floats(2, 3)),
    case("vstack", lambda a, b: F.vstack([a, b]), lambda a, b: torch.vstack([a, b]), floats(3),
         floats(2, 3)),
    case("dstack", lambda a, b: F.dstack([a, b]), lambda a, b: torch.dstack([a, b]), floats(3),
         floats(3)),
    case("column_stack", lambda a, b: F.column_stack([a, b]),
         lambda a, b: torch.column_stack([a, b]), floats(3), floats(3, 2)),
    case("atleast_3d", F.atleast_3d, torch.atleast_3d, floats(3, 2)),
    case("flip", lambda x: F.flip(x, (0, -1)), lambda x: x.flip((0, -1)), floats(2, 3, 4)),
    case("fliplr", F.fliplr, torch.fliplr, floats(2, 3)),
    case("roll", lambda x: F.roll(x, -5, 1), lambda x: x.roll(-5, 1), floats(2, 3)),
    case("roll-all", lambda x: F.roll(x, 4), lambda x: x.roll(4), floats(2, 3)),
    case("roll-axes", lambda x: F.roll(x, (1, 2), (0, 1)), lambda x: x.roll((1, 2), (0, 1)),
         floats(3, 4)),
    case("repeat-counts", lambda x: F.repeat(x, [2, 0, 1], 1),
         lambda x: x.repeat_interleave(torch.tensor([2, 0, 1]), 1), floats(2, 3)),
    case("gather", lambda x, i: F.take_along_axis(x, i, 1), lambda x, i: x.gather(1, i),
         floats(5, 3), ints(2, 6, low=0, high=3)),
    case("take_along_axis-broadcast", lambda x, i: F.take_along_axis(x, i, 0),
         lambda x, i: torch.take_along_dim(x, i, 0), floats(3, 4), ints(5, 1, low=0, high=3)),
    case("take_along_axis-flat", lambda x, i: F.take_along_axis(x, i, None),
         lambda x, i: torch.take_along_dim(x, i), floats(3, 4), ints(5, low=0, high=12)),
    case("arrays-of-indices", lambda x, i, j: x[i, :, j], lambda x, i, j: x[i, :, j],
         floats(3, 4, 5), ints(2, 1, low=0, high=3), ints(6, low=0, high=5)),
    case("hsplit", lambda x: F.hsplit(x, 2), lambda x: torch.hsplit(x, 2), floats(3, 4)),
    case("cartesian_prod", F.cartesian_prod, torch.cartesian_prod, floats(2), floats(3)),
    *(case(f"select_scatter-{i}", lambda x, s, i=i: F.select_scatter(x, s, 1, i),
           lambda x, s, i=i: x.select_scatter(s, 1, i), floats(2, 3, 4), floats(2, 4))
      for i in (0, 1, -1)),
    *(case(f"slice_scatter-{cut}", lambda x, s, c=cut: F.slice_scatter(x, s, 1, *c),
           lambda x, s, c=cut: x.slice_scatter(s, 1, *c), floats(2, 7), floats(2, n))
      for cut, n in (((1, 6, 2), 3), ((0, None, 3), 3), ((-2, None, 1), 2), ((3, 3, 1), 0))),
    *(case(f"diagonal_scatter-{o}", lambda x, s, o=o: F.diagonal_scatter(x, s, o),
           lambda x, s, o=o: torch.diagonal_scatter(x, s, o), floats(3, 4), floats(n))
      for o, n in ((0, 3), (1, 3), (-2, 1))),
    case("tile", lambda x: F.tile(x, (2, 1, 3)), lambda x: x.tile((2, 1, 3)), floats(2, 3)),
    case("repeat_interleave", lambda x: F.repeat_interleave(x, 2, 1),
         lambda x: x.repeat_interleave(2, 1), floats(2, 3)),
    case("broadcast_tensors", F.broadcast_tensors, torch.broadcast_tensors, floats(3, 1),
         floats(4)),
    case("take_along_axis", lambda x, i: F.take_along_axis(x, i, 0),
         lambda x, i: torch.take_along_dim(x, i, 0), floats(3, 4), ints(5, 4, low=0, high=3)),
    case("one_hot", lambda i: F.one_hot(i, 5, "int64"),
         lambda i: torch.nn.functional.one_hot(i, 5), ints(2, 3, low=0, high=5)),
]  # fmt: skip

TABLES = {
    "products": PRODUCTS, "norms": NORMS, "arithmetic": ARITHMETIC, "statistics": STATISTICS,
    "rearranged": REARRANGED,
}  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("table", TABLES)
def test_agrees_with_torch(table, backend):
    check(TABLES[table], backend)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_symbolic_sizes(backend):
    x = cr.input("x", ("n", "n"), "float64")
    y = cr.input("y", ("n", "m"), "float64")
    named = {
        "diagonal": (F.diagonal(x), lambda x, y: x.diagonal()),
        "windows": (F.sliding_window(y, 0, 2), lambda x, y: y.unfold(0, 2, 1)),
        "embed": (F.diag_embed(y), lambda x, y: torch.diag_embed(y)),
        "cdist": (F.cdist(x, x + 1), lambda x, y: torch.cdist(x, x + 1)),
        "kron": (F.kron(x, y), torch.kron),
    }
    run = cr.compile({name: ours for name, (ours, _) in named.items()}, backend=backend)
    for n, m in ((3, 2), (5, 7)):
        arrays = {"x": floats(n, n), "y": floats(n, m)}
        found = run(**arrays)
        for name, (_, theirs) in named.items():
            reference = theirs(*map(torch.tensor, arrays.values())).numpy()
            np.testing.assert_allclose(found[name], reference, rtol=1e-7, atol=1e-9, err_msg=name)


def test_bad_arguments_are_named():
    x = cr.input("x", (3, 4))
    for call, message in (
        (lambda: F.mm(x, x[0]), r"mm: \(4,\) has 1 axes, not 2"),
        (lambda: F.addmm(cr.input("b", (5,)), x, x.T), r"addmm: \(5,\) does not broadcast"),
        (lambda: F.cross(x, x), "cross: axis -1 of .* is not of size 3"),
        (lambda: F.cdist(x, x.T), "cdist: .* do not fit"),
        (lambda: F.chunk(x, 0), "chunk: needs one part or more"),
        (lambda: F.sliding_window(x, 0, 4), "sliding_window: size 4"),
        (lambda: F.narrow(x, 0, 2, 2), "narrow: 2 elements from 2 leave axis 0 of size 3"),
        (lambda: F.diagonal(x, 0, 1, 1), "diagonal: needs two axes"),
        (lambda: F.unbind(cr.input("s", ("n",))), "unbind: the size n of axis 0 is not known"),
        (lambda: F.meshgrid(x, x), "meshgrid: takes lines"),
        (lambda: F.cov(x, ddof=4), "cov: 4 observations are too few"),
    ):
        with pytest.raises(cr.GraphError, match=message):
            call()
