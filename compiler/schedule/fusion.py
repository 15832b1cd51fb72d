"""Fusion: put every computed node into a kernel group.

Nodes are visited inputs first.  A node joins the group of one of its sources where (1) it reads
that source element by element, (2) its axes cover the group's outer axes, so that it is computed
once per iteration, and (3) no other input of it depends on the group through another kernel, so
that the groups stay a directed acyclic graph.  Contractions, sorts and running values open groups
of their own and take elementwise consumers in as an epilogue; so do scatters, but they take nothing
in.  Reductions share the loop over their outer axes, so softmax, normalisation and their gradients
become one kernel each.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir import ops
from ..ir.bodies import families, family
from ..ir.dims import product
from ..ir.graph import Node, Program
from ..ir.types import Dim
from .access import Access, AxisMap, direct_reads, strip_aliases
from .loops import loop_programs
from .plan import ANCHORS, BodyGroups, KernelGroup
from .siblings import merge_siblings
from .text import name_node

#: A reduction to nothing runs on one thread; above this many elements it reads stored values
#: rather than pull a parallel kernel into itself.
SERIAL_REDUCTION_LIMIT = 4096

Explain = Callable[[str], None]


class _Grouping:
    """Groups under construction, with the groups each depends on as a bit mask."""

    def __init__(self, access: Access, in_loop: bool) -> None:
        self.access = access
        self.in_loop = in_loop
        self.groups: list[KernelGroup] = []
        self.ancestors: list[int] = []
        self.group_of: dict[Node, int] = {}
        self.sources: dict[Node, dict[Node, bool]] = {}
        self.refusals: list[tuple[Node, KernelGroup, str]] = []

    def open(self, node: Node, domain: list[Dim], axes: AxisMap) -> KernelGroup:
        group = KernelGroup(len(self.groups), domain)
        self.groups.append(group)
        self.ancestors.append(0)
        self.add(group, node, axes)
        return group

    def add(self, group: KernelGroup, node: Node, axes: AxisMap) -> None:
        group.members.append(node)
        group.axes[node] = axes
        self.group_of[node] = group.number
        new = 0
        for source in self.sources[node]:
            number = self.group_of[source]
            if number != group.number:
                new |= self.ancestors[number] | 1 << number
        if new & ~self.ancestors[group.number]:
            self.ancestors[group.number] |= new
            bit = 1 << group.number
            for number, mask in enumerate(self.ancestors):
                if mask & bit:
                    self.ancestors[number] = mask | new

    def stays_acyclic(self, group: KernelGroup, node: Node) -> bool:
        """Whether no source outside ``group`` depends on it."""
        bit = 1 << group.number
        for source, pointwise in self.sources[node].items():
            number = self.group_of[source]
            if number == group.number:
                if not pointwise:
                    return False
            elif self.ancestors[number] & bit:
                return False
        return True


def compact_axes(node: Node) -> tuple[list[Dim], AxisMap]:
    """Return the sizes of the node's axes that are not 1, and where each axis went."""
    domain: list[Dim] = []
    axes: list[int | None] = []
    for dim in node.shape:
        axes.append(None if dim == 1 else len(domain))
        if dim != 1:
            domain.append(dim)
    return domain, tuple(axes)


def _axes_in_group(access: Access, group: KernelGroup, node: Node) -> AxisMap | None:
    """Return the group axes of an elementwise ``node``, or None where it does not fit."""
    axes: list[int | None] = [None] * node.type.rank
    for source, mapping in access.pointwise_reads(node):
        known = group.axes.get(source)
        if known is None:
            continue
        for source_axis, node_axis in enumerate(mapping):
            group_axis = known[source_axis]
            if node_axis is None or group_axis is None:
                continue
            if axes[node_axis] not in (None, group_axis):
                return None
            axes[node_axis] = group_axis
    taken = [axis for axis in axes if axis is not None]
    if len(taken) != len(set(taken)):
        return None
    for axis, dim in enumerate(node.shape):
        if dim == 1:
            axes[axis] = None
        elif axes[axis] is None:
            free = [a for a, d in enumerate(group.domain) if a not in axes and d == dim]
            if len(free) != 1 or free[0] not in group.inner:
                return None
            axes[axis] = free[0]
    spanned = {axis for axis in axes if axis is not None}
    if not group.outer <= spanned or spanned & group.inner not in (frozenset(), group.inner):
        return None
    return tuple(axes)


