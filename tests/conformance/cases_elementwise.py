"""Cases of `Map`, `Cast` and formulas: every elementary function, edge values and broadcasting."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.special
import torch
from cases import ODD_SIZES, Case, M, N, program, sample, sampled, tensor
from closeness import EXACT, Tolerance

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import apply, make
from chainrule.compiler.ir.scalars import SCALAR_FUNCTIONS, Formula, parse_term
from chainrule.compiler.ir.types import ITEM_BYTES

_MAX = {"float32": 3.4e38, "float64": 1.7e308}

#: Values where elementary functions are most often wrong.
EDGES = {
    dtype: np.array(
        [
            *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.0, -2.0, 2.5, 3.0, -3.0, 10.0, -10.0),
            *(88.7, -87.0, -103.5, 710.0, -745.0, 1e-3, -1e-3, 1e4, 1e7, np.inf, -np.inf, np.nan),
            *(1e-20, 1e-38, -1e-40, 1e-45, 5e-324, np.nextafter(1, 2), 1 - 1e-7),
            *(np.pi / 2, np.pi, -np.pi, _MAX[dtype], -_MAX[dtype]),
        ],
        dtype=dtype,
    )
    for dtype in ("float32", "float64")
}
INTEGER_EDGES = {
    dtype: np.unique(
        np.array([0, 1, 2, 3, 7, 31, 63, 100, low, low + 1, high - 1, high, *negatives], dtype)
    )
    for dtype in ("int32", "int64", "uint32")
    for low, high in [(np.iinfo(dtype).min, np.iinfo(dtype).max)]
    for negatives in [() if dtype == "uint32" else (-1, -2, -3, -7, -100)]
}

#: Functions whose result is correctly rounded or chosen from the operands: only equality will do.
_EXACTLY_ROUNDED = (
    "neg abs sign square relu stop_gradient add sub mul minimum maximum floordiv mod reciprocal"
    " sqrt floor ceil trunc rint div copysign where"
)
EXACTLY_ROUNDED = set(_EXACTLY_ROUNDED.split())
#: Units in the last place that a backend may be off; 4 unless listed.
ULPS = {"rsqrt": 2, "exp": 2, "log": 2, "tanh": 2, "sigmoid": 3, "sin": 2, "cos": 2, "pow": 4}
#: Functions with zeros that no float comes near enough to: an absolute error is allowed there.
NEAR_ZEROS = {
    name: {"float32": 2e-6, "float64": 4e-14} for name in ("lgamma", "digamma", "trigamma")
}
#: What the functions are defined for, as intervals that generic samples are mapped into.
DOMAINS = {
    **dict.fromkeys(
        ["sqrt", "rsqrt", "log", "log2", "log10", "lgamma", "digamma", "trigamma"], (0.05, 6.0)
    ),
    **dict.fromkeys(["asin", "acos", "atanh"], (-0.95, 0.95)),
    "log1p": (-0.95, 5.0),
    "acosh": (1.05, 6.0),
    "pow": (0.1, 3.0),
    "reciprocal": (0.2, 3.0),
    "div": (0.2, 3.0),
    "cbrt": (0.2, 3.0),
    "tan": (-1.4, 1.4),
}
#: Functions that are smooth inside their domain: their gradients are compared with differences.
_SMOOTH = (
    "neg square add sub mul reciprocal sqrt rsqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos"
    " tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid softplus erf erfc lgamma digamma"
    " div pow atan2 abs relu minimum maximum"
)
SMOOTH = set(_SMOOTH.split())


def tolerance_of(name: str, dtype: str) -> Tolerance:
    if name in EXACTLY_ROUNDED or SCALAR_FUNCTIONS[name].kind not in {"float", "arithmetic"}:
        return EXACT
    near_zero = NEAR_ZEROS.get(name, {}).get(dtype, 0.0)
    return Tolerance(
        ulps=64 if near_zero and dtype == "float64" else ULPS.get(name, 4), absolute=near_zero
    )


def in_domain(name: str, shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    low, high = DOMAINS.get(name, (-3.0, 3.0))
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(dtype)


# -- expectations, independent of the interpreter -------------------------------------------------


def _torch(function):
    """Return PyTorch's function; what it lacks for uint32 is computed in int64, modulo 2**32."""

    def evaluate(*args):
        unsigned = args[0].dtype == np.uint32
        wide = [np.array(x, np.int64 if unsigned else x.dtype) for x in args]
        result = function(*map(torch.from_numpy, wide)).numpy()
        return result.astype(np.uint32) if unsigned and result.dtype == np.int64 else result

    return evaluate


