"""Binding: from the arrays that a caller passes to arrays and sizes that a program can use.

A call with the arrays of the last call's shapes, already of the right type, costs a few checks per
input; everything else (conversion, solving for symbolic sizes, errors) is off that path.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

import numpy as np

from ..compiler.errors import InputError, InputTypeError, SourceLine, locate
from ..compiler.ir.dims import Symbol, SymbolicDim, evaluate, format_shape, symbols
from ..compiler.ir.types import Dim, TensorType

#: One input: its name, its type, and the user's line that declared it.
InputSpec = tuple[str, TensorType, SourceLine | None]

# Bits of ndarray.flags.num: C-contiguous and aligned.
_READY = 0x001 | 0x100
# Distinct shape combinations that are remembered; ragged batches seldom have more.
_CACHED_SHAPES = 4096


class InputBinder:
    """Checks and converts the inputs of a program, and solves for its symbolic sizes.

    Parameters
    ----------
    input_types
        ``(name, type, source line)`` of every input, in the order of the result.

    Attributes
    ----------
    names
        The inputs' names, in order.
    symbols
        The names of the symbolic sizes, in the order in which `bind` returns them.
    """

    def __init__(self, input_types: Sequence[InputSpec]) -> None:
        self.specs = tuple(input_types)
        self.names = tuple(name for name, _, _ in self.specs)
        found: dict[str, None] = {}
        for _, kind, _ in self.specs:
            for dim in kind.shape:
                found.update(dict.fromkeys(sorted(symbols(dim))))
        self.symbols = tuple(found)
        self._dtypes = tuple(np.dtype(kind.dtype) for _, kind, _ in self.specs)
        self._count = len(self.specs)
        self._select = _tuple_getter(self.names)
        self._sizes: dict[tuple, tuple[int, ...]] = {}

    def bind(self, arrays: Mapping[str, object]) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
        """Return the inputs in order, and the sizes of `symbols`.

        Every returned array has the input's element type, in native byte order, C-contiguous and
        aligned.  An array that already is so is returned itself, not a copy.

        Raises
        ------
        InputError
            A name is missing or unknown, a shape does not fit, or a value is out of range.
        InputTypeError
            An element type cannot be converted without loss of meaning.
        """
        if len(arrays) != self._count:
            self._check_names(arrays)
        try:
            values = self._select(arrays)
        except KeyError:
            self._check_names(arrays)
            raise
        for value, dtype in zip(values, self._dtypes, strict=True):
            if (
                type(value) is not np.ndarray
                or value.dtype is not dtype
                or value.flags.num & _READY != _READY
            ):
                values = tuple(
                    convert_input(value, spec)
                    for value, spec in zip(values, self.specs, strict=True)
                )
                break
        shapes = tuple([value.shape for value in values])
        sizes = self._sizes.get(shapes)
        if sizes is None:
            bound = _solve_shapes(self.specs, shapes)
            sizes = tuple(bound[name] for name in self.symbols)
            if len(self._sizes) >= _CACHED_SHAPES:
                self._sizes.clear()
            self._sizes[shapes] = sizes
        return values, sizes

    def _check_names(self, arrays: Mapping[str, object]) -> None:
        unknown = [name for name in arrays if name not in self.names]
        missing = [spec for spec in self.specs if spec[0] not in arrays]
        if unknown:
            name = unknown[0]
            close = difflib.get_close_matches(str(name), self.names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(map(repr, self.names)) or "none"
            raise InputError(f"no input is called {name!r}{hint} (inputs: {known})")
        if missing:
            name, kind, source = missing[0]
            others = ", ".join(repr(spec[0]) for spec in missing[1:])
            also = f"; also missing: {others}" if others else ""
            raise InputError(locate(f"input {name!r}, {kind}, is missing{also}", source))


def bind_dimensions(
    input_types: Sequence[InputSpec], arrays: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Return the size of every symbol that the inputs' shapes determine.

    Raises InputError where a shape does not fit its type, or where two inputs disagree.
    """
    return _solve_shapes(input_types, [arrays[name].shape for name, _, _ in input_types])


def _tuple_getter(names: tuple[str, ...]) -> Callable[[Mapping[str, object]], tuple]:
    """Return a function from a mapping to the tuple of its values under ``names``."""
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        (name,) = names
        return lambda arrays: (arrays[name],)
    return lambda arrays: ()


# -- conversion -----------------------------------------------------------------------------------


def convert_input(value: object, spec: InputSpec) -> np.ndarray:
    """Return ``value`` as a native, C-contiguous, aligned array of the input's element type.

    Accepted: anything that NumPy reads as numbers (nested lists, ``__array__``, DLPack), any float
    or integer for a float, integers in range for an integer, bool for a number, 0 and 1 for a bool.
    Refused: complex numbers, strings and objects; floats for integers; values beyond the range.
    """
    name, kind, source = spec
    array = _as_array(value, spec)
    target = np.dtype(kind.dtype)
    if array.dtype != target:
        array = _convert_elements(array, target, name, source)
    return np.require(array, target, ["C_CONTIGUOUS", "ALIGNED"])


def _as_array(value: object, spec: InputSpec) -> np.ndarray:
    """Return ``value`` as an array of whatever numeric element type it has."""
    name, kind, source = spec
    if isinstance(value, np.ma.MaskedArray):
        raise InputTypeError(
            locate(f"input {name!r} is a masked array; pass value.filled(...)", source)
        )
    try:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            array = np.from_dlpack(value)  # type: ignore[arg-type]
        else:
            array = np.asarray(value)
    except ValueError as error:
        ragged = "inhomogeneous" in str(error)
        reason = "its nested lists differ in length" if ragged else str(error)
        raise InputError(
            locate(f"input {name!r}: cannot make an array of it: {reason}", source)
        ) from error
    except Exception as error:
        raise InputTypeError(
            locate(
                f"input {name!r}: cannot read {type(value).__module__}.{type(value).__qualname__} "
                f"as an array: {error}",
                source,
            )
        ) from error
    if isinstance(value, (list, tuple)) and array.size == 0:
        array = array.astype(kind.dtype)  # an empty list says nothing of its element type
    if array.dtype.kind not in "biuf" and not _is_extension_float(array.dtype):
        raise InputTypeError(
            locate(f"input {name!r}: {array.dtype} elements are no {kind.dtype}", source)
        )
    return array


