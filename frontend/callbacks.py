"""Callbacks: what happens around the epochs and steps of a training."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from .history import History
from .optimizer import Optimizer
from .state import Variable

Logs = Mapping[str, float]


class Program(Protocol):
    """What a callback may use of a training program."""

    optimizer: Optimizer
    history: History
    stop_training: bool
    epoch: int
    steps: int

    @property
    def states(self) -> Sequence[Variable]: ...

    @property
    def averages(self) -> Sequence[Variable]: ...

    def save(self, path: Any) -> None: ...


class Callback:
    """The base: does nothing.  ``program`` is the training program, ``logs`` what was measured.

    `state_dict` and `load_state_dict` let a callback continue after a resumed training; values are
    numbers, None, or arrays.
    """

    def on_train_begin(self, program: Program) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, program: Program, epoch: int) -> None:
        """Before epoch ``epoch`` (from 0)."""

    def on_batch_end(self, program: Program, batch: int, logs: Logs) -> None:
        """After each step; ``logs`` holds its loss."""

    def on_epoch_end(self, program: Program, epoch: int, logs: Logs) -> None:
        """After each epoch and its validation."""

    def on_train_end(self, program: Program) -> None:
        """After the last epoch, also where the training was stopped or interrupted."""

    def state_dict(self) -> dict[str, Any]:
        """Return what continues the callback."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""


class LambdaCallback(Callback):
    """Calls functions of the same arguments as the methods of `Callback`."""

    def __init__(
        self,
        on_train_begin: Callable | None = None,
        on_epoch_begin: Callable | None = None,
        on_batch_end: Callable | None = None,
        on_epoch_end: Callable | None = None,
        on_train_end: Callable | None = None,
    ) -> None:
        given = {
            "on_train_begin": on_train_begin,
            "on_epoch_begin": on_epoch_begin,
            "on_batch_end": on_batch_end,
            "on_epoch_end": on_epoch_end,
            "on_train_end": on_train_end,
        }
        for name, function in given.items():
            if function is not None:
                setattr(self, name, function)


class _Monitor:
    """Says whether a measured value is the best so far."""

    def __init__(self, name: str, mode: str, min_delta: float = 0.0) -> None:
        if mode == "auto":
            mode = "min" if name.endswith(("loss", "mae", "mse", "rmse", "error")) else "max"
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode!r} is not 'auto', 'min' or 'max'")
        self.name, self.min_delta = name, abs(min_delta)
        self.sign = 1.0 if mode == "min" else -1.0
        self.best: float | None = None

    def improves(self, logs: Logs) -> bool:
        """Return whether ``logs`` holds a new best, and remember it; NaN never is."""
        value = monitored(logs, self.name)
        best = math.inf if self.best is None else self.sign * self.best
        if self.sign * value < best - self.min_delta or (
            self.best is None and not math.isnan(value)
        ):
            self.best = value
            return True
        return False


def monitored(logs: Logs, name: str) -> float:
    """Return the measurement called ``name``; KeyError names those that there are."""
    if name not in logs:
        hint = "; pass validation_data or validation_split" if name.startswith("val_") else ""
        raise KeyError(f"{name!r} is not measured (there are {', '.join(logs)}){hint}")
    return float(logs[name])