def _trigamma(x: np.ndarray) -> np.ndarray:
    """SciPy's, except at minus infinity, where there is no limit."""
    return np.where(x == -np.inf, np.nan, scipy.special.polygamma(1, x)).astype(x.dtype)


#: Elementary name -> another implementation of it; others are the NumPy function of their name.
OTHERS = {
    "neg": _torch(torch.neg),
    "abs": _torch(torch.abs),
    "sign": np.sign,
    "square": _torch(torch.square),
    "relu": _torch(torch.relu),
    "stop_gradient": lambda x: x,
    "add": _torch(torch.add),
    "sub": _torch(torch.sub),
    "mul": _torch(torch.mul),
    "minimum": _torch(torch.minimum),
    "maximum": _torch(torch.maximum),
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "reciprocal": _torch(torch.reciprocal),
    "rsqrt": _torch(torch.rsqrt),
    "cbrt": scipy.special.cbrt,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sigmoid": scipy.special.expit,
    "softplus": lambda x: np.logaddexp(x, np.zeros_like(x)),
    "erf": scipy.special.erf,
    "erfc": scipy.special.erfc,
    "lgamma": _torch(torch.lgamma),
    "digamma": scipy.special.digamma,
    "trigamma": _trigamma,
    "div": _torch(torch.div),
    "pow": np.power,
    "atan2": np.arctan2,
    "lt": _torch(torch.lt),
    "le": _torch(torch.le),
    "gt": _torch(torch.gt),
    "ge": _torch(torch.ge),
    "eq": _torch(torch.eq),
    "ne": _torch(torch.ne),
    "bit_not": np.invert,
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
}


def _expected(name: str):
    function = OTHERS.get(name) or getattr(np, name)

    def evaluate(**inputs):
        with np.errstate(all="ignore"):
            return {"y": np.asarray(function(*inputs.values()))}

    return evaluate


# -- tables ---------------------------------------------------------------------------------------

_DTYPES = {
    "arithmetic": ("float32", "float64", "int32", "int64", "uint32"),
    "float": ("float32", "float64"),
    "compare": ("float32", "float64", "int32", "int64", "uint32", "bool"),
    "logic": ("bool",),
    "bits": ("int32", "int64", "uint32"),
    "select": tuple(ITEM_BYTES),
    "test": ("float32", "float64"),
}


def _operands(arity: int, values: np.ndarray) -> list[np.ndarray]:
    """Return every combination of ``values`` in ``arity`` positions."""
    grid = np.meshgrid(*[np.arange(len(values))] * arity, indexing="ij")
    return [values[index.reshape(-1)] for index in grid]


def _edge_values(dtype: str) -> np.ndarray:
    return {**EDGES, **INTEGER_EDGES, "bool": np.array([False, True])}[dtype]


