"""Every generated math function stays within the accuracy its table entry states.

The fast tests sample; `-m slow` sweeps all 2**32 float32 arguments. Each machine is a way to run
the same function bodies: NumPy, or LLVM at the widths and instruction sets the native backend falls
back through.
"""

from __future__ import annotations

import csv
import ctypes
import math
import pathlib
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm
import mpmath
import numpy as np
import pytest
from llvmlite import ir

from chainrule.compiler.backends.llvm_lanes import LaneFeatures, emit_math_function
from chainrule.compiler.loops.math import FUNCTIONS
from chainrule.compiler.loops.powers import powi
from chainrule.runtime.numpy_lanes import NumpyLanes, evaluate_math

DTYPES = ("float32", "float64")
UNARY = sorted(name for name, entry in FUNCTIONS.items() if entry.arity == 1)
BINARY = sorted(name for name, entry in FUNCTIONS.items() if entry.arity == 2)

# Machines ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    cpu: str
    features: LaneFeatures
    needs: tuple[str, ...]
    vector_bytes: int


AVX2 = LaneFeatures(fma=True, round=True, avx2=True)
TARGETS = {
    "avx512": Target(
        "skylake-avx512",
        LaneFeatures(fma=True, round=True, avx2=True, avx512=True),
        ("avx512f", "avx512dq", "avx512vl", "avx512bw"),
        64,
    ),
    "avx2": Target("haswell", AVX2, ("avx2", "fma"), 32),
    "sse2": Target("x86-64", LaneFeatures(), ("sse2",), 16),
    "scalar": Target("haswell", AVX2, ("avx2", "fma"), 0),
}
MACHINES = ("numpy", *TARGETS)


@cache
def host_features() -> dict[str, bool]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return dict(llvm.get_host_cpu_features())


@cache
def compile_function(name: str, dtype: str, machine: str):
    """A callable over arrays whose length is a multiple of 16."""
    target = TARGETS[machine]
    if not all(host_features().get(feature) for feature in target.needs):
        pytest.skip(f"this processor has no {machine}")
    width = np.dtype(dtype).itemsize
    lanes = max(target.vector_bytes // width, 1)
    module = ir.Module(name)
    module.triple = llvm.get_process_triple()
    body = emit_math_function(module, name, dtype, lanes, target.features)
    element = ir.FloatType() if width == 4 else ir.DoubleType()
    count = ir.IntType(64)
    arity = FUNCTIONS[name].arity
    kind = ir.FunctionType(ir.VoidType(), [element.as_pointer()] * (arity + 1) + [count])
    loop = ir.Function(module, kind, "run")
    *inputs, output, length = loop.args
    builder = ir.IRBuilder(loop.append_basic_block("entry"))
    entry, again, done = builder.block, loop.append_basic_block(), loop.append_basic_block()
    builder.branch(again)
    builder.position_at_end(again)
    index = builder.phi(count)
    index.add_incoming(ir.Constant(count, 0), entry)

    def vector_at(pointer):
        place = builder.gep(pointer, [index])
        return builder.bitcast(place, body.function_type.return_type.as_pointer())

    arguments = [builder.load(vector_at(pointer), align=width) for pointer in inputs]
    builder.store(builder.call(body, arguments), vector_at(output), align=width)
    following = builder.add(index, ir.Constant(count, lanes))
    index.add_incoming(following, again)
    builder.cbranch(builder.icmp_signed("<", following, length), again, done)
    builder.position_at_end(done)
    builder.ret_void()

    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine_code = llvm.Target.from_default_triple().create_target_machine(cpu=target.cpu, opt=2)
    options = llvm.create_pipeline_tuning_options(2)
    builder_of_passes = llvm.create_pass_builder(machine_code, options)
    builder_of_passes.getModulePassManager().run(parsed, builder_of_passes)
    engine = llvm.create_mcjit_compiler(parsed, machine_code)
    engine.finalize_object()
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (arity + 1), ctypes.c_int64)
    native = signature(engine.get_function_address("run"))

    def run(*arrays, keep=(engine, native)):
        result = np.empty_like(arrays[0])
        native(*[array.ctypes.data for array in arrays], result.ctypes.data, result.size)
        return result

    return run


def evaluate(name: str, machine: str, *arrays: np.ndarray) -> np.ndarray:
    if machine == "numpy":
        return evaluate_math(name, *arrays)
    size = arrays[0].size
    padded = [np.concatenate([array, np.ones(-size % 16, array.dtype)]) for array in arrays]
    return compile_function(name, str(arrays[0].dtype), machine)(*padded)[:size]


