"""Learning-rate schedules: pure functions of a position, written into a 0-d state of the step.

Names, arguments, defaults and numbers are those of ``torch.optim.lr_scheduler``.  The first
argument is what the schedule drives: an optimizer, or a base learning rate where the schedule is
handed to the optimizer itself, ``optim.Adam(StepLR(1e-3, step_size=30))``.  A schedule counts
epochs or steps (``interval``); a training program advances it, or its owner calls `Schedule.step`.
A new learning rate is a number written into a buffer: nothing is recompiled.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class ScheduledGroup(Protocol):
    """What a schedule needs of a parameter group."""

    initial_lr: float

    def get(self, name: str) -> float: ...

    def set(self, name: str, value: float) -> None: ...


class Scheduled(Protocol):
    """What a schedule needs of an optimizer."""

    @property
    def groups(self) -> Sequence[Any]: ...

    def make_variable(self, name: str) -> None: ...

    def momentum_name(self) -> str | None: ...


class Schedule:
    """A learning rate as a function of the position in training.

    Parameters
    ----------
    target : optimizer, float or None
        What is driven, or the base learning rate for an optimizer that is given this schedule.
        A subclass constructs this base last: a schedule of an optimizer writes at once.
    interval : {"epoch", "step"}
        What a training program counts for it.
    """

    #: Attributes that `state_dict` holds, apart from the position.
    state_names: tuple[str, ...] = ()

    def __init__(self, target: Scheduled | float | None, interval: str = "epoch") -> None:
        if interval not in ("epoch", "step"):
            raise ValueError(f"interval {interval!r} is not 'epoch' or 'step'")
        self.interval = interval
        self.position = 0
        self.optimizer: Scheduled | None = None
        self.base_lr: float | None = None
        if isinstance(target, (int, float)):
            self.base_lr = float(target)
        elif target is not None:
            self.bind(target)

    def lr_at(self, position: int, base: float) -> float:
        """Return the learning rate at ``position`` for a group whose base rate is ``base``."""
        raise NotImplementedError

    def momentum_at(self, position: int) -> float | None:
        """Return the momentum (or beta1) at ``position``, None where it is not driven."""
        return None

    def initial_lr(self) -> float | None:
        """Return the base learning rate that the schedule itself names, if it does."""
        return self.base_lr

    def bind(self, optimizer: Scheduled) -> None:
        """Drive ``optimizer`` from now on and write the learning rate of the present position."""
        self.optimizer = optimizer
        if self.momentum_at(0) is not None:
            name = optimizer.momentum_name()
            if name is None:
                raise ValueError(
                    f"{type(self).__name__}(cycle_momentum=True) needs an optimizer with momentum "
                    f"or beta1; {type(optimizer).__name__} has neither"
                )
            optimizer.make_variable(name)
        self.apply()

    def step(self, metric: float | None = None) -> None:
        """Advance by one and write the learning rate; ``metric`` is for `ReduceLROnPlateau`."""
        self.position += 1
        self.apply()

    def apply(self) -> None:
        """Write the numbers of the present position into the optimizer."""
        if self.optimizer is None:
            raise ValueError(f"{type(self).__name__} drives no optimizer yet; call bind(optimizer)")
        momentum = self.momentum_at(self.position)
        for group in self.optimizer.groups:
            group.set("lr", self.lr_at(self.position, group.initial_lr))
            if momentum is not None:
                group.set(self.optimizer.momentum_name(), momentum)

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [] if self.optimizer is None else [g.get("lr") for g in self.optimizer.groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what continues the schedule, as plain numbers."""
        return {"position": self.position, **{n: getattr(self, n) for n in self.state_names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`; raises ValueError where names are missing."""
        missing = {"position", *self.state_names} - set(state)
        if missing:
            raise ValueError(f"{type(self).__name__}: the state lacks {', '.join(sorted(missing))}")
        for name in ("position", *self.state_names):
            setattr(self, name, state[name])


class LambdaLR(Schedule):
    """``base * lr_lambda(position)``."""

    def __init__(self, target, lr_lambda: Callable[[int], float], *, interval="epoch") -> None:
        self.lr_lambda = lr_lambda
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        return base * self.lr_lambda(position)


class MultiplicativeLR(Schedule):
    """``base * lr_lambda(1) * … * lr_lambda(position)``."""

    def __init__(self, target, lr_lambda: Callable[[int], float], *, interval="epoch") -> None:
        self.lr_lambda = lr_lambda
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        return base * math.prod(self.lr_lambda(i) for i in range(1, position + 1))


class StepLR(Schedule):
    """``base * gamma**(position // step_size)``."""

    def __init__(self, target, step_size: int, gamma: float = 0.1, *, interval="epoch") -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        return base * self.gamma ** (position // self.step_size)


class MultiStepLR(Schedule):
    """``base * gamma**(number of milestones reached)``."""

    def __init__(
        self, target, milestones: Sequence[int], gamma: float = 0.1, *, interval="epoch"
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        return base * self.gamma ** bisect_right(self.milestones, position)


class ConstantLR(Schedule):
    """``base * factor`` before ``total_iters``, ``base`` from then on."""

    def __init__(
        self, target, factor: float = 1.0 / 3, total_iters: int = 5, *, interval="epoch"
    ) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        return base * (self.factor if position < self.total_iters else 1.0)


class LinearLR(Schedule):
    """A straight line from ``start_factor`` to ``end_factor`` over ``total_iters``: warm-up."""

    def __init__(
        self,
        target,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        *,
        interval="epoch",
    ) -> None:
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        done = min(position, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class ExponentialLR(Schedule):
    """``base * gamma**position``."""

    def __init__(self, target, gamma: float, *, interval="epoch") -> None:
        self.gamma = gamma
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        return base * self.gamma**position


class PolynomialLR(Schedule):
    """``base * (1 - position/total_iters)**power``, 0 from ``total_iters`` on."""

    def __init__(
        self, target, total_iters: int = 5, power: float = 1.0, *, interval="epoch"
    ) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        return base * (1 - min(position, self.total_iters) / self.total_iters) ** self.power


class CosineAnnealingLR(Schedule):
    """Half a cosine from ``base`` to ``eta_min`` over ``T_max``, and back, and so on.

    Loshchilov & Hutter, "SGDR: Stochastic gradient descent with warm restarts", 2017, without
    the restarts.
    """

    def __init__(self, target, T_max: int, eta_min: float = 0.0, *, interval="epoch") -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        cosine = math.cos(math.pi * position / self.T_max)
        return self.eta_min + (base - self.eta_min) * (1 + cosine) / 2


class CosineAnnealingWarmRestarts(Schedule):
    """Half cosines of length ``T_0``, ``T_0*T_mult``, … (Loshchilov & Hutter 2017)."""

    def __init__(
        self, target, T_0: int, T_mult: int = 1, eta_min: float = 0.0, *, interval="epoch"
    ) -> None:
        if T_0 < 1 or T_mult < 1:
            raise ValueError(f"T_0 and T_mult must be at least 1, not {T_0} and {T_mult}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        length, since = self.T_0, position
        if self.T_mult == 1:
            since %= length
        while since >= length:
            since -= length
            length *= self.T_mult
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * since / length)) / 2


class OneCycleLR(Schedule):
    """Up to ``max_lr`` and down again, momentum the other way; counts steps.

    Smith & Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", 2018.  The base rate is ``max_lr / div_factor``, whatever the optimizer's was.
    """

    def __init__(
        self,
        target,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        *,
        interval: str = "step",
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if anneal_strategy not in _ANNEAL:
            raise ValueError(f"anneal_strategy {anneal_strategy!r} is not 'cos' or 'linear'")
        self.total_steps, self.max_lr = total_steps, max_lr
        self._anneal = _ANNEAL[anneal_strategy]
        low, high = base_momentum, max_momentum
        first = max_lr / div_factor
        last = first / final_div_factor
        # (last position, rate from, rate to, momentum from, momentum to)
        self._phases = [(float(pct_start * total_steps) - 1, first, max_lr, high, low)]
        if three_phase:
            self._phases.append((float(2 * pct_start * total_steps) - 2, max_lr, first, low, high))
            self._phases.append((total_steps - 1, first, last, high, high))
        else:
            self._phases.append((total_steps - 1, max_lr, last, low, high))
        self._cycle_momentum = cycle_momentum
        super().__init__(target, interval)

    def _between(self, position: int, start: int) -> float:
        if position > self.total_steps:
            raise ValueError(f"OneCycleLR was told of {self.total_steps} steps; this is {position}")
        ends = [phase[0] for phase in self._phases]
        index = min(bisect_left(ends, position), len(ends) - 1)
        begin = ends[index - 1] if index else 0.0
        phase = self._phases[index]
        done = (position - begin) / (ends[index] - begin)
        return self._anneal(phase[start], phase[start + 1], done)

    def lr_at(self, position: int, base: float) -> float:
        return self._between(position, 1)

    def momentum_at(self, position: int) -> float | None:
        return self._between(position, 3) if self._cycle_momentum else None

    def initial_lr(self) -> float:
        return self.lr_at(0, 0.0)


_ANNEAL: dict[str, Callable[[float, float, float], float]] = {
    "cos": lambda start, end, done: end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1),
    "linear": lambda start, end, done: (end - start) * done + start,
}


class CyclicLR(Schedule):
    """A saw tooth between ``base_lr`` and ``max_lr``; counts steps.

    Smith, "Cyclical learning rates for training neural networks", 2017.
    """

    def __init__(
        self,
        target,
        base_lr: float,
        max_lr: float,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        *,
        interval: str = "step",
    ) -> None:
        shapes: dict[str, tuple[Callable[[float], float], str]] = {
            "triangular": (lambda cycle: 1.0, "cycle"),
            "triangular2": (lambda cycle: 1 / 2.0 ** (cycle - 1), "cycle"),
            "exp_range": (lambda iteration: gamma**iteration, "iterations"),
        }
        if scale_fn is not None:
            self._scale, self._scale_mode = scale_fn, scale_mode
        elif mode in shapes:
            self._scale, self._scale_mode = shapes[mode]
        else:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(shapes)}")
        self.low_lr, self.high_lr = base_lr, max_lr
        self._period = float(step_size_up) + float(step_size_down or step_size_up)
        self._rising = step_size_up / self._period
        self._momenta = (base_momentum, max_momentum) if cycle_momentum else None
        super().__init__(target, interval)

    def _height(self, position: int) -> float:
        cycle = math.floor(1 + position / self._period)
        x = 1.0 + position / self._period - cycle
        height = x / self._rising if x <= self._rising else (x - 1) / (self._rising - 1)
        return height * self._scale(cycle if self._scale_mode == "cycle" else position)

    def lr_at(self, position: int, base: float) -> float:
        return self.low_lr + (self.high_lr - self.low_lr) * self._height(position)

    def initial_lr(self) -> float:
        return self.low_lr

    def momentum_at(self, position: int) -> float | None:
        if self._momenta is None:
            return None
        low, high = self._momenta
        return high - (high - low) * self._height(position)


class SequentialLR(Schedule):
    """One schedule after another, each counting from its own milestone."""

    def __init__(
        self,
        target,
        schedulers: Sequence[Schedule],
        milestones: Sequence[int],
        *,
        interval: str = "epoch",
    ) -> None:
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"{len(schedulers)} schedules need {len(schedulers) - 1} milestones, "
                f"not {len(milestones)}"
            )
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(target, interval)

    def lr_at(self, position: int, base: float) -> float:
        index = bisect_right(self.milestones, position)
        start = self.milestones[index - 1] if index else 0
        return self.schedulers[index].lr_at(position - start, base)

    def initial_lr(self) -> float | None:
        return _first_base(self.base_lr, self.schedulers)


class ChainedScheduler(Schedule):
    """The product of the factors of several schedules: ``base * Π lr_i(position)/base``."""

    def __init__(
        self, schedulers: Sequence[Schedule], optimizer=None, *, interval: str = "epoch"
    ) -> None:
        self.schedulers = list(schedulers)
        if not self.schedulers:
            raise ValueError("ChainedScheduler needs at least one schedule")
        super().__init__(optimizer or self.schedulers[0].optimizer, interval)

    def lr_at(self, position: int, base: float) -> float:
        if base == 0:
            return 0.0
        return base * math.prod(s.lr_at(position, base) / base for s in self.schedulers)

    def initial_lr(self) -> float | None:
        return _first_base(self.base_lr, self.schedulers)


def _first_base(own: float | None, schedulers: Sequence[Schedule]) -> float | None:
    if own is not None:
        return own
    return next((lr for s in schedulers if (lr := s.initial_lr()) is not None), None)


class ReduceLROnPlateau(Schedule):
    """Multiply the learning rate by ``factor`` once a metric has stopped improving.

    ``monitor`` names the metric that `TrainingProgram.fit` hands over after each epoch.
    """

    state_names = ("best", "num_bad_epochs", "cooldown_counter")

    def __init__(
        self,
        target,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
        *,
        monitor: str = "val_loss",
    ) -> None:
        if factor >= 1.0:
            raise ValueError(f"factor must be below 1, not {factor}")
        if (mode, threshold_mode) not in _IMPROVES:
            raise ValueError(f"mode {mode!r} with threshold_mode {threshold_mode!r} is unknown")
        self._improves = _IMPROVES[mode, threshold_mode]
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.monitor = monitor
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        super().__init__(target, "epoch")

    def lr_at(self, position: int, base: float) -> float:
        """Return ``base``: what follows depends on the metric, not on the position."""
        return base

    def apply(self) -> None:
        """Write nothing: the learning rate itself is the state."""

    def step(self, metric: float | None = None) -> None:
        """Judge ``metric``, a number, and reduce the learning rate where it is time to."""
        if metric is None:
            raise ValueError("ReduceLROnPlateau.step needs the metric's value")
        if self.optimizer is None:
            raise ValueError("ReduceLROnPlateau drives no optimizer yet; call bind(optimizer)")
        self.position += 1
        if self._improves(metric, self.best, self.threshold):
            self.best = float(metric)
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.groups:
                old = group.get("lr")
                new = max(old * self.factor, self.min_lr)
                if old - new > self.eps:
                    group.set("lr", new)
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0


_IMPROVES: dict[tuple[str, str], Callable[[float, float, float], bool]] = {
    ("min", "rel"): lambda now, best, threshold: now < best * (1.0 - threshold),
    ("min", "abs"): lambda now, best, threshold: now < best - threshold,
    ("max", "rel"): lambda now, best, threshold: now > best * (1.0 + threshold),
    ("max", "abs"): lambda now, best, threshold: now > best + threshold,
}
