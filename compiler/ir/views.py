"""Pointwise views: broadcasts, transposes, and reshapes that only add or drop axes of size 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from . import ops
from .graph import Node

Item = TypeVar("Item")


def is_trivial_reshape(node: Node) -> bool:
    """Whether a reshape only adds or drops axes of size 1."""
    kept = [dim for dim in node.shape if dim != 1]
    return kept == [dim for dim in node.inputs[0].shape if dim != 1]


def through_view(view: Node, items: Sequence[Item], fill: Item) -> tuple[Item, ...]:
    """Carry one item an axis of a pointwise ``view`` over to the axes of its input.

    ``fill`` stands at the input's axes of size 1.
    """
    (source,) = view.inputs
    match view.op:
        case ops.Broadcast():
            tail = items[len(items) - source.type.rank :]
            return tuple(
                fill if dim == 1 else item for dim, item in zip(source.shape, tail, strict=True)
            )
        case ops.Transpose(permutation):
            moved: list[Item] = [fill] * source.type.rank
            for item, origin in zip(items, permutation, strict=True):
                moved[origin] = item
            return tuple(moved)
        case _:
            wide = iter([item for item, dim in zip(items, view.shape, strict=True) if dim != 1])
            return tuple(fill if dim == 1 else next(wide) for dim in source.shape)
