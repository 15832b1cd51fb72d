"""A single-shot detector in the manner of YOLO: every cell of a grid says what is centred in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...compiler.ir.types import Dim
from .. import detection, nn
from .. import functional as F
from .. import losses as L
from ..tensor import Tensor, as_tensor, constant
from ..tracing import fail


class YOLO(nn.Module):
    """Boxes, objectness and classes at every cell for every anchor (Redmon & Farhadi 2018).

    A cell's raw output t for an anchor of width p gives a box around ``cell + sigmoid(t_xy)``, of
    the size ``p exp(t_wh)``; then one logit whether an object is there and one for each class.

    Parameters
    ----------
    backbone : Module
        Images (n, 3, height, width) to features (n, channels, rows, columns).
    channels : int
        Of the backbone's features.
    classes : int
    anchors : sequence of (width, height)
        In pixels.
    stride : int
        Pixels from cell to cell.

    YOLOv3's rules for one scale, but for boxes the complete IoU instead of squared differences.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        classes: int,
        anchors: Sequence[tuple[float, float]] = ((10.0, 10.0), (16.0, 16.0)),
        stride: int = 4,
    ) -> None:
        self.backbone = backbone
        self.classes, self.stride = classes, stride
        self.anchors = np.asarray(anchors, "float32").reshape(-1, 2)
        self.head = nn.Conv2d(channels, len(self.anchors) * (5 + classes), 1)

    def forward(self, images: object) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (n, cells × anchors, 4), objectness logits (n, ·), class logits (n, ·, c).

        Cells are in row-major order, the anchors of a cell together.
        """
        raw = self.head(self.backbone(images))
        batch, _, rows, columns = raw.shape
        count = len(self.anchors)
        cells = raw.transpose(0, 2, 3, 1).reshape((batch, rows, columns, count, 5 + self.classes))
        corner = F.stack([F.iota((rows, columns, 1), 1), F.iota((rows, columns, 1), 0)], -1)
        centre = (cells[..., :2].sigmoid() + corner.astype(cells.dtype)) * self.stride
        half = F.exp(cells[..., 2:4].clip(high=4.0)) * constant(self.anchors) * 0.5
        boxes = F.concatenate([centre - half, centre + half], -1)
        places = rows * columns * count
        return (
            boxes.reshape((batch, places, 4)),
            cells[..., 4].reshape((batch, places)),
            cells[..., 5:].reshape((batch, places, self.classes)),
        )

    def responsible(self, boxes: Tensor, mask: Tensor, columns: Dim) -> Tensor:
        """Return which prediction answers for each object, -1 for masked ones; int64 (n, objects).

        The cell that holds the object's centre, and there the anchor of the most similar shape.
        """
        around = detection.box_convert(boxes, "xyxy", "cxcywh")
        column, row = (F.floor(around[..., i] / self.stride).astype("int64") for i in (0, 1))
        size = around[..., None, 2:]
        shared = F.minimum(size, constant(self.anchors)).prod(-1)
        union = size.prod(-1) + constant(self.anchors.prod(-1)) - shared
        anchor = (shared / union).argmax(-1)
        return F.where(mask, (row * columns + column) * len(self.anchors) + anchor, -1)

    def losses(
        self, images: object, boxes: object, labels: object, mask: object, ignore: float = 0.5
    ) -> dict[str, Tensor]:
        """Return the losses ``objectness``, ``box`` and ``class``, each for one object.

        ``boxes`` (n, objects, 4) in pixels, ``labels`` int64 (n, objects), ``mask`` bool
        (n, objects).  Predictions that overlap an object by more than ``ignore`` and do not answer
        for it are neither right nor wrong.
        """
        wanted, classes = as_tensor(boxes), as_tensor(labels)
        x1, y1, x2, y2 = (wanted[..., i] for i in range(4))
        real = as_tensor(mask) & (x2 > x1) & (y2 > y1)
        found, objectness, logits = self(images)
        columns = as_tensor(images).shape[3] // self.stride
        if isinstance(columns, int) and columns * self.stride != as_tensor(images).shape[3]:
            fail(f"YOLO: images {as_tensor(images).shape[3]} wide for a stride of {self.stride}")
        index = self.responsible(wanted, real, columns)
        places = objectness.shape[1]
        answers = (index.expand_dims(-1) == F.iota((places,), 0)).any(1)  # (n, places)
        overlaps = detection.box_iou(F.stop_gradient(found), wanted)
        near = F.where(real.expand_dims(1), overlaps, 0.0).max(-1) > ignore
        counted = (answers | ~near).astype(objectness.dtype)
        entropy = L.binary_crossentropy(
            objectness, answers.astype(objectness.dtype), True, reduction="none"
        )
        # An object's own predictions; those of masked objects are replaced before any division.
        box = F.where(real.expand_dims(-1), detection.take_boxes(found, index), _UNIT_BOX)
        target = F.where(real.expand_dims(-1), wanted, _UNIT_BOX)
        box_loss = detection.complete_box_iou_loss(box, target)
        class_loss = L.sparse_categorical_crossentropy(
            detection.take_boxes(logits, index), classes, True, reduction="none"
        )
        weight = real.astype(objectness.dtype)
        count = weight.sum().clip(low=1.0)
        return {
            "objectness": (entropy * counted).sum() / count,
            "box": (box_loss * weight).sum() / count,
            "class": (class_loss * weight).sum() / count,
        }

    def detect(
        self,
        images: object,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_outputs: int = 16,
    ) -> detection.Detections:
        """Return the detections, the product of objectness and class probability as scores."""
        boxes, objectness, logits = self(images)
        scores = objectness.sigmoid().expand_dims(-1) * F.softmax(logits, -1)
        height, width = as_tensor(images).shape[2:]
        clipped = detection.clip_boxes_to_image(boxes, (height, width))
        return detection.select_detections(
            clipped, scores, score_threshold, iou_threshold, max_outputs
        )


_UNIT_BOX = np.array([0.0, 0.0, 1.0, 1.0], "float32")
