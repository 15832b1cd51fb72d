"""Faster R-CNN: a network proposes regions, a second one looks at each of them again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import detection, nn, random
from .. import functional as F
from .. import losses as L
from ..tensor import Tensor, as_tensor, constant

#: What the offsets of the second stage are multiplied by (Ren et al.'s implementation).
_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class RegionProposals(nn.Module):
    """The region proposal network: objectness and offsets of the anchors at every cell.

    ``channels`` of the features, ``anchors`` (a, 4) around a cell's origin, ``stride`` in pixels
    from cell to cell.
    """

    def __init__(self, channels: int, anchors: np.ndarray, stride: int) -> None:
        self.anchors, self.stride = np.asarray(anchors, "float32"), stride
        count = len(self.anchors)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, count, 1)
        self.offsets = nn.Conv2d(channels, 4 * count, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
        """Return logits (n, anchors), offsets (n, anchors, 4) and the anchors (anchors, 4)."""
        hidden = self.conv(features).relu()
        batch, _, rows, columns = hidden.shape
        places = rows * columns * len(self.anchors)
        logits = self.objectness(hidden).transpose(0, 2, 3, 1).reshape((batch, places))
        offsets = self.offsets(hidden).transpose(0, 2, 3, 1).reshape((batch, places, 4))
        return logits, offsets, detection.grid_anchors((rows, columns), self.stride, self.anchors)


def _sample(positive: Tensor, negative: Tensor, ratio: float) -> Tensor:
    """Return all positives and ``ratio`` random negatives for each."""
    drawn = random.uniform(positive.shape)
    return positive | detection.hard_negatives(drawn, positive, negative, ratio)


def _mean_over(loss: Tensor, counted: Tensor, of: Tensor | None = None) -> Tensor:
    """Return the sum of the ``counted`` divided by the number of ``of``, by default their own."""
    count = (counted if of is None else of).astype(loss.dtype).sum().clip(low=1.0)
    return F.where(counted, loss, 0.0).sum() / count


class FasterRCNN(nn.Module):
    """Proposals, RoIAlign and a box head (Ren, He, Girshick & Sun, NeurIPS 2015).

    Parameters
    ----------
    backbone : Module
        Images (n, 3, height, width) to features (n, channels, rows, columns).
    channels : int
        Of the backbone's features.
    classes : int
        Without the background, which is class 0 of the logits.
    stride : int
        Pixels from cell to cell of the features.
    sizes, aspect_ratios : sequences of float
        Of the anchors; see `detection.generate_anchors`.
    proposals : int
        How many regions go on to the second stage, for each image.
    bins : int
        RoIAlign's, along each side.
    hidden : int
        Units of the box head.

    Both stages train together on the sum of their four losses; the second takes the proposals as
    they are, without a gradient ("approximate joint training", section 3.2).
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        classes: int,
        stride: int = 4,
        sizes: Sequence[float] = (8.0, 14.0),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        proposals: int = 16,
        bins: int = 4,
        hidden: int = 64,
    ) -> None:
        self.classes, self.stride, self.proposals, self.bins = classes, stride, proposals, bins
        self.backbone = backbone
        anchors = detection.generate_anchors(sizes, aspect_ratios, rounded=False)
        self.rpn = RegionProposals(channels, anchors + stride / 2, stride)
        self.box_head = nn.Sequential(
            nn.Linear(channels * bins * bins, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.class_scores = nn.Linear(hidden, classes + 1)
        self.box_offsets = nn.Linear(hidden, 4 * classes)

    def propose(
        self, logits: Tensor, offsets: Tensor, anchors: np.ndarray, image_size: Sequence[object]
    ) -> tuple[Tensor, Tensor]:
        """Return the best regions (n, proposals, 4) and which of them there are; no gradient."""
        boxes = detection.decode_boxes(F.stop_gradient(offsets), constant(anchors))
        boxes = detection.clip_boxes_to_image(boxes, image_size)
        index = detection.nms(
            boxes,
            logits,
            iou_threshold=0.7,
            max_outputs=self.proposals,
            mask=detection.remove_small_boxes(boxes, 1.0),
        )
        return detection.take_boxes(boxes, index), index >= 0

    def classify(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, k, 1 + classes) and offsets (n, k, classes, 4) of regions (n, k, 4)."""
        batch, count = regions.shape[:2]
        pooled = detection.roi_align(
            features, regions, self.bins, 1.0 / self.stride, sampling_ratio=2, aligned=True
        )
        hidden = self.box_head(pooled.flatten(1))
        logits = self.class_scores(hidden).reshape((batch, count, self.classes + 1))
        return logits, self.box_offsets(hidden).reshape((batch, count, self.classes, 4))

    def losses(
        self, images: object, boxes: object, labels: object, mask: object
    ) -> dict[str, Tensor]:
        """Return the losses ``objectness`` and ``rpn box`` of the proposals, ``class`` and ``box``.

        ``boxes`` (n, objects, 4) in pixels, ``labels`` int64 (n, objects), ``mask`` bool
        (n, objects).  Of the background, random samples count: one for each positive anchor, three
        for each positive region.
        """
        wanted, classes, real = as_tensor(boxes), as_tensor(labels), as_tensor(mask)
        features = self.backbone(images)
        logits, offsets, anchors = self.rpn(features)
        regions, valid = self.propose(logits, offsets, anchors, as_tensor(images).shape[2:])
        # The objects themselves are regions too: without them the head would see none at first.
        regions = F.concatenate([regions, wanted], 1)
        valid = F.concatenate([valid, real], 1)
        return self._proposal_losses(logits, offsets, anchors, wanted, real) | self._head_losses(
            features, regions, valid, wanted, classes, real
        )

    def _proposal_losses(
        self, logits: Tensor, offsets: Tensor, anchors: np.ndarray, boxes: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        matches = detection.match_anchors(
            anchors, boxes, mask, 0.7, 0.3, force_best=False, allow_low_quality_matches=True
        )
        positive = matches.positive
        sampled = _sample(positive, matches.negative, 1.0)
        entropy = L.binary_crossentropy(
            logits, positive.astype(logits.dtype), True, reduction="none"
        )
        places = constant(anchors)
        own = F.where(positive.expand_dims(-1), matches.take(boxes), places)
        target = detection.encode_boxes(own, places)
        distance = L.smooth_l1(offsets, target, beta=1 / 9, reduction="none").sum(-1)
        return {
            "objectness": _mean_over(entropy, sampled),
            "rpn box": _mean_over(distance, positive, sampled),
        }

    def _head_losses(
        self,
        features: Tensor,
        regions: Tensor,
        valid: Tensor,
        boxes: Tensor,
        labels: Tensor,
        mask: Tensor,
    ) -> dict[str, Tensor]:
        logits, offsets = self.classify(features, regions)
        matches = detection.match_anchors(regions, boxes, mask, 0.5, force_best=False)
        positive = matches.positive & valid
        sampled = _sample(positive, matches.negative & valid, 3.0)
        wanted = F.where(positive, matches.take(labels) + 1, 0)
        entropy = L.sparse_categorical_crossentropy(logits, wanted, True, reduction="none")
        found = positive.expand_dims(-1)
        own = F.where(found, matches.take(boxes), _UNIT_BOX)
        target = detection.encode_boxes(own, F.where(found, regions, _UNIT_BOX), _WEIGHTS)
        of_class = (F.iota((self.classes,), 0) + 1 == wanted.expand_dims(-1)).expand_dims(-1)
        moved = F.where(of_class, offsets, 0.0).sum(-2)
        distance = L.smooth_l1(moved, target, reduction="none").sum(-1)
        return {
            "class": _mean_over(entropy, sampled),
            "box": _mean_over(distance, positive, sampled),
        }

    def detect(
        self,
        images: object,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_outputs: int = 16,
    ) -> detection.Detections:
        """Return the detections, with the classes' probabilities as scores."""
        size = as_tensor(images).shape[2:]
        features = self.backbone(images)
        logits, offsets, anchors = self.rpn(features)
        regions, valid = self.propose(logits, offsets, anchors, size)
        scores, moves = self.classify(features, regions)
        boxes = detection.decode_boxes(moves, regions.expand_dims(-2), _WEIGHTS)
        scores = F.where(valid.expand_dims(-1), F.softmax(scores, -1)[..., 1:], 0.0)
        return detection.select_detections(
            detection.clip_boxes_to_image(boxes, size),
            scores,
            score_threshold,
            iou_threshold,
            max_outputs,
        )


_UNIT_BOX = np.array([0.0, 0.0, 1.0, 1.0], "float32")