class EarlyStopping(Callback):
    """Stop once ``monitor`` has not improved by ``min_delta`` for ``patience`` epochs.

    ``restore_best``: parameters, their averages and buffers go back to those of the best epoch,
    unless the training was interrupted.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = False,
    ) -> None:
        self.monitor = _Monitor(monitor, mode, min_delta)
        self.patience, self.restore_best = patience, restore_best
        self.waited = 0
        self.best_epoch: int | None = None
        self._snapshot: list[np.ndarray] | None = None

    def on_epoch_end(self, program: Program, epoch: int, logs: Logs) -> None:
        if self.monitor.improves(logs):
            self.waited, self.best_epoch = 0, epoch
            if self.restore_best:
                self._snapshot = [v.value.copy() for v in _model_states(program)]
            return
        self.waited += 1
        if self.waited >= max(self.patience, 1):
            program.stop_training = True

    def on_train_end(self, program: Program) -> None:
        if self.restore_best and self._snapshot is not None and not program.history.interrupted:
            for variable, array in zip(_model_states(program), self._snapshot, strict=True):
                variable.value[...] = array

    def state_dict(self) -> dict[str, Any]:
        snapshot = dict(enumerate(self._snapshot or ()))
        return {
            "best": self.monitor.best,
            "waited": self.waited,
            "best_epoch": self.best_epoch,
            **{f"snapshot.{index}": array for index, array in snapshot.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.monitor.best = state["best"]
        self.waited, self.best_epoch = state["waited"], state["best_epoch"]
        arrays = [name for name in state if name.startswith("snapshot.")]
        self._snapshot = [state[f"snapshot.{i}"] for i in range(len(arrays))] or None


def _model_states(program: Program) -> list[Variable]:
    averages = set(program.averages)
    return [v for v in program.states if v.role in ("parameter", "buffer") or v in averages]


class Checkpoint(Callback):
    """Save the training after each epoch, atomically.

    Parameters
    ----------
    path : path
        The file; ``{epoch}`` and measured names are filled in, ``"run-{epoch:03d}.safetensors"``.
        A plain name always holds the last state.
    save_best_only : bool
        Save only where ``monitor`` has improved.
    every_epochs : int
        Save after every so many epochs (counted over the program's life).
    every_batches : int, optional
        Save also after every so many steps; a resumed training goes on within the epoch.
    keep : int, optional
        Delete the oldest of the files that this callback has written beyond so many.
    """

    def __init__(
        self,
        path: str | Path,
        monitor: str = "val_loss",
        mode: str = "auto",
        save_best_only: bool = False,
        every_batches: int | None = None,
        *,
        every_epochs: int = 1,
        keep: int | None = None,
    ) -> None:
        for name, count in (("every_epochs", every_epochs), ("keep", keep)):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        self.path = str(path)
        self.monitor = _Monitor(monitor, mode)
        self.save_best_only, self.every_batches = save_best_only, every_batches
        self.every_epochs, self.keep = every_epochs, keep
        self._written: list[str] = []

    def on_batch_end(self, program: Program, batch: int, logs: Logs) -> None:
        if self.every_batches and program.steps % self.every_batches == 0:
            self._save(program, self.path.format(epoch=program.epoch, **logs))

    def on_epoch_end(self, program: Program, epoch: int, logs: Logs) -> None:
        if (epoch + 1) % self.every_epochs:
            return
        if not self.save_best_only or self.monitor.improves(logs):
            self._save(program, self.path.format(epoch=epoch, **logs))

    def _save(self, program: Program, path: str) -> None:
        # Noted first: the state that is saved then knows its own file.
        self._written = [p for p in self._written if p != path] + [path]
        program.save(path)
        while self.keep is not None and len(self._written) > self.keep:
            Path(self._written.pop(0)).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.monitor.best, "written": list(self._written)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.monitor.best = state["best"]
        self._written = list(state.get("written", []))


class CSVLogger(Callback):
    """Write what each epoch measured as a line of a CSV file; arrays are left out.

    ``append`` continues the file; lines of epochs that are trained again, after a kill between the
    line and the checkpoint, are replaced.
    """

    def __init__(self, path: str | Path, append: bool = False) -> None:
        self.path, self.append = Path(path), append
        self._file: TextIO | None = None
        self._names: list[str] | None = None

    def on_train_begin(self, program: Program) -> None:
        self._names = None
        if self.append and self.path.exists():
            self._names = self._continue(program.epoch)
        self._file = self.path.open("a" if self.append else "w", newline="")

    def _continue(self, epoch: int) -> list[str] | None:
        """Drop what the file holds of ``epoch`` and later; return its columns."""
        with self.path.open(newline="") as file:
            rows = list(csv.reader(file))
        if not rows:
            return None
        kept = [rows[0], *(r for r in rows[1:] if len(r) == len(rows[0]) and int(r[0]) < epoch)]
        if len(kept) < len(rows):
            rest = self.path.with_name(self.path.name + ".tmp")
            with rest.open("w", newline="") as file:
                csv.writer(file).writerows(kept)
            rest.replace(self.path)
        return rows[0]

    def on_epoch_end(self, program: Program, epoch: int, logs: Logs) -> None:
        assert self._file is not None
        writer = csv.writer(self._file)
        row = {"epoch": epoch, **{n: v for n, v in logs.items() if not np.ndim(v)}}
        if self._names is None:
            self._names = list(row)
            writer.writerow(self._names)
        writer.writerow([row.get(name, "") for name in self._names])
        self._file.flush()

    def on_train_end(self, program: Program) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch to ``schedule(epoch, lr)`` or ``schedule(epoch)``.

    For the schedules of ``chainrule.schedules`` this is not needed: they are callbacks themselves.
    """

    def __init__(self, schedule: Callable[..., float]) -> None:
        self.schedule = schedule
        self._takes_rate: bool | None = None

    def on_epoch_begin(self, program: Program, epoch: int) -> None:
        rate = program.optimizer.lr
        if self._takes_rate is None:
            code = getattr(self.schedule, "__code__", None)
            self._takes_rate = code is None or code.co_argcount > 1
        arguments = (epoch, rate) if self._takes_rate else (epoch,)
        program.optimizer.lr = self.schedule(*arguments)


class TerminateOnNaN(Callback):
    """Stop at the first loss that is not finite."""

    def on_batch_end(self, program: Program, batch: int, logs: Logs) -> None:
        if not math.isfinite(logs["loss"]):
            program.stop_training = True


class TimeLimit(Callback):
    """Stop after the first step that ends later than ``seconds`` after `fit` began.

    ``fit(total_epochs=…)`` goes on from there.
    """

    def __init__(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"seconds must not be negative, but are {seconds}")
        self.seconds = seconds
        self._end = math.inf

    def on_train_begin(self, program: Program) -> None:
        self._end = time.monotonic() + self.seconds

    def on_batch_end(self, program: Program, batch: int, logs: Logs) -> None:
        if time.monotonic() >= self._end:
            program.stop_training = True
