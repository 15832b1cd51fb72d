"""What an epoch has measured so far: sums over its batches, which a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .metric import Metric


class EpochSums:
    """The loss, the samples and the statistics of the metrics, summed over batches.

    Attributes
    ----------
    loss : float
        Sum of the batches' losses times their weights.
    weight : float
        Sum of the weights: a batch's samples, or their sample weights.
    samples : int
        Samples seen.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = tuple(metrics)
        self.loss, self.weight, self.samples = 0.0, 0.0, 0
        collected = [name for metric in self.metrics for name in metric.collected()]
        self._collected: dict[str, list[np.ndarray]] = {name: [] for name in collected}
        names = [name for metric in self.metrics for name in metric.outputs()]
        self._totals: dict[str, Any] = {n: 0 for n in names if n not in self._collected}

    def add(self, result: Mapping[str, Any], loss: float, samples: int, weight: float) -> None:
        """Add one batch; ``result`` holds the statistics by their output names."""
        self.loss += loss * weight
        self.weight += weight
        self.samples += samples
        for name in self._totals:
            self._totals[name] = self._totals[name] + result[name]
        for name, parts in self._collected.items():
            parts.append(result[name])

    @property
    def mean_loss(self) -> float:
        """The loss over all samples so far."""
        return self.loss / self.weight if self.weight else float("nan")

    def measured(self) -> dict[str, Any]:
        """Return the loss and every metric over the batches so far."""
        found = self._arrays()
        return {"loss": self.mean_loss, **{m.name: m.value(found) for m in self.metrics}}

    def _arrays(self) -> dict[str, Any]:
        joined = {n: np.concatenate(p) if p else np.zeros(0) for n, p in self._collected.items()}
        return {**self._totals, **joined}

    def state_dict(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return numbers, and arrays by name, that `load_state_dict` continues from."""
        numbers = {"loss": self.loss, "weight": self.weight, "samples": self.samples}
        return numbers, {name: np.asarray(value) for name, value in self._arrays().items()}

    def load_state_dict(self, numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state_dict` gave; statistics of other metrics are left out."""
        self.loss, self.weight = float(numbers["loss"]), float(numbers["weight"])
        self.samples = int(numbers["samples"])
        for name in self._totals:
            self._totals[name] = arrays.get(name, 0)
        for name, parts in self._collected.items():
            parts[:] = [arrays[name]] if name in arrays and len(arrays[name]) else []
