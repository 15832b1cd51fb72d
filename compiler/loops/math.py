"""Elementary and special functions as straight-line polynomial code over vector lanes.

Every function takes a `Lanes` and lane values and returns a lane value; the same text therefore
runs in the native kernels and in NumPy. `FUNCTIONS` is the table of them all with the accuracy that
tests hold them to. A new function is one body, in the file of its family, and one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .circular import acos, asin, atan, atan2, cos, sin, tan
from .exponentials import (
    acosh,
    asinh,
    atanh,
    cosh,
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    sigmoid,
    sinh,
    softplus,
    tanh,
)
from .lanes import Value
from .powers import cbrt, pow, reciprocal, rsqrt, sign, sqrt
from .special import digamma, erf, erfc, lgamma, normcdf, trigamma


@dataclass(frozen=True)
class MathFunction:
    """One entry of the table: a function and the accuracy promised for it.

    `max_ulp` bounds the error in units in the last place of the correctly rounded result, per
    dtype. Where `max_absolute` names a dtype, an error below that many is also within the promise
    (functions with zeros that no argument hits exactly).
    """

    name: str
    arity: int
    body: Callable[..., Value]
    max_ulp: Mapping[str, float]
    max_absolute: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


_LOOSE = MappingProxyType({"float32": 2e-6, "float64": 4e-14})


def _entry(
    name: str,
    body: Callable[..., Value],
    f32: float,
    f64: float,
    arity: int = 1,
    max_absolute: Mapping[str, float] | None = None,
) -> MathFunction:
    bounds = MappingProxyType({"float32": f32, "float64": f64})
    return MathFunction(name, arity, body, bounds, max_absolute or MappingProxyType({}))


# Bounds for float32 and float64 in ulps, with and without fma. Largest errors seen over all float32
# arguments with AVX-512: exp 0.99, exp2 0.92, expm1 1.44, log 0.97, log2 2.05, log1p 1.27,
# sigmoid 1.65, softplus 1.68, sin 1.23, cos 1.22, tan 2.05, asin 1.83, atan 1.92, sinh 0.94,
# cosh 1.73, tanh 1.24, erf 1.07. The others and float64 are sampled.
FUNCTIONS: Mapping[str, MathFunction] = {
    entry.name: entry
    for entry in (
        _entry("exp", exp, 1.0, 1.1),
        _entry("exp2", exp2, 1.25, 1.25),
        _entry("expm1", expm1, 2.0, 2.0),
        _entry("log", log, 1.0, 1.0),
        _entry("log2", log2, 2.25, 2.0),
        _entry("log10", log10, 2.0, 2.0),
        _entry("log1p", log1p, 1.5, 1.0),
        _entry("sigmoid", sigmoid, 2.0, 2.0),
        _entry("softplus", softplus, 2.0, 2.0),
        _entry("sin", sin, 1.5, 1.5),
        _entry("cos", cos, 1.5, 1.5),
        _entry("tan", tan, 2.25, 2.0),
        _entry("asin", asin, 2.0, 2.0),
        _entry("acos", acos, 1.5, 1.5),
        _entry("atan", atan, 2.5, 3.5),
        _entry("atan2", atan2, 2.5, 3.5, arity=2),
        _entry("sinh", sinh, 1.25, 1.25),
        _entry("cosh", cosh, 2.0, 1.5),
        _entry("tanh", tanh, 1.5, 1.5),
        _entry("asinh", asinh, 2.0, 2.0),
        _entry("acosh", acosh, 2.0, 2.0),
        _entry("atanh", atanh, 2.5, 2.0),
        _entry("erf", erf, 1.5, 1.5),
        _entry("erfc", erfc, 5.0, 5.5),
        _entry("normcdf", normcdf, 5.5, 5.5),
        _entry("pow", pow, 1.5, 1.5, arity=2),
        _entry("sqrt", sqrt, 0.5, 0.5),
        _entry("rsqrt", rsqrt, 1.5, 1.5),
        _entry("reciprocal", reciprocal, 0.5, 0.5),
        _entry("cbrt", cbrt, 0.51, 0.51),
        _entry("sign", sign, 0.0, 0.0),
        # These have zeros off the floats, where only the absolute error is small.
        _entry("lgamma", lgamma, 10.0, 10.0, max_absolute=_LOOSE),
        _entry("digamma", digamma, 10.0, 10.0, max_absolute=_LOOSE),
        _entry("trigamma", trigamma, 10.0, 10.0, max_absolute=_LOOSE),
    )
}
