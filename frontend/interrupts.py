"""Ctrl-C between steps: an interrupt waits for the running step to end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class DeferredInterrupt:
    """While active, SIGINT sets ``pending``; a second one raises KeyboardInterrupt at once.

    A step that stops half-way could leave some states updated and others not.  Outside of the main
    thread, or where SIGINT has no Python handler, nothing changes.
    """

    def __init__(self) -> None:
        self.pending = False
        self._previous: Any = None

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            if callable(self._previous):
                signal.signal(signal.SIGINT, self._note)
            else:
                self._previous = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            self._previous(number, frame)
        self.pending = True

    def raise_pending(self) -> None:
        """Raise KeyboardInterrupt where one has been waiting."""
        if self.pending:
            self.pending = False
            raise KeyboardInterrupt
