"""The base of all optimizers: parameter groups, slots, clipping, and rules applied to a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..compiler.errors import GraphError
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, apply, constant, make
from .schedules import Schedule
from .state import Variable
from .tensor import Tensor
from .update_rules import (
    Field,
    Rule,
    RuleEvaluator,
    Scalar,
    Value,
    parse_rules,
    rules_to_latex,
    slots_of,
)

#: Hyperparameter -> (least, most, whether the most itself is allowed).
_RANGES: dict[str, tuple[float, float, bool]] = {
    "lr": (0.0, float("inf"), True),
    "eps": (0.0, float("inf"), True),
    "weight_decay": (0.0, float("inf"), True),
    "momentum": (0.0, float("inf"), True),
    "momentum_decay": (0.0, float("inf"), True),
    "lr_decay": (0.0, float("inf"), True),
    "l1": (0.0, float("inf"), True),
    "alpha": (0.0, float("inf"), True),
    "beta1": (0.0, 1.0, False),
    "beta2": (0.0, 1.0, False),
    "rho": (0.0, 1.0, True),
    "initial_accumulator_value": (0.0, float("inf"), True),
}


#: Bounds of each gradient element, and of the gradients' joint norm.
Clipping = tuple[float | None, float | None]


class Group:
    """The hyperparameters of some of the parameters.

    A number is a constant of the compiled step, or, where a schedule or the user may change it
    later, a 0-d float64 state (``lr`` always is one).
    """

    def __init__(
        self,
        hyper: Mapping[str, Any],
        label: str,
        clipping: Clipping = (None, None),
        trainable: bool = True,
    ) -> None:
        self.hyper = dict(hyper)
        self.label = label
        self.clipping, self.trainable = clipping, trainable
        self.variables: dict[str, Variable] = {}
        #: Slots that the parameters of the group share: 0-d float64 states.
        self.shared_slots: dict[str, Variable] = {}
        self.frozen = False
        self.make_variable("lr")
        self.initial_lr = self.get("lr")

    def make_variable(self, name: str) -> None:
        """Let the hyperparameter ``name`` change without a recompilation."""
        if name in self.variables:
            return
        if self.frozen:
            raise GraphError(
                f"{name!r} is already a constant of a compiled step; make it variable before"
            )
        value = float(self.hyper[name])
        self.variables[name] = _new_state(np.array(value, "float64"), f"{self.label}.{name}")

    def get(self, name: str) -> float:
        """Return the present value of a hyperparameter."""
        variable = self.variables.get(name)
        return self.hyper[name] if variable is None else float(variable.value)

    def set(self, name: str, value: float) -> None:
        """Give a hyperparameter a new value, from the next step on."""
        _check_range(name, value)
        if name in self.variables:
            self.variables[name].value[...] = value
        elif self.frozen:
            raise GraphError(
                f"{name!r} is a constant of a compiled step; call make_variable({name!r}) before "
                "compiling"
            )
        else:
            self.hyper[name] = value

    def environment(self) -> dict[str, Value]:
        """Return the hyperparameters as values of the update rules."""
        numbers: dict[str, Value] = {
            name: float(value)
            for name, value in self.hyper.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        return numbers | {name: Scalar(v.node) for name, v in self.variables.items()}

    def __repr__(self) -> str:
        shown = {name: self.get(name) for name in self.hyper}
        return f"{self.label}({', '.join(f'{k}={v}' for k, v in shown.items())})"


class Optimizer:
    """An optimizer: rules for the new value of each parameter ``p`` from its gradient ``g``.

    A subclass gives `rules`; slots are the names that its rules read before they assign them, and
    start at zero or as `initial_slots` says.

    Parameters
    ----------
    hyper : dict
        Hyperparameters by name; ``betas`` is split into ``beta1`` and ``beta2``.
    params : list of Variable or Module, optional
        The parameters that this optimizer trains, for programs that are given none.
    groups : list of dict
        Parameter groups, ``{"params": [...], "lr": 0.01, …}``, with a list or a module; what a
        group leaves out, and parameters in no group, follow ``hyper``.  ``"trainable": False``
        freezes a group; its ``clip_value`` and ``clip_norm`` take the place of those below.
    l1 : float
        Weight of the penalty Σ|p|: adds ``l1*sign(p)`` to the gradient.
    maximize : bool
        Climb instead of descend.
    clip_value : float, optional
        Clip each element of every gradient to ``[-clip_value, clip_value]``.
    clip_norm : float, optional
        Scale all gradients so that their joint 2-norm is at most this
        (as ``torch.nn.utils.clip_grad_norm_``).

    Raises
    ------
    ValueError
        A hyperparameter is out of its range or unknown.
    """

    #: Slot -> its initial value, a number or the name of a hyperparameter; 0 for others.
    initial_slots: ClassVar[Mapping[str, float | str]] = {}
    #: Slots that are one number for a group, not one for an element.
    shared_slots: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        hyper: Mapping[str, Any],
        *,
        params: Any = None,
        groups: Iterable[Mapping[str, Any]] = (),
        l1: float = 0.0,
        maximize: bool = False,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        schedule = hyper["lr"] if isinstance(hyper["lr"], Schedule) else None
        if schedule is not None:
            base = schedule.initial_lr()
            if base is None:
                raise ValueError(
                    f"{type(schedule).__name__} names no base learning rate; give it as its first "
                    "argument"
                )
            hyper = {**hyper, "lr": base}
        defaults = _flatten_betas({**hyper, "l1": l1, "maximize": maximize})
        self._check(defaults)
        self.params = _listed(params)
        self.defaults = defaults
        self.groups = [Group(defaults, "optimizer", _checked_clipping(clip_value, clip_norm))]
        self._group_of: dict[Node, Group] = {}
        for index, given in enumerate(groups, 1):
            self._add_group(dict(given), f"optimizer.{index}")
        self.step_count = _new_state(np.array(0, "int64"), "optimizer.step")
        self._slots: dict[tuple[Node, str], Variable] = {}
        self.schedule: Schedule | None = schedule
        if schedule is not None:
            schedule.bind(self)

    def _add_group(self, given: dict[str, Any], label: str) -> None:
        try:
            params = given.pop("params")
        except KeyError:
            raise ValueError("a parameter group needs 'params'") from None
        clipping = (given.pop("clip_value", None), given.pop("clip_norm", None))
        trainable = given.pop("trainable", True)
        own = _flatten_betas(given)
        unknown = set(own) - set(self.defaults)
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no {', '.join(sorted(unknown))}; it has "
                f"{', '.join(self.defaults)}"
            )
        self._check(own)
        group = Group({**self.defaults, **own}, label, _checked_clipping(*clipping), trainable)
        self.groups.append(group)
        members = _listed(params)
        for param in members if isinstance(members, Sequence) else members.parameters():
            if param.node in self._group_of:
                raise ValueError(f"parameter {param.name!r} is in more than one group")
            self._group_of[param.node] = group

    def _check(self, hyper: Mapping[str, Any]) -> None:
        for name, value in hyper.items():
            _check_range(name, value)

    def trains(self, param: Variable) -> bool:
        """Return whether the group of ``param`` is not frozen."""
        return self._group_of.get(param.node, self.groups[0]).trainable

    # -- what a subclass defines ------------------------------------------------------------------

    def rules(self, on: Mapping[str, Any]) -> Iterable[str]:
        """Return the update rules under the options ``on`` (a group's hyperparameters)."""
        raise NotImplementedError

    # -- what it means ----------------------------------------------------------------------------

    @property
    def lr(self) -> float:
        """The learning rate of the parameters that are in no group."""
        return self.groups[0].get("lr")

    @lr.setter
    def lr(self, value: float) -> None:
        self.groups[0].set("lr", value)

    def make_variable(self, name: str) -> None:
        """Let the hyperparameter ``name`` change between steps (``lr`` always may)."""
        if name not in self.defaults:
            raise ValueError(f"{type(self).__name__} has no {name!r}")
        for group in self.groups:
            group.make_variable(name)

    def momentum_name(self) -> str | None:
        """Return the hyperparameter that is the momentum, None where there is none."""
        return next((name for name in ("momentum", "beta1") if name in self.defaults), None)

    def formulas(self) -> str:
        """Return the update rules, one to a line."""
        return "\n".join(rule.text for rule in self._rules_of(self.groups[0]))

    def latex(self) -> str:
        """Return the update rules as a LaTeX ``aligned`` block."""
        return rules_to_latex(self._rules_of(self.groups[0]))

    @property
    def variables(self) -> list[Variable]:
        """Every state that the optimizer keeps, step counter and learning rates included."""
        shared = [
            variable
            for group in self.groups
            for variable in (*group.variables.values(), *group.shared_slots.values())
        ]
        return [self.step_count, *shared, *self._slots.values()]

    def updates(
        self, params: Sequence[Variable], grads: Sequence[Tensor]
    ) -> list[tuple[Variable, Tensor]]:
        """Return each state that a step changes, with its new value.

        Parameters
        ----------
        params : list of Variable
            Floating-point parameters; those that are not trainable are left out.
        grads : list of Tensor
            The gradient of each, of its shape and element type.

        Raises
        ------
        GraphError
            A gradient does not fit its parameter, or no parameter is trainable.
        """
        pairs = [
            (param, grad.node) for param, grad in zip(params, grads, strict=True) if param.trainable
        ]
        if not pairs:
            raise GraphError("the optimizer has no trainable parameter to update")
        for param, grad in pairs:
            if grad.type != param.node.type:
                raise GraphError(
                    f"the gradient of {param.name!r} is {grad.type}, not {param.node.type}"
                )
        gradients = self._clip(pairs)
        step = apply("add", self.step_count.node, constant(1, "int64"))
        changed: dict[Node, tuple[Variable, Node]] = {}
        for (param, _), gradient in zip(pairs, gradients, strict=True):
            for state, value in self._update_one(param, gradient, step):
                changed[state.node] = state, value
        changed[self.step_count.node] = self.step_count, step
        return [(state, Tensor(value)) for state, value in changed.values()]

    def _clip(self, pairs: Sequence[tuple[Variable, Node]]) -> list[Node]:
        """Return the gradients, clipped together where their groups share the same bounds."""
        clipped = dict(enumerate(grad for _, grad in pairs))
        shared: dict[int, list[int]] = {}
        for index, (param, _) in enumerate(pairs):
            group = self._group_of.get(param.node, self.groups[0])
            place = self.groups.index(group) if any(group.clipping) else 0
            shared.setdefault(place, []).append(index)
        for place, members in shared.items():
            value, norm = self.groups[place].clipping
            grads = [clipped[i] for i in members]
            if value is not None:
                grads = [_clip_elements(g, value) for g in grads]
            if norm is not None:
                grads = _clip_joint_norm(grads, norm)
            clipped.update(zip(members, grads, strict=True))
        return list(clipped.values())

    def _update_one(self, param: Variable, grad: Node, step: Node) -> list[tuple[Variable, Node]]:
        group = self._group_of.get(param.node, self.groups[0])
        group.frozen = True
        rules = self._rules_of(group)
        environment = group.environment()
        slots: dict[str, Variable] = {}
        for name in slots_of(rules, (*environment, "p", "g", "t")):
            slots[name] = self._slot(name, param, group)
            kind = Scalar if name in self.shared_slots else Field
            environment[name] = kind(slots[name].node)
        environment["t"] = Scalar(make(ops.Cast("float64"), step))
        environment["p"], environment["g"] = Field(param.node), Field(grad)
        evaluator = RuleEvaluator(param.node.dtype)
        values = evaluator.run(rules, environment)
        changed = [(param, evaluator.field(values["p"]))]
        for name, state in slots.items():
            read = evaluator.scalar if name in self.shared_slots else evaluator.field
            changed.append((state, read(values[name])))
        return changed

    def _rules_of(self, group: Group) -> tuple[Rule, ...]:
        on = group.hyper | {name: True for name in group.variables}
        lines = list(self.rules(on))
        if on["l1"]:
            lines.insert(0, "g = g + l1*sign(p)")
        if on["maximize"]:
            lines.insert(0, "g = -g")
        return parse_rules(lines)

    def _slot(self, name: str, param: Variable, group: Group) -> Variable:
        initial = self.initial_slots.get(name, 0.0)
        value = group.hyper[initial] if isinstance(initial, str) else initial
        if name in self.shared_slots:
            if name not in group.shared_slots:
                array = np.array(value, "float64")
                group.shared_slots[name] = _new_state(array, f"{group.label}.{name}")
            return group.shared_slots[name]
        key = (param.node, name)
        if key not in self._slots:
            array = np.full(param.node.shape, value, param.node.dtype)
            self._slots[key] = _new_state(array, f"{param.name}.{name}")
        return self._slots[key]

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v}" for k, v in self.defaults.items())
        return f"{type(self).__name__}({shown})"


