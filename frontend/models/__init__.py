"""Well-known networks, whose parameters have the names that published checkpoints use."""

from __future__ import annotations

from .bert import Bert, BertForMaskedLM
from .gpt import GPT, generate
from .lora import LoRA, add_lora, merge_lora

__all__ = [
    "GPT",
    "Bert",
    "BertForMaskedLM",
    "LoRA",
    "add_lora",
    "generate",
    "merge_lora",
]
