"""How close is close enough: distances in units in the last place, and bounds for sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """An element passes if any of the bounds holds; with none given, only equal values pass.

    Attributes
    ----------
    ulps
        Distance in representable numbers of the result's own type.
    terms
        The result is a sum of this many products: the error is bounded by ``eps`` times the sum of
        the products' magnitudes times ``4 + 2 * sqrt(terms)``, the random walk of rounding.
    relative
        Bound relative to the largest finite magnitude of the output.
    absolute
        Bound on the difference itself.
    """

    ulps: int = 0
    terms: int = 0
    relative: float = 0.0
    absolute: float = 0.0


EXACT = Tolerance()


def ulp_distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return how many representable numbers lie between two arrays of one float type.

    Zeros of both signs are one number, infinity follows the largest finite one, and NaN is at
    distance 0 from NaN and far from all else.
    """
    integer = np.int32 if left.dtype == np.float32 else np.int64

    def on_a_line(x: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(x).view(integer).reshape(x.shape)
        line = np.where(bits < 0, np.iinfo(integer).min - bits, bits)
        return line.astype(np.float64) if integer is np.int64 else line.astype(np.int64)

    if integer is np.int64:
        equal = left == right
        close = np.abs(on_a_line(left) - on_a_line(right))
        # float64 cannot count the low bits of a 64-bit line, so near numbers are counted directly.
        with np.errstate(all="ignore"):
            spacing = np.spacing(np.minimum(np.abs(left), np.abs(right)))
            near = np.abs(left - right) / spacing
        distance = np.where(equal, 0.0, np.where(np.isfinite(near), near, close))
    else:
        distance = np.abs(on_a_line(left) - on_a_line(right)).astype(np.float64)
    both, either = np.isnan(left) & np.isnan(right), np.isnan(left) | np.isnan(right)
    return np.where(both, 0.0, np.where(either, np.inf, distance))


def assert_close(
    actual: np.ndarray,
    reference: np.ndarray,
    tolerance: Tolerance,
    magnitude: np.ndarray | None = None,
    what: str = "",
) -> None:
    """Raise AssertionError, naming the worst element, if ``actual`` is not near ``reference``.

    Parameters
    ----------
    actual
        The result under test.
    reference
        The expected values, of the same or of higher precision.
    magnitude
        For `Tolerance.terms`: the sum of the products' magnitudes at every element.
    """
    actual = np.asarray(actual)
    reference = np.asarray(reference)
    assert actual.shape == reference.shape, f"{what}: shape {actual.shape}, not {reference.shape}"
    if actual.dtype.kind != "f":
        assert actual.dtype == reference.dtype, f"{what}: {actual.dtype}, not {reference.dtype}"
        wrong = actual != reference
        distance = np.where(wrong, np.inf, 0.0)
    else:
        assert reference.dtype.kind == "f", f"{what}: {actual.dtype}, not {reference.dtype}"
        with np.errstate(all="ignore"):
            rounded = reference.astype(actual.dtype)
            distance = ulp_distance(actual, rounded)
            wrong = distance > tolerance.ulps
            bound = np.full(actual.shape, tolerance.absolute)
            if tolerance.relative:
                finite = np.abs(reference[np.isfinite(reference)])
                bound = bound + tolerance.relative * finite.max(initial=0.0)
            if tolerance.terms:
                assert magnitude is not None
                slack = 4 + 2 * np.sqrt(tolerance.terms)
                bound = bound + np.finfo(actual.dtype).eps * slack * magnitude
            error = np.abs(actual.astype(np.float64) - reference.astype(np.float64))
            wrong &= ~(error <= bound)
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(wrong, distance, -1.0)), actual.shape)
        place = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {actual.size} elements differ; at {place} got "
            f"{actual[worst]!r}, expected {reference[worst]!r} "
            f"({distance[worst]:g} ULP; {tolerance})"
        )