def clip_by_value(grads: Sequence[Tensor], clip_value: float) -> list[Tensor]:
    """Return ``grads`` with each element clipped to ``[-clip_value, clip_value]``."""
    return [Tensor(_clip_elements(grad.node, clip_value)) for grad in grads]


def clip_by_global_norm(grads: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """Return ``grads`` scaled by ``min(1, max_norm / (norm + 1e-6))`` of their joint 2-norm."""
    return [Tensor(grad) for grad in _clip_joint_norm([g.node for g in grads], max_norm)]


def _clip_elements(grad: Node, bound: float) -> Node:
    low, high = constant(-bound, grad.dtype), constant(bound, grad.dtype)
    return apply("minimum", apply("maximum", grad, low), high)


def _clip_joint_norm(grads: Sequence[Node], max_norm: float) -> list[Node]:
    total: Node | None = None
    for grad in grads:
        squares = apply("square", grad)
        if squares.type.rank:
            squares = make(ops.Reduce("sum", tuple(range(squares.type.rank))), squares)
        squares = make(ops.Cast("float64"), squares)
        total = squares if total is None else apply("add", total, squares)
    if total is None:
        return []
    norm = apply("add", apply("sqrt", total), constant(1e-6, "float64"))
    factor = apply("div", constant(max_norm, "float64"), norm)
    factor = apply("minimum", factor, constant(1.0, "float64"))
    return [apply("mul", grad, make(ops.Cast(grad.dtype), factor)) for grad in grads]


def _checked_clipping(clip_value: float | None, clip_norm: float | None) -> Clipping:
    for name, bound in (("clip_value", clip_value), ("clip_norm", clip_norm)):
        if bound is not None and not bound > 0:
            raise ValueError(f"{name} must be positive, not {bound}")
    return clip_value, clip_norm


def _listed(params: Any) -> Any:
    """Return parameters as a list; a module, and None, as they are."""
    if params is None or hasattr(params, "parameters"):
        return params
    return [params] if isinstance(params, Variable) else list(params)


def _new_state(array: np.ndarray, name: str) -> Variable:
    return Variable(array, name=name, role="slot", trainable=False)


def _flatten_betas(hyper: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in hyper.items():
        if name == "betas":
            flat["beta1"], flat["beta2"] = value
        else:
            flat[name] = value
    return flat


def _check_range(name: str, value: Any) -> None:
    if name not in _RANGES:
        return
    least, most, inclusive = _RANGES[name]
    if not (least <= value <= most and (inclusive or value < most)):
        raise ValueError(
            f"{name} must be in [{least:g}, {most:g}{']' if inclusive else ')'}, not {value!r}"
        )
