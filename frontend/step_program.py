"""One step of training, and inference, as programs of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..compiler.autodiff.reverse import gradient
from ..compiler.errors import GraphError, GraphTypeError, locate
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, Program, make, topological
from ..compiler.rewrites.stability import stabilize
from .optimizer import Optimizer
from .state import Variable, effects_reaching, variable_of
from .tensor import Tensor, as_tensor, declaration_number


def build_training_program(
    loss: Tensor,
    optimizer: Optimizer,
    outputs: Mapping[str, Tensor] | None = None,
    params: Sequence[Variable] | None = None,
) -> tuple[Program, list[Variable]]:
    """Return one step of training as a program, and the variables of its states, oldest first.

    The graph is made numerically stable before it is differentiated.

    Parameters
    ----------
    loss : Tensor
        A floating-point tensor ``()``, the output called ``"loss"``.
    optimizer : Optimizer
        What updates the parameters.
    outputs : dict of str to Tensor, optional
        Further outputs, from the parameters before the update.
    params : list of Variable, optional
        The parameters to train; by default every trainable one that the loss depends on.

    Raises
    ------
    GraphError
        The loss is not 0-d, an output is called ``"loss"``, or there is nothing to train.
    GraphTypeError
        The loss is not of a floating-point type.
    """
    outputs = dict(outputs or {})
    _check_loss(loss)
    if "loss" in outputs:
        raise GraphError("an output may not be called 'loss': that is the loss itself")
    forward = stabilize(build_forward_program({"loss": loss, **outputs}, "train_step"))
    stable_loss = forward.roots[0]
    reached = set(topological([stable_loss]))
    candidates = _parameters_of(topological([loss.node])) if params is None else list(params)
    trained = [p for p in candidates if p.trainable and p.node in reached]
    if not trained:
        raise GraphError(
            locate("the loss depends on no trainable parameter; nothing to train", loss.node.source)
        )
    gradients = gradient([stable_loss], [p.node for p in trained])
    changed = dict(forward.updates)
    moved = {p.node: changed.pop(p.node) for p in trained if p.node in changed}
    updates = optimizer.updates(trained, [Tensor(g) for g in gradients])
    values = _starting_from(moved, [value.node for _, value in updates], gradients)
    for (state, _), value in zip(updates, values, strict=True):
        if state.node in changed:
            raise GraphError(f"{state.name!r} is updated by the model and by the optimizer")
        changed[state.node] = value
    program = replace(forward, updates=tuple(changed.items()))
    return program, [variable_of(node) for node in sorted(program.states(), key=_age)]


def _starting_from(
    moved: Mapping[Node, Node], values: Sequence[Node], gradients: Sequence[Node]
) -> list[Node]:
    """Return the optimizer's ``values`` computed from what the model made of its parameters.

    ``moved``: parameters that the model itself changes (rows of an embedding that it shortens),
    with their new values.  Gradients stay those of the forward pass.
    """
    if not moved:
        return list(values)
    done = {gradient: gradient for gradient in gradients} | dict(moved)
    for node in topological(values):
        if node not in done:
            inputs = tuple(done[x] for x in node.inputs)
            same = inputs == node.inputs
            done[node] = node if same else make(node.op, *inputs, source=node.source)
    return [done[value] for value in values]


def build_forward_program(
    outputs: Mapping[str, Tensor], name: str, updates: Mapping[Variable, object] | None = None
) -> Program:
    """Return the program of ``outputs`` and of ``updates``, with the effects that they have."""
    changed = {v.node: _fitting(v, value).node for v, value in (updates or {}).items()}
    needed = [*(tensor.node for tensor in outputs.values()), *changed.values()]
    for state, value in effects_reaching(needed):
        if state.node in changed:
            raise GraphError(f"{state.name!r} is updated by the model and by the given updates")
        changed[state.node] = value.node
    return Program(
        tuple((label, tensor.node) for label, tensor in outputs.items()),
        tuple(changed.items()),
        name=name,
    )


def _fitting(variable: Variable, value: object) -> Tensor:
    """Return ``value`` as a tensor; raise where ``variable`` cannot hold it."""
    if not isinstance(variable, Variable):
        raise GraphTypeError(f"updates are of variables, not of {type(variable).__name__}")
    new = as_tensor(value, variable)
    if new.node.type != variable.node.type:
        error = GraphError if new.dtype == variable.dtype else GraphTypeError
        raise error(
            locate(
                f"{variable.name!r} is {variable.node.type}; its update is {new.node.type}",
                new.node.source,
            )
        )
    return new


def _check_loss(loss: Tensor) -> None:
    if loss.node.type.rank:
        raise GraphError(
            locate(f"the loss must be 0-d, not {loss.node.type}; take its mean", loss.node.source)
        )
    if not loss.node.type.is_float:
        raise GraphTypeError(
            locate(f"the loss must be of a float type, not {loss.dtype}", loss.node.source)
        )


def _parameters_of(nodes: Iterable[Node]) -> list[Variable]:
    """Return the parameters among ``nodes``, in the order in which they were made."""
    found = [n for n in nodes if isinstance(n.op, ops.State) and n.op.role == "parameter"]
    return [variable_of(n) for n in sorted(found, key=_age)]


def _age(node: Node) -> int:
    return node.op.key if isinstance(node.op, ops.State) else node.serial


def inputs_of(program: Program) -> dict[str, Node]:
    """Return the inputs by name, in the order in which they were declared."""
    nodes = sorted(program.inputs(), key=declaration_number)
    return {node.op.label: node for node in nodes if isinstance(node.op, ops.Input)}
