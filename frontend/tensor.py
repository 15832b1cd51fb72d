"""The tensor that a user computes with: a graph node that behaves like a NumPy array.

A `Tensor` has no values; it stands for one value of the graph.  Arithmetic promotes element types
as PyTorch does (see ``promotion.py``), shapes broadcast as in NumPy, dimensions may be symbolic.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Sequence
from typing import NoReturn

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import SymbolicDim, product
from ..compiler.ir.graph import Node
from ..compiler.ir.types import FLOATS, Dim, Shape, TensorType
from . import contraction, elementary, reductions, shaping
from .latex import tensor_latex
from .promotion import (
    Operand,
    array_of,
    canonical_dtype,
    common_dtype,
    constant_node,
    convert,
    is_weak,
    unify,
)
from .shaping import Axes
from .tracing import build, fail, refusal, user_line

#: Anything that stands where a tensor is expected.
TensorLike = "Tensor | np.ndarray | np.generic | SymbolicDim | bool | int | float | Sequence"


def operand_of(value: object) -> Operand:
    """Return ``value`` as what `unify` takes: a node, a weak scalar or an array."""
    if isinstance(value, Tensor):
        return value.node
    if is_weak(value):
        return value  # type: ignore[return-value]
    return array_of(value)


def apply(function: str, *values: object) -> Tensor:
    """Return the elementary function called ``function`` of ``values``, promoted and broadcast.

    Raises GraphTypeError for element types that the function does not take, GraphError for shapes
    that do not broadcast.
    """
    return Tensor(elementary.apply(function, *map(operand_of, values)))


class Tensor:
    """A value of the graph, with the operators and methods of a NumPy array.

    ``node`` is the graph node.  Tensors are immutable and hash by identity; ``==`` compares
    elementwise and gives a tensor.
    """

    __slots__ = ("__weakref__", "node")
    __array_priority__ = 1000
    __array_ufunc__ = None  # array + tensor is Tensor.__radd__

    node: Node

    def __init__(self, node: Node) -> None:
        object.__setattr__(self, "node", node)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"tensors are immutable; cannot set {name!r}")

    @property
    def shape(self) -> Shape:
        """The sizes of the axes, ints and symbolic dimensions."""
        return self.node.type.shape

    @property
    def dtype(self) -> str:
        """The element type's name, such as ``"float32"``."""
        return self.node.type.dtype

    @property
    def ndim(self) -> int:
        return self.node.type.rank

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return self.node.type.size

    @property
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return self.transpose()

    @property
    def mT(self) -> Tensor:
        """The tensor with its last two axes exchanged."""
        return self.swapaxes(-1, -2)

    def __repr__(self) -> str:
        source = f", from {self.node.source}" if self.node.source else ""
        return f"Tensor({self.node.op.name}, {self.node.type}{source})"

    def latex(self) -> str:
        """Return the tensor's formula as LaTeX."""
        return tensor_latex(self)

    def __deepcopy__(self, memo: dict[int, object]) -> Tensor:
        return self

    # What a value-less tensor cannot do, said clearly.

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise refusal(
            "a tensor has no value while the graph is built, so it is neither true nor false; use "
            "where(condition, a, b), and & | ~ in place of and, or, not",
            GraphTypeError,
        )

    def _no_value(self, *_: object, **__: object) -> NoReturn:
        fail(
            "a tensor has no value while the graph is built; compile it and call the result",
            GraphTypeError,
        )

    __float__ = __int__ = __complex__ = _no_value
    __array__ = _no_value

    def __contains__(self, item: object) -> NoReturn:
        fail("`in` needs values; use (tensor == item).any()", GraphTypeError)

    def __setitem__(self, key: object, value: object) -> NoReturn:
        fail("tensors are immutable; use where, concatenate or pad", GraphTypeError)

    def __len__(self) -> int:
        if not self.shape or isinstance(self.shape[0], SymbolicDim):
            fail(f"a tensor of shape {self.shape} has no length yet; use .shape[0]", GraphTypeError)
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # Arithmetic.

    def __add__(self, other: object) -> Tensor:
        return apply("add", self, other)

    def __radd__(self, other: object) -> Tensor:
        return apply("add", other, self)

    def __sub__(self, other: object) -> Tensor:
        return apply("sub", self, other)

    def __rsub__(self, other: object) -> Tensor:
        return apply("sub", other, self)

    def __mul__(self, other: object) -> Tensor:
        return apply("mul", self, other)

    def __rmul__(self, other: object) -> Tensor:
        return apply("mul", other, self)

    def __truediv__(self, other: object) -> Tensor:
        return apply("div", self, other)

    def __rtruediv__(self, other: object) -> Tensor:
        return apply("div", other, self)

    def __floordiv__(self, other: object) -> Tensor:
        return apply("floordiv", self, other)

    def __rfloordiv__(self, other: object) -> Tensor:
        return apply("floordiv", other, self)

    def __mod__(self, other: object) -> Tensor:
        return apply("mod", self, other)

    def __rmod__(self, other: object) -> Tensor:
        return apply("mod", other, self)

    def __pow__(self, exponent: object) -> Tensor:
        return Tensor(elementary.power(self.node, operand_of(exponent)))

    def __rpow__(self, base: object) -> Tensor:
        return Tensor(elementary.power(operand_of(base), self.node))

    def __matmul__(self, other: object) -> Tensor:
        return Tensor(contraction.matmul(self.node, as_tensor(other).node))

    def __rmatmul__(self, other: object) -> Tensor:
        return Tensor(contraction.matmul(as_tensor(other).node, self.node))

    def __neg__(self) -> Tensor:
        return apply("neg", self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return apply("abs", self)

    # Comparisons and logic.

    def __lt__(self, other: object) -> Tensor:
        return apply("lt", self, other)

    def __le__(self, other: object) -> Tensor:
        return apply("le", self, other)

    def __gt__(self, other: object) -> Tensor:
        return apply("gt", self, other)

    def __ge__(self, other: object) -> Tensor:
        return apply("ge", self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return apply("eq", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return apply("ne", self, other)

    def __and__(self, other: object) -> Tensor:
        return Tensor(elementary.logical("logical_and", self.node, operand_of(other)))

    def __rand__(self, other: object) -> Tensor:
        return Tensor(elementary.logical("logical_and", operand_of(other), self.node))

    def __or__(self, other: object) -> Tensor:
        return Tensor(elementary.logical("logical_or", self.node, operand_of(other)))

    def __ror__(self, other: object) -> Tensor:
        return Tensor(elementary.logical("logical_or", operand_of(other), self.node))

    def __xor__(self, other: object) -> Tensor:
        return Tensor(elementary.logical("logical_xor", self.node, operand_of(other)))

    def __rxor__(self, other: object) -> Tensor:
        return Tensor(elementary.logical("logical_xor", operand_of(other), self.node))

    def __lshift__(self, other: object) -> Tensor:
        return apply("shift_left", self, other)

    def __rshift__(self, other: object) -> Tensor:
        return apply("shift_right", self, other)

    def __invert__(self) -> Tensor:
        return Tensor(elementary.invert(self.node))

    def __getitem__(self, key: object) -> Tensor:
        parts = key if isinstance(key, tuple) else (key,)
        plain = tuple(part.node if isinstance(part, Tensor) else part for part in parts)
        return Tensor(shaping.index(self.node, plain))

    # Element types.

    def astype(self, dtype: object) -> Tensor:
        """Return the tensor converted to ``dtype``; floats to integers truncate."""
        return Tensor(convert(self.node, canonical_dtype(dtype)))

    # Reductions.  ``axis``: an int, several, or None for all.

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Return the sum over ``axis``; bools and integers give int64."""
        return Tensor(reductions.reduce("sum", self.node, axis, keepdims))

    def prod(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Return the product over ``axis``; bools and integers give int64."""
        return Tensor(reductions.reduce("prod", self.node, axis, keepdims))

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Return the maximum over ``axis``; NaN where any element is NaN."""
        return Tensor(reductions.reduce("max", self.node, axis, keepdims))

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Return the minimum over ``axis``; NaN where any element is NaN."""
        return Tensor(reductions.reduce("min", self.node, axis, keepdims))

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Return the mean over ``axis``; GraphError where there is surely no element."""
        return Tensor(reductions.mean(self.node, axis, keepdims))

    def var(self, axis: Axes = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        """Return the variance over ``axis``, the sum of squares divided by the count - ``ddof``."""
        return Tensor(reductions.var(self.node, axis, ddof, keepdims))

    def std(self, axis: Axes = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        """Return the standard deviation over ``axis``, the square root of `var`."""
        return self.var(axis, ddof, keepdims).sqrt()

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the int64 index of the first maximum along ``axis`` (None: of all elements)."""
        return Tensor(reductions.arg_reduce("argmax", self.node, axis, keepdims))

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the int64 index of the first minimum along ``axis`` (None: of all elements)."""
        return Tensor(reductions.arg_reduce("argmin", self.node, axis, keepdims))

    def any(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Return whether any element over ``axis`` is not zero."""
        return Tensor(reductions.reduce("max", self.astype("bool").node, axis, keepdims))

    def all(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Return whether every element over ``axis`` is not zero."""
        return Tensor(reductions.reduce("min", self.astype("bool").node, axis, keepdims))

    # Views.

    def reshape(self, *shape: object) -> Tensor:
        """Return the elements, row-major, in ``shape``; one dimension may be -1."""
        return Tensor(shaping.reshape(self.node, shaping.shape_of(_unpack(shape), "reshape")))

    def transpose(self, *axes: object) -> Tensor:
        """Return the tensor with its axes in the order of ``axes`` (none: reversed)."""
        order = _unpack(axes)
        return Tensor(shaping.transpose(self.node, order or None))  # type: ignore[arg-type]

    def swapaxes(self, first: int, second: int) -> Tensor:
        """Return the tensor with two axes exchanged."""
        order = list(range(self.ndim))
        a = shaping.axis_of_elements(first, self.ndim, "swapaxes")
        b = shaping.axis_of_elements(second, self.ndim, "swapaxes")
        if not order:
            return self
        order[a], order[b] = b, a
        return Tensor(shaping.transpose(self.node, order))

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """Return the tensor with axes ``start`` to ``end`` (inclusive) made one."""
        if not self.shape:
            return self.reshape(1)
        a = shaping.normalize_axis(start, self.ndim, "flatten")
        b = shaping.normalize_axis(end, self.ndim, "flatten")
        if a > b:
            fail(f"flatten: start axis {start} comes after end axis {end}")
        middle = product(self.shape[a : b + 1])
        return self.reshape((*self.shape[:a], middle, *self.shape[b + 1 :]))

    def ravel(self) -> Tensor:
        """Return the elements, row-major, in one axis."""
        return self.reshape((self.size,))

    def squeeze(self, axis: Axes = None) -> Tensor:
        """Return the tensor without ``axis`` (None: without every axis of size 1)."""
        return Tensor(shaping.squeeze(self.node, axis))

    def expand_dims(self, axis: int | Sequence[int]) -> Tensor:
        """Return the tensor with axes of size 1 at ``axis`` of the result."""
        return Tensor(shaping.expand_dims(self.node, axis))

    def broadcast_to(self, *shape: object) -> Tensor:
        """Return the tensor broadcast to ``shape``."""
        target = shaping.nonnegative_shape(_unpack(shape), "broadcast_to")
        return Tensor(shaping.broadcast(self.node, target))

    # Elementwise functions.

    def exp(self) -> Tensor:
        """Return e to the power of each element."""
        return apply("exp", self)

    def log(self) -> Tensor:
        """Return the natural logarithm."""
        return apply("log", self)

    def log1p(self) -> Tensor:
        """Return log(1 + x)."""
        return apply("log1p", self)

    def expm1(self) -> Tensor:
        """Return exp(x) - 1."""
        return apply("expm1", self)

    def sqrt(self) -> Tensor:
        """Return the square root."""
        return apply("sqrt", self)

    def rsqrt(self) -> Tensor:
        """Return one over the square root."""
        return apply("rsqrt", self)

    def square(self) -> Tensor:
        """Return the square."""
        return apply("square", self)

    def abs(self) -> Tensor:
        """Return the absolute value."""
        return apply("abs", self)

    def sign(self) -> Tensor:
        """Return the sign: -1, 0 or 1."""
        return apply("sign", self)

    def reciprocal(self) -> Tensor:
        """Return one over each element."""
        return apply("reciprocal", self)

    def sin(self) -> Tensor:
        """Return the sine."""
        return apply("sin", self)

    def cos(self) -> Tensor:
        """Return the cosine."""
        return apply("cos", self)

    def tanh(self) -> Tensor:
        """Return the hyperbolic tangent."""
        return apply("tanh", self)

    def sigmoid(self) -> Tensor:
        """Return the logistic function 1/(1 + exp(-x))."""
        return apply("sigmoid", self)

    def relu(self) -> Tensor:
        """Return max(x, 0)."""
        return apply("relu", self)

    def erf(self) -> Tensor:
        """Return the error function."""
        return apply("erf", self)

    def floor(self) -> Tensor:
        """Return the greatest integer that is not above."""
        return apply("floor", self)

    def ceil(self) -> Tensor:
        """Return the least integer that is not below."""
        return apply("ceil", self)

    def round(self) -> Tensor:
        """Return the nearest integer, halves to even."""
        return apply("rint", self)

    def clip(self, low: object = None, high: object = None) -> Tensor:
        """Return the tensor limited to ``[low, high]``; None leaves a side open."""
        low, high = (None if bound is None else operand_of(bound) for bound in (low, high))
        return Tensor(elementary.clip(self.node, low, high))


def _unpack(values: tuple[object, ...]) -> tuple[object, ...]:
    """Return the values of ``f(2, 3)`` and ``f((2, 3))`` alike."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        return tuple(values[0])
    if len(values) == 1 and values[0] is None:
        return ()
    return values


def as_tensor(value: object, like: Tensor | None = None, dtype: object = None) -> Tensor:
    """Return ``value`` as a tensor.

    ``value``: a tensor, an array (NumPy, ``__array__``, DLPack), a number, a dimension, or nested
    sequences of numbers or tensors.  Scalars take the element type of ``like``.
    ``dtype`` converts.
    """
    wanted = canonical_dtype(dtype) if dtype is not None else None
    if isinstance(value, Tensor):
        return value if wanted is None else value.astype(wanted)
    if isinstance(value, (list, tuple)) and any(isinstance(x, Tensor) for x in _leaves(value)):
        parts = [as_tensor(part, like, dtype) for part in value]
        nodes = [shaping.expand_dims(node, 0) for node in unify(*(x.node for x in parts))]
        return Tensor(shaping.concatenate(nodes, 0))
    if wanted is not None and isinstance(value, (list, tuple)):
        return Tensor(constant_node(array_of(value, wanted), wanted))  # not by way of float32
    operand = operand_of(value)
    if like is not None and is_weak(value) and wanted is None:
        wanted = common_dtype((like.node, operand))
    return Tensor(unify(operand, dtype=wanted)[0])


def floating(x: object) -> Tensor:
    """Return ``x`` as a tensor of a float type: float32 where it is of integers or bools."""
    tensor = as_tensor(x)
    return tensor if tensor.dtype in FLOATS else tensor.astype("float32")


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def constant(value: object, dtype: object = None) -> Tensor:
    """Return an array known at compile time as a tensor.

    Python floats are float32 and ints int64 unless ``dtype`` says otherwise; arrays keep
    their type.
    """
    if isinstance(value, Tensor):
        fail("constant: takes an array or a number, not a tensor", GraphTypeError)
    array = array_of(value, canonical_dtype(dtype) if dtype is not None else None)
    return Tensor(constant_node(array, array.dtype.name))


def input(name: str, shape: object = (), dtype: object = "float32") -> Tensor:
    """Return an array that the caller of the compiled program passes by ``name``.

    ``shape``: ints, symbolic dimensions, and strings that name symbolic dimensions; the same name
    is the same size everywhere.  Raises GraphError for a bad name or a negative size.
    """
    if not isinstance(name, str) or not name.isidentifier():
        fail(f"input: the name must be a Python identifier, not {name!r}")
    sizes = shaping.nonnegative_shape(shape, f"input {name!r}")
    node = build(ops.Input(name, TensorType(canonical_dtype(dtype), sizes)))
    node.source = user_line() or node.source  # equal inputs are one node: the last line counts
    _declared[node] = next(_declarations)
    return Tensor(node)


def declaration_number(node: Node) -> int:
    """Return a number by which inputs sort into the order in which `input` was last called."""
    return _declared.get(node, node.serial)


_declarations = itertools.count()
_declared: weakref.WeakKeyDictionary[Node, int] = weakref.WeakKeyDictionary()