def _is_extension_float(dtype: np.dtype) -> bool:
    """Whether ``dtype`` is a float that NumPy itself lacks, such as ml_dtypes' bfloat16."""
    return dtype.kind == "V" and dtype.names is None and "float" in dtype.name


def _convert_elements(
    array: np.ndarray, target: np.dtype, name: str, source: SourceLine | None
) -> np.ndarray:
    given, wanted = array.dtype, target.kind
    if given.kind == target.kind and given.itemsize == target.itemsize:
        return array.astype(target)  # another byte order, or C's other name of one type
    if wanted == "f":
        try:
            with np.errstate(over="raise", under="ignore", invalid="ignore"):
                return array.astype(target)
        except FloatingPointError:
            raise InputError(
                locate(f"input {name!r} holds values beyond the range of {target}", source)
            ) from None
    if given.kind not in "biu":
        raise InputTypeError(
            locate(
                f"input {name!r} needs {target} elements, got {given}; "
                f"if that is meant, pass value.astype({target.name!r})",
                source,
            )
        )
    low, high = (0, 1) if wanted == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    if given.kind != "b" and array.size:
        smallest, largest = int(array.min()), int(array.max())
        if smallest < low or largest > high:
            value = smallest if smallest < low else largest
            raise InputError(
                locate(f"input {name!r} holds {value}, which is no {target} value", source)
            )
    return array.astype(target)


# -- sizes ----------------------------------------------------------------------------------------


def _solve_shapes(specs: Sequence[InputSpec], shapes: Sequence[tuple]) -> dict[str, int]:
    """Return the symbols' sizes; each is told by the first dimension that determines it."""
    for spec, shape in zip(specs, shapes, strict=True):
        _check_constant_axes(spec, shape)
    open_axes = [
        (spec, axis, dim, shape[axis])
        for spec, shape in zip(specs, shapes, strict=True)
        for axis, dim in enumerate(spec[1].shape)
        if isinstance(dim, SymbolicDim)
    ]
    bound: dict[str, int] = {}
    told_by: dict[str, str] = {}
    while open_axes:
        waiting = []
        for item in open_axes:
            (name, kind, source), axis, dim, size = item
            unknown = symbols(dim) - bound.keys()
            where = f"axis {axis} of {name!r}"
            if not unknown:
                expected = evaluate(dim, bound)
                if expected != size:
                    known = ", ".join(
                        f"{s} is {bound[s]} by {told_by[s]}" for s in sorted(symbols(dim))
                    )
                    raise InputError(
                        locate(
                            f"input {name!r}: expected {format_shape(kind.shape)}: axis {axis} is "
                            f"{size}, not {dim} = {expected} ({known})",
                            source,
                        )
                    )
                continue
            solved = _solve_linear(dim, size, bound)
            if solved is None:
                waiting.append(item)
                continue
            symbol, value = solved
            if value is None or value < 0:
                raise InputError(
                    locate(
                        f"input {name!r}: expected {format_shape(kind.shape)}: axis {axis} is "
                        f"{size}, which no size {symbol!r} makes equal to {dim}",
                        source,
                    )
                )
            bound[symbol], told_by[symbol] = value, where
        if len(waiting) == len(open_axes):
            (name, kind, source), axis, dim, _ = waiting[0]
            unknown = ", ".join(sorted(symbols(dim) - bound.keys()))
            raise InputError(
                locate(
                    f"input {name!r}: axis {axis}, {dim}, does not determine {unknown}; "
                    f"use {unknown} alone as a dimension of some input",
                    source,
                )
            )
        open_axes = waiting
    return bound


def _check_constant_axes(spec: InputSpec, shape: tuple) -> None:
    name, kind, source = spec
    expected = kind.shape
    got = f"input {name!r}: expected {format_shape(expected)}, got {format_shape(shape)}"
    if len(shape) != len(expected):
        raise InputError(locate(f"{got}: {len(shape)} axes instead of {len(expected)}", source))
    for axis, (dim, size) in enumerate(zip(expected, shape, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise InputError(locate(f"{got}: axis {axis} is {size}, not {dim}", source))


def _solve_linear(dim: Dim, size: int, bound: Mapping[str, int]) -> tuple[str, int | None] | None:
    """Solve ``dim == size`` for the one symbol that is not bound.

    Returns None where there are several, or where the equation is not linear or vanishes; the
    value is None where no whole number fits.
    """
    unknown = symbols(dim) - bound.keys()
    if len(unknown) != 1 or not isinstance(dim, SymbolicDim):
        return None
    (symbol,) = unknown
    factor, constant = 0, 0
    for monomial, coefficient in dim.terms:
        occurrences = [atom for atom in monomial if atom == Symbol(symbol)]
        rest = SymbolicDim(((tuple(a for a in monomial if a != Symbol(symbol)), coefficient),))
        if len(occurrences) > 1 or symbol in symbols(rest):
            return None
        if occurrences:
            factor += evaluate(rest, bound)
        else:
            constant += evaluate(rest, bound)
    if factor == 0:
        return None
    value, remainder = divmod(size - constant, factor)
    return symbol, None if remainder else value
