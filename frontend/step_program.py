"""One step of training, and inference, as programs of the graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from ..compiler.autodiff.reverse import gradient
from ..compiler.errors import GraphError, GraphTypeError, TrainingWarning, locate
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, Program, make, scalar_value, topological
from ..compiler.rewrites.stability import stabilize
from .accumulation import GradientSums, batch_size_of
from .averaging import AveragedWeights, WeightAverage
from .optimizer import Optimizer
from .state import Variable, effects_reaching, variable_of
from .tensor import Tensor, as_tensor, declaration_number


class HasVariables(Protocol):
    """A module: its parameters and buffers."""

    def parameters(self) -> list[Variable]: ...

    def buffers(self) -> list[Variable]: ...


Parameters = Sequence[Variable] | HasVariables


class TrainingGraph(NamedTuple):
    """The programs of a training step, and the states that they share.

    ``program`` is a whole step, or, where gradients accumulate, the one that ends a group of
    batches; ``gather`` is the one before that, and ``flush`` ends a group that is not full.
    """

    program: Program
    states: list[Variable]
    gather: Program | None = None
    flush: Program | None = None
    sums: GradientSums | None = None
    average: AveragedWeights | None = None


def build_training_program(
    loss: Tensor,
    optimizer: Optimizer,
    outputs: Mapping[str, Tensor] | None = None,
    params: Parameters | None = None,
    *,
    buffers: Parameters | None = None,
    accumulate: int = 1,
    accumulate_reduction: str = "mean",
    batch_weight: Tensor | None = None,
    average: WeightAverage | None = None,
    previous: TrainingGraph | None = None,
) -> TrainingGraph:
    """Return one step of training as programs, and the variables of its states, oldest first.

    The graph is made numerically stable before it is differentiated.

    Parameters
    ----------
    loss : Tensor
        A floating-point tensor ``()``, the output called ``"loss"``.
    optimizer : Optimizer
        What updates the parameters.
    outputs : dict of str to Tensor, optional
        Further outputs, from the parameters before the update.
    params : list of Variable or Module, optional
        The parameters to train; by default those that the optimizer was given, or else every
        trainable one that the loss depends on.
    buffers : list of Variable or Module, optional
        The buffers that the step may change; by default those of ``params`` where that is a
        module, else all.
    accumulate : int
        Batches whose gradients make one update.
    accumulate_reduction : {"mean", "sum"}
        What the loss is over the samples of a batch.
    batch_weight : Tensor, optional
        What a batch counts in the mean, 0-d; by default the number of its samples.
    average : WeightAverage, optional
        Keep an average of the trained parameters.
    previous : TrainingGraph, optional
        The same training with other outputs, whose states to go on with.

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
    if accumulate < 1:
        raise GraphError(f"accumulate must be at least 1, not {accumulate}")
    params = optimizer.params if params is None else params
    if buffers is None and params is not None and not isinstance(params, Sequence):
        buffers = params.buffers()
    forward = stabilize(build_forward_program({"loss": loss, **outputs}, "train_step"))
    if buffers is not None:
        forward = _keeping_buffers(forward, buffers)
    trained, gradients = _differentiate(loss, forward.roots[0], optimizer, params)

    kept, sums = (None, None) if previous is None else (previous.average, previous.sums)
    if average is not None and kept is None:
        kept = AveragedWeights(average, trained)
    if accumulate > 1 and sums is None:
        sums = GradientSums(trained, accumulate_reduction)
    if sums is None:
        whole = _updating(forward, optimizer, trained, gradients, kept)
        return TrainingGraph(whole, _states_of(whole), average=kept)
    size = (
        batch_size_of(list(inputs_of(forward).values()))
        if batch_weight is None
        else batch_weight.astype("float64").node
    )
    added, weight = sums.with_batch(gradients, size)
    gather = _with_updates(forward, sums.kept(added, weight), "gather_step")
    mean = sums.gradients(added, weight)
    whole = _with_updates(
        _updating(forward, optimizer, trained, mean, kept), sums.cleared(), "train_step"
    )
    rest = sums.gradients([s.node for s in sums.sums], sums.weight.node)
    flush = _updating(Program((), (), name="flush_step"), optimizer, trained, rest, kept)
    flush = _with_updates(flush, sums.cleared(), "flush_step")
    states = {v: None for p in (whole, gather, flush) for v in _states_of(p)}
    ordered = sorted(states, key=lambda v: _age(v.node))
    return TrainingGraph(whole, ordered, gather, flush, sums, kept)