def _elementary(name: str, dtype: str) -> Case:
    """Return a case of one function on a vector of symbolic length, generic values first."""
    row = SCALAR_FUNCTIONS[name]
    names = "abc"[: row.arity]
    dtypes = ["bool" if row.kind == "select" and i == 0 else dtype for i in range(row.arity)]
    operands = [tensor(x, (N,), kind) for x, kind in zip(names, dtypes, strict=True)]
    calls = []
    for size in (*ODD_SIZES[::-1], 0):
        call = {}
        for position, (x, kind) in enumerate(zip(names, dtypes, strict=True)):
            floats = kind.startswith("float")
            make_values = (
                in_domain(name, (size,), kind, position)
                if floats
                else sample((size,), kind, position)
            )
            if name.startswith("shift") and position:
                make_values = make_values.astype(np.int64) % (8 * ITEM_BYTES[kind])
            call[x] = make_values.astype(kind)
        calls.append(call)
    if row.kind == "select":
        values = _edge_values(dtype)
        flips = np.arange(len(values)) % 3 == 0
        calls.append({"a": flips, "b": values, "c": values[::-1].copy()})
    else:
        calls.append(dict(zip(names, _operands(row.arity, _edge_values(dtype)), strict=True)))
    smooth = name in SMOOTH and dtype.startswith("float")
    tolerance = tolerance_of(name, dtype)
    return Case(
        f"{name}-{dtype}",
        program(apply(name, *operands)),
        tuple(calls),
        _expected(name),
        tolerance,
        promote=dtype == "float32" and tolerance is not EXACT,
        differentiate=tuple(names) if smooth else (),
    )


#: Shapes that broadcast against each other, with the sizes of n and m.
BROADCASTS = [
    ((), ()),
    ((), (5,)),
    ((1,), (7,)),
    ((3, 1), (1, 4)),
    ((2, 3, 4), (4,)),
    ((2, 1, 4), (3, 1)),
    ((1, 1, 1), (2, 3, 17)),
    ((2, 3, 1, 5, 1), (1, 3, 4, 1, 6)),
    ((33, 65), (33, 1)),
    ((0, 3), (3,)),
    ((N, 3), (3,)),
    ((N, 1), (1, 5)),
    ((N, M), (M,)),
    ((N, M), (N, 1)),
    ((2, N, 3), (N, 1)),
]


def _concrete(shape, n: int, m: int) -> tuple[int, ...]:
    return tuple({N: n, M: m}.get(dim, dim) for dim in shape)


def _broadcasting(position: int, left, right, name: str) -> Case:
    # Every symbol must be told by an input, and the shapes of the table tell both.
    calls = sampled(*({"a": _concrete(left, n, m), "b": _concrete(right, n, m)} for n, m in _SIZES))
    result = apply(name, tensor("a", left), tensor("b", right))
    symbolic = any(not isinstance(dim, int) for dim in left + right)
    return Case(
        f"broadcast-{name}-{position}",
        program(result),
        calls if symbolic else calls[:1],
        _expected(name),
        differentiate=("a", "b") if name == "mul" else (),
    )


_SIZES = ((5, 4), (1, 1), (17, 33), (0, 3))


def _three_way(shapes, dtype: str) -> Case:
    a, b, c = (
        tensor(x, s, k) for x, s, k in zip("abc", shapes, ("bool", dtype, dtype), strict=True)
    )
    call = {
        x: sample(s, k, i)
        for i, (x, s, k) in enumerate(zip("abc", shapes, ("bool", dtype, dtype), strict=True))
    }
    return Case(
        f"where-broadcast-{shapes}-{dtype}".replace(" ", ""),
        program(apply("where", a, b, c)),
        (call,),
        _expected("where"),
        differentiate=("b", "c") if dtype.startswith("float") else (),
    )


def _cast(given: str, wanted: str) -> Case:
    values = sample((37,), given, 3)
    if given.startswith("float"):
        values = np.concatenate([values * 30, [0.0, -0.0, 0.99, -0.99, 2.5, 1e9]]).astype(given)
        if wanted == "uint32":
            values = np.abs(values)
        if wanted in {"bool", "float32", "float64"}:
            values = np.concatenate([values, EDGES[given]])
    elif given != "bool" and not (given == "int64" and wanted == "uint32"):
        values = np.concatenate([values, INTEGER_EDGES[given]])

    def expected(x):
        with np.errstate(all="ignore"):
            return {"y": x.astype(wanted)}

    return Case(
        f"cast-{given}-{wanted}",
        program(make(ops.Cast(wanted), tensor("x", (N,), given))),
        ({"x": values}, {"x": values[:0]}),
        expected,
    )


