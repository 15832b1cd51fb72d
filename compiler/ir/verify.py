"""The graph's own rules, checked after any stage that makes graphs.

Construction infers every type, so most of this can only fail where a pass builds nodes wrongly: a
formula of mixed types, an index map over a missing index, a cycle, an update of the wrong type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ..errors import GraphError, GraphTypeError, VerificationError, locate
from . import ops
from .dims import symbols
from .graph import Node, Program, make
from .infer import infer_type
from .scalars import SCALAR_FUNCTIONS, Formula, subterms
from .text import format_node
from .types import FLOATS, INTEGERS, ITEM_BYTES

#: The roles that a state may have.
ROLES = frozenset({"parameter", "buffer", "slot", "random"})


def verify_program(program: Program, sizes: frozenset[str] = frozenset()) -> None:
    """Raise VerificationError, showing the node at fault, if ``program`` breaks a rule.

    Checked: the graph is acyclic and hash-consed; every type is what inference gives; operators
    keep their invariants; outputs, inputs and states have one meaning per name or key; updates
    replace a state by a value of its type, once; requirements are on inputs; every symbolic size is
    told by some input, or is one of ``sizes`` (an input that told it may have been optimised away);
    bodies keep the same rules, and depend on nothing but their formals.
    """
    order = _order_without_cycles([*program.roots, *(target for target, _ in program.updates)])
    for node in order:
        _verify_node(node)
    _verify_names(program, order)
    _verify_updates(program)
    _verify_requirements(program)
    told = sizes | _told_symbols(order)
    _verify_symbols(order, told)
    _verify_bodies(order, told, set())


def _fail(message: str, *nodes: Node) -> VerificationError:
    shown = "\n".join(f"  {_show(node)}" for node in nodes)
    source = next((node.source for node in nodes if node.source), None)
    return VerificationError(locate(message, source) + (f"\n{shown}" if shown else ""))


def _show(node: Node) -> str:
    """Return a node's line; a node that cannot even be printed shows as its fields."""
    try:
        return format_node(node)
    except Exception:
        return f"%{node.serial} = {node.op!r}"


def _order_without_cycles(roots: Sequence[Node]) -> list[Node]:
    order: list[Node] = []
    state: dict[Node, str] = {}
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            state[node] = "done"
            order.append(node)
        elif node not in state:
            state[node] = "open"
            stack.append((node, True))
            for x in reversed(node.inputs):
                if not isinstance(x, Node):
                    raise _fail(f"an input is {x!r}, which is no node", node)
                if state.get(x) == "open":
                    raise _fail("the graph has a cycle", node, x)
                stack.append((x, False))
    return order


def _verify_node(node: Node) -> None:
    try:
        inferred = infer_type(node.op, tuple(x.type for x in node.inputs), None)
    except (GraphError, GraphTypeError) as error:
        raise _fail(f"ill-typed: {error}", node, *node.inputs) from error
    except Exception as error:
        raise _fail(f"cannot be typed: {error!r}", node, *node.inputs) from error
    if inferred != node.type:
        raise _fail(f"is marked {node.type}, but has type {inferred}", node, *node.inputs)
    if any(isinstance(dim, int) and dim < 0 for dim in node.shape):
        raise _fail("has a negative dimension", node)
    for complaint in _INVARIANTS.get(type(node.op), _no_complaints)(node.op, node):
        raise _fail(complaint, node, *node.inputs)
    if make(node.op, *node.inputs) is not node:
        raise _fail("has a twin: it was not built by make()", node)


# -- invariants of operators ----------------------------------------------------------------------


def _no_complaints(op: ops.Op, node: Node) -> Iterator[str]:
    return iter(())


def _state(op: ops.State, node: Node) -> Iterator[str]:
    if op.role not in ROLES:
        yield f"role {op.role!r} is none of {', '.join(sorted(ROLES))}"


def _constant(op: ops.Constant, node: Node) -> Iterator[str]:
    array = op.value.array
    if array.flags.writeable:
        yield "the constant's array is writable"
    if array.dtype != np.dtype(node.dtype) or not array.dtype.isnative:
        yield f"the constant's array has dtype {array.dtype!r}"