def _differentiate(
    loss: Tensor, stable_loss: Node, optimizer: Optimizer, params: Parameters | None
) -> tuple[list[Variable], list[Node]]:
    """Return the parameters that are trained, and the gradient of the loss for each."""
    if params is None:
        candidates = _parameters_of(topological([loss.node]))
    else:
        given = params if isinstance(params, Sequence) else params.parameters()
        candidates = list({p.node: p for p in given}.values())
        if not candidates:
            raise GraphError("params is empty; there is nothing for the optimizer to train")
    if not any(p.trainable for p in candidates):
        why = f"all {len(candidates)} are frozen" if candidates else "it depends on none"
        raise GraphError(
            locate(
                f"the loss depends on no trainable parameter ({why}); nothing to train",
                loss.node.source,
            )
        )
    reached = set(topological([stable_loss]))
    wanted = [p for p in candidates if p.trainable and optimizer.trains(p)]
    unused = [p for p in wanted if p.node not in reached]
    wanted = [p for p in wanted if p.node in reached]
    gradients = gradient([stable_loss], [p.node for p in wanted])
    flows = [scalar_value(g) != 0 for g in gradients]
    blocked = [p for p, flow in zip(wanted, flows, strict=True) if not flow]
    found = [(p, g) for p, g, flow in zip(wanted, gradients, flows, strict=True) if flow]
    if not found:
        raise GraphError(
            locate(
                "the loss depends on no trainable parameter that is to be trained; nothing to "
                "train" + _listed(" (", [*unused, *blocked], ")"),
                loss.node.source,
            )
        )
    for group, why in (
        (unused, "does not depend on"),
        (blocked, "has no derivative with respect to"),
    ):
        if group:
            warnings.warn(
                locate(
                    f"the loss {why} {_listed('', group, '')}: not trained; leave such parameters "
                    "out, or freeze them with requires_grad_(False)",
                    loss.node.source,
                ),
                TrainingWarning,
                stacklevel=2,
            )
    return [p for p, _ in found], [g for _, g in found]


def _listed(before: str, variables: Sequence[Variable], after: str) -> str:
    names = ", ".join(f"{v.name!r} {v.node.type}" for v in variables)
    return f"{before}{names}{after}" if names else ""


def _updating(
    program: Program,
    optimizer: Optimizer,
    trained: Sequence[Variable],
    gradients: Sequence[Node],
    average: AveragedWeights | None,
) -> Program:
    """Return ``program`` with the optimizer's updates, and those of the averages."""
    own = dict(program.updates)
    moved = {p.node: own.pop(p.node) for p in trained if p.node in own}
    found = optimizer.updates(trained, [Tensor(g) for g in gradients])
    values = _starting_from(moved, [value.node for _, value in found], gradients)
    changed = {state.node: value for (state, _), value in zip(found, values, strict=True)}
    if average is not None:
        changed.update(average.updates(changed))
    return _with_updates(
        replace(program, updates=tuple(own.items())), changed.items(), program.name
    )


def _with_updates(program: Program, updates: Iterable[tuple[Node, Node]], name: str) -> Program:
    changed = dict(program.updates)
    for state, value in updates:
        if state in changed:
            raise GraphError(
                f"{variable_of(state).name!r} is updated by the model and by the optimizer"
            )
        changed[state] = value
    return replace(program, updates=tuple(changed.items()), name=name)


def _keeping_buffers(program: Program, buffers: Parameters) -> Program:
    """Return ``program`` without updates of buffers other than ``buffers``."""
    given = buffers if isinstance(buffers, Sequence) else buffers.buffers()
    allowed = {v.node for v in given}
    kept = [
        (state, value)
        for state, value in program.updates
        if state in allowed or variable_of(state).role != "buffer"
    ]
    return replace(program, updates=tuple(kept))


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


def _states_of(program: Program) -> list[Variable]:
    return [variable_of(node) for node in sorted(program.states(), key=_age)]


def _age(node: Node) -> int:
    return node.op.key if isinstance(node.op, ops.State) else node.serial


def inputs_of(program: Program) -> dict[str, Node]:
    """Return the inputs by name, in the order in which they were declared."""
    nodes = sorted(program.inputs(), key=declaration_number)
    return {node.op.label: node for node in nodes if isinstance(node.op, ops.Input)}
