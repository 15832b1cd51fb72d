"""Data: batches of arrays, reproducible shuffling and splitting, and small data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..compiler.errors import InputError
from ..runtime.philox import philox_2x32
from .scenes import SHAPES, Scenes, scenes

__all__ = [
    "SHAPES",
    "ArrayBatches",
    "Batch",
    "Scenes",
    "Split",
    "as_named_arrays",
    "common_length",
    "load_digits",
    "scenes",
    "shuffled_indices",
    "spirals",
    "train_test_split",
]

Batch = tuple[dict[str, np.ndarray], int]


def shuffled_indices(count: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """Return a permutation of ``range(count)``, int64, that depends on ``(seed, epoch)`` alone.

    Sorts numbers of the counter-based generator, so that it is the same on every machine and with
    every version of NumPy.  The index itself is the low part of the number: no two are equal.
    """
    index = np.arange(count, dtype=np.uint64)
    low, high = philox_2x32(index, epoch, seed)
    keys = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
    mask = np.uint64((1 << max(count - 1, 0).bit_length()) - 1)
    return (np.sort((keys & ~mask) | index) & mask).astype(np.int64)


class ArrayBatches:
    """Arrays of equal length, cut into batches.

    Parameters
    ----------
    arrays : dict of str to array
        Each of shape ``(samples, …)``.
    batch_size : int
        Samples in a batch; the last one may be smaller.
    shuffle : bool
        Take the samples of each epoch in another order.
    seed : int
        What the orders depend on, together with the epoch's number.
    drop_last : bool
        Leave out a last batch that is smaller than the others.

    Raises
    ------
    InputError
        The lengths differ, there is no sample, or ``batch_size`` is not positive.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.arrays = dict(arrays)
        self.samples = common_length(self.arrays)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = min(batch_size, self.samples)
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self._buffers = {
            name: np.empty((self.batch_size, *array.shape[1:]), array.dtype)
            for name, array in self.arrays.items()
        }

    def __len__(self) -> int:
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def epoch(self, number: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch ``first`` on, each with its size.

        The arrays of a batch are overwritten by the next one.
        """
        order = shuffled_indices(self.samples, self.seed, number) if self.shuffle else None
        for start in range(first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            stop = min(start + self.batch_size, self.samples)
            yield self._take(start, stop, order), stop - start

    def _take(self, start: int, stop: int, order: np.ndarray | None) -> dict[str, np.ndarray]:
        if order is None:
            return {name: array[start:stop] for name, array in self.arrays.items()}
        chosen = order[start:stop]
        # mode="clip" lets NumPy write into the buffer directly; every index is in range.
        return {
            name: np.take(array, chosen, 0, self._buffers[name][: stop - start], "clip")
            for name, array in self.arrays.items()
        }


def common_length(arrays: Mapping[str, np.ndarray]) -> int:
    """Return the length of the first axis of all ``arrays``; InputError where they differ."""
    lengths = {name: len(a) if a.ndim else None for name, a in arrays.items()}
    listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
    if len(set(lengths.values())) != 1:
        raise InputError(f"arrays must have the same number of samples, got {listed}")
    (length,) = set(lengths.values())
    if not length:
        raise InputError(f"there are no samples ({listed})")
    return length


def train_test_split(
    *arrays: np.ndarray, test_size: float = 0.25, shuffle: bool = True, seed: int = 0
) -> list[np.ndarray]:
    """Return ``[a_train, a_test, b_train, b_test, …]`` of arrays of equal length.

    ``test_size`` is a share in (0, 1); with ``shuffle`` False the test samples are the last ones.
    """
    count = common_length({str(i): np.asarray(a) for i, a in enumerate(arrays)})
    if not 0 < test_size < 1:
        raise InputError(f"test_size must lie between 0 and 1, not {test_size}")
    tested = round(count * test_size)
    if not 0 < tested < count:
        raise InputError(f"{count} samples cannot be split with test_size={test_size}")
    order = shuffled_indices(count, seed) if shuffle else np.arange(count)
    train, test = order[: count - tested], order[count - tested :]
    return [np.asarray(a)[part] for a in arrays for part in (train, test)]


Split = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def load_digits(test_size: float = 0.2, seed: int = 0) -> Split:
    """Return ``(x_train, y_train), (x_test, y_test)`` of 1797 handwritten digits of 8×8 pixels.

    ``x`` is float32 ``(samples, 64)`` in [0, 1], ``y`` int64 labels.  Comes with scikit-learn;
    raises ImportError that names the extra to install.  (Alpaydin & Kaynak, UCI, 1998.)
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError(
            'the digits data set comes with scikit-learn: pip install "chainrule[demo]"'
        ) from error
    pixels, labels = load(return_X_y=True)
    x = (np.asarray(pixels) / 16.0).astype("float32")
    y = np.asarray(labels).astype("int64")
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=test_size, seed=seed)
    return (x_train, y_train), (x_test, y_test)


def spirals(
    samples: int = 1000, classes: int = 3, noise: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return points of interleaved spirals in the plane: float32 ``(samples, 2)``, int64 labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    radius = generator.uniform(0.05, 1.0, samples)
    angle = 2 * np.pi * (labels / classes + radius) + generator.normal(0.0, noise, samples)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype("float32"), labels.astype("int64")


def as_named_arrays(data: object, names: Sequence[str]) -> dict[str, object] | None:
    """Return data by input name, None where it is an iterable of batches.

    Arrays by name (a dict), a tuple or list of arrays in the order of ``names``, or one array.
    """
    if isinstance(data, Mapping):
        return dict(data)
    if hasattr(data, "__array__") or hasattr(data, "__dlpack__"):
        data = (data,)
    is_list_of_batches = isinstance(data, list) and any(
        isinstance(item, (tuple, list, Mapping)) for item in data
    )
    if not isinstance(data, (tuple, list)) or is_list_of_batches:
        return None
    if len(data) != len(names):
        raise InputError(
            f"the program has {len(names)} inputs ({', '.join(names)}), got {len(data)} arrays"
        )
    return dict(zip(names, data, strict=True))
