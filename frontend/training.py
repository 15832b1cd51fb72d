"""Training programs: one compiled step (loss, gradient, update), and the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from ..compiler.errors import GraphError, InputError
from ..compiler.ir.dims import SymbolicDim
from ..compiler.ir.graph import Node, Program
from ..compiler.options import CompileOptions
from .batch_sources import ArraySource, IterableSource, Source, cut_batches
from .build import Executable, build_executable
from .callbacks import Callback, Checkpoint
from .data import as_named_arrays, common_length
from .explanation import explain_executable, profile_executable
from .history import History
from .interrupts import DeferredInterrupt
from .metrics import Metric, resolve_metrics
from .optimizer import Optimizer
from .progress import choose_progress
from .schedules import Schedule
from .state import Variable, variable_of
from .step_program import build_forward_program, build_training_program, inputs_of
from .tensor import Tensor
from .training_state import load_training, resume_schedules, save_training

#: Makes one, from a program, options and the storage of every state.
CompileProgram = Callable[[Program, CompileOptions, dict[Node, np.ndarray]], Executable]


class TrainingProgram:
    """A model, its loss and its optimizer, compiled into one step.

    Parameters
    ----------
    loss, optimizer, outputs, params
        As for `build_training_program`.
    metrics : list or dict
        Names of ``metrics.METRICS`` or `Metric` objects, measured by each step.
    options : CompileOptions
        How to compile.
    compile_program : function
        Makes executables; each compiled variant shares the storage of the states.
    seed : int
        What the order of the samples in `fit` depends on.

    Attributes
    ----------
    epoch : int
        Whole epochs that have been trained.
    steps : int
        Steps that have been trained.
    history : History
        What the latest `fit` measured.
    """

    def __init__(
        self,
        loss: Tensor,
        optimizer: Optimizer,
        outputs: Mapping[str, Tensor] | None = None,
        params: Sequence[Variable] | None = None,
        metrics: Sequence[str | Metric] | Mapping[str, Metric] = (),
        *,
        compile_program: CompileProgram = build_executable,
        options: CompileOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.loss, self.optimizer = loss, optimizer
        self.outputs = dict(outputs or {})
        self.seed = seed
        self.options = options or CompileOptions()
        self._params = None if params is None else list(params)
        self._compile_program = compile_program
        self._metrics = resolve_metrics(metrics, loss, self.outputs)
        self._inference: dict[tuple, tuple[Executable, tuple[str, ...]]] = {}
        self.epoch = self.steps = self.batch = 0
        self.stop_training = False
        self.history = History()
        #: Sums of the epoch in progress; then what drives the latest `fit`, by name, and the states
        #: that a checkpoint holds for those of the next one.
        self.sums: dict[str, Any] = {}
        self.callback_states: dict[str, dict[str, Any]] = {}
        self.schedules: list[Schedule] = []
        self.schedule_states: dict[str, dict[str, Any]] = {}
        self.callbacks: dict[str, Callback] = {}
        self._build()

    def _build(self) -> None:
        statistics = self._statistics()
        self.program, self.states = build_training_program(
            self.loss,
            self.optimizer,
            {**self.outputs, **statistics},
            self._params,
        )
        self._statistic_names = tuple(statistics)
        self._inputs = inputs_of(self.program)
        self.input_names = tuple(self._inputs)
        self.executable = self._compile(self.program, training=True)
        schedule = self.optimizer.schedule
        self._step_schedule = schedule if schedule and schedule.interval == "step" else None

    def _statistics(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for metric in self._metrics:
            found.update(metric.outputs())
        return found

    def _compile(self, program: Program, training: bool) -> Executable:
        storage = {node: variable_of(node).value for node in program.states()}
        return self._compile_program(program, replace(self.options, training=training), storage)

    @property
    def parameters(self) -> list[Variable]:
        """The parameters of the model, trained or not, in the order in which they were made."""
        return [v for v in self.states if v.role == "parameter"]

    # -- one step ---------------------------------------------------------------------------------

    def step(self, **arrays: object) -> dict[str, Any]:
        """Train on one batch and return ``{"loss": float, output: array, metric: float}``.

        Everything returned was computed from the parameters before the update.

        Raises
        ------
        InputError, InputTypeError
            The arrays do not fit the inputs.
        """
        result: dict[str, Any] = self.executable(arrays)
        self.steps += 1
        if self._step_schedule is not None:
            self._step_schedule.step()
        result["loss"] = float(result["loss"])
        if self._metrics:
            self._finish_metrics(result)
        return result

    __call__ = step

    def _finish_metrics(self, result: dict[str, Any]) -> None:
        values = {metric.name: metric.value(result) for metric in self._metrics}
        for name in self._statistic_names:
            del result[name]
        result.update(values)

    # -- the loop ---------------------------------------------------------------------------------

    def fit(
        self,
        data: object,
        epochs: int = 1,
        batch_size: int | None = None,
        *,
        shuffle: bool = True,
        validation_data: object = None,
        validation_split: float = 0.0,
        callbacks: Sequence[Callback | Schedule] = (),
        metrics: Sequence[str | Metric] | Mapping[str, Metric] | None = None,
        drop_last: bool = False,
        verbose: int = 1,
        seed: int | None = None,
        total_epochs: int | None = None,
    ) -> History:
        """Train for some epochs and return what was measured.

        Parameters
        ----------
        data
            Arrays by input name, a tuple of arrays in the order in which the inputs were declared,
            or an iterable of batches of either form (or a function that returns one).
        epochs : int
            Passes over the data, beginning with a whole one.
        total_epochs : int, optional
            In place of ``epochs``: go on, within the epoch if need be, until so many epochs have
            been trained over the program's life, those before a `load` included.
        batch_size : int, optional
            Samples in a step, 32 unless the inputs fix it; the last batch may be smaller.
        shuffle : bool
            Take the samples in an order that depends on ``(seed, epoch)`` alone.
        validation_data, validation_split
            Data of the same forms, or the share of the arrays to set aside from their end.
        callbacks : list
            `Callback` objects and schedules.
        metrics : list or dict, optional
            In place of those that the program was made with.
        drop_last : bool
            Leave out a smaller last batch.
        verbose : int
            0 silent, 1 a progress bar in a terminal and one line an epoch elsewhere, 2 lines.
        seed : int, optional
            In place of the program's.

        Returns
        -------
        History
            ``loss``, each metric, and ``val_`` of both.  KeyboardInterrupt ends the training after
            the running step and returns what was measured so far, ``interrupted`` being true.

        Raises
        ------
        InputError, InputTypeError
            The data does not fit the inputs.
        """
        if metrics is not None:
            self._replace_metrics(metrics)
        if total_epochs is None:
            self.batch, self.sums, total_epochs = 0, {}, self.epoch + epochs
        seed = self.seed if seed is None else seed
        training, held_out = self._split(data, validation_split)
        held_out = held_out if validation_data is None else validation_data
        validation = None if held_out is None else self._evaluation_source(held_out, batch_size)
        source = self._source(training, batch_size, shuffle, seed, drop_last)
        schedules, others = self._sort_callbacks(callbacks)
        self.history, self.stop_training = History(), False
        progress = choose_progress(verbose)
        with DeferredInterrupt() as interrupt:
            try:
                for callback in others:
                    callback.on_train_begin(self)
                while self.epoch < total_epochs and not self.stop_training:
                    progress.begin_epoch(self.epoch, total_epochs, source.length)
                    for callback in others:
                        callback.on_epoch_begin(self, self.epoch)
                    finished = self._train_epoch(source, schedules, others, progress, interrupt)
                    if finished:
                        self._end_epoch(validation, schedules, others, progress, interrupt)
                    interrupt.raise_pending()
            except KeyboardInterrupt:
                self.history.interrupted = True
            finally:
                progress.close()
                for callback in others:
                    callback.on_train_end(self)
        return self.history

    def _train_epoch(
        self,
        source: Source,
        schedules: list[Schedule],
        callbacks: list[Callback],
        progress: Any,
        interrupt: DeferredInterrupt,
    ) -> bool:
        """Train from batch ``self.batch`` to the end of the epoch; False where it was stopped."""
        watching = [c for c in callbacks if _overrides(c, "on_batch_end")]
        stepped = [s for s in schedules if s.interval == "step" and s is not self._step_schedule]
        execute, names, advance = self.executable, self._statistic_names, progress.advance
        sums = self.sums = self.sums or _zero_sums(names)
        for arrays, size in source.epoch(self.epoch, self.batch):
            result = execute(arrays)
            self.steps += 1
            self.batch += 1
            if self._step_schedule is not None:
                self._step_schedule.step()
            for schedule in stepped:
                schedule.step()
            loss = float(result["loss"])
            sums["loss"] += loss * size
            sums["samples"] += size
            for name in names:
                sums[name] = sums[name] + result[name]
            for callback in watching:
                callback.on_batch_end(self, self.batch - 1, {"loss": loss})
            advance(self.batch, sums["samples"], sums["loss"] / sums["samples"])
            if interrupt.pending:
                interrupt.raise_pending()
            if self.stop_training:
                return False
        if not sums["samples"]:
            raise InputError("the data gave no batch; an iterator is spent after one epoch")
        return True

    def _end_epoch(
        self,
        validation: Source | None,
        schedules: list[Schedule],
        callbacks: list[Callback],
        progress: Any,
        interrupt: DeferredInterrupt,
    ) -> None:
        logs, samples = self._measured(self.sums), int(self.sums["samples"])
        if validation is not None:
            held_out = self._evaluate_source(validation, interrupt)
            logs |= {f"val_{name}": value for name, value in held_out.items()}
        if schedules:
            logs["lr"] = self.optimizer.lr
        epoch = self.epoch
        self.history.append(epoch, logs)
        progress.end_epoch(logs, samples)
        for schedule in schedules:
            if schedule.interval == "epoch":
                name = getattr(schedule, "monitor", None)
                if name is not None and name not in logs:
                    raise InputError(
                        f"{type(schedule).__name__} monitors {name!r}; measured are "
                        f"{', '.join(logs)}"
                    )
                schedule.step(None if name is None else logs[name])
        self.epoch, self.batch, self.sums = epoch + 1, 0, {}
        for callback in callbacks:
            callback.on_epoch_end(self, epoch, logs)

    def _measured(self, sums: Mapping[str, Any]) -> dict[str, float]:
        return {
            "loss": sums["loss"] / sums["samples"],
            **{metric.name: metric.value(sums) for metric in self._metrics},
        }

    def _replace_metrics(self, metrics: Sequence[str | Metric] | Mapping[str, Metric]) -> None:
        wanted = resolve_metrics(metrics, self.loss, self.outputs)
        if [m.name for m in wanted] != [m.name for m in self._metrics] or any(
            not isinstance(m, str) for m in metrics
        ):
            self._metrics = wanted
            self._inference.clear()
            self._build()

    def _sort_callbacks(
        self, callbacks: Sequence[Callback | Schedule]
    ) -> tuple[list[Schedule], list[Callback]]:
        """Return schedules, and callbacks with those that save last, so that they save it all."""
        schedules = [c for c in callbacks if isinstance(c, Schedule)]
        for schedule in schedules:
            if schedule.optimizer is None:
                schedule.bind(self.optimizer)
        own = self.optimizer.schedule
        if own is not None and not any(s is own for s in schedules):
            schedules.insert(0, own)
        others = [c for c in callbacks if not isinstance(c, Schedule)]
        others.sort(key=lambda c: isinstance(c, Checkpoint))
        self.callbacks = {f"{i}.{type(c).__name__}": c for i, c in enumerate(others)}
        for name, callback in self.callbacks.items():
            if name in self.callback_states:
                callback.load_state_dict(self.callback_states.pop(name))
        self.schedules = schedules
        resume_schedules(self)
        return schedules, others

    # -- data -------------------------------------------------------------------------------------

    def _split(self, data: object, share: float) -> tuple[object, object]:
        if not share:
            return data, None
        arrays = as_named_arrays(data, self.input_names)
        if arrays is None or not 0 < share < 1:
            raise InputError(
                "validation_split takes a share between 0 and 1 of arrays, not batches"
            )
        plain = {name: np.asarray(array) for name, array in arrays.items()}
        count = common_length(plain)
        kept = count - round(count * share)
        if not 0 < kept < count:
            raise InputError(f"{count} samples cannot be split with validation_split={share}")
        return (
            {name: array[:kept] for name, array in plain.items()},
            {name: array[kept:] for name, array in plain.items()},
        )

    def _source(
        self, data: object, batch_size: int | None, shuffle: bool, seed: int, drop_last: bool
    ) -> Source:
        arrays = as_named_arrays(data, self.input_names)
        if arrays is None:
            return IterableSource(data, self.input_names)
        how = {"shuffle": shuffle, "seed": seed, "drop_last": drop_last}
        return ArraySource(cut_batches(arrays, self._inputs, self._inputs, batch_size, **how))

    # -- inference --------------------------------------------------------------------------------

    def evaluate(self, data: object, batch_size: int | None = None) -> dict[str, float]:
        """Return the loss and the metrics over ``data``, in inference mode.

        The loss is the mean over the batches, weighted by their sizes; metrics do not depend on the
        batches.  ``data`` is as for `fit`.
        """
        return self._evaluate_source(self._evaluation_source(data, batch_size))

    def _evaluation_source(self, data: object, batch_size: int | None) -> Source:
        arrays = as_named_arrays(data, self.input_names)
        if arrays is None:
            return IterableSource(data, self.input_names)
        _, names = self._evaluation_program()
        inputs = {name: self._inputs[name] for name in names}
        return ArraySource(cut_batches(arrays, inputs, self._inputs, batch_size, 256))

    def _evaluation_program(self) -> tuple[Executable, tuple[str, ...]]:
        return self._inference_program({"loss": self.loss, **self._statistics()})

    def _evaluate_source(
        self, source: Source, interrupt: DeferredInterrupt | None = None
    ) -> dict[str, float]:
        execute, names = self._evaluation_program()
        sums = _zero_sums(self._statistic_names)
        for batch, size in source.epoch(0, 0):
            result = execute({name: batch[name] for name in names if name in batch})
            sums["loss"] += float(result["loss"]) * size
            sums["samples"] += size
            for name in self._statistic_names:
                sums[name] = sums[name] + result[name]
            if interrupt is not None:
                interrupt.raise_pending()
        if not sums["samples"]:
            raise InputError("the data gave no batch to evaluate")
        return self._measured(sums)

    def predict(self, data: object, batch_size: int | None = None) -> Any:
        """Return the outputs for ``data``, in inference mode: the array, or a dict where several.

        ``data``: an array or a tuple of arrays for the inputs that the outputs need, in order of
        declaration, or arrays by name (labels may be among them).

        Raises
        ------
        GraphError
            The program was made without ``outputs``.
        """
        if not self.outputs:
            raise GraphError("there are no outputs to predict; pass outputs={…} to compile_train")
        execute, names = self._inference_program(self.outputs)
        arrays = as_named_arrays(data, names)
        if arrays is None:
            raise InputError("predict takes arrays, not batches")
        inputs = {name: self._inputs[name] for name in names}
        if not all(_has_batch_axis(t.node, inputs.values()) for t in self.outputs.values()):
            result = execute({name: arrays[name] for name in names})
        else:
            batches = cut_batches(arrays, inputs, self._inputs, batch_size, 256)
            parts = [execute(batch) for batch, _ in batches.epoch()]
            result = {name: np.concatenate([p[name] for p in parts]) for name in self.outputs}
        return result if len(result) > 1 else next(iter(result.values()))

    def _inference_program(
        self, outputs: Mapping[str, Tensor]
    ) -> tuple[Executable, tuple[str, ...]]:
        key = tuple((name, tensor.node) for name, tensor in outputs.items())
        if key not in self._inference:
            program = build_forward_program(outputs, "inference")
            names = tuple(inputs_of(program))
            self._inference[key] = self._compile(program, training=False), names
        return self._inference[key]

    # -- reports ----------------------------------------------------------------------------------

    def explain(self, **sizes: int) -> str:
        """Return what was fused into which kernel, and why not where it was not.

        With the symbolic sizes (``batch=64``), also the memory plan and the threads.
        """
        return explain_executable(self.executable, **sizes)

    def profile(self) -> str:
        """Return what each kernel of the step cost so far; compile with ``profile=True``."""
        return profile_executable(self.executable)

    # -- checkpoints ------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the whole training to ``path``, atomically, in the safetensors format.

        It holds parameters, buffers, optimizer slots, random states, the position of every schedule
        and callback, the epoch and the step: a training that goes on from it gives the same bits.
        """
        save_training(self, path)

    def load(self, path: str | PathLike[str]) -> None:
        """Continue from what `save` wrote.

        Raises
        ------
        CheckpointError
            The file is damaged or belongs to another model or optimizer; nothing has changed then.
        """
        load_training(self, path)

    def __repr__(self) -> str:
        count = sum(v.value.size for v in self.parameters)
        return (
            f"TrainingProgram({', '.join(self.input_names)} -> loss; {count:,} parameters; "
            f"{type(self.optimizer).__name__}; {self.epoch} epochs, {self.steps} steps)"
        )


def _has_batch_axis(output: Node, inputs: Iterable[Node]) -> bool:
    batches = {node.shape[0] for node in inputs if node.shape}
    return (
        bool(output.shape)
        and batches == {output.shape[0]}
        and all(isinstance(dim, SymbolicDim) for dim in batches)
    )


def _zero_sums(names: Iterable[str]) -> dict[str, Any]:
    return {"loss": 0.0, "samples": 0, **dict.fromkeys(names, 0)}


def _overrides(callback: Callback, name: str) -> bool:
    return name in vars(callback) or getattr(type(callback), name) is not getattr(Callback, name)