def _extent(op: ops.Extent, node: Node) -> Iterator[str]:
    if op.dtype not in FLOATS | INTEGERS:
        yield f"an extent is a number, not {op.dtype}"


def _iota(op: ops.Iota, node: Node) -> Iterator[str]:
    if not 0 <= op.axis < op.type.rank:
        yield f"axis {op.axis} does not fit rank {op.type.rank}"
    if op.type.dtype not in FLOATS | INTEGERS:
        yield f"an index is a number, not {op.type.dtype}"


def _random_bits(op: ops.RandomBits, node: Node) -> Iterator[str]:
    if op.word not in (0, 1):
        yield f"word {op.word} is neither 0 nor 1"
    if not 0 <= op.stream < 2**32:
        yield f"stream {op.stream} does not fit 32 bits"


def _map(op: ops.Map, node: Node) -> Iterator[str]:
    """Check a formula's functions, parameters and element types (``number`` or ``bool``)."""
    if not isinstance(op.function, Formula):
        return
    formula = op.function
    if len(set(formula.params)) != len(formula.params):
        yield f"the formula's parameters {formula.params} are not distinct"
    types: dict[int, str] = {}
    for term in subterms(formula.body):
        if term.op == "param":
            if term.value not in formula.params:
                yield f"the formula uses {term.value!r}, which is none of its parameters"
            types[id(term)] = "number"
        elif term.op == "number":
            if not isinstance(term.value, (int, float)):
                yield f"the formula's number {term.value!r} is no int or float"
            types[id(term)] = "number"
        elif term.op not in SCALAR_FUNCTIONS:
            yield f"the formula calls {term.op!r}, which is no elementary function"
            types[id(term)] = "number"
        else:
            row = SCALAR_FUNCTIONS[term.op]
            given = tuple(types[id(x)] for x in term.args)
            if len(given) != row.arity:
                yield f"the formula gives {term.op} {len(given)} arguments, not {row.arity}"
            wanted = _ARGUMENT_TYPES.get(row.kind, "number")
            fits = (
                given[:1] == ("bool",) and len(set(given[1:])) == 1
                if row.kind == "select"
                else row.kind != "bits" and all(x == wanted for x in given)
            )
            if not fits:
                yield f"the formula gives {term.op} arguments of types {', '.join(given)}"
            types[id(term)] = given[-1] if row.kind == "select" else _RESULT_TYPES[row.kind]
    if types[id(formula.body)] == "bool" and node.dtype != "bool":
        yield f"the formula gives bool, the node holds {node.dtype}"


_ARGUMENT_TYPES = {"logic": "bool"}
_RESULT_TYPES = {
    "arithmetic": "number",
    "float": "number",
    "bits": "number",
    "compare": "bool",
    "logic": "bool",
    "test": "bool",
}


def _cast(op: ops.Cast, node: Node) -> Iterator[str]:
    if op.dtype not in ITEM_BYTES:
        yield f"unknown dtype {op.dtype!r}"


def _index_map(what: str, index_map: ops.IndexMap, count: int) -> Iterator[str]:
    for affine in index_map:
        indices = [index for index, _ in affine.terms]
        if any(not 0 <= index < count for index in indices):
            yield f"the {what} map's {affine} uses an index beyond the {count} sizes"
        if len(set(indices)) != len(indices):
            yield f"the {what} map's {affine} mentions an index twice"


def _window(op: ops.Window, node: Node) -> Iterator[str]:
    yield from _index_map("window's", op.map, len(op.shape))


def _contract(op: ops.Contract, node: Node) -> Iterator[str]:
    for what, index_map in (
        ("left", op.maps[0]),
        ("right", op.maps[1]),
        ("output", op.output_map),
    ):
        yield from _index_map(what, index_map, len(op.sizes))
    if any(isinstance(size, int) and size < 0 for size in op.sizes):
        yield "an index has a negative size"


def _slice(op: ops.Slice, node: Node) -> Iterator[str]:
    if any(isinstance(start, int) and start < 0 for start in op.starts):
        yield "a start is negative"