def _negative_to_unsigned() -> Case:
    return Case(
        "cast-int64-uint32-wraps",
        program(make(ops.Cast("uint32"), tensor("x", (N,), "int64"))),
        ({"x": np.array([-1, -(2**31), 2**32 + 5, 2**63 - 1, -(2**63)])},),
        lambda x: {"y": x.astype(np.uint32)},
    )


FORMULAS = [
    ("swish", "x b", "div(x, add(1, exp(neg(mul(b, x)))))", lambda x, b: x / (1 + np.exp(-b * x))),
    ("elu", "x", "where(lt(x, 0), expm1(x), x)", lambda x: np.where(x < 0, np.expm1(x), x)),
    (
        "huber",
        "x y",
        "where(le(abs(sub(x, y)), 1), mul(0.5, square(sub(x, y))), sub(abs(sub(x, y)), 0.5))",
        lambda x, y: np.where(abs(x - y) <= 1, (x - y) ** 2 / 2, abs(x - y) - 0.5),
    ),
    (
        "gelu",
        "x",
        "mul(mul(0.5, x), add(1, erf(mul(x, 0.7071067811865476))))",
        lambda x: 0.5 * x * (1 + scipy.special.erf(x * 0.7071067811865476)),
    ),
    ("constant", "x", "3.5", lambda x: np.full_like(x, 3.5)),
    ("identity", "x", "x", lambda x: x),
    (
        "inside",
        "x y",
        "logical_and(gt(x, -1), lt(mul(x, y), 1e-3))",
        lambda x, y: (x > -1) & (x * y < 1e-3),
    ),
    (
        "adam",
        "g m v",
        "div(add(mul(0.9, m), mul(0.1, g)),"
        " add(sqrt(add(mul(0.999, square(v)), mul(0.001, square(g)))), 1e-8))",
        lambda g, m, v: (0.9 * m + 0.1 * g) / (np.sqrt(0.999 * v**2 + 0.001 * g**2) + 1e-8),
    ),
]


def _formula(name: str, params: str, body: str, expected, dtype: str, shape) -> Case:
    names = tuple(params.split())
    formula = Formula(name, names, parse_term(body))
    shapes = [shape, *[shape[-1:]] * (len(names) - 1)]
    operands = [tensor(x, s, dtype) for x, s in zip(names, shapes, strict=True)]
    calls = sampled(
        *(
            {x: _concrete(s, n, 0) for x, s in zip(names, shapes, strict=True)}
            for n in ((9,) if N not in shape else (9, 1, 65, 0))
        ),
        dtype=dtype,
    )
    result = make(ops.Map(formula), *operands)
    return Case(
        f"formula-{name}-{dtype}-{len(shape)}d",
        program(result),
        calls,
        lambda **inputs: {"y": np.asarray(expected(*inputs.values())).astype(result.dtype)},
        Tolerance(ulps=8, relative=1e-6 if dtype == "float32" else 1e-15),
        promote=dtype == "float32" and result.dtype != "bool",
        differentiate=names if result.dtype != "bool" else (),
    )


CASES = [
    *(
        _elementary(row.name, dtype)
        for row in SCALAR_FUNCTIONS.values()
        for dtype in _DTYPES[row.kind]
    ),
    *(
        _broadcasting(position, *shapes, name)
        for position, shapes in enumerate(BROADCASTS)
        for name in ("mul", "lt")
    ),
    *(
        _three_way(shapes, dtype)
        for shapes in [((3, 1), (1, 4), ()), ((), (5,), (2, 1)), ((2, 3, 4), (4,), (3, 1))]
        for dtype in ("float32", "int64", "bool")
    ),
    *(_cast(given, wanted) for given, wanted in itertools.product(ITEM_BYTES, ITEM_BYTES)),
    _negative_to_unsigned(),
    *(
        _formula(*row, dtype, shape)
        for row in FORMULAS
        for dtype in ("float32", "float64")
        for shape in ((N, 5), (), (33,))
    ),
]
