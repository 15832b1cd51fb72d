"""Drawn scenes with known boxes and labels: data for detectors that needs no download."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..compiler.errors import InputError

#: The classes of `scenes`, in the order of their labels.
SHAPES = ("rectangle", "disc", "triangle")


class Scenes(NamedTuple):
    """Images and what is on them.

    ``images``: float32 (n, 3, size, size) about [0, 1].  ``boxes``: float32 (n, objects, 4), in
    pixels (x1, y1, x2, y2).  ``labels``: int64 (n, objects).  ``mask``: bool (n, objects), which of
    the objects there are; boxes and labels of the others are 0.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    mask: np.ndarray

    def targets(self) -> list[dict[str, np.ndarray]]:
        """Return what `detection.mean_average_precision` takes as targets."""
        return [
            {"boxes": boxes[real], "labels": labels[real]}
            for boxes, labels, real in zip(self.boxes, self.labels, self.mask, strict=True)
        ]


def scenes(
    count: int,
    size: int = 32,
    max_objects: int = 3,
    smallest: int = 7,
    largest: int = 16,
    noise: float = 0.1,
    seed: int = 0,
) -> Scenes:
    """Return images of coloured rectangles, discs and triangles on noisy ground.

    Every image has one to ``max_objects`` of them, ``smallest`` to ``largest`` pixels wide and
    high, which hide no more than a tenth of one another's boxes.  ``noise`` is the standard
    deviation of the pixels.
    """
    if not 1 <= smallest <= largest <= size:
        raise InputError(f"scenes: 1 <= {smallest} <= {largest} <= {size} does not hold")
    rng = np.random.default_rng(seed)
    images = np.empty((count, 3, size, size), "float32")
    boxes = np.zeros((count, max_objects, 4), "float32")
    labels = np.zeros((count, max_objects), "int64")
    mask = np.zeros((count, max_objects), bool)
    for i in range(count):
        images[i] = rng.uniform(0.0, 0.4, (3, 1, 1))
        placed = 0
        for _ in range(rng.integers(1, max_objects + 1)):
            box = _free_box(rng, boxes[i, :placed], size, smallest, largest)
            if box is None:
                continue
            label = int(rng.integers(len(SHAPES)))
            color = rng.permutation([rng.uniform(0.7, 1.0), *rng.uniform(0.1, 0.9, 2)])
            images[i, :, _inside(label, box, size)] = color
            boxes[i, placed], labels[i, placed], mask[i, placed] = box, label, True
            placed += 1
    images += rng.normal(0.0, noise, images.shape)
    return Scenes(images, boxes, labels, mask)


def _free_box(
    rng: np.random.Generator, taken: np.ndarray, size: int, smallest: int, largest: int
) -> np.ndarray | None:
    """Return a box that overlaps those ``taken`` by less than a tenth, None after 20 attempts."""
    for _ in range(20):
        sides = rng.integers(smallest, largest + 1, 2)
        corner = rng.integers(0, size - sides + 1)
        box = np.concatenate([corner, corner + sides]).astype("float32")
        shared = np.minimum(box[2:], taken[:, 2:]) - np.maximum(box[:2], taken[:, :2])
        areas = (taken[:, 2:] - taken[:, :2]).prod(1).clip(max=sides.prod())
        if (shared.clip(0).prod(1) <= 0.1 * areas).all():
            return box
    return None


def _inside(label: int, box: np.ndarray, size: int) -> np.ndarray:
    """Return which pixels the shape in ``box`` covers; bool (size, size)."""
    centre = np.arange(size) + 0.5
    x = (centre - box[0]) / (box[2] - box[0])  # 0 to 1 across the box
    y = ((centre - box[1]) / (box[3] - box[1]))[:, None]
    within = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    match SHAPES[label]:
        case "disc":
            return within & ((2 * x - 1) ** 2 + (2 * y - 1) ** 2 <= 1)
        case "triangle":  # its tip in the middle of the upper side
            lower = y + 0.5 / (box[3] - box[1])  # a row's lower edge: the last spans the box
            return within & (np.abs(2 * x - 1) <= lower.clip(min=1.0 / (box[2] - box[0])))
    return within
