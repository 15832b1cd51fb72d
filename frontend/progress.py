"""Progress of a training: a bar in a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np

#: Seconds between two drawings of the bar: a step may take microseconds.
REFRESH = 0.1


def format_logs(logs: Mapping[str, Any]) -> str:
    """Return ``loss 0.1234  accuracy 0.97``; measurements that are arrays are left out."""
    return "  ".join(f"{n} {value:.4g}" for n, value in logs.items() if not np.ndim(value))


class Progress:
    """Says nothing; the base of the others."""

    def begin_epoch(self, epoch: int, last: int, batches: int | None) -> None:
        """Start epoch ``epoch`` of ``last`` (numbers from 0); ``batches`` None: not known."""

    def advance(self, batches: int, samples: int, loss: float) -> None:
        """Note that ``batches`` and ``samples`` of the epoch are done, with the mean ``loss``."""

    def end_epoch(self, logs: Mapping[str, float], samples: int) -> None:
        """Report an epoch's measurements."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class LineProgress(Progress):
    """One line an epoch."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self._started = 0.0
        self._title = ""

    def begin_epoch(self, epoch: int, last: int, batches: int | None) -> None:
        self._started = time.perf_counter()
        self._title = f"epoch {epoch + 1}/{last}"

    def end_epoch(self, logs: Mapping[str, float], samples: int) -> None:
        seconds = time.perf_counter() - self._started
        rate = samples / seconds if seconds > 0 else 0.0
        line = f"{self._title}  {format_logs(logs)}  {seconds:.2f} s  {rate:,.0f} samples/s"
        print(line, file=self.stream or sys.stdout, flush=True)


class BarProgress(LineProgress):
    """A bar with the loss and the rate, drawn at most every `REFRESH` seconds; then the line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._bar: Any = None
        self._task: Any = None
        self._next_drawing = 0.0

    def begin_epoch(self, epoch: int, last: int, batches: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        super().begin_epoch(epoch, last, batches)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[measured]}"),
            TimeRemainingColumn(),
            console=Console(file=self.stream or sys.stdout),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task(self._title, total=batches, measured="")
        self._bar.start()
        self._next_drawing = 0.0

    def advance(self, batches: int, samples: int, loss: float) -> None:
        now = time.perf_counter()
        if now < self._next_drawing:
            return
        self._next_drawing = now + REFRESH
        rate = samples / max(now - self._started, 1e-9)
        measured = f"loss {loss:.4g}  {rate:,.0f} samples/s"
        self._bar.update(self._task, completed=batches, measured=measured)
        self._bar.refresh()

    def end_epoch(self, logs: Mapping[str, float], samples: int) -> None:
        self.close()
        super().end_epoch(logs, samples)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def choose_progress(verbose: int) -> Progress:
    """Return the progress for ``verbose``: 0 silent, 1 a bar in a terminal, 2 lines only."""
    if verbose == 0:
        return Progress()
    if verbose == 1 and sys.stdout is not None and sys.stdout.isatty():
        return BarProgress()
    return LineProgress()