# References and distances -----------------------------------------------------------------------


def over_stdlib(function, pole=math.nan):
    def guarded(value):
        try:
            return function(value)
        except ValueError:
            return pole
        except OverflowError:
            return math.inf

    return lambda x: np.vectorize(guarded, otypes=[np.float64])(x)


def float64_sigmoid(x):
    decay = np.exp(-np.abs(x))
    return np.where(x < 0, decay, 1.0) / (1.0 + decay)


def mpmath_lgamma(x):
    return mpmath.log(abs(mpmath.gamma(x)))


# name: (in float64 over arrays, good enough to judge float32; in mpmath, to judge float64)
REFERENCES = {
    "exp": (np.exp, mpmath.exp),
    "exp2": (np.exp2, lambda x: mpmath.power(2, x)),
    "expm1": (np.expm1, mpmath.expm1),
    "log": (np.log, mpmath.log),
    "log2": (np.log2, lambda x: mpmath.log(x) / mpmath.log(2)),
    "log10": (np.log10, lambda x: mpmath.log(x) / mpmath.log(10)),
    "log1p": (np.log1p, mpmath.log1p),
    "sigmoid": (float64_sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
    "softplus": (
        lambda x: np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))),
        lambda x: max(x, 0) + mpmath.log1p(mpmath.exp(-abs(x))),
    ),
    "sin": (np.sin, mpmath.sin),
    "cos": (np.cos, mpmath.cos),
    "tan": (np.tan, mpmath.tan),
    "asin": (np.arcsin, mpmath.asin),
    "acos": (np.arccos, mpmath.acos),
    "atan": (np.arctan, mpmath.atan),
    "sinh": (np.sinh, mpmath.sinh),
    "cosh": (np.cosh, mpmath.cosh),
    "tanh": (np.tanh, mpmath.tanh),
    "asinh": (np.arcsinh, mpmath.asinh),
    "acosh": (np.arccosh, mpmath.acosh),
    "atanh": (np.arctanh, mpmath.atanh),
    "erf": (over_stdlib(math.erf), mpmath.erf),
    "erfc": (over_stdlib(math.erfc), mpmath.erfc),
    "normcdf": (over_stdlib(lambda x: math.erfc(-x / math.sqrt(2)) / 2), mpmath.ncdf),
    "sqrt": (np.sqrt, mpmath.sqrt),
    "rsqrt": (lambda x: 1 / np.sqrt(x), lambda x: 1 / mpmath.sqrt(x)),
    "reciprocal": (lambda x: 1 / x, lambda x: 1 / x),
    "cbrt": (np.cbrt, lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x))),
    "sign": (lambda x: np.where(x == 0, x, np.sign(x)), mpmath.sign),
    "lgamma": (over_stdlib(math.lgamma, pole=math.inf), mpmath_lgamma),
    "digamma": (None, mpmath.digamma),
    "trigamma": (None, lambda x: mpmath.psi(1, x)),
    "pow": (np.power, mpmath.power),
    "atan2": (np.arctan2, mpmath.atan2),
}

