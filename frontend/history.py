"""What a training has measured, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class History(Mapping[str, list[Any]]):
    """A mapping of each measured name to its values, one an epoch: floats, or arrays.

    ``history["val_loss"][-1]`` is the last validation loss.  An epoch without a value holds NaN.

    Attributes
    ----------
    epochs : list of int
        The number of each epoch, counted from 0 over the program's life.
    interrupted : bool
        Whether the training ended by KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.interrupted = False
        self._values: dict[str, list[Any]] = {}

    def append(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Add the measurements of an epoch."""
        done = len(self.epochs)
        self.epochs.append(epoch)
        for name in logs:
            self._values.setdefault(name, [float("nan")] * done)
        for name, values in self._values.items():
            value = logs.get(name, float("nan"))
            values.append(value if np.ndim(value) else float(value))

    def best(self, name: str = "val_loss", mode: str = "min") -> tuple[int, float]:
        """Return the epoch of the least (``mode="max"``: greatest) value, and the value."""
        pick = min if mode == "min" else max
        value, epoch = pick(zip(self._values[name], self.epochs, strict=True))
        return epoch, value

    def copy(self) -> History:
        """Return a history that goes on by itself."""
        other = History()
        other.epochs, other.interrupted = list(self.epochs), self.interrupted
        other._values = {name: list(values) for name, values in self._values.items()}
        return other

    def state_dict(self) -> dict[str, Any]:
        """Return the history as numbers, lists and text."""
        values = {n: [np.asarray(v).tolist() for v in vs] for n, vs in self._values.items()}
        return {"epochs": list(self.epochs), "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; ValueError, and no change, where it is damaged."""
        epochs, values = state.get("epochs"), state.get("values")
        if not (
            isinstance(epochs, list)
            and all(isinstance(epoch, int) for epoch in epochs)
            and isinstance(values, dict)
            and all(isinstance(vs, list) and len(vs) == len(epochs) for vs in values.values())
        ):
            raise ValueError("the history is damaged")
        read = {
            n: [np.asarray(v) if isinstance(v, list) else float(v) for v in vs]
            for n, vs in values.items()
        }
        self.epochs, self._values = list(epochs), read

    def __getitem__(self, name: str) -> list[Any]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        last = ", ".join(
            f"{name}={values[-1]:.4g}"
            for name, values in self._values.items()
            if not np.ndim(values[-1])
        )
        return f"History({len(self.epochs)} epochs{': ' if last else ''}{last})"