def _pad(op: ops.Pad, node: Node) -> Iterator[str]:
    if any(interior < 0 for interior in op.interior):
        yield "interior padding is negative"


def _flip(op: ops.Flip, node: Node) -> Iterator[str]:
    if len(set(op.axes)) != len(op.axes):
        yield f"axes {op.axes} are not distinct"


def _scatter_add(op: ops.ScatterAdd, node: Node) -> Iterator[str]:
    if not 0 <= op.axis <= node.inputs[0].type.rank:
        yield f"axis {op.axis} does not fit the updates"


_INVARIANTS: dict[type[ops.Op], Callable[..., Iterator[str]]] = {
    ops.State: _state,
    ops.Constant: _constant,
    ops.Extent: _extent,
    ops.Iota: _iota,
    ops.RandomBits: _random_bits,
    ops.Map: _map,
    ops.Cast: _cast,
    ops.Contract: _contract,
    ops.Slice: _slice,
    ops.Pad: _pad,
    ops.Flip: _flip,
    ops.Window: _window,
    ops.ScatterAdd: _scatter_add,
}


# -- the whole program ----------------------------------------------------------------------------


def _verify_names(program: Program, order: list[Node]) -> None:
    outputs: dict[str, Node] = {}
    for name, node in program.outputs:
        if name in outputs:
            raise _fail(f"two outputs are called {name!r}", outputs[name], node)
        outputs[name] = node
    inputs: dict[str, Node] = {}
    states: dict[int, Node] = {}
    for node in order:
        if isinstance(node.op, ops.Input):
            twin = inputs.setdefault(node.op.label, node)
            if twin is not node:
                raise _fail(f"two inputs are called {node.op.label!r}", twin, node)
        elif isinstance(node.op, ops.State):
            twin = states.setdefault(node.op.key, node)
            if twin is not node:
                raise _fail(f"two states have key {node.op.key}", twin, node)


def _verify_updates(program: Program) -> None:
    updated: set[Node] = set()
    for state, new in program.updates:
        if not isinstance(state.op, ops.State):
            raise _fail("an update replaces what is no state", state, new)
        if state in updated:
            raise _fail("a state is updated twice", state, new)
        if state.type != new.type:
            raise _fail(f"a state of type {state.type} gets a value of type {new.type}", state, new)
        updated.add(state)


def _verify_requirements(program: Program) -> None:
    for requirement in program.requirements:
        if not isinstance(requirement.input.op, ops.Input):
            raise _fail("a requirement is on what is no input", requirement.input)


def _told_symbols(order: Iterable[Node]) -> frozenset[str]:
    inputs = (node for node in order if isinstance(node.op, ops.Input))
    return frozenset(name for node in inputs for dim in node.shape for name in symbols(dim))


def _verify_symbols(order: list[Node], told: frozenset[str]) -> None:
    for node in order:
        used = {name for dim in (*ops.dims_of(node.op), *node.shape) for name in symbols(dim)}
        if used - told:
            missing = ", ".join(sorted(used - told))
            raise _fail(f"no input's shape tells the size {missing}", node)


# -- bodies ---------------------------------------------------------------------------------------


def _verify_bodies(order: list[Node], told: frozenset[str], seen: set[ops.Body]) -> None:
    for node in order:
        if not isinstance(node.op, ops.Nested):
            continue
        for body in node.op.bodies:
            if body not in seen:
                seen.add(body)
                _verify_body(body, node, told, seen)


def _verify_body(body: ops.Body, user: Node, told: frozenset[str], seen: set[ops.Body]) -> None:
    if len(set(body.formals)) != len(body.formals):
        raise _fail("a body has one formal twice", user, *body.formals)
    inside = _order_without_cycles(body.results)
    for node in inside:
        _verify_node(node)
        if isinstance(node.op, (ops.Input, ops.State)) and node not in body.formals:
            raise _fail("a body uses a value from outside that is not passed to it", user, node)
    _verify_symbols([*body.formals, *inside], told)
    _verify_bodies(inside, told, seen)
