"""A background thread that prepares the next batches while a step runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .batch_sources import Source

#: Seconds between two looks at whether the consumer has gone.
_PATIENCE = 0.1


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    """The epoch is over."""


class PrefetchingSource:
    """Epochs of another source, prepared up to ``depth`` batches ahead in a thread.

    The batches come in the same order.  What the source raises is raised where its batch would have
    come; when the consumer stops early, for whatever reason, the thread ends before `epoch` does.
    """

    def __init__(self, source: Source, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"prefetch must be at least 1 to have a thread, not {depth}")
        self.source, self.depth = source, depth
        self.length = source.length

    def epoch(self, number: int, first: int) -> Iterator[tuple[dict[str, Any], int]]:
        ready: queue.Queue[Any] = queue.Queue(self.depth)
        stopped = threading.Event()
        thread = threading.Thread(
            target=self._produce,
            args=(number, first, ready, stopped),
            name="chainrule-prefetch",
            daemon=True,
        )
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, _Failure):
                    raise item.error
                if isinstance(item, _End):
                    return
                yield item
        finally:
            stopped.set()
            thread.join()

    def _produce(
        self, number: int, first: int, ready: queue.Queue[Any], stopped: threading.Event
    ) -> None:
        try:
            for arrays, size in self.source.epoch(number, first):
                # A source may write its next batch over this one.
                kept = {name: _own(array) for name, array in arrays.items()}
                if not _offer(ready, (kept, size), stopped):
                    return
            _offer(ready, _End(), stopped)
        except BaseException as error:
            _offer(ready, _Failure(error), stopped)


def _own(array: Any) -> Any:
    return array.copy() if hasattr(array, "copy") else array


def _offer(ready: queue.Queue[Any], item: Any, stopped: threading.Event) -> bool:
    """Put ``item`` into the queue; return False where the consumer has gone."""
    while not stopped.is_set():
        try:
            ready.put(item, timeout=_PATIENCE)
        except queue.Full:
            continue
        return True
    return False
