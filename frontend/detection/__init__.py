"""Object detection: boxes, anchors, suppression, features of regions, losses and the metric.

Names, arguments and numerics are those of ``torchvision.ops``; what depends on values in size
there has a static size and a mask here.
"""

from .anchors import (
    AnchorGenerator,
    AnchorMatches,
    default_boxes,
    generate_anchors,
    grid_anchors,
    match_anchors,
)
from .average_precision import detections_by_image, mean_average_precision
from .boxes import (
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    complete_box_iou,
    complete_box_iou_loss,
    decode_boxes,
    distance_box_iou,
    distance_box_iou_loss,
    encode_boxes,
    generalized_box_iou,
    generalized_box_iou_loss,
    masks_to_boxes,
    remove_small_boxes,
    take_boxes,
)
from .deformable import deform_conv2d
from .focal import sigmoid_focal_loss
from .mining import hard_negatives
from .regions import ps_roi_align, ps_roi_pool, roi_align, roi_pool
from .suppression import Detections, batched_nms, nms, select_detections

__all__ = [
    "AnchorGenerator",
    "AnchorMatches",
    "Detections",
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "decode_boxes",
    "default_boxes",
    "deform_conv2d",
    "detections_by_image",
    "distance_box_iou",
    "distance_box_iou_loss",
    "encode_boxes",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "generate_anchors",
    "grid_anchors",
    "hard_negatives",
    "masks_to_boxes",
    "match_anchors",
    "mean_average_precision",
    "nms",
    "ps_roi_align",
    "ps_roi_pool",
    "remove_small_boxes",
    "roi_align",
    "roi_pool",
    "select_detections",
    "sigmoid_focal_loss",
    "take_boxes",
]