def _extension(access: Access, group: KernelGroup, node: Node) -> tuple[list[Dim], AxisMap] | None:
    """Return a larger domain in which a row-level group also holds ``node``, one axis wider."""
    if group.inner or not group.domain or group.anchor is not None:
        return None
    axes: list[int | None] = [None] * node.type.rank
    for source, mapping in access.pointwise_reads(node):
        known = group.axes.get(source)
        if known is None:
            continue
        for source_axis, node_axis in enumerate(mapping):
            if node_axis is not None and known[source_axis] is not None:
                axes[node_axis] = known[source_axis]
    if {axis for axis in axes if axis is not None} != set(range(len(group.domain))):
        return None
    new = [axis for axis, dim in enumerate(node.shape) if dim != 1 and axes[axis] is None]
    if len(new) != 1 or new[0] != node.type.rank - 1:
        return None
    axes[new[0]] = len(group.domain)
    return [*group.domain, node.shape[-1]], tuple(axes)


def _join_elementwise(state: _Grouping, node: Node) -> bool:
    found = {state.group_of[source] for source in state.sources[node]}
    # A contraction first: what joins it never travels through memory.  Then the latest.
    candidates = sorted(
        (state.groups[number] for number in found),
        key=lambda group: (group.anchor is None, -group.number),
    )
    for group in candidates:
        if not state.stays_acyclic(group, node):
            continue
        if group.anchor is not None:
            if not isinstance(group.anchor.op, (ops.ScatterAdd, ops.Nested)):
                axes = _axes_in_group(state.access, group, node)
                if axes is not None and len(set(axes) - {None}) == len(group.domain):
                    state.add(group, node, axes)
                    return True
            continue
        axes = _axes_in_group(state.access, group, node)
        if axes is not None:
            state.add(group, node, axes)
            return True
        extension = _extension(state.access, group, node)
        if extension is not None and group.members and _is_row_group(group):
            group.domain, axes = extension
            group.inner = frozenset({len(group.domain) - 1})
            state.add(group, node, axes)
            return True
    return False


def _join_alike(state: _Grouping, node: Node) -> bool:
    """Join a kernel of elementwise functions over the same axes that computes nothing it reads.

    In a loop, where kernels are small, what it costs to run one is what counts.
    """
    if not state.in_loop:
        return False
    domain, axes = compact_axes(node)
    for group in state.groups:
        fits = group.domain == domain and not group.inner and not group.bodies
        if fits and group.anchor is None and state.stays_acyclic(group, node):
            state.add(group, node, axes)
            return True
    return False


def _is_row_group(group: KernelGroup) -> bool:
    return all(isinstance(node.op, (ops.Map, ops.Cast)) for node in group.members)


def _join_reduction(state: _Grouping, node: Node) -> bool:
    ((source, mapping),) = direct_reads(node, state.access.stored)
    number = state.group_of.get(source)
    if number is None:
        return False
    group = state.groups[number]
    if group.anchor is not None or not state.stays_acyclic(group, node):
        return False
    known = group.axes[source]
    op = node.op
    assert isinstance(op, ops.Reduce)
    by_input_axis: dict[int, int] = {}
    for source_axis, input_axis in enumerate(mapping):
        group_axis = known[source_axis]
        if input_axis is not None and group_axis is not None:
            by_input_axis[input_axis] = group_axis
    wide = [axis for axis, dim in enumerate(node.inputs[0].shape) if dim != 1]
    if any(axis not in by_input_axis for axis in wide):
        return False
    reduced = frozenset(by_input_axis[axis] for axis in op.axes if axis in by_input_axis)
    if not reduced or (group.inner and group.inner != reduced):
        return False
    outer = frozenset(range(len(group.domain))) - reduced
    if set(by_input_axis.values()) != set(range(len(group.domain))):
        return False
    if not outer:
        size = product(tuple(group.domain))
        if not isinstance(size, int) or size > SERIAL_REDUCTION_LIMIT:
            return False
    group.inner = reduced
    kept = [axis for axis in range(node.inputs[0].type.rank) if axis not in op.axes]
    state.add(group, node, tuple(by_input_axis.get(axis) for axis in kept))
    return True


def _open_reduction(state: _Grouping, node: Node) -> None:
    op, source = node.op, node.inputs[0]
    assert isinstance(op, ops.Reduce)
    domain, axes = compact_axes(source)
    group = state.open(node, domain, tuple(a for axis, a in enumerate(axes) if axis not in op.axes))
    group.inner = frozenset(a for axis in op.axes if (a := axes[axis]) is not None)


