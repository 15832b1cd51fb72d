"""Element types: how operands of different types meet.

The rules are PyTorch's.  Arrays and tensors promote along ``bool < int32, uint32 < int64 < float32
< float64``.  Python and NumPy *scalars* are weak: they take the element type of the tensor they
meet, unless they are of a higher kind (bool < int < float), which gives ``int64`` or ``float32``.
A dimension (``x.shape[0]``) used as a number is a weak integer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir import graph, ops
from ..compiler.ir.dims import SymbolicDim
from ..compiler.ir.graph import Node
from ..compiler.ir.types import FLOATS, ITEM_BYTES
from .tracing import build, fail, user_line

#: Array types that have no counterpart in the graph -> the type that holds all their values.
_WIDENED = {
    "float16": "float32",
    "bfloat16": "float32",
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
    "uint16": "int32",
    "uint64": "int64",
}
_RANK = {"bool": 0, "uint32": 1, "int32": 1, "int64": 2, "float32": 3, "float64": 4}
_KIND = {"bool": 0, "uint32": 1, "int32": 1, "int64": 1, "float32": 2, "float64": 2}
_DEFAULT = ("bool", "int64", "float32")

Operand = Node | SymbolicDim | np.ndarray | np.generic | bool | int | float


def canonical_dtype(dtype: object) -> str:
    """Return the graph's name of ``dtype`` (a name, a NumPy or torch dtype, or a Python type).

    Python's ``float`` is ``float32`` and ``int`` is ``int64``, as in PyTorch.
    """
    if dtype is float:
        return "float32"
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else None
    if name not in ITEM_BYTES:
        with contextlib.suppress(TypeError):
            name = np.dtype(dtype).name  # type: ignore[call-overload]
    if name not in ITEM_BYTES:
        fail(f"unknown dtype {dtype!r}; known: {', '.join(ITEM_BYTES)}", GraphTypeError)
    return name


def promote_dtypes(first: str, second: str) -> str:
    """Return the element type in which arrays of two types meet."""
    if first == second:
        return first
    if {first, second} == {"int32", "uint32"}:
        return "int64"
    return max(first, second, key=_RANK.__getitem__)


def array_of(value: object, dtype: str | None = None) -> np.ndarray:
    """Return ``value`` as an array of an element type that the graph has.

    Accepts what NumPy accepts, and DLPack.  Python numbers become ``bool``, ``int64`` or
    ``float32``; arrays keep their type, narrow ones are widened.  Raises GraphTypeError where there
    is no fitting type.
    """
    weak = not hasattr(value, "dtype")
    if weak and hasattr(value, "__dlpack__"):
        array = np.from_dlpack(value)  # type: ignore[arg-type]
        weak = False
    else:
        detach = getattr(value, "detach", None)
        try:
            array = np.asarray(detach() if callable(detach) else value)
        except (TypeError, ValueError) as error:
            fail(f"cannot make an array of {type(value).__name__}: {error}", GraphTypeError)
    if dtype is None:
        name = array.dtype.name
        if weak and name == "float64":
            dtype = "float32"
        elif name in ITEM_BYTES:
            dtype = name
        elif name in _WIDENED:
            dtype = _WIDENED[name]
        else:
            fail(
                f"cannot use an array of {array.dtype}; known: {', '.join(ITEM_BYTES)}",
                GraphTypeError,
            )
    if array.dtype.kind not in "biuf" and array.dtype.name not in _WIDENED:
        fail(f"cannot convert {array.dtype} to {dtype}", GraphTypeError)
    return array.astype(dtype, copy=False)


def constant_node(value: object, dtype: str) -> Node:
    """Return a constant of ``value`` in ``dtype``; GraphTypeError where it cannot hold it."""
    if isinstance(value, int) and not isinstance(value, bool) and _KIND[dtype] == 1:
        info = np.iinfo(dtype)
        if not info.min <= value <= info.max:
            fail(f"the integer {value} does not fit {dtype}", GraphTypeError)
    return graph.constant(value, dtype, user_line())


def convert(node: Node, dtype: str) -> Node:
    """Return ``node`` in ``dtype``; the node itself where nothing changes."""
    if node.dtype == dtype:
        return node
    if isinstance(node.op, ops.Constant):
        return graph.constant(node.op.value.array.astype(dtype), dtype, node.source or user_line())
    return build(ops.Cast(dtype), node)


def is_weak(value: object) -> bool:
    """Return whether ``value`` takes the element type of the tensor that it meets."""
    return isinstance(value, (bool, int, float, np.generic, SymbolicDim))


def _weak_kind(value: object) -> int:
    if isinstance(value, (bool, np.bool_)):
        return 0
    return 1 if isinstance(value, (int, np.integer, SymbolicDim)) else 2


def _lift(value: Operand, dtype: str) -> Node:
    if isinstance(value, Node):
        return convert(value, dtype)
    if isinstance(value, SymbolicDim):
        return build(ops.Extent(value, dtype))
    if isinstance(value, np.ndarray):
        return constant_node(value, dtype)
    if isinstance(value, np.generic):
        value = value.item()
    return constant_node(value, dtype)


def common_dtype(operands: Sequence[Operand], floating: bool = False, numeric: bool = False) -> str:
    """Return the element type in which ``operands`` meet.

    ``floating``: integers and bools become ``float32``.  ``numeric``: bools become ``int64``.
    """
    dtype: str | None = None
    weak = -1
    for value in operands:
        if is_weak(value):
            weak = max(weak, _weak_kind(value))
        else:
            given = value.dtype if isinstance(value, Node) else np.asarray(value).dtype.name
            dtype = given if dtype is None else promote_dtypes(dtype, given)
    if dtype is None or weak > _KIND[dtype]:
        dtype = _DEFAULT[weak]
    if floating and dtype not in FLOATS:
        return "float32"
    if numeric and dtype == "bool":
        return "int64"
    return dtype


def unify(
    *operands: Operand, floating: bool = False, numeric: bool = False, dtype: str | None = None
) -> list[Node]:
    """Return ``operands`` as nodes of one element type (see `common_dtype`)."""
    if dtype is None:
        dtype = common_dtype(operands, floating, numeric)
    return [_lift(value, dtype) for value in operands]
