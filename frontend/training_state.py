"""What a training consists of, as arrays and text: the contents of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Protocol

import numpy as np

from ..compiler.errors import CheckpointError
from ..compiler.ir import ops
from ..runtime.checkpoint import check_compatible, load_arrays, save_arrays
from .callbacks import Callback
from .epoch_sums import EpochSums
from .history import History
from .optimizer import Optimizer
from .schedules import Schedule
from .state import Variable

FORMAT = "chainrule.training/1"
_CALLBACK, _SUMS = "callback/", "sums/"


class Training(Protocol):
    """What a checkpoint needs of a training program."""

    optimizer: Optimizer
    states: list[Variable]
    epoch: int
    batch: int
    steps: int
    seed: int
    sums: EpochSums | None
    history: History
    callbacks: dict[str, Callback]
    callback_states: dict[str, dict[str, Any]]
    schedules: list[Schedule]
    schedule_states: dict[str, dict[str, Any]]

    def new_sums(self) -> EpochSums: ...


def name_states(states: Iterable[Variable]) -> dict[str, Variable]:
    """Return variables by ``role/name``; equal names are numbered in the order of creation."""
    named: dict[str, Variable] = {}
    counts: dict[str, int] = {}
    for variable in sorted(states, key=_age):
        base = f"{variable.role}/{variable.name}"
        number = counts[base] = counts.get(base, -1) + 1
        named[f"{base}#{number}" if number else base] = variable
    return named


def _age(variable: Variable) -> int:
    assert isinstance(variable.node.op, ops.State)
    return variable.node.op.key


def name_schedules(training: Training) -> dict[str, Schedule]:
    """Return the schedules that drive the training by a name that a resumed run gives again."""
    own = training.optimizer.schedule
    named = {} if own is None else {"optimizer": own}
    others = (s for s in training.schedules if s is not own)
    return named | {f"{i}.{type(s).__name__}": s for i, s in enumerate(others)}


def save_training(training: Training, path: str | PathLike[str]) -> None:
    """Write a training to ``path``, atomically."""
    arrays = {name: v.value for name, v in name_states(training.states).items()}
    callbacks: dict[str, dict[str, Any]] = {}
    present = {key: callback.state_dict() for key, callback in training.callbacks.items()}
    for key, state in {**training.callback_states, **present}.items():
        callbacks[key] = {}
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                arrays[f"{_CALLBACK}{key}/{name}"] = value
            else:
                callbacks[key][name] = value
    numbers: dict[str, Any] = {}
    if training.sums is not None:
        numbers, statistics = training.sums.state_dict()
        arrays |= {f"{_SUMS}{name}": value for name, value in statistics.items()}
    schedules = {name: s.state_dict() for name, s in name_schedules(training).items()}
    position = {
        "epoch": training.epoch,
        "batch": training.batch,
        "steps": training.steps,
        "seed": training.seed,
        "sums": numbers,
        "history": training.history.state_dict(),
        "optimizer": type(training.optimizer).__name__,
        "schedules": {**training.schedule_states, **schedules},
        "callbacks": callbacks,
    }
    save_arrays(path, arrays, {"format": FORMAT, "training": json.dumps(position)})


def load_training(training: Training, path: str | PathLike[str]) -> None:
    """Take over a training from ``path``; CheckpointError, and no change, where it does not fit."""
    arrays, metadata = load_arrays(path)
    position = _read_position(metadata, path)
    optimizer = type(training.optimizer).__name__
    if position["optimizer"] != optimizer:
        raise CheckpointError(
            f"{path}: the checkpoint is of {position['optimizer']}, this training uses {optimizer}"
        )
    named = name_states(training.states)
    own = {k: a for k, a in arrays.items() if not k.startswith((_CALLBACK, _SUMS))}
    try:
        check_compatible({k: (v.value.dtype.name, v.value.shape) for k, v in named.items()}, own)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    schedules, known = position["schedules"], name_schedules(training)
    for name, schedule in known.items():
        if name in schedules and not schedule.state_dict().keys() <= schedules[name].keys():
            raise CheckpointError(f"{path}: the position of {type(schedule).__name__} is missing")
    if ("optimizer" in known) != ("optimizer" in schedules):
        raise CheckpointError(f"{path}: one of checkpoint and optimizer has a schedule, not both")
    sums, history = None, History()
    try:
        if position["sums"]:
            sums = training.new_sums()
            sums.load_state_dict(position["sums"], _arrays_of(arrays, _SUMS))
        history.load_state_dict(position["history"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the training's measurements are damaged: {error}") from None

    # Everything fits: from here on nothing fails.
    for name, variable in named.items():
        variable.value[...] = own[name]
    training.epoch, training.batch = position["epoch"], position["batch"]
    training.steps, training.seed = position["steps"], position["seed"]
    training.sums, training.history = sums, history
    training.callbacks = {}
    training.callback_states = {
        key: state | _arrays_of(arrays, f"{_CALLBACK}{key}/")
        for key, state in position["callbacks"].items()
    }
    for name, schedule in known.items():
        if name in schedules:
            schedule.load_state_dict(schedules[name])
    training.schedule_states = {k: s for k, s in schedules.items() if k not in known}


def resume_schedules(training: Training) -> None:
    """Give schedules that have joined since a `load_training` the positions that it held."""
    for name, schedule in name_schedules(training).items():
        state = training.schedule_states.pop(name, None)
        if state is not None:
            schedule.load_state_dict(state)
            schedule.apply()


_POSITION: Mapping[str, type | tuple[type, ...]] = {
    "epoch": int,
    "batch": int,
    "steps": int,
    "seed": int,
    "sums": dict,
    "history": dict,
    "optimizer": str,
    "schedules": dict,
    "callbacks": dict,
}


def _read_position(metadata: Mapping[str, str], path: str | PathLike[str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a checkpoint of a training (format {metadata.get('format')!r})"
        )
    try:
        position = json.loads(metadata.get("training", ""))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the training's position is damaged: {error}") from None
    wrong = [
        name
        for name, kind in _POSITION.items()
        if not isinstance(position, dict) or not isinstance(position.get(name), kind)
    ]
    nested: Sequence[str] = () if wrong else ("schedules", "callbacks")
    wrong += [n for n in nested if not all(isinstance(s, dict) for s in position[n].values())]
    if wrong:
        raise CheckpointError(f"{path}: the training's position lacks {', '.join(wrong)}")
    return position


def _arrays_of(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
