"""Augmentation inside the compiled step: random changes of images, drawn anew at every step.

Each function takes a batch ``(batch, channels, height, width)`` of floats and treats every sample
by itself.  In inference each is the identity (those that change the size cut or scale the whole).
The numbers come from the counter-based generator: the same seed gives the same pictures on every
backend.  For each function there is a layer, ``random_rotation`` and ``RandomRotation``, to be put
into an `nn.Sequential`; mixing functions take the labels as well.
"""

from __future__ import annotations

from .geometric import (
    random_affine,
    random_crop,
    random_flip,
    random_horizontal_flip,
    random_resized_crop,
    random_rotation,
    random_scale,
    random_shear,
    random_translation,
    random_vertical_flip,
)
from .layers import (
    Cutout,
    GaussianNoise,
    Normalize,
    RandomAffine,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomSaturation,
    RandomScale,
    RandomShear,
    RandomTranslation,
    RandomVerticalFlip,
)
from .mixing import cutmix, mixup
from .occlusion import cutout, random_erasing
from .photometric import (
    gaussian_noise,
    normalize,
    random_brightness,
    random_contrast,
    random_grayscale,
    random_saturation,
)

__all__ = [
    "Cutout",
    "GaussianNoise",
    "Normalize",
    "RandomAffine",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomSaturation",
    "RandomScale",
    "RandomShear",
    "RandomTranslation",
    "RandomVerticalFlip",
    "cutmix",
    "cutout",
    "gaussian_noise",
    "mixup",
    "normalize",
    "random_affine",
    "random_brightness",
    "random_contrast",
    "random_crop",
    "random_erasing",
    "random_flip",
    "random_grayscale",
    "random_horizontal_flip",
    "random_resized_crop",
    "random_rotation",
    "random_saturation",
    "random_scale",
    "random_shear",
    "random_translation",
    "random_vertical_flip",
]
