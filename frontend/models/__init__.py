"""Well-known networks; where checkpoints are published, the parameters have the names in these."""

from __future__ import annotations

from .alexnet import AlexNet, alexnet
from .bert import Bert, BertForMaskedLM
from .densenet import DenseNet, densenet121, densenet169, densenet201
from .faster_rcnn import FasterRCNN, RegionProposals
from .googlenet import GoogLeNet, Inception, InceptionAux, googlenet
from .gpt import GPT, generate
from .lenet import LeNet5, lenet5
from .lora import LoRA, add_lora, merge_lora
from .mobilenet import InvertedResidual, MobileNetV2, mobilenet_v2
from .resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from .squeezenet import Fire, SqueezeNet, squeezenet1_0, squeezenet1_1
from .ssd import SSD
from .unet import UNet, unet
from .vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from .yolo import YOLO

__all__ = [
    "AlexNet",
    "BasicBlock",
    "Bert",
    "BertForMaskedLM",
    "Bottleneck",
    "DenseNet",
    "FasterRCNN",
    "Fire",
    "GPT",
    "GoogLeNet",
    "Inception",
    "InceptionAux",
    "InvertedResidual",
    "LeNet5",
    "LoRA",
    "MobileNetV2",
    "RegionProposals",
    "ResNet",
    "SSD",
    "SqueezeNet",
    "UNet",
    "VGG",
    "YOLO",
    "add_lora",
    "alexnet",
    "densenet121",
    "densenet169",
    "densenet201",
    "generate",
    "googlenet",
    "lenet5",
    "merge_lora",
    "mobilenet_v2",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "squeezenet1_0",
    "squeezenet1_1",
    "unet",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet50_2",
]
