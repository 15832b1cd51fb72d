"""Gradients by a rule of the user's own: straight-through estimators, reversal, clipping inside."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.bodies import captured_by, dependent_on, make_branch, placeholder, substitute
from ..compiler.ir.construct import full
from ..compiler.ir.dims import format_shape
from ..compiler.ir.graph import Node
from ..compiler.ir.infer import broadcast_shapes
from . import shaping
from .promotion import convert
from .tensor import Tensor, as_tensor
from .tracing import build, fail


def custom_gradient(function: Callable[..., tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
    """Return ``function`` with a rule of its own in place of its derivative; a decorator.

    ``function(*tensors)`` returns ``(y, backward)``.  ``y`` is a tensor or a tuple of tensors, and
    ``backward(*cotangents)``, which gets a cotangent for each of them, returns the cotangents of
    the arguments: one, or a tuple with None where nothing flows.  ``backward`` may use whatever
    the function computed and is differentiated itself for derivatives of second order.  Gradients
    reach what the function uses besides its arguments only through ``y``'s rule, so pass
    parameters as arguments.  Keywords are handed on as they are.

        @cr.custom_gradient
        def round_straight_through(x):
            return F.round(x), lambda cotangent: cotangent

    Raises
    ------
    GraphError
        The function returns something else than such a pair, or a cotangent of a wrong shape.
    """
    name = getattr(function, "__name__", "custom_gradient")

    @functools.wraps(function)
    def with_rule(*arguments: object, **keywords: Any) -> Any:
        tensors = [as_tensor(x) for x in arguments]
        pair = function(*tensors, **keywords)
        if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1])):
            fail(f"{name}: must return (y, backward), not {type(pair).__name__}", GraphTypeError)
        result, backward = pair
        several = isinstance(result, (tuple, list))
        values = [as_tensor(y).node for y in (result if several else (result,))]
        ruled = _attach(name, values, [x.node for x in tensors], backward)
        return tuple(map(Tensor, ruled)) if several else Tensor(ruled[0])

    return with_rule


def _attach(
    name: str, values: list[Node], arguments: list[Node], backward: Callable[..., Any]
) -> list[Node]:
    """Return ``values`` such that their cotangents go to ``arguments`` through ``backward``."""
    floats = [position for position, value in enumerate(values) if value.type.is_float]
    seeds = {position: placeholder(values[position].type) for position in floats}
    given = [
        Tensor(seeds[k]) if k in seeds else Tensor(full(0, value.type))
        for k, value in enumerate(values)
    ]
    returned = backward(*given)
    parts = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    if len(parts) != len(arguments):
        fail(
            f"{name}: backward returns {len(parts)} cotangents for {len(arguments)} arguments; "
            "one for each would fit, None where nothing flows"
        )
    receiving = [x for x in arguments if x.type.is_float]
    if not floats or not receiving:
        return values
    results = [
        _fitted(name, position, part, x)
        for position, (part, x) in enumerate(zip(parts, arguments, strict=True))
        if x.type.is_float
    ]
    cotangents = list(seeds.values())
    dependent = dependent_on(results, cotangents)
    outside = captured_by(results, dependent)
    inside = [placeholder(node.type) for node in outside]
    closed = substitute(results, dict(zip(outside, inside, strict=True)))
    rule = make_branch([*cotangents, *inside], closed)
    inputs = (*(values[k] for k in floats), *receiving, *outside)
    ruled = list(values)
    for output, position in enumerate(floats):
        ruled[position] = build(ops.CustomGradient(rule, len(floats), output), *inputs)
    return ruled


def _fitted(name: str, position: int, part: object, argument: Node) -> Node:
    """Return a cotangent in its argument's type; zeros for None."""
    if part is None:
        return full(0, argument.type)
    node = convert(as_tensor(part).node, argument.dtype)
    try:
        fits = broadcast_shapes(node.shape, argument.shape) == argument.shape
    except ValueError:
        fits = False
    if not fits:
        fail(
            f"{name}: the cotangent of argument {position} has shape {format_shape(node.shape)}; "
            f"{format_shape(argument.shape)} would fit"
        )
    return shaping.broadcast(node, argument.shape)


__all__ = ["custom_gradient"]
