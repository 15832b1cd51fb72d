"""Layers of detectors: pooled regions, deformable convolution, the feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..detection import box_area, deformable, regions
from ..elementwise import floor, log2, stop_gradient, where
from ..resampling import interpolate
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .containers import ModuleList, Sequential
from .convolution import Conv2d
from .module import Module


class _RegionLayer(Module):
    """A function of features and boxes, with the arguments it was made with."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float) -> None:
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in vars(self).items())


class RoIAlign(_RegionLayer):
    """`detection.roi_align` of features (n, c, h, w) and boxes."""

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__(output_size, spatial_scale)
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, features: object, boxes: object) -> Tensor:
        return regions.roi_align(
            features,
            boxes,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )


class RoIPool(_RegionLayer):
    """`detection.roi_pool` of features (n, c, h, w) and boxes."""

    def forward(self, features: object, boxes: object) -> Tensor:
        return regions.roi_pool(features, boxes, self.output_size, self.spatial_scale)


class PSRoIAlign(_RegionLayer):
    """`detection.ps_roi_align` of features (n, c · bins, h, w) and boxes."""

    def __init__(
        self, output_size: int | Sequence[int], spatial_scale: float, sampling_ratio: int
    ) -> None:
        super().__init__(output_size, spatial_scale)
        self.sampling_ratio = sampling_ratio

    def forward(self, features: object, boxes: object) -> Tensor:
        return regions.ps_roi_align(
            features, boxes, self.output_size, self.spatial_scale, self.sampling_ratio
        )


class PSRoIPool(_RegionLayer):
    """`detection.ps_roi_pool` of features (n, c · bins, h, w) and boxes."""

    def forward(self, features: object, boxes: object) -> Tensor:
        return regions.ps_roi_pool(features, boxes, self.output_size, self.spatial_scale)


class MultiScaleRoIAlign(Module):
    """RoIAlign of each box on the map of a pyramid that fits its size.

    Parameters
    ----------
    featmap_names : sequence of str
        Which of the maps to use, the finest first.
    output_size : int or (rows, columns)
    sampling_ratio : int
        As in `detection.roi_align`.
    canonical_scale, canonical_level : int
        A box of this size (the root of its area) is for the map of 1/2^level of the image; one of
        half the size for the map one finer.

    Every box is sampled on every map, and one of the results is kept: which one depends on values.
    (Lin et al., "Feature pyramid networks", CVPR 2017, equation 1.)
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ) -> None:
        self.featmap_names = tuple(featmap_names)
        self.output_size, self.sampling_ratio = output_size, sampling_ratio
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level

    def forward(
        self, x: Mapping[str, object], boxes: object, image_shapes: Sequence[Any]
    ) -> Tensor:
        """Return the regions' features (k, c, rows, columns).

        ``x``: maps (n, c, h, w) by name.  ``boxes`` as in `detection.roi_align`.  ``image_shapes``:
        (height, width), or one for each image, of which the largest counts.
        """
        maps = [as_tensor(x[name]) for name in self.featmap_names if name in x]
        if not maps:
            fail(
                f"MultiScaleRoIAlign: none of the maps {', '.join(self.featmap_names)} is among "
                f"{', '.join(x)}"
            )
        sizes = np.asarray(image_shapes, float).reshape(-1, 2).max(0)
        table = regions.numbered_boxes("MultiScaleRoIAlign", boxes, maps[0])
        levels = [_level_of(features, sizes) for features in maps]
        area = box_area(table[:, 1:]).astype(maps[0].dtype)
        wanted = log2(stop_gradient(area) / self.canonical_scale**2) * 0.5 + self.canonical_level
        level = floor(wanted + 1e-6).clip(levels[0], levels[-1])
        result: Tensor | None = None
        for features, number in zip(maps, levels, strict=True):
            pooled = regions.roi_align(
                features, table, self.output_size, 2.0**-number, self.sampling_ratio
            )
            mine = (level == number).expand_dims((1, 2, 3))
            result = pooled if result is None else where(mine, pooled, result)
        assert result is not None
        return result


def _level_of(features: Tensor, image: np.ndarray) -> int:
    """Return how many times the image was halved on the way to the map."""
    ratios = [
        round(-math.log2(int(size) / whole))  # type: ignore[call-overload]
        for size, whole in zip(features.shape[2:], image, strict=True)
    ]
    if ratios[0] != ratios[1]:
        fail(
            f"MultiScaleRoIAlign: a map of {features.shape[2]} × {features.shape[3]} has two "
            f"scales, of an image of {image[0]:g} × {image[1]:g}"
        )
    return ratios[0]


class DeformConv2d(Conv2d):
    """`detection.deform_conv2d` with a learned weight; the arguments of `Conv2d`.

    Called with images, offsets and, optionally, a mask.
    """

    def forward(self, x: object, offset: object, mask: object | None = None) -> Tensor:  # type: ignore[override]
        if isinstance(self.padding, str) or self.padding_mode != "zeros":
            fail("DeformConv2d: padding is a number of zeros")
        return deformable.deform_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )


class FeaturePyramidNetwork(Module):
    """Coarse features, enlarged, added to finer ones, down to the finest map.

    Parameters
    ----------
    in_channels_list : sequence of int
        Channels of the maps, the finest first.
    out_channels : int
        Channels of every result.

    Called with a list of maps (n, c, h, w), or a mapping of names to them; gives the same with
    ``out_channels`` channels.  Parameters have torchvision's names.  (Lin et al., "Feature pyramid
    networks for object detection", CVPR 2017, section 3.)
    """

    def __init__(self, in_channels_list: Sequence[int], out_channels: int) -> None:
        if not in_channels_list or any(c < 1 for c in in_channels_list):
            fail(
                "FeaturePyramidNetwork: one number of channels for each map, all positive, not "
                f"{list(in_channels_list)}"
            )
        self.inner_blocks = ModuleList(
            Sequential(Conv2d(c, out_channels, 1)) for c in in_channels_list
        )
        self.layer_blocks = ModuleList(
            Sequential(Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_channels_list
        )

    def forward(self, x: Sequence[object] | Mapping[str, object]) -> Any:
        """Return the maps of the pyramid, in the order and structure of ``x``."""
        maps = list(x.values() if isinstance(x, Mapping) else x)
        if len(maps) != len(self.inner_blocks):
            fail(f"FeaturePyramidNetwork: {len(maps)} maps, made for {len(self.inner_blocks)}")
        results: list[Tensor] = []
        above: Tensor | None = None
        for i in reversed(range(len(maps))):
            own = self.inner_blocks[i](as_tensor(maps[i]))
            if above is not None:
                own = own + interpolate(above, size=own.shape[2:], mode="nearest")  # type: ignore[arg-type]
            above = own
            results.insert(0, self.layer_blocks[i](own))
        return dict(zip(x, results, strict=True)) if isinstance(x, Mapping) else results
