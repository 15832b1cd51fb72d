"""Siblings: kernels that reduce the same arrays in the same loops become one.

The gradients of a normalisation's scale, shift and input are sums over the same values.  None of
them reads another's result, so grouping by producers leaves each in a kernel of its own, and each
would read the arrays again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ir import ops
from ..ir.graph import Node
from .access import Access, AxisMap
from .plan import KernelGroup

#: Every reduction holds vector registers for its sum.
MOST_REDUCTIONS = 8


def merge_siblings(
    groups: list[KernelGroup], access: Access, sources: Mapping[Node, Iterable[Node]]
) -> list[KernelGroup]:
    """Return ``groups``, renumbered, with siblings merged into the first of them.

    ``sources``: the nodes of other kernels, or its own, that every member reads.
    Two are siblings where they loop over the same axes, reduce the same ones, read an array that
    spans them all in the same way, and neither needs the other.  A group that is gone gets the
    number of the one that took its place.
    """
    found = _Siblings(groups, access, sources)
    buckets: dict[tuple, list[int]] = {}
    for group in groups:
        if group.inner and group.anchor is None:
            buckets.setdefault((tuple(group.domain), group.inner), []).append(group.number)
    for numbers in buckets.values():
        for position, number in enumerate(numbers):
            for earlier in numbers[:position]:
                if found.fit(earlier, number):
                    found.merge(earlier, number)
                    break
    return found.result()


class _Siblings:
    def __init__(
        self,
        groups: list[KernelGroup],
        access: Access,
        sources: Mapping[Node, Iterable[Node]],
    ) -> None:
        self.groups: dict[int, KernelGroup] = {group.number: group for group in groups}
        self.merged: list[tuple[KernelGroup, KernelGroup]] = []
        self.position = {node: number for number, node in enumerate(access.nodes)}
        group_of = {node: group.number for group in groups for node in group.members}
        self.needs: dict[int, set[int]] = {
            group.number: {
                group_of[source]
                for node in group.members
                for source in sources[node]
                if group_of[source] != group.number
            }
            for group in groups
        }
        self.spanning = {
            group.number: _spanning_reads(group, access)
            for group in groups
            if group.inner and group.anchor is None
        }

    def fit(self, first: int, second: int) -> bool:
        if first not in self.groups or not self.spanning[first] & self.spanning[second]:
            return False
        reductions = sum(
            isinstance(node.op, ops.Reduce)
            for number in (first, second)
            for node in self.groups[number].members
        )
        return (
            reductions <= MOST_REDUCTIONS
            and not self._reaches(first, second)
            and not self._reaches(second, first)
        )

    def _reaches(self, target: int, source: int) -> bool:
        """Whether ``target`` needs ``source``, directly or through others."""
        seen: set[int] = set()
        stack = [target]
        while stack:
            for needed in self.needs[stack.pop()]:
                if needed == source:
                    return True
                if needed not in seen:
                    seen.add(needed)
                    stack.append(needed)
        return False

    def merge(self, first: int, second: int) -> None:
        kept, gone = self.groups[first], self.groups.pop(second)
        self.merged.append((gone, kept))
        kept.members = sorted([*kept.members, *gone.members], key=self.position.__getitem__)
        kept.axes.update(gone.axes)
        self.spanning[first] |= self.spanning.pop(second)
        self.needs[first] |= self.needs.pop(second)
        for needed in self.needs.values():
            if second in needed:
                needed.discard(second)
                needed.add(first)

    def result(self) -> list[KernelGroup]:
        groups = list(self.groups.values())
        for number, group in enumerate(groups):
            group.number = number
        for gone, kept in self.merged:
            gone.number = kept.number
        return groups


def _spanning_reads(group: KernelGroup, access: Access) -> frozenset[tuple[Node, AxisMap]]:
    """Return the arrays from outside that ``group`` reads over all its axes, and how."""
    found: set[tuple[Node, AxisMap]] = set()
    for node in group.members:
        axes = _input_axes(group, node)
        for source, mapping in access.pointwise_reads(node):
            if source in group.axes:
                continue
            spread = tuple(None if axis is None else axes[axis] for axis in mapping)
            if {axis for axis in spread if axis is not None} == set(range(len(group.domain))):
                found.add((source, spread))
    return frozenset(found)


def _input_axes(group: KernelGroup, node: Node) -> AxisMap:
    """Return the group axes over which ``node`` reads: a reduction also those it sums away."""
    if not isinstance(node.op, ops.Reduce):
        return group.axes[node]
    kept, inner = iter(group.axes[node]), iter(sorted(group.inner))
    return tuple(
        (None if dim == 1 else next(inner)) if axis in node.op.axes else next(kept)
        for axis, dim in enumerate(node.inputs[0].shape)
    )
