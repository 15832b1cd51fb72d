"""Well-known networks; where checkpoints are published, the parameters have the names in these."""

from __future__ import annotations

from .bert import Bert, BertForMaskedLM
from .faster_rcnn import FasterRCNN, RegionProposals
from .gpt import GPT, generate
from .lora import LoRA, add_lora, merge_lora
from .ssd import SSD
from .yolo import YOLO

__all__ = [
    "GPT",
    "SSD",
    "YOLO",
    "Bert",
    "BertForMaskedLM",
    "FasterRCNN",
    "LoRA",
    "RegionProposals",
    "add_lora",
    "generate",
    "merge_lora",
]
