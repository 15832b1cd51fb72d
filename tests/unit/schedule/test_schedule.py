"""Schedules of known graphs: how many kernels, what is copied, where threads meet, what lives."""

from __future__ import annotations

import pytest
from cases import N, all_cases, program, tensor
from cases_contract import einsum
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import batch_norm_step, compiled, layer_norm, perceptron_step, softmax_cross_entropy

from chainrule.compiler.analysis.views import graph_view, is_convex, reachable_between
from chainrule.compiler.artifact import ArenaSlot
from chainrule.compiler.graph_stages import optimize_graph
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.dims import evaluate
from chainrule.compiler.ir.graph import Node, Program, apply, constant, make
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.loops.ir import Choice, Item, LoopProgram, Step, Store, parts, walk
from chainrule.compiler.options import CompileOptions
from chainrule.compiler.passes import PassRunner
from chainrule.compiler.rewrites.legalize import legalize
from chainrule.compiler.schedule.fusion import group_nodes
from chainrule.compiler.schedule.order import order_groups
from chainrule.compiler.schedule.plan import Schedule
from chainrule.runtime.buffer import ALIGNMENT, place_slots

NETWORKS = (softmax_cross_entropy, perceptron_step, layer_norm, batch_norm_step)


def scheduled(source: Program, fuse: bool = True) -> Schedule:
    options = CompileOptions(training=True, verify=True)
    runner = PassRunner(options)
    graph = legalize(optimize_graph(source, options, runner))
    return order_groups(graph, group_nodes(graph, fuse, runner.note))


def state(label: str, shape: tuple, key: int) -> Node:
    return make(ops.State(label, TensorType("float32", shape), "buffer", key))


def keep(x: Node, kind: str) -> Node:
    rank = x.type.rank
    return make(ops.Reshape((*x.shape[:-1], 1)), make(ops.Reduce(kind, (rank - 1,)), x))


def softmax(x: Node) -> Node:
    e = apply("exp", apply("sub", x, keep(x, "max")))
    return apply("div", e, keep(e, "sum"))


# -- how many kernels -----------------------------------------------------------------------------

