"""Nested tuples, lists and dicts of tensors: taking them apart and putting them together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .tensor import Tensor

#: What holds no tensor of its own.
_CONTAINERS = (tuple, list, dict)


def leaves_of(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of ``tree`` with the path to it, ``[0]['h']``; None holds no leaf."""
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from leaves_of(part, f"{path}[{key!r}]")
    elif isinstance(tree, (tuple, list)):
        for position, part in enumerate(tree):
            yield from leaves_of(part, f"{path}[{position}]")
    elif tree is not None:
        yield path, tree


def map_leaves(function: Callable[[Any], Any], tree: object) -> Any:
    """Return ``tree`` with ``function`` of each leaf in its place."""
    return rebuild(tree, map(function, [leaf for _, leaf in leaves_of(tree)]))


def rebuild(tree: object, leaves: Iterator[Any]) -> Any:
    """Return a tree of the structure of ``tree`` with its leaves taken from ``leaves``."""
    if isinstance(tree, Mapping):
        return {key: rebuild(part, leaves) for key, part in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(rebuild(part, leaves) for part in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(rebuild(part, leaves) for part in tree)
    return None if tree is None else next(leaves)


def describe(tree: object) -> str:
    """Return the structure of ``tree`` with types for leaves, for messages."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key!r}: {describe(part)}" for key, part in tree.items()) + "}"
    if isinstance(tree, (tuple, list)):
        inner = ", ".join(map(describe, tree))
        if isinstance(tree, list):
            return f"[{inner}]"
        return f"({inner},)" if len(tree) == 1 else f"({inner})"
    if isinstance(tree, Tensor):
        return str(tree.node.type)
    return "None" if tree is None else type(tree).__name__


def same_structure(a: object, b: object) -> bool:
    """Whether two trees have the same containers, keys and places without a leaf."""
    if isinstance(a, Mapping):
        return (
            isinstance(b, Mapping)
            and set(a) == set(b)
            and all(same_structure(part, b[key]) for key, part in a.items())
        )
    if isinstance(a, (tuple, list)):
        return (
            isinstance(b, (tuple, list))
            and isinstance(a, list) == isinstance(b, list)
            and len(a) == len(b)
            and all(map(same_structure, a, b))
        )
    return not isinstance(b, (*_CONTAINERS, Mapping)) and (a is None) == (b is None)


def ordered_like(tree: object, pattern: object) -> Any:
    """Return ``tree`` with the keys of its dicts in the order of ``pattern``'s."""
    if isinstance(tree, Mapping) and isinstance(pattern, Mapping):
        return {key: ordered_like(tree[key], part) for key, part in pattern.items()}
    if isinstance(tree, (tuple, list)) and isinstance(pattern, Sequence):
        parts = [ordered_like(a, b) for a, b in zip(tree, pattern, strict=True)]
        return rebuild(tree, iter(x for part in parts for _, x in leaves_of(part)))
    return tree
