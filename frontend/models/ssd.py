"""SSD: default boxes on several feature maps, each classified and moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import detection, nn
from .. import functional as F
from .. import losses as L
from ..tensor import Tensor, as_tensor, constant
from ..tracing import fail

#: One over the variances (0.1, 0.1, 0.2, 0.2) of the paper's implementation.
_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class SSD(nn.Module):
    """Classes and offsets for default boxes on every map (Liu et al., "SSD", ECCV 2016).

    Parameters
    ----------
    backbone : Module
        Images (n, 3, height, width) to a list of feature maps, the finest first.
    channels : sequence of int
        Of each map.
    classes : int
        Without the background, which is class 0 of the logits.
    image_size : (height, width)
    scales : sequence of float
        Sides of the default boxes, relative to the image: one for each map and one more.
    aspect_ratios : sequence of sequences of float
        For each map, beside 1; see `detection.default_boxes`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: Sequence[int],
        classes: int,
        image_size: tuple[int, int],
        scales: Sequence[float],
        aspect_ratios: Sequence[Sequence[float]],
    ) -> None:
        self.backbone = backbone
        self.classes, self.image_size = classes, tuple(image_size)
        self.scales, self.aspect_ratios = tuple(scales), tuple(map(tuple, aspect_ratios))
        counts = [2 + 2 * len(ratios) for ratios in self.aspect_ratios]
        if not len(channels) == len(counts) == len(self.scales) - 1:
            fail(
                f"SSD: {len(channels)} maps need as many lists of aspect ratios (got "
                f"{len(counts)}) and one more scale (got {len(self.scales)})"
            )
        self.offsets = nn.ModuleList(
            nn.Conv2d(c, 4 * n, 3, padding=1) for c, n in zip(channels, counts, strict=True)
        )
        self.scores = nn.ModuleList(
            nn.Conv2d(c, (classes + 1) * n, 3, padding=1)
            for c, n in zip(channels, counts, strict=True)
        )

    def forward(self, images: object) -> tuple[Tensor, Tensor, np.ndarray]:
        """Return logits (n, boxes, 1 + classes), offsets (n, boxes, 4), defaults (boxes, 4)."""
        maps = self.backbone(images)
        logits = [
            _rows(head(x), self.classes + 1) for head, x in zip(self.scores, maps, strict=True)
        ]
        offsets = [_rows(head(x), 4) for head, x in zip(self.offsets, maps, strict=True)]
        grids = [x.shape[2:] for x in maps]
        anchors = detection.default_boxes(self.image_size, grids, self.scales, self.aspect_ratios)
        return F.concatenate(logits, 1), F.concatenate(offsets, 1), anchors

    def losses(
        self, images: object, boxes: object, labels: object, mask: object, ratio: float = 3.0
    ) -> dict[str, Tensor]:
        """Return the losses ``class`` and ``box``, for each default box that an object claims.

        ``boxes`` (n, objects, 4) in pixels, ``labels`` int64 (n, objects), ``mask`` bool
        (n, objects).  ``ratio`` negatives count for each positive, those of the largest loss.
        """
        logits, offsets, anchors = self(images)
        matches = detection.match_anchors(anchors, boxes, mask, 0.5)
        positive = matches.positive
        wanted = matches.take(as_tensor(labels) + 1)
        entropy = L.sparse_categorical_crossentropy(logits, wanted, True, reduction="none")
        counted = positive | detection.hard_negatives(entropy, positive, ratio=ratio)
        places = constant(anchors)
        own = F.where(positive.expand_dims(-1), matches.take(boxes), places)
        target = detection.encode_boxes(own, places, _WEIGHTS)
        distance = L.smooth_l1(offsets, target, reduction="none").sum(-1)
        count = positive.astype(logits.dtype).sum().clip(low=1.0)
        return {
            "class": F.where(counted, entropy, 0.0).sum() / count,
            "box": F.where(positive, distance, 0.0).sum() / count,
        }

    def detect(
        self,
        images: object,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.45,
        max_outputs: int = 16,
    ) -> detection.Detections:
        """Return the detections, with the classes' probabilities as scores."""
        logits, offsets, anchors = self(images)
        boxes = detection.decode_boxes(offsets, constant(anchors), _WEIGHTS)
        clipped = detection.clip_boxes_to_image(boxes, self.image_size)
        scores = F.softmax(logits, -1)[..., 1:]
        return detection.select_detections(
            clipped, scores, score_threshold, iou_threshold, max_outputs
        )


def _rows(x: Tensor, width: int) -> Tensor:
    """Return a head's output (n, boxes · width, rows, columns) as (n, all boxes, width)."""
    batch, channels, rows, columns = x.shape
    count = rows * columns * channels // width
    return x.transpose(0, 2, 3, 1).reshape((batch, count, width))
