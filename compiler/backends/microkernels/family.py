"""The kernel family: every routine that a contraction calls, in a module of its own.

Kernels do not depend on the user's graph, so a graph's module only declares them. They are
compiled once for a machine and can be kept as an object file.
"""

from __future__ import annotations

from collections.abc import Iterable

from llvmlite import ir

from ..vector_target import VectorTarget
from .packing import PackKernel, emit_pack_kernel
from .tile import TILE_KERNEL_TYPE, TileKernel, emit_tile_kernel, tile_spec

Kernel = TileKernel | PackKernel


def kernel_family(target: VectorTarget, dtype: str) -> tuple[Kernel, ...]:
    """Return every kernel that ``emit_gemm`` may declare for ``dtype`` on ``target``."""
    spec = tile_spec(target, dtype)
    tiles = [
        TileKernel(rows, vectors, walk)
        for walk in ("columns", "rows")
        for vectors in range(1, spec.vectors + 1)
        for rows in range(1, spec.rows + 1)
    ]
    widths = {*range(1, spec.vectors + 1), spec.panel_rows // spec.lanes}
    packs = [
        PackKernel(vectors, source)
        for source in ("copy", "transpose", "strided", "tables")
        for vectors in sorted(widths)
    ]
    return (*tiles, *packs)


def emit_kernel_family(
    target: VectorTarget,
    dtype: str,
    kernels: Iterable[Kernel] | None = None,
    *,
    triple: str = "",
    data_layout: str = "",
) -> ir.Module:
    """Return a module that defines ``kernels``, by default the whole family."""
    module = ir.Module(f"chainrule_kernels_{target.isa}_{dtype}")
    module.triple, module.data_layout = triple, data_layout
    for kernel in kernel_family(target, dtype) if kernels is None else kernels:
        if isinstance(kernel, TileKernel):
            emit_tile_kernel(module, target, dtype, kernel)
        else:
            emit_pack_kernel(module, target, dtype, kernel)
    return module


def declare_kernel(
    module: ir.Module, target: VectorTarget, dtype: str, kernel: Kernel
) -> ir.Function:
    """Return the declaration of ``kernel`` in ``module``, adding it if it is new."""
    name = kernel.name(target, dtype)
    kind = TILE_KERNEL_TYPE if isinstance(kernel, TileKernel) else kernel.type
    return module.globals.get(name) or ir.Function(module, kind, name)


def declared_kernels(module: ir.Module, target: VectorTarget, dtype: str) -> tuple[Kernel, ...]:
    """Return the kernels that ``module`` declares and does not define: what it must link with."""
    wanted = []
    for kernel in kernel_family(target, dtype):
        declared = module.globals.get(kernel.name(target, dtype))
        if declared is not None and declared.is_declaration:
            wanted.append(kernel)
    return tuple(wanted)
