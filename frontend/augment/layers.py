"""Augmentations as layers: one row each, with the arguments of the functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..nn.module import Module
from ..tensor import Tensor
from . import geometric, occlusion, photometric


class _Augmentation(Module):
    """A layer that applies ``function`` to its input with the arguments it was made with."""

    function: Callable[..., Tensor]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        try:
            bound = inspect.Signature(parameters).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        bound.apply_defaults()
        self.arguments = dict(bound.arguments)

    def forward(self, x: object) -> Tensor:
        """Return ``x`` augmented in training, itself in inference."""
        return type(self).function(x, **self.arguments)

    def extra_repr(self) -> str:
        shown = {k: v for k, v in self.arguments.items() if k != "generator"}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


def _layer(name: str, function: Callable[..., Tensor]) -> type[_Augmentation]:
    body = {
        "function": staticmethod(function),
        "__doc__": function.__doc__,
        "__module__": __name__,
    }
    return type(name, (_Augmentation,), body)


RandomFlip = _layer("RandomFlip", geometric.random_flip)
RandomHorizontalFlip = _layer("RandomHorizontalFlip", geometric.random_horizontal_flip)
RandomVerticalFlip = _layer("RandomVerticalFlip", geometric.random_vertical_flip)
RandomAffine = _layer("RandomAffine", geometric.random_affine)
RandomRotation = _layer("RandomRotation", geometric.random_rotation)
RandomTranslation = _layer("RandomTranslation", geometric.random_translation)
RandomScale = _layer("RandomScale", geometric.random_scale)
RandomShear = _layer("RandomShear", geometric.random_shear)
RandomCrop = _layer("RandomCrop", geometric.random_crop)
RandomResizedCrop = _layer("RandomResizedCrop", geometric.random_resized_crop)
RandomBrightness = _layer("RandomBrightness", photometric.random_brightness)
RandomContrast = _layer("RandomContrast", photometric.random_contrast)
RandomSaturation = _layer("RandomSaturation", photometric.random_saturation)
RandomGrayscale = _layer("RandomGrayscale", photometric.random_grayscale)
GaussianNoise = _layer("GaussianNoise", photometric.gaussian_noise)
Normalize = _layer("Normalize", photometric.normalize)
Cutout = _layer("Cutout", occlusion.cutout)
RandomErasing = _layer("RandomErasing", occlusion.random_erasing)
