"""Training programs: one compiled step (loss, gradient, update), and the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from ..compiler.errors import CheckFailed, GraphError, InputError
from ..compiler.ir.graph import Node, Program
from ..compiler.options import CompileOptions
from .averaging import WeightAverage, average_of
from .batch_sources import (
    ArraySource,
    IterableSource,
    Source,
    cut_batches,
    name_arrays,
    samples_in,
    split_arrays,
)
from .build import Executable, build_executable
from .callbacks import Callback, Checkpoint
from .epoch_sums import EpochSums
from .explanation import explain_executable, profile_executable
from .history import History
from .inference import InferencePrograms
from .interrupts import DeferredInterrupt
from .metric import Metric
from .metrics import resolve_metrics
from .optimizer import Optimizer
from .prefetch import PrefetchingSource
from .progress import choose_progress
from .sample_weights import SAMPLE_WEIGHT, ClassWeight, WeighingSource, add_weights, weigh_loss
from .schedules import Schedule
from .state import Variable, variable_of
from .step_program import (
    Parameters,
    TrainingGraph,
    build_training_program,
    inputs_of,
)
from .tensor import Tensor
from .training_state import load_training, resume_schedules, save_training

#: Makes one, from a program, options and the storage of every state.
CompileProgram = Callable[[Program, CompileOptions, dict[Node, np.ndarray]], Executable]


class TrainingProgram:
    """A model, its loss and its optimizer, compiled into one step.

    Parameters
    ----------
    loss, optimizer, outputs, params, buffers, accumulate, accumulate_reduction
        As for `build_training_program`.
    metrics : list or dict
        Names of ``metrics.METRICS`` or `Metric` objects, measured by each step.
    ema : float or WeightAverage, optional
        Keep an exponential moving average of the weights, by its decay.
    weighted : bool
        The loss is one number a sample, and samples have weights (`weigh_loss`).
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
        params: Parameters | None = None,
        metrics: Sequence[str | Metric] | Mapping[str, Metric] = (),
        *,
        buffers: Parameters | None = None,
        accumulate: int = 1,
        accumulate_reduction: str = "mean",
        ema: float | WeightAverage | None = None,
        weighted: bool = False,
        compile_program: CompileProgram = build_executable,
        options: CompileOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.weighted = weighted
        self.loss, weight = weigh_loss(loss) if weighted else (loss, None)
        self.optimizer = optimizer
        self.outputs = dict(outputs or {})
        self.seed = seed
        self.options = options or CompileOptions()
        self.accumulate = accumulate
        # No bound method: the inference programs hold it, and a cycle would keep the graph alive.
        self._compile = partial(_compile_shared, compile_program, self.options)
        self._metrics = resolve_metrics(metrics, loss, self.outputs)
        self.epoch = self.steps = self.batch = 0
        self.stop_training = False
        self.history = History()
        #: What the epoch in progress has measured; then what drives the latest `fit`, by name, and
        #: the states that a checkpoint holds for those of the next one.
        self.sums: EpochSums | None = None
        self.callback_states: dict[str, dict[str, Any]] = {}
        self.schedules: list[Schedule] = []
        self.schedule_states: dict[str, dict[str, Any]] = {}
        self.callbacks: dict[str, Callback] = {}
        self._build_options: dict[str, Any] = {
            "params": params,
            "buffers": buffers,
            "accumulate": accumulate,
            "accumulate_reduction": accumulate_reduction,
            "batch_weight": weight,
            "average": average_of(ema),
        }
        self.graph: TrainingGraph | None = None
        self._build()

    def _build(self) -> None:
        statistics = self._statistics()
        self._statistic_names = tuple(statistics)
        self.graph = build_training_program(
            self.loss,
            self.optimizer,
            {**self.outputs, **statistics},
            previous=self.graph,
            **self._build_options,
        )
        self._inference = InferencePrograms(self._compile, self.graph.average)
        self._pending = None if self.graph.sums is None else self.graph.sums.pending.value
        self.program, self.states = self.graph.program, self.graph.states
        inputs = inputs_of(self.program)
        if self.weighted:  # last, so that it may be left out of a tuple
            inputs[SAMPLE_WEIGHT] = inputs.pop(SAMPLE_WEIGHT)
        self._inputs = inputs
        self.input_names = tuple(inputs)
        self.executable = self._compile(self.program, training=True)
        gather = self.graph.gather
        self._gather = None if gather is None else self._compile(gather, training=True)
        self._flush: Executable | None = None
        schedule = self.optimizer.schedule
        self._step_schedule = schedule if schedule and schedule.interval == "step" else None
        self._stepped = [] if self._step_schedule is None else [self._step_schedule]

    def _statistics(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for metric in self._metrics:
            found.update(metric.outputs())
        return found

    @property
    def parameters(self) -> list[Variable]:
        """The parameters of the model, trained or not, in the order in which they were made."""
        return [v for v in self.states if v.role == "parameter"]

    @property
    def averages(self) -> list[Variable]:
        """The states of the averages of the weights: of each parameter, and how many updates."""
        average = self._inference.average
        return [] if average is None else average.variables

    # -- one step ---------------------------------------------------------------------------------

    def step(self, **arrays: object) -> dict[str, Any]:
        """Train on one batch and return ``{"loss": float, output: array, metric: float}``.

        Everything returned was computed from the parameters before the update.  Where gradients
        accumulate, every ``accumulate``-th call updates; `flush` does so before that.

        Raises
        ------
        InputError, InputTypeError
            The arrays do not fit the inputs.
        CheckFailed
            Compiled with ``check="nan"``: an operator gave NaN; the message names it, the element
            and the step.
        """
        if self.weighted and SAMPLE_WEIGHT not in arrays:
            arrays[SAMPLE_WEIGHT] = np.ones(samples_in(arrays))
        result = self._run(arrays)
        result["loss"] = float(result["loss"])
        if self._metrics:
            self._finish_metrics(result)
        return result

    __call__ = step

    def _run(self, arrays: Mapping[str, object]) -> dict[str, Any]:
        """Run one step; count it, and advance the schedules that count updates."""
        gathers = self._pending is not None and int(self._pending) + 1 < self.accumulate
        executable = self._gather if gathers else self.executable
        assert executable is not None
        try:
            result: dict[str, Any] = executable(arrays)
        except CheckFailed as error:
            where = f"in step {self.steps} (epoch {self.epoch}, batch {self.batch}; all from 0)"
            raise CheckFailed(f"{error} {where}") from None
        self.steps += 1
        if not gathers:
            for schedule in self._stepped:
                schedule.step()
        return result

    def flush(self) -> bool:
        """Update from the gradients accumulated so far; return whether there were any.

        `fit` does so at the end of an epoch whose batches do not fill the last group.
        """
        if self._pending is None or not int(self._pending):
            return False
        if self._flush is None:
            assert self.graph is not None and self.graph.flush is not None
            self._flush = self._compile(self.graph.flush, training=True)
        self._flush({})
        for schedule in self._stepped:
            schedule.step()
        return True

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
        sample_weight: object = None,
        class_weight: ClassWeight | None = None,
        steps_per_epoch: int | None = None,
        prefetch: int = 0,
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
            been trained over the program's life, those before a `load` included; the history goes
            on as well.
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
        sample_weight : array, optional
            What each sample counts in the loss, ``(samples,)``; compile with ``weighted=True``.
        class_weight : dict, sequence or "balanced", optional
            What the samples of each class count; multiplies ``sample_weight``.
        steps_per_epoch : int, optional
            Batches that make an epoch of an iterable, which may be endless.
        prefetch : int
            Prepare so many batches ahead in a thread.
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
            self.batch, self.sums, total_epochs = 0, None, self.epoch + epochs
            self.history = History()
        else:
            self.history = self.history.copy()
        seed = self.seed if seed is None else seed
        held_out = validation_data
        if validation_split:
            kept, split = split_arrays(name_arrays(data, self.input_names), validation_split)
            held_out = split if validation_data is None else validation_data
            data = kept
            if sample_weight is not None:
                sample_weight = np.asarray(sample_weight)[: samples_in(kept)]
        validation = None if held_out is None else self._evaluation_source(held_out, batch_size)
        how = {"shuffle": shuffle, "seed": seed, "drop_last": drop_last}
        source = self._source(
            data, batch_size, how, sample_weight, class_weight, steps_per_epoch, prefetch
        )
        schedules, others = self._sort_callbacks(callbacks)
        self.history.interrupted = self.stop_training = False
        progress = choose_progress(verbose)
        with DeferredInterrupt() as interrupt:
            try:
                for callback in others:
                    callback.on_train_begin(self)
                while self.epoch < total_epochs and not self.stop_training:
                    progress.begin_epoch(self.epoch, total_epochs, source.length)
                    for callback in others:
                        callback.on_epoch_begin(self, self.epoch)
                    finished = self._train_epoch(source, others, progress, interrupt)
                    if finished:
                        self._end_epoch(validation, schedules, others, progress, interrupt)
                    interrupt.raise_pending()
            except KeyboardInterrupt:
                self.history.interrupted = True
            finally:
                progress.close()
                self._stepped = [] if self._step_schedule is None else [self._step_schedule]
                for callback in others:
                    callback.on_train_end(self)
        return self.history

    def _train_epoch(
        self,
        source: Source,
        callbacks: list[Callback],
        progress: Any,
        interrupt: DeferredInterrupt,
    ) -> bool:
        """Train from batch ``self.batch`` to the end of the epoch; False where it was stopped."""
        watching = [c for c in callbacks if _overrides(c, "on_batch_end")]
        sums = self.sums = self.sums or self.new_sums()
        with closing(source.epoch(self.epoch, self.batch)) as batches:  # type: ignore[type-var]
            for arrays, size in batches:
                result = self._run(arrays)
                self.batch += 1
                loss = float(result["loss"])
                sums.add(result, loss, size, self._weight_of(arrays, size))
                for callback in watching:
                    callback.on_batch_end(self, self.batch - 1, {"loss": loss})
                progress.advance(self.batch, sums.samples, sums.mean_loss)
                if interrupt.pending:
                    interrupt.raise_pending()
                if self.stop_training:
                    return False
        if not sums.samples:
            raise InputError("the data gave no batch; an iterator is spent after one epoch")
        self.flush()
        return True

    def new_sums(self) -> EpochSums:
        """Return empty sums of what an epoch measures."""
        return EpochSums(self._metrics)

    def _weight_of(self, arrays: Mapping[str, Any], size: int) -> float:
        return float(arrays[SAMPLE_WEIGHT].sum()) if self.weighted else size

    def _end_epoch(
        self,
        validation: Source | None,
        schedules: list[Schedule],
        callbacks: list[Callback],
        progress: Any,
        interrupt: DeferredInterrupt,
    ) -> None:
        assert self.sums is not None
        logs, samples = self.sums.measured(), self.sums.samples
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
        self.epoch, self.batch, self.sums = epoch + 1, 0, None
        for callback in callbacks:
            callback.on_epoch_end(self, epoch, logs)

    def _replace_metrics(self, metrics: Sequence[str | Metric] | Mapping[str, Metric]) -> None:
        wanted = resolve_metrics(metrics, self.loss, self.outputs)
        if [m.name for m in wanted] != [m.name for m in self._metrics] or any(
            not isinstance(m, str) for m in metrics
        ):
            self._metrics = wanted
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
        own_step = self._step_schedule
        self._stepped = [] if own_step is None else [own_step]
        self._stepped += [s for s in schedules if s.interval == "step" and s is not own_step]
        return schedules, others

    # -- data -------------------------------------------------------------------------------------

    def _source(
        self,
        data: object,
        batch_size: int | None,
        how: dict[str, Any],
        sample_weight: object = None,
        class_weight: ClassWeight | None = None,
        steps: int | None = None,
        prefetch: int = 0,
    ) -> Source:
        """Return the batches of a training's data."""
        weights = sample_weight is not None or class_weight is not None
        if weights and not self.weighted:
            raise InputError("weights need compile_train(..., weighted=True)")
        arrays = name_arrays(data, self.input_names)
        source: Source
        if arrays is None:
            if sample_weight is not None:
                raise InputError("sample_weight goes with arrays; batches bring their own")
            source = IterableSource(data, self.input_names, steps)
            if self.weighted:
                source = WeighingSource(source, self._inputs, class_weight)
        else:
            if steps is not None:
                raise InputError("steps_per_epoch is for an iterable of batches, not for arrays")
            if self.weighted:
                arrays = add_weights(arrays, self._inputs, sample_weight, class_weight)
            source = ArraySource(cut_batches(arrays, self._inputs, self._inputs, batch_size, **how))
        return PrefetchingSource(source, prefetch) if prefetch else source

    # -- inference --------------------------------------------------------------------------------

    def evaluate(
        self,
        data: object,
        batch_size: int | None = None,
        *,
        sample_weight: object = None,
        averaged: bool | None = None,
    ) -> dict[str, Any]:
        """Return the loss and the metrics over ``data``, in inference mode.

        The loss is the mean over the batches, weighted by their sizes; metrics do not depend on the
        batches.  ``data`` is as for `fit`; ``averaged`` as for `predict`.
        """
        return self._evaluate_source(
            self._evaluation_source(data, batch_size, sample_weight), averaged=averaged
        )

    def _evaluation_source(
        self, data: object, batch_size: int | None, sample_weight: object = None
    ) -> Source:
        arrays = name_arrays(data, self.input_names)
        if arrays is None:
            source = IterableSource(data, self.input_names)
            return WeighingSource(source, self._inputs, None) if self.weighted else source
        if self.weighted:
            arrays = add_weights(arrays, self._inputs, sample_weight)
        _, names = self._evaluation_program()
        inputs = {name: self._inputs[name] for name in names}
        return ArraySource(cut_batches(arrays, inputs, self._inputs, batch_size, 256))

    def _evaluation_program(
        self, averaged: bool | None = None
    ) -> tuple[Executable, tuple[str, ...]]:
        outputs = {"loss": self.loss, **self._statistics()}
        return self._inference.compiled(outputs, averaged)

    def _evaluate_source(
        self,
        source: Source,
        interrupt: DeferredInterrupt | None = None,
        averaged: bool | None = None,
    ) -> dict[str, Any]:
        execute, names = self._evaluation_program(averaged)
        sums = self.new_sums()
        for batch, size in source.epoch(0, 0):
            result = execute({name: batch[name] for name in names if name in batch})
            sums.add(result, float(result["loss"]), size, self._weight_of(batch, size))
            if interrupt is not None:
                interrupt.raise_pending()
        if not sums.samples:
            raise InputError("the data gave no batch to evaluate")
        return sums.measured()

    def predict(
        self, data: object, batch_size: int | None = None, *, averaged: bool | None = None
    ) -> Any:
        """Return the outputs for ``data``, in inference mode: the array, or a dict where several.

        ``data``: an array or a tuple of arrays for the inputs that the outputs need, in order of
        declaration, or arrays by name (labels may be among them).  ``averaged``: from the averages
        of the weights (``ema=…``), by default where there are some.

        Raises
        ------
        GraphError
            The program was made without ``outputs``.
        """
        if not self.outputs:
            raise GraphError("there are no outputs to predict; pass outputs={…} to compile_train")
        return self._inference.predict(self.outputs, self._inputs, data, batch_size, averaged)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """While active, the parameters hold their averages: to save, export or compile a model.

        Raises GraphError where the program keeps none.
        """
        average = self._inference.average_to_use(True)
        assert average is not None
        average.swap()
        try:
            yield
        finally:
            average.swap()

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


def _compile_shared(
    compile_program: CompileProgram, options: CompileOptions, program: Program, training: bool
) -> Executable:
    """Compile over the storage of the variables."""
    storage = {node: variable_of(node).value for node in program.states()}
    return compile_program(program, replace(options, training=training), storage)


def _overrides(callback: Callback, name: str) -> bool:
    return name in vars(callback) or getattr(type(callback), name) is not getattr(Callback, name)