X = tensor("x", (N, 12))
W = tensor("w", (12, 5))
PRODUCT = einsum("nk,km->nm", X, W)
COUNTS = {
    "a chain of elementwise operators": (program(apply("exp", apply("tanh", apply("neg", X)))), 1),
    "siblings of one source": (program(apply("sin", apply("exp", X)), apply("exp", X)), 1),
    "softmax": (program(softmax(X)), 1),
    "softmax of softmax": (program(softmax(softmax(X))), 1),
    "sums along both axes": (
        program(make(ops.Reduce("sum", (0,)), apply("exp", X)),
                make(ops.Reduce("sum", (1,)), apply("exp", X))),
        2,
    ),
    "a product and its epilogue": (
        program(apply("relu", apply("add", PRODUCT, tensor("b", (5,))))),
        1,
    ),
    "softmax of a product": (program(softmax(PRODUCT)), 2),
    "a broadcast of a sum": (program(apply("sub", X, make(ops.Reduce("sum", (0,)), X))), 1),
    "an input as it is": (program(X), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_kernels(name):
    source, expected = COUNTS[name]
    assert len(scheduled(source).steps) == expected


def test_without_fusion_every_operator_is_a_kernel():
    source, _ = COUNTS["softmax"]
    assert [len(step.group.members) for step in scheduled(source, fuse=False).steps] == [1] * 5


# -- states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [perceptron_step, batch_norm_step])
def test_updates_happen_in_place(network):
    source = network()
    schedule = scheduled(source)
    assert not any(step.group.copies for step in schedule.steps)
    updated = {schedule.home[node] for node, _ in source.updates}
    stored = {name for step in schedule.steps for _, names in step.stores for name in names}
    assert updated <= stored


def test_a_state_that_is_read_elsewhere_after_its_update_is_known_is_copied():
    """``w`` turns into what reads ``w`` at other places: no order of writing in place is right."""
    w = state("w", (6, 6), 9801)
    turned = apply("add", w, make(ops.Transpose((1, 0)), w))
    schedule = scheduled(Program((("y", w),), ((w, turned),)))
    assert any(step.group.copies for step in schedule.steps)


def test_states_that_trade_places_are_copied():
    a, b = state("a", (3,), 9802), state("b", (3,), 9803)
    schedule = scheduled(Program((("y", apply("add", a, b)),), ((a, b), (b, a))))
    assert any(step.group.copies for step in schedule.steps)


def test_readers_of_the_old_value_run_before_the_update():
    w = state("w", (N, 12), 9804)
    column = make(ops.Reduce("sum", (0,)), apply("exp", w))
    schedule = scheduled(Program((("y", column),), ((w, apply("add", w, X)),)))
    order = {name: number for number, step in enumerate(schedule.steps)
             for _, names in step.stores for name in names}  # fmt: skip
    assert order["out.y"] < order[schedule.home[w]]


# -- barriers and phases --------------------------------------------------------------------------


def branches_of(items: tuple[Item, ...]) -> list[tuple[bool, frozenset[tuple[int, int]]]]:
    """Return for every step whether a choice before it starts a phase, and its branches."""
    found = []
    for item in items:
        if isinstance(item, Step):
            found.append((False, frozenset()))
        inside = [
            (meets, branches | {(id(item), which)} if isinstance(item, Choice) else branches)
            for which, part in enumerate(parts(item))
            for meets, branches in branches_of(part)
        ]
        if isinstance(item, Choice) and inside:
            inside[0] = (item.barrier, inside[0][1])
        found += inside
    return found


def exclude_each_other(a: frozenset, b: frozenset) -> bool:
    """Whether two steps stand in different branches of one choice."""
    return any(x[0] == y[0] and x[1] != y[1] for x in a for y in b)


def uses_of(loops: LoopProgram) -> list[tuple[bool, dict[str, bool]]]:
    """Return for every step whether it starts a phase, and its buffers: whether each is written.

    What is written is taken from the stores, not from the kernel's list of buffers.
    """
    kernels = {kernel.name: kernel for kernel in loops.kernels}
    result = []
    for step in loops.steps:
        kernel = kernels[step.kernel]
        stored = {s.buffer for s in walk(kernel.body) if isinstance(s, Store)}
        names = {use.name for use in kernel.buffers}
        result.append((step.barrier, {name: name in stored for name in names}))
    return result


def places_of(artifact, sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return the bytes of the arena that every temporary occupies."""
    offsets, total = place_slots(artifact.arena, sizes)
    lengths = {slot.buffer: evaluate(slot.bytes, sizes) for slot in artifact.arena}
    places = {name: (at, at + lengths[name]) for name, at in offsets.items()}
    assert all(end <= total for _, end in places.values())
    return places


def conflicts(artifact, sizes: dict[str, int]) -> list[tuple[int, int, str, str]]:
    """Return pairs of steps of one phase that touch the same memory, one of them writing."""
    places = places_of(artifact, sizes)
    found = []
    phase: list[tuple[int, dict[str, bool]]] = []
    branches = branches_of(artifact.loops.items)
    for number, (barrier, uses) in enumerate(uses_of(artifact.loops)):
        if barrier or branches[number][0]:
            phase = []
        for earlier, others in phase:
            if exclude_each_other(branches[earlier][1], branches[number][1]):
                continue
            for name, written in uses.items():
                for other, other_written in others.items():
                    if not (written or other_written):
                        continue
                    a, b = places.get(name), places.get(other)
                    overlap = a and b and a[0] < b[1] and b[0] < a[1]
                    if name == other or overlap:
                        found.append((earlier, number, other, name))
        phase.append((number, uses))
    return found


def idle_barriers(loops: LoopProgram) -> list[int]:
    """Return the steps whose barrier no earlier step of its phase calls for."""
    found = []
    phase: list[dict[str, bool]] = []
    for number, (barrier, uses) in enumerate(uses_of(loops)):
        if barrier:
            needed = any(
                written or uses.get(name)
                for others in phase
                for name, written in others.items()
                if name in uses
            )
            if not needed:
                found.append(number)
            phase = []
        phase.append(uses)
    return found


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_two_kernels_of_a_phase_conflict(network, fuse, batch):
    artifact = compiled(network(), fuse=fuse)
    assert conflicts(artifact, {"batch": batch}) == []


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_barriers_stand_only_where_kernels_conflict(network, fuse):
    loops = compiled(network(), fuse=fuse).loops
    first = next(i for i, kernel in enumerate(loops.kernels) if kernel.name != "check_inputs")
    assert [number for number in idle_barriers(loops) if number > first] == []


def test_no_case_has_conflicting_kernels():
    for case in all_cases()[::3]:
        artifact = compiled(case.program)
        sizes = {name: 5 for name in artifact.loops.symbols}
        assert conflicts(artifact, sizes) == [], case.name


# -- groups ---------------------------------------------------------------------------------------


def kernel_sources(node: Node, computed: set[Node]) -> set[Node]:
    """Return the computed nodes that ``node`` is made of, through what is computed in passing."""
    found: set[Node] = set()
    stack = list(node.inputs)
    while stack:
        x = stack.pop()
        if x in computed:
            found.add(x)
        else:
            stack.extend(x.inputs)
    return found


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_groups_are_convex_and_in_order(network, fuse):
    """No path leaves a group through another and comes back; sources are computed before."""
    schedule = scheduled(network(), fuse)
    view = graph_view(schedule.program)
    groups = [step.group for step in schedule.steps if not step.group.copies]
    computed = {node for group in groups for node in group.members}
    done: set[Node] = set()
    for group in groups:
        members = set(group.members)
        between = reachable_between(view, members, members)
        assert is_convex(view, members | (between - computed)), group
        assert between & computed == members, group
        needed = {x for node in members for x in kernel_sources(node, computed)}
        assert needed <= done | members, group
        done |= members
    assert sum(len(group.members) for group in groups) == len(computed)


# -- memory ---------------------------------------------------------------------------------------


def test_peak_bytes_of_a_known_graph():
    """Products x@a@b@c@d, elementwise between: two of the three products' results live at once."""
    size = 64
    a = tensor("x", (size, size))
    for name in "abcd":
        a = apply("tanh", einsum("mk,kn->mn", a, tensor(name, (size, size))))
    artifact = compiled(program(a))
    assert len(artifact.arena) == 3
    assert place_slots(artifact.arena, {})[1] == 2 * size * size * 4


def test_peak_bytes_of_a_perceptrons_step():
    """At its widest: both activations, both gradients, the last mask, and what is small."""
    _, total = place_slots(compiled(perceptron_step()).arena, {"batch": 64})
    activation, mask, logits = 4 * 64 * 512, 64 * 512, 4 * 64 * 10
    assert total == 4 * activation + mask + logits + 2 * ALIGNMENT


def test_no_temporary_without_need():
    assert compiled(program(apply("exp", X))).arena == ()
    assert (
        compiled(program(apply("relu", apply("add", PRODUCT, constant(1, "float32"))))).arena == ()
    )


slots = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(0, 12), st.integers(0, 6)), max_size=14
).map(
    lambda rows: [
        ArenaSlot(f"t{number}", size, first, first + length)
        for number, (size, first, length) in enumerate(rows)
    ]
)


@settings(max_examples=300, deadline=None)
@given(slots)
def test_slots_that_live_at_once_never_overlap(rows):
    offsets, total = place_slots(rows, {})
    assert offsets.keys() == {slot.buffer for slot in rows}
    for number, slot in enumerate(rows):
        start = offsets[slot.buffer]
        assert start % ALIGNMENT == 0
        assert start >= 0
        assert start + slot.bytes <= total
        for other in rows[:number]:
            together = slot.first <= other.last and other.first <= slot.last
            if together and slot.bytes and other.bytes:
                begin = offsets[other.buffer]
                assert start + slot.bytes <= begin or begin + other.bytes <= start


@settings(max_examples=100, deadline=None)
@given(slots)
def test_the_arena_is_no_larger_than_memory_never_reused(rows):
    padded = sum(-(-max(slot.bytes, 1) // ALIGNMENT) * ALIGNMENT for slot in rows)
    assert place_slots(rows, {})[1] <= padded
