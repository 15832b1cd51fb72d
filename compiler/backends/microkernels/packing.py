"""Packing: copying a block of an operand into the panel layout that the tile kernels stream.

A panel holds ``width`` (a whole number of vectors) elements for each step of k, one after the
other: ``panel[k * width + i] = source(i, k)``, with room for k rounded up to whole squares.
Element ``i`` at or past ``valid`` is padding: some finite or stale number that only ever reaches
accumulators nobody stores. Sources are never read out of bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from ..vector_target import VectorTarget
from .control_flow import I64, POINTER, IndexMath, counted_loop
from .table_packing import emit_table_packing
from .tile import TileSpec, masked_load, prefix_mask, set_kernel_attributes, tile_spec
from .transposition import transpose_square

# void pack(panel, source, stride, valid, k); ``stride`` in elements.
PACK_KERNEL_TYPE = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, I64, I64])
# void pack_strided(panel, source, stride_i, stride_k, valid, k)
PACK_STRIDED_TYPE = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, I64, I64, I64])
# void pack_tables(panel, source, offsets_i, offsets_k, valid, k)
PACK_TABLES_TYPE = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, POINTER, POINTER, I64, I64])


@dataclass(frozen=True, order=True)
class PackKernel:
    """Which packing routine: the panel's width in vectors, and how the source lies in memory.

    ``source`` is ``"copy"`` (``source[k * stride + i]``), ``"transpose"``
    (``source[i * stride + k]``), ``"strided"`` (both strides known only when run) or ``"tables"``
    (``source[offsets_i[i] + offsets_k[k]]``).
    """

    vectors: int
    source: str

    def name(self, target: VectorTarget, dtype: str) -> str:
        return f"chainrule_pack_{target.isa}_{dtype}_{self.source}_{self.vectors}"

    @property
    def type(self) -> ir.FunctionType:
        return _TYPES.get(self.source, PACK_KERNEL_TYPE)


def emit_pack_kernel(module: ir.Module, target: VectorTarget, dtype: str, key: PackKernel) -> None:
    """Define one packing routine in ``module``."""
    name = key.name(target, dtype)
    function = module.globals.get(name) or ir.Function(module, key.type, name)
    set_kernel_attributes(function, target)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _BODIES[key.source](builder, target, tile_spec(target, dtype), key.vectors, function.args)
    builder.ret_void()


def _emit_copy(
    b: ir.IRBuilder, target: VectorTarget, spec: TileSpec, vectors: int, args: list[ir.Value]
) -> None:
    panel, source, stride, valid, k = args
    width = vectors * spec.lanes
    if target.has_masked_memory:
        masks = [
            prefix_mask(b, b.sub(valid, I64(j * spec.lanes)), spec.lanes) for j in range(vectors)
        ]
        with counted_loop(b, 0, k) as step:
            _copy_vectors(b, spec, panel, source, stride, step, masks)
        return
    with b.if_else(b.icmp_signed("==", valid, I64(width))) as (full, partial):
        with full, counted_loop(b, 0, k) as step:
            _copy_vectors(b, spec, panel, source, stride, step, [None] * vectors)
        with partial:
            _copy_scalars(b, spec, width, panel, source, I64(1), stride, valid, k)


def _copy_vectors(
    b: ir.IRBuilder,
    spec: TileSpec,
    panel: ir.Value,
    source: ir.Value,
    stride: ir.Value,
    step: ir.Value,
    masks: Sequence[ir.Value | None],
) -> None:
    row = _at(b, spec, source, b.mul(step, stride))
    out = _at(b, spec, panel, b.mul(step, I64(len(masks) * spec.lanes)))
    for j, mask in enumerate(masks):
        pointer = _at(b, spec, row, I64(j * spec.lanes))
        value = _load(b, spec, pointer, mask)
        b.store(value, _at(b, spec, out, I64(j * spec.lanes)), align=spec.element_bytes)


def _emit_strided(
    b: ir.IRBuilder, _target: VectorTarget, spec: TileSpec, vectors: int, args: list[ir.Value]
) -> None:
    panel, source, stride_i, stride_k, valid, k = args
    width = vectors * spec.lanes
    _copy_scalars(b, spec, width, panel, source, stride_i, stride_k, valid, k)


def _copy_scalars(
    b: ir.IRBuilder,
    spec: TileSpec,
    width: int,
    panel: ir.Value,
    source: ir.Value,
    stride_i: ir.Value,
    stride_k: ir.Value,
    valid: ir.Value,
    k: ir.Value,
) -> None:
    with counted_loop(b, 0, k) as step:
        column = _at(b, spec, source, b.mul(step, stride_k))
        out = _at(b, spec, panel, b.mul(step, I64(width)))
        with counted_loop(b, 0, valid) as i:
            pointer = _at(b, spec, column, b.mul(i, stride_i))
            value = b.load(pointer, align=spec.element_bytes, typ=spec.scalar)
            b.store(value, _at(b, spec, out, i), align=spec.element_bytes)
        with counted_loop(b, valid, width) as i:
            zero = ir.Constant(spec.scalar, 0.0)
            b.store(zero, _at(b, spec, out, i), align=spec.element_bytes)


def _emit_transpose(
    b: ir.IRBuilder, target: VectorTarget, spec: TileSpec, vectors: int, args: list[ir.Value]
) -> None:
    """Transpose ``lanes`` × ``lanes`` squares in registers.

    Rows past ``valid`` read the last valid row again. With masked loads the last square may reach
    past k into the panel's spare room. Without, it is moved back to end at k, and a k shorter
    than one square goes element by element.
    """
    panel, source, stride, valid, k = args
    lanes, width = spec.lanes, vectors * spec.lanes
    if target.has_masked_memory:
        _transpose_squares(b, spec, vectors, args, masked=True)
        return
    with b.if_else(b.icmp_signed("<", k, I64(lanes))) as (short, long):
        with short:
            _copy_scalars(b, spec, width, panel, source, stride, I64(1), valid, k)
        with long:
            _transpose_squares(b, spec, vectors, args, masked=False)


def _transpose_squares(
    b: ir.IRBuilder, spec: TileSpec, vectors: int, args: list[ir.Value], *, masked: bool
) -> None:
    panel, source, stride, valid, k = args
    lanes, width = spec.lanes, vectors * spec.lanes
    math = IndexMath(b)
    last_row, last_square = b.sub(valid, I64(1)), b.sub(k, I64(lanes))
    for group in range(vectors):
        rows = []
        for i in range(group * lanes, (group + 1) * lanes):
            row = math.value(math.minimum(i, last_row))
            rows.append(_at(b, spec, source, b.mul(row, stride)))
        with counted_loop(b, 0, k, lanes) as wanted:
            step, mask = wanted, None
            if masked:
                mask = prefix_mask(b, b.sub(k, wanted), lanes)
            else:
                step = math.value(math.minimum(wanted, last_square))
            square = [_load(b, spec, _at(b, spec, row, step), mask) for row in rows]
            out = _at(b, spec, panel, b.add(b.mul(step, I64(width)), I64(group * lanes)))
            for c, column in enumerate(transpose_square(b, square)):
                pointer = _at(b, spec, out, I64(c * width))
                b.store(column, pointer, align=spec.element_bytes)


def _load(b: ir.IRBuilder, spec: TileSpec, pointer: ir.Value, mask: ir.Value | None) -> ir.Value:
    if mask is not None:
        return masked_load(b, pointer, spec.vector, mask)
    return b.load(pointer, align=spec.element_bytes, typ=spec.vector)


def _at(b: ir.IRBuilder, spec: TileSpec, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    return b.gep(pointer, [offset], source_etype=spec.scalar)


_TYPES = {"strided": PACK_STRIDED_TYPE, "tables": PACK_TABLES_TYPE}
_BODIES = {
    "copy": _emit_copy,
    "transpose": _emit_transpose,
    "strided": _emit_strided,
    "tables": emit_table_packing,
}