INF, NAN = math.inf, math.nan
# name: pairs of argument and result; what C99, NumPy and PyTorch agree on, signs of zero included.
SPECIALS = {
    "exp": ((INF, INF), (-INF, 0.0), (0.0, 1.0), (-0.0, 1.0)),
    "exp2": ((INF, INF), (-INF, 0.0), (0.0, 1.0), (10.0, 1024.0)),
    "expm1": ((INF, INF), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0)),
    "log": ((0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN)),
    "log2": ((0.0, -INF), (-0.0, -INF), (1.0, 0.0), (8.0, 3.0), (INF, INF), (-1.0, NAN)),
    "log10": ((0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN)),
    "log1p": ((-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (INF, INF), (-2.0, NAN), (-INF, NAN)),
    "sigmoid": ((0.0, 0.5), (INF, 1.0), (-INF, 0.0)),
    "softplus": ((INF, INF), (-INF, 0.0)),
    "sin": ((0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)),
    "cos": ((0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)),
    "tan": ((0.0, 0.0), (-0.0, -0.0), (INF, NAN)),
    "asin": ((0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-INF, NAN)),
    "acos": ((1.0, 0.0), (1.5, NAN), (-1.5, NAN)),
    "atan": ((0.0, 0.0), (-0.0, -0.0)),
    "sinh": ((0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)),
    "cosh": ((0.0, 1.0), (INF, INF), (-INF, INF)),
    "tanh": ((0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0)),
    "asinh": ((0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)),
    "acosh": ((1.0, 0.0), (INF, INF), (0.5, NAN), (-INF, NAN)),
    "atanh": ((0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (2.0, NAN), (INF, NAN)),
    "erf": ((0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0)),
    "erfc": ((0.0, 1.0), (INF, 0.0), (-INF, 2.0)),
    "normcdf": ((0.0, 0.5), (INF, 1.0), (-INF, 0.0)),
    "sqrt": ((0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.0, NAN)),
    "rsqrt": ((0.0, INF), (INF, 0.0), (4.0, 0.5), (-1.0, NAN)),
    "reciprocal": ((0.0, INF), (-0.0, -INF), (INF, 0.0)),
    "cbrt": ((0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (-8.0, -2.0)),
    "sign": ((0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (-3.0, -1.0)),
    "lgamma": ((0.0, INF), (-1.0, INF), (-2.0, INF), (INF, INF), (-INF, INF)),
    "digamma": ((0.0, -INF), (-0.0, INF), (-1.0, NAN), (INF, INF)),
    "trigamma": ((0.0, INF), (-1.0, INF), (INF, 0.0)),
}
POWER_ARGUMENTS = (
    *(0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, INF, -INF, NAN),
    *(1e-40, -1e-40, 1e38, -1e38, 2.5, 8388609.0, 16777215.0),
)


def measure_ulps(got: np.ndarray, expected: np.ndarray, dtype: str) -> np.ndarray:
    """|got - expected| in units of the last place of `expected`; infinite on a wrong special.

    `expected` is float64 for float32 results and longdouble for float64 ones. An infinity stands
    for the first power of two out of range, so that rounding up to it is an error of ulps, not of
    infinity.
    """
    info = np.finfo(dtype)
    wide = expected.dtype.type
    with np.errstate(all="ignore"):
        limit = np.ldexp(wide(1.0), info.maxexp)
        bounded = np.clip(expected, -limit, limit)
        value = np.clip(got.astype(wide), -limit, limit)
        exponent = np.clip(np.frexp(bounded)[1] - 1, info.minexp, info.maxexp - 1)
        distance = np.ldexp(np.abs(value - bounded), info.nmant - exponent)
        distance = np.where(np.isnan(got) & np.isnan(expected), 0.0, distance)
        wrong = np.isnan(got) != np.isnan(expected)
        wrong |= (expected == 0) & (np.signbit(got) != np.signbit(expected)) & ~np.isnan(got)
    return np.where(wrong, np.inf, distance).astype(np.float64)


def assert_within_bound(name, got, expected, *arguments):
    entry, dtype = FUNCTIONS[name], str(got.dtype)
    ulps = measure_ulps(got, expected, dtype)
    allowed = entry.max_absolute.get(dtype, 0.0)
    with np.errstate(all="ignore"):
        ulps = np.where(np.abs(got - expected) <= allowed, 0.0, ulps)
    worst = int(np.argmax(ulps))
    at = ", ".join(repr(array[worst]) for array in arguments)
    assert ulps[worst] <= entry.max_ulp[dtype], (
        f"{name}({at}) = {got[worst]!r}, expected {expected[worst]!r}: {ulps[worst]:.3f} ulp, "
        f"stated {entry.max_ulp[dtype]}"
    )


# Samples ----------------------------------------------------------------------------------------


def float32_sample(stride: int) -> np.ndarray:
    """Every `stride`-th bit pattern of float32, which covers all binades, subnormals and NaN."""
    bits = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32)
    dense = np.linspace(-20.0, 20.0, 8001, dtype=np.float32)
    return np.concatenate([bits.view(np.float32), dense])


# Beyond 800 these are what their special values say, and mpmath, which never overflows, takes
# forever.
GROWING = (
    *("exp", "exp2", "expm1", "sinh", "cosh", "tanh", "sigmoid", "softplus"),
    *("erf", "erfc", "normcdf", "lgamma", "digamma", "trigamma"),
)


def float64_sample(count: int) -> np.ndarray:
    random = np.random.default_rng(20)
    share = count // 5
    return np.concatenate(
        [
            random.uniform(-1.0, 1.0, share),
            random.uniform(-30.0, 30.0, share),
            random.uniform(-750.0, 750.0, share),
            random.choice([-1.0, 1.0], share) * 2.0 ** random.uniform(-1074.0, 1023.0, share),
            1.0 + random.uniform(-1.0, 1.0, share) * 2.0 ** random.uniform(-50.0, 0.0, share),
        ]
    )


def power_sample(dtype: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(21)
    near_one = 1.0 + random.uniform(-1.0, 1.0, count) * 2.0 ** random.uniform(-20.0, -1.0, count)
    bases = [random.uniform(0.0, 10.0, count), random.uniform(-5.0, 5.0, count), near_one]
    exponents = [
        random.uniform(-30.0, 30.0, count),
        np.round(random.uniform(-40.0, 40.0, count)),
        random.uniform(-1.0, 1.0, count) * 2.0 ** random.uniform(5.0, 20.0, count),
    ]
    return np.concatenate(bases).astype(dtype), np.concatenate(exponents).astype(dtype)


def to_longdouble(value) -> np.longdouble:
    """An mpmath number as a longdouble, in two exact halves."""
    value = mpmath.mpmathify(value)
    if isinstance(value, mpmath.mpc):
        value = value.real if value.imag == 0 else mpmath.nan
    if not mpmath.isfinite(value):
        return np.longdouble(float(value))
    fraction, exponent = mpmath.frexp(value)
    high = float(fraction)
    total = np.longdouble(high) + np.longdouble(float(fraction - mpmath.mpf(high)))
    return np.ldexp(total, min(max(int(exponent), -20000), 20000))


@cache
def float64_reference(name: str) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    if FUNCTIONS[name].arity == 2:
        arguments = power_sample("float64", 100)
    else:
        x = float64_sample(400)
        arguments = (x[np.abs(x) < 800.0] if name in GROWING else x,)
    function = REFERENCES[name][1]

    def exact(*values):
        try:
            return to_longdouble(function(*[mpmath.mpf(value) for value in values]))
        except (ValueError, ZeroDivisionError):
            return np.longdouble(math.nan)

    with mpmath.workprec(240), np.errstate(all="ignore"):
        pairs = [exact(*map(float, values)) for values in zip(*arguments, strict=True)]
    return arguments, np.array(pairs, np.longdouble)


@cache
def float32_reference(name: str, stride: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    function = REFERENCES[name][0]
    if FUNCTIONS[name].arity == 2:
        arguments = power_sample("float32", 3000)
    elif function is None:
        random = np.random.default_rng(22)
        parts = random.uniform(-6, 6, 150), random.uniform(0, 40, 100), random.uniform(0, 1e6, 50)
        x = np.concatenate(parts).astype(np.float32)
        slow = REFERENCES[name][1]
        return (x,), np.array([float(slow(mpmath.mpf(float(value)))) for value in x])
    else:
        arguments = (float32_sample(stride),)
    with np.errstate(all="ignore"):
        return arguments, function(*[array.astype(np.float64) for array in arguments])


# Tests ------------------------------------------------------------------------------------------


def test_every_function_has_a_reference():
    assert set(REFERENCES) == set(FUNCTIONS)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_float32_is_within_stated_ulps(name, machine):
    arguments, expected = float32_reference(name, 300_007)
    assert_within_bound(name, evaluate(name, machine, *arguments), expected, *arguments)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs an extended longdouble")
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_float64_is_within_stated_ulps(name, machine):
    arguments, expected = float64_reference(name)
    assert_within_bound(name, evaluate(name, machine, *arguments), expected, *arguments)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_special_arguments(name, dtype, machine):
    arguments, expected = np.array([*SPECIALS[name], (NAN, NAN)], dtype).T.copy()
    got = evaluate(name, machine, arguments)
    np.testing.assert_array_equal(got, expected)
    kept = ~np.isnan(got)
    np.testing.assert_array_equal(np.signbit(got)[kept], np.signbit(expected)[kept])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_special_pairs(name, dtype, machine):
    grid = np.meshgrid(np.array(POWER_ARGUMENTS, dtype), np.array(POWER_ARGUMENTS, dtype))
    left, right = (axis.ravel().copy() for axis in grid)
    got = evaluate(name, machine, left, right)
    # NumPy's own result is within an ulp where it is finite, and C99's where it is not.
    with np.errstate(all="ignore"):
        expected = REFERENCES[name][0](left, right)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(dtype).eps, atol=0)
    kept = ~np.isnan(got)
    np.testing.assert_array_equal(np.signbit(got)[kept], np.signbit(expected)[kept])


NUMPY_TABLES = {
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctanh": "atanh",
    **{name: name for name in ("cbrt", "cos", "cosh", "exp", "exp2", "expm1", "log", "log10")},
    **{name: name for name in ("log1p", "log2", "sin", "sinh", "tan", "tanh")},
}


def read_numpy_table(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    folder = pathlib.Path(np.__file__).parent / "_core" / "tests" / "data"
    path = folder / f"umath-validation-set-{name}.csv"
    if not path.exists():
        pytest.skip("this NumPy was installed without its tests")
    unsigned = {"float32": np.uint32, "float64": np.uint64}[dtype]
    with path.open(encoding="ascii") as lines:
        rows = [row for row in csv.reader(lines) if row and row[0] == f"np.{dtype}"]
    inputs, outputs = (
        np.array([int(row[column], 16) for row in rows], unsigned).view(dtype) for column in (1, 2)
    )
    return inputs, outputs


@pytest.mark.parametrize("machine", ("avx512", "avx2", "sse2"))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("table", sorted(NUMPY_TABLES))
def test_numpy_validation_tables(table, dtype, machine):
    inputs, rounded = read_numpy_table(table, dtype)
    name = NUMPY_TABLES[table]
    got = evaluate(name, machine, inputs)
    with np.errstate(all="ignore"):
        wide = rounded.astype(np.float64 if dtype == "float32" else np.longdouble)
    ulps = measure_ulps(got, wide, dtype)
    worst = int(np.argmax(ulps))
    # The table holds rounded results, half an ulp from the truth.
    assert ulps[worst] <= math.ceil(FUNCTIONS[name].max_ulp[dtype] + 0.5), (
        f"{name}({inputs[worst]!r}) = {got[worst]!r}, expected {rounded[worst]!r}"
    )


def test_fma_of_numpy_lanes_rounds_once():
    random = np.random.default_rng(23)
    with mpmath.workprec(400):
        for dtype in DTYPES:
            from_lanes = NumpyLanes(dtype).fma
            a, b = (random.uniform(-2, 2, 500).astype(dtype) for _ in range(2))
            nearly = -(a * b) * (1 + random.choice([0, 1e-7, 1e-3, 1e3], 500).astype(dtype))
            got = from_lanes(a, b, nearly)
            exact = [
                mpmath.mpf(float(x)) * float(y) + float(z)
                for x, y, z in zip(a, b, nearly, strict=True)
            ]
            precision = np.finfo(dtype).nmant + 1
            with mpmath.workprec(precision):
                expected = np.array([float(+value) for value in exact], dtype)
            np.testing.assert_array_equal(got, expected)


def test_a_function_is_emitted_once_per_module():
    module = ir.Module("twice")
    first = emit_math_function(module, "tanh", "float32", 8, AVX2)
    again = emit_math_function(module, "tanh", "float32", 8, AVX2)
    assert first is again
    assert first.name == "cr.tanh.f32x8"


def test_lane_features_are_read_from_a_feature_string():
    assert LaneFeatures.parse("+avx2,+fma,+sse4.1,-avx512f") == AVX2
    assert LaneFeatures.parse("") == LaneFeatures()
    assert LaneFeatures.parse("+neon", "aarch64-linux-gnu") == LaneFeatures(fma=True, round=True)


@pytest.mark.parametrize("exponent", (-3, -1, 0, 1, 2, 3, 7, 10))
def test_whole_powers_by_squaring(exponent):
    x = np.linspace(-3.0, 3.0, 40)
    expected = x**exponent
    np.testing.assert_allclose(powi(NumpyLanes("float64"), x, exponent), expected, rtol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ("avx512", "sse2"))
@pytest.mark.parametrize("name", UNARY)
def test_every_float32(name, machine):
    function = REFERENCES[name][0]
    if function is None or not hasattr(np, function.__name__):
        scipy = pytest.importorskip("scipy.special")
        others = {
            "erf": scipy.erf,
            "erfc": scipy.erfc,
            "normcdf": scipy.ndtr,
            "digamma": scipy.digamma,
            "trigamma": lambda x: scipy.polygamma(1, x),
            "lgamma": lambda x: np.where(np.isinf(x), np.inf, scipy.gammaln(x)),
        }
        function = others.get(name, function)
    chunk = 1 << 20
    offsets = np.arange(chunk, dtype=np.uint32)
    for start in range(0, 2**32, chunk):
        x = (offsets + np.uint32(start)).view(np.float32)
        with np.errstate(all="ignore"):
            expected = function(x.astype(np.float64))
        assert_within_bound(name, evaluate(name, machine, x), expected, x)
