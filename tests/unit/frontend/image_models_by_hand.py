"""Image classifiers in plain PyTorch: functions of a state dictionary with torchvision's names.

Each reads the names it needs, so that a test can also see which names it did not read.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as TF


class Parameters:
    """Arrays by name, and the layers that read them; ``training`` says how batch norms behave."""

    def __init__(self, arrays: Mapping[str, torch.Tensor], training: bool) -> None:
        self.arrays = arrays
        self.training = training
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> torch.Tensor:
        self.read.add(name)
        return self.arrays[name]

    def get(self, name: str) -> torch.Tensor | None:
        return self[name] if name in self.arrays else None

    def conv(self, x, name: str, stride: int = 1, padding: int = 0, groups: int = 1):
        weight, bias = self[f"{name}.weight"], self.get(f"{name}.bias")
        return TF.conv2d(x, weight, bias, stride, padding, groups=groups)

    def norm(self, x, name: str, eps: float = 1e-5):
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (self[f"{name}.{part}"] for part in parts)
        self.read.add(f"{name}.num_batches_tracked")
        return TF.batch_norm(
            x, mean.clone(), var.clone(), weight, bias, training=self.training, eps=eps
        )

    def linear(self, x, name: str):
        return TF.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])


def alexnet(p: Parameters, x):
    x = TF.max_pool2d(p.conv(x, "features.0", 4, 2).relu(), 3, 2)
    x = TF.max_pool2d(p.conv(x, "features.3", 1, 2).relu(), 3, 2)
    for name in ("features.6", "features.8", "features.10"):
        x = p.conv(x, name, 1, 1).relu()
    x = TF.adaptive_avg_pool2d(TF.max_pool2d(x, 3, 2), 6).flatten(1)
    x = p.linear(x, "classifier.1").relu()
    return p.linear(p.linear(x, "classifier.4").relu(), "classifier.6")


def vgg(p: Parameters, x, widths, batch_norm: bool):
    place = 0
    for width in widths:
        if width is None:
            x, place = TF.max_pool2d(x, 2), place + 1
            continue
        x = p.conv(x, f"features.{place}", 1, 1)
        if batch_norm:
            x = p.norm(x, f"features.{place + 1}")
        x, place = x.relu(), place + 2 + batch_norm
    x = TF.adaptive_avg_pool2d(x, 7).flatten(1)
    for name in ("classifier.0", "classifier.3"):
        x = p.linear(x, name).relu()
    return p.linear(x, "classifier.6")


def resnet(p: Parameters, x, layers, bottleneck: bool, cifar: bool = False, groups: int = 1):
    x = p.norm(p.conv(x, "conv1", *((1, 1) if cifar else (2, 3))), "bn1").relu()
    if not cifar:
        x = TF.max_pool2d(x, 3, 2, 1)
    for group, count in enumerate(layers, 1):
        for number in range(count):
            name = f"layer{group}.{number}."
            stride = 2 if group > 1 and number == 0 else 1
            shortcut = x
            if f"{name}downsample.0.weight" in p.arrays:
                shortcut = p.conv(x, f"{name}downsample.0", stride)
                shortcut = p.norm(shortcut, f"{name}downsample.1")
            if bottleneck:
                y = p.norm(p.conv(x, f"{name}conv1"), f"{name}bn1").relu()
                y = p.conv(y, f"{name}conv2", stride, 1, groups)
                y = p.norm(y, f"{name}bn2").relu()
                y = p.norm(p.conv(y, f"{name}conv3"), f"{name}bn3")
            else:
                y = p.norm(p.conv(x, f"{name}conv1", stride, 1), f"{name}bn1").relu()
                y = p.norm(p.conv(y, f"{name}conv2", 1, 1), f"{name}bn2")
            x = (y + shortcut).relu()
    return p.linear(x.mean((2, 3)), "fc")


def densenet(p: Parameters, x, blocks):
    x = p.norm(p.conv(x, "features.conv0", 2, 3), "features.norm0").relu()
    x = TF.max_pool2d(x, 3, 2, 1)
    for block, count in enumerate(blocks, 1):
        for layer in range(1, count + 1):
            name = f"features.denseblock{block}.denselayer{layer}."
            y = p.conv(p.norm(x, f"{name}norm1").relu(), f"{name}conv1")
            y = p.conv(p.norm(y, f"{name}norm2").relu(), f"{name}conv2", 1, 1)
            x = torch.cat([x, y], 1)
        if block < len(blocks):
            name = f"features.transition{block}."
            x = TF.avg_pool2d(p.conv(p.norm(x, f"{name}norm").relu(), f"{name}conv"), 2)
    return p.linear(p.norm(x, "features.norm5").relu().mean((2, 3)), "classifier")


def _basic(p: Parameters, x, name: str, stride: int = 1, padding: int = 0):
    return p.norm(p.conv(x, f"{name}.conv", stride, padding), f"{name}.bn", 1e-3).relu()


def _inception(p: Parameters, x, name: str):
    second = _basic(p, _basic(p, x, f"{name}.branch2.0"), f"{name}.branch2.1", 1, 1)
    third = _basic(p, _basic(p, x, f"{name}.branch3.0"), f"{name}.branch3.1", 1, 1)
    fourth = _basic(p, TF.max_pool2d(x, 3, 1, 1), f"{name}.branch4.1")
    return torch.cat([_basic(p, x, f"{name}.branch1"), second, third, fourth], 1)


def _auxiliary(p: Parameters, x, name: str):
    x = _basic(p, TF.adaptive_avg_pool2d(x, 4), f"{name}.conv").flatten(1)
    return p.linear(p.linear(x, f"{name}.fc1").relu(), f"{name}.fc2")


def googlenet(p: Parameters, x):
    x = TF.max_pool2d(_basic(p, x, "conv1", 2, 3), 3, 2, ceil_mode=True)
    x = _basic(p, _basic(p, x, "conv2"), "conv3", 1, 1)
    x = TF.max_pool2d(x, 3, 2, ceil_mode=True)
    x = _inception(p, _inception(p, x, "inception3a"), "inception3b")
    first = _inception(p, TF.max_pool2d(x, 3, 2, ceil_mode=True), "inception4a")
    second = first
    for letter in "bcd":
        second = _inception(p, second, f"inception4{letter}")
    x = TF.max_pool2d(_inception(p, second, "inception4e"), 2, ceil_mode=True)
    x = _inception(p, _inception(p, x, "inception5a"), "inception5b").mean((2, 3))
    return p.linear(x, "fc"), _auxiliary(p, second, "aux2"), _auxiliary(p, first, "aux1")


def mobilenet(p: Parameters, x, blocks):
    def unit(x, conv: str, norm: str, *geometry: int):
        return TF.relu6(p.norm(p.conv(x, conv, *geometry), norm))

    x, place = unit(x, "features.0.0", "features.0.1", 2, 1), 1
    for expansion, _, count, stride in blocks:
        for number in range(count):
            name, y, part = f"features.{place}.conv.", x, 0
            if expansion != 1:
                y, part = unit(x, f"{name}0.0", f"{name}0.1"), 1
            step = stride if number == 0 else 1
            y = unit(y, f"{name}{part}.0", f"{name}{part}.1", step, 1, y.shape[1])
            y = p.norm(p.conv(y, f"{name}{part + 1}"), f"{name}{part + 2}")
            x = x + y if step == 1 and x.shape == y.shape else y
            place += 1
    x = unit(x, f"features.{place}.0", f"features.{place}.1").mean((2, 3))
    return p.linear(x, "classifier.1")


def squeezenet(p: Parameters, x, pools, last: int):
    def fire(x, name: str):
        x = p.conv(x, f"{name}.squeeze").relu()
        wide = p.conv(x, f"{name}.expand3x3", 1, 1).relu()
        return torch.cat([p.conv(x, f"{name}.expand1x1").relu(), wide], 1)

    x = p.conv(x, "features.0", 2).relu()
    for place in range(2, last + 1):
        if place in pools:
            x = TF.max_pool2d(x, 3, 2, ceil_mode=True)
        else:
            x = fire(x, f"features.{place}")
    return p.conv(x, "classifier.1").relu().mean((2, 3))


def lenet(p: Parameters, x, padding: int):
    x = TF.avg_pool2d(p.conv(x, "conv1", 1, padding).tanh(), 2)
    x = TF.avg_pool2d(p.conv(x, "conv2").tanh(), 2).flatten(1)
    return p.linear(p.linear(p.linear(x, "fc1").tanh(), "fc2").tanh(), "fc3")


def unet(p: Parameters, x, depth: int, bilinear: bool):
    def double(x, name: str):
        x = p.norm(p.conv(x, f"{name}.0", 1, 1), f"{name}.1").relu()
        return p.norm(p.conv(x, f"{name}.3", 1, 1), f"{name}.4").relu()

    seen = [double(x, "down.0")]
    for level in range(1, depth + 1):
        seen.append(double(TF.max_pool2d(seen[-1], 2), f"down.{level}"))
    x = seen.pop()
    for number, skip in enumerate(reversed(seen)):
        if bilinear:
            x = TF.interpolate(x, scale_factor=2, mode="bilinear")
            x = p.conv(x, f"up.{number}.1")
        else:
            weight, bias = p[f"up.{number}.weight"], p[f"up.{number}.bias"]
            x = TF.conv_transpose2d(x, weight, bias, 2)
        x = double(torch.cat([skip, x], 1), f"merge.{number}")
    return p.conv(x, "head")
