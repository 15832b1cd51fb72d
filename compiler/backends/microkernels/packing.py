"""Packing: copying a block of an operand into the panel layout that the tile kernels stream.

A panel holds ``width`` (a whole number of vectors) elements for each step of k, one after the
other: ``panel[k * width + i] = source(i, k)``, with room for k rounded up to whole squares.
Element ``i`` at or past ``valid`` is padding: some finite or stale number that only ever reaches
accumulators nobody stores. Sources are never read out of bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from ..vector_target import VectorTarget
from .control_flow import I64, POINTER, IndexMath, counted_loop
from .tile import TileSpec, masked_load, prefix_mask, set_kernel_attributes, tile_spec

# void pack(panel, source, stride, valid, k); ``stride`` in elements.
PACK_KERNEL_TYPE = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, I64, I64])
# void pack_strided(panel, source, stride_i, stride_k, valid, k)
PACK_STRIDED_TYPE = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, I64, I64, I64])


@dataclass(frozen=True, order=True)
class PackKernel:
    """Which packing routine: the panel's width in vectors, and how the source lies in memory.

    ``source`` is ``"copy"`` (``source[k * stride + i]``), ``"transpose"``
    (``source[i * stride + k]``) or ``"strided"`` (both strides known only when run).
    """

    vectors: int
    source: str

    def name(self, target: VectorTarget, dtype: str) -> str:
        return f"chainrule_pack_{target.isa}_{dtype}_{self.source}_{self.vectors}"

    @property
    def type(self) -> ir.FunctionType:
        return PACK_STRIDED_TYPE if self.source == "strided" else PACK_KERNEL_TYPE


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


def transpose_square(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Transpose ``n`` vectors of ``n`` lanes: first inside 128-bit blocks, then the blocks.

    Each shuffle is one x86 instruction (unpack, shuf128), which a plain butterfly is not.
    """
    lanes = len(rows)
    block = 4 if isinstance(rows[0].type.element, ir.FloatType) else 2
    blocks = lanes // block

    def shuffle(x: ir.Value, y: ir.Value, picks: list[int]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), picks)
        return builder.shuffle_vector(x, y, mask)

    def interleave(x: ir.Value, y: ir.Value, half: int, unit: int) -> ir.Value:
        """Interleave one half of each block of x and y, in units of ``unit`` elements."""
        picks: list[int] = []
        for start in range(0, lanes, block):
            for first in range(half * block // 2, (half + 1) * block // 2, unit):
                for operand in (0, lanes):
                    picks += [operand + start + first + e for e in range(unit)]
        return shuffle(x, y, picks)

    def block_pairs(x: ir.Value, y: ir.Value, parity: int) -> ir.Value:
        """The even (or odd) blocks of x, then those of y."""
        picks = [
            operand + start * block + e
            for operand in (0, lanes)
            for start in range(parity, blocks, 2)
            for e in range(block)
        ]
        return shuffle(x, y, picks)

    # inside[q][c]: block l holds column l * block + c of rows q * block ...
    inside = []
    for q in range(blocks):
        r = rows[q * block : (q + 1) * block]
        if block == 2:
            inside.append([interleave(r[0], r[1], half, 1) for half in (0, 1)])
            continue
        low = [interleave(r[0], r[1], half, 1) for half in (0, 1)]
        high = [interleave(r[2], r[3], half, 1) for half in (0, 1)]
        inside.append([interleave(low[c // 2], high[c // 2], c % 2, 2) for c in range(block)])
    columns: list[ir.Value] = [None] * lanes  # type: ignore[list-item]
    for c in range(block):
        parts = [inside[q][c] for q in range(blocks)]
        for l, column in enumerate(_transpose_blocks(parts, block_pairs)):
            columns[l * block + c] = column
    return columns


def _transpose_blocks(
    parts: list[ir.Value], block_pairs: Callable[..., ir.Value]
) -> list[ir.Value]:
    """Transpose a 1×1, 2×2 or 4×4 matrix whose entries are 128-bit blocks."""
    if len(parts) == 1:
        return parts
    if len(parts) == 2:
        return [block_pairs(*parts, 0), block_pairs(*parts, 1)]
    pairs = [[block_pairs(parts[q], parts[q + 1], odd) for q in (0, 2)] for odd in (0, 1)]
    return [block_pairs(*pairs[l % 2], l // 2) for l in range(4)]


def _load(b: ir.IRBuilder, spec: TileSpec, pointer: ir.Value, mask: ir.Value | None) -> ir.Value:
    if mask is not None:
        return masked_load(b, pointer, spec.vector, mask)
    return b.load(pointer, align=spec.element_bytes, typ=spec.vector)


def _at(b: ir.IRBuilder, spec: TileSpec, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    return b.gep(pointer, [offset], source_etype=spec.scalar)


_BODIES = {"copy": _emit_copy, "transpose": _emit_transpose, "strided": _emit_strided}
