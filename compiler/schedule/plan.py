"""The schedule: which nodes make one kernel, in which order kernels run, and where values live."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir import ops
from ..ir.graph import Node, Program
from ..ir.types import Dim

#: Operators whose loops are their own: each opens a group.
ANCHORS = (
    *(*ops.CONTRACTIONS, ops.ScatterAdd, ops.ArgSort),
    *(ops.LinearRecurrence, ops.RunningExtremum),
)


@dataclass
class KernelGroup:
    """Nodes that become one kernel.

    ``domain`` holds the sizes of the group's axes (sizes of 1 are left out). Each member's axes
    stand for group axes: ``axes[node][i]`` is the group axis of the node's axis ``i``, or None
    where that axis has size 1. ``inner`` are the axes that the group's reductions sum away; every
    member spans at least all the others, so a kernel is a loop over the outer axes around loops
    over the inner ones. ``anchor`` is the node of `ANCHORS` whose loops the group shares, if
    any. A group that ``copies`` moves its member's stored value to another buffer. A group with
    ``bodies`` is a loop or branch; its members are the results.
    """

    number: int
    domain: list[Dim]
    inner: frozenset[int] = frozenset()
    members: list[Node] = field(default_factory=list)
    axes: dict[Node, tuple[int | None, ...]] = field(default_factory=dict)
    anchor: Node | None = None
    copies: bool = False
    bodies: tuple[BodyGroups, ...] = ()

    @property
    def outer(self) -> frozenset[int]:
        return frozenset(range(len(self.domain))) - self.inner

    @property
    def kind(self) -> str:
        return self.anchor.op.name if self.anchor is not None else "loops"

    def __str__(self) -> str:
        names = " ".join(node.op.name for node in self.members)
        return f"group {self.number} [{self.kind}] {tuple(map(str, self.domain))}: {names}"


@dataclass(frozen=True)
class BodyGroups:
    """A body of a loop or branch as a program of its own, and its kernel groups.

    Carries are states, ``carries`` in order, and new carries their updates; the other results that
    are used are outputs, called by their numbers.  The other formals are inputs.
    """

    program: Program
    groups: list[KernelGroup]
    carries: tuple[Node, ...] = ()


@dataclass(frozen=True)
class BufferPlan:
    """A buffer: its element type, size in elements, and the kind of place it lives in."""

    name: str
    dtype: str
    size: Dim
    kind: str  # input | output | state | constant | arena
    node: Node
    label: str = ""


@dataclass(frozen=True)
class ScheduledGroup:
    """A group in its place in the order: what it stores where, and whether threads meet before.

    ``source`` is the buffer that a group that copies reads.
    """

    group: KernelGroup
    stores: tuple[tuple[Node, tuple[str, ...]], ...]
    barrier: bool
    phase: int
    source: str | None = None
    loop: ScheduledLoop | None = None


@dataclass(frozen=True)
class ScheduledLoop:
    """A loop or branch over buffers.

    ``inputs`` holds the values of the operator's inputs, ``carries`` the carries (the first ones
    before the loop, the last ones after it), ``outputs`` the other results by their numbers,
    ``condition`` what a while loop's condition gives.  ``states`` stand for the carries in each of
    the ``bodies``.
    """

    op: ops.Nested
    bodies: tuple[Schedule, ...]
    states: tuple[tuple[Node, ...], ...]
    inputs: tuple[str, ...]
    carries: tuple[str, ...]
    outputs: dict[int, str]
    condition: str | None = None


@dataclass(frozen=True)
class Schedule:
    """The program as an ordered list of kernel groups over named buffers.

    ``home[node]`` is the buffer in which a node's value can be read by other groups.
    """

    program: Program
    steps: tuple[ScheduledGroup, ...]
    buffers: dict[str, BufferPlan]
    home: dict[Node, str]
    notes: tuple[str, ...] = ()
