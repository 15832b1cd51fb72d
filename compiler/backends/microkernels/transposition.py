"""Transposing a square of vectors in registers."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir


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
