"""What a training has measured, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class History(Mapping[str, list[float]]):
    """A mapping of each measured name to its values, one an epoch.

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
        self._values: dict[str, list[float]] = {}

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Add the measurements of an epoch."""
        done = len(self.epochs)
        self.epochs.append(epoch)
        for name in logs:
            self._values.setdefault(name, [float("nan")] * done)
        for name, values in self._values.items():
            values.append(float(logs.get(name, float("nan"))))

    def best(self, name: str = "val_loss", mode: str = "min") -> tuple[int, float]:
        """Return the epoch of the least (``mode="max"``: greatest) value, and the value."""
        pick = min if mode == "min" else max
        value, epoch = pick(zip(self._values[name], self.epochs, strict=True))
        return epoch, value

    def __getitem__(self, name: str) -> list[float]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self._values.items())
        return f"History({len(self.epochs)} epochs{': ' if last else ''}{last})"
