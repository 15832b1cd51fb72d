"""Layers of detectors: pooled regions, deformable convolution, the feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..detection import deformable, regions
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
