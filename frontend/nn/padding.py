"""Padding of the last axes, as layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..padding import pad_last
from ..tensor import Tensor, as_tensor
from ..windows import batched, per_axis
from .module import Module

_NO_LIMIT = -(2**62)


class _Pad(Module):
    """Pads the ``_rank`` last axes of (batch, channels, ...) or (channels, ...)."""

    _rank: int
    _mode: str

    def __init__(self, padding: int | Sequence[int]) -> None:
        self.padding = per_axis(
            padding, 2 * self._rank, "padding", type(self).__name__, least=_NO_LIMIT
        )
        self.value = 0.0

    def forward(self, x: object) -> Tensor:
        """Return ``x`` padded."""
        tensor = as_tensor(x)
        batched(tensor, self._rank, type(self).__name__)
        return pad_last(tensor, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Pads with a number."""

    _mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, x: object) -> Tensor:
        """Return ``x``, of any rank that has the padded axes, padded."""
        return pad_last(x, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    """Pads with zeros."""

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


_KINDS: dict[str, tuple[type[_Pad], str, str]] = {
    "Constant": (_ConstantPad, "constant", "``value``"),
    "Zero": (_ZeroPad, "constant", "zeros"),
    "Reflection": (_Pad, "reflect", "what lies inwards of its ends, mirrored"),
    "Replication": (_Pad, "replicate", "the elements at its ends"),
    "Circular": (_Pad, "circular", "what lies at its other end"),
}
_AXES = "length", "height and width", "depth, height and width"


def _layer(kind: str, rank: int) -> type[_Pad]:
    base, mode, what = _KINDS[kind]
    body = {
        "_rank": rank,
        "_mode": mode,
        "__doc__": f"Pads {_AXES[rank - 1]} with {what}.\n\n"
        f"``padding``: one int, or {2 * rank}: before and after the last axis first.",
        "__module__": __name__,
    }
    return type(f"{kind}Pad{rank}d", (base,), body)


ConstantPad1d, ConstantPad2d, ConstantPad3d = (_layer("Constant", n) for n in (1, 2, 3))
ZeroPad1d, ZeroPad2d, ZeroPad3d = (_layer("Zero", n) for n in (1, 2, 3))
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (_layer("Reflection", n) for n in (1, 2, 3))
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (_layer("Replication", n) for n in (1, 2, 3))
CircularPad1d, CircularPad2d, CircularPad3d = (_layer("Circular", n) for n in (1, 2, 3))
