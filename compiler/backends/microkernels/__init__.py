"""Near-peak matrix contraction, generated: tile kernels, packing, and the loops around them."""

from .epilogue import Epilogue, Store, Tile, TileVector
from .family import (
    Kernel,
    declare_kernel,
    declared_kernels,
    emit_kernel_family,
    kernel_family,
)
from .gemm import Gemm, emit_gemm, scratch_bytes
from .packing import PackKernel
from .tile import TileKernel, TileSpec, tile_spec

__all__ = [
    "Gemm",
    "emit_gemm",
    "scratch_bytes",
    "Epilogue",
    "Store",
    "Tile",
    "TileVector",
    "Kernel",
    "kernel_family",
    "emit_kernel_family",
    "declare_kernel",
    "declared_kernels",
    "PackKernel",
    "TileKernel",
    "TileSpec",
    "tile_spec",
]