def _explain_refusal(state: _Grouping, node: Node, fuse: bool) -> None:
    """Say why ``node`` joins none of the kernels that compute what it reads."""
    for number in sorted({state.group_of[source] for source in state.sources[node]}):
        group = state.groups[number]
        reason = _find_obstacle(state, group, node) if fuse else "fusion is switched off"
        state.refusals.append((node, group, reason))


def _find_obstacle(state: _Grouping, group: KernelGroup, node: Node) -> str:
    """Return what keeps ``node`` out of ``group``, in the order in which joining is tried."""
    bit = 1 << group.number
    for source, pointwise in state.sources[node].items():
        number = state.group_of[source]
        if number == group.number and not pointwise:
            return f"it reads {name_node(source)} at other indices"
        if number != group.number and state.ancestors[number] & bit:
            return f"that would make a cycle: it also reads {name_node(source)}, which needs it"
    anchor = group.anchor
    if isinstance(node.op, ops.Reduce):
        ((source, mapping),) = direct_reads(node)
        if state.group_of.get(source) != group.number:
            return f"it reduces {name_node(source)}, which that kernel does not compute"
        if anchor is not None:
            return (
                f"a {anchor.op.name} takes elementwise operators in, not reductions of its result"
            )
        known = group.axes[source]
        reduced = {known[a] for a, x in enumerate(mapping) if x in node.op.axes} - {None}
        if group.inner and group.inner != reduced:
            return "reduction over other axes than those of that kernel"
        if len(reduced) == len(group.domain):
            return "it reduces everything, in a fixed order on one thread, which would hold it back"
        return "its axes are not the axes of that kernel's loops"
    if anchor is not None and isinstance(anchor.op, ops.ScatterAdd):
        return f"a {anchor.op.name} takes nothing in"
    if anchor is not None:
        return f"its axes are not those of the {anchor.op.name}'s result"
    return (
        "its axes do not cover that kernel's outer loops, so it would be computed again and again"
    )


def _open_loop(
    state: _Grouping, node: Node, alike: list[Node], fuse: bool, explain: Explain
) -> None:
    """Open the group of a loop or branch: all of its results at once."""
    for member in alike:
        state.sources[member] = state.access.kernel_sources(member)
    group = state.open(node, [], (None,) * node.type.rank)
    for member in alike:
        if member is not node:
            state.add(group, member, (None,) * member.type.rank)
    assert isinstance(node.op, ops.Nested)
    group.anchor = node
    used = sorted({member.op.output for member in alike})  # type: ignore[attr-defined]
    group.bodies = tuple(
        BodyGroups(program, group_nodes(program, fuse, explain, in_loop=True), carries)
        for program, carries in loop_programs(node.op, used)
    )


def group_nodes(
    program: Program, fuse: bool, explain: Explain, in_loop: bool = False
) -> list[KernelGroup]:
    """Return the kernel groups of ``program``; every computed node is a member of exactly one."""
    access = Access(program)
    state = _Grouping(access, in_loop)
    loops = families(access.nodes)
    for node in access.nodes:
        if not access.is_computed(node) or node in state.group_of:
            continue
        state.sources[node] = access.kernel_sources(node)
        match node.op:
            case ops.Map() | ops.Cast():
                if not (fuse and (_join_elementwise(state, node) or _join_alike(state, node))):
                    _explain_refusal(state, node, fuse)
                    state.open(node, *compact_axes(node))
            case ops.Reduce():
                if not (fuse and _join_reduction(state, node)):
                    _explain_refusal(state, node, fuse)
                    _open_reduction(state, node)
            case _ if isinstance(node.op, ANCHORS):
                state.open(node, *compact_axes(node)).anchor = node
            case ops.Nested():
                _open_loop(state, node, loops[family(node)], fuse, explain)
            case _:
                if not (fuse and node in access.free and _join_alike(state, node)):
                    state.open(node, *compact_axes(node))
    for root in map(strip_aliases, program.roots):
        if root not in state.group_of:
            state.sources[root] = access.kernel_sources(root)
            if not (fuse and _join_alike(state, root)):
                state.open(root, *compact_axes(root))
    groups = merge_siblings(state.groups, access, state.sources) if fuse else state.groups
    for node, group, reason in state.refusals:
        explain(f"{name_node(node)} does not join kernel {group.number}: {reason}")
    return groups
