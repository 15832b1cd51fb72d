"""Packing through tables: every kind of run, every width, nothing read that is not there."""

import ctypes
import functools

import llvmlite.binding as llvm
import numpy as np
import pytest
from guarded_machine import Guarded, each_isa, machine, needs_guard_pages

from chainrule.compiler.backends.microkernels import PackKernel, emit_kernel_family, tile_spec
from chainrule.compiler.backends.vector_target import vector_target

pytestmark = needs_guard_pages


@functools.cache
def packer(isa, dtype, vectors):
    """The compiled routine that fills a panel of so many vectors."""
    target, key = vector_target(isa), PackKernel(vectors, "tables")
    module = llvm.parse_assembly(str(emit_kernel_family(target, dtype, [key])))
    engine = llvm.create_mcjit_compiler(module, machine(isa))
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 2)
    call = kind(engine.get_function_address(key.name(target, dtype)))
    call.engine = engine
    return call


def broken_by(run, gap):
    """Offsets in runs of ``run`` consecutive ones."""
    return lambda count: np.arange(count) // run * (run + gap) + np.arange(count) % run


TABLES = {
    "one-run": np.arange,
    "backwards": lambda count: np.arange(count)[::-1].copy(),
    "every-other": lambda count: 2 * np.arange(count),
    "every-other-in-rows": lambda count: 2 * broken_by(8, 9)(count),
    "near-and-mixed": lambda count: np.random.default_rng(count).integers(0, 16, count),
    "far-apart": lambda count: 1000 * np.arange(count),
    "same-element": lambda count: np.zeros(count, np.int64),
    "runs-of-3": broken_by(3, 2),
    "runs-of-5": broken_by(5, 40),
    "runs-of-8": broken_by(8, 2),
    "runs-of-11": broken_by(11, 7),
    "overlapping-runs": broken_by(6, -2),
    "shuffled": lambda count: np.random.default_rng(count).permutation(count),
}


@each_isa("float32", "float64")
@pytest.mark.parametrize("across", TABLES)
@pytest.mark.parametrize("deep", ["one-run", "far-apart", "runs-of-5", "runs-of-11", "shuffled"])
def test_a_panel_holds_what_the_tables_name(isa, dtype, across, deep):
    target = vector_target(isa)
    call = packer(isa, dtype, 2)
    width = 2 * tile_spec(target, dtype).lanes
    for valid, depth in (
        (1, 1),
        (width, 16),
        (width - 1, 33),
        (width // 2, 5),
        (2, 47),
        (width, 0),
    ):
        offsets_i = TABLES[across](valid).astype(np.int64)
        offsets_k = TABLES[deep](max(depth, 1)).astype(np.int64)
        last = int(offsets_i.max() + offsets_k.max())
        room = (depth + 15) // 16 * 16
        arrays = [
            Guarded(width * room, dtype),
            Guarded(last + 1, dtype),
            Guarded(valid, np.int64),
            Guarded(depth, np.int64),
        ]
        try:
            panel, source, rows, steps = (x.array for x in arrays)
            panel[:] = np.nan
            source[:] = np.arange(last + 1) % 4093 + 1
            rows[:], steps[:] = offsets_i, offsets_k[:depth]
            call(*(x.address for x in arrays), valid, depth)
            wanted = source[offsets_i[None, :] + offsets_k[:depth, None]]
            np.testing.assert_array_equal(panel.reshape(room, width)[:depth, :valid], wanted)
        finally:
            for array in arrays:
                array.close()
