"""The generated contraction: right for every layout, in bounds, same bits for any thread count."""

import ctypes
import functools
import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from guarded_machine import X86_CPUS, Guarded, each_isa, machine, needs_guard_pages
from llvmlite import ir

from chainrule.compiler.backends.microkernels import (
    Gemm,
    PackKernel,
    Store,
    TileKernel,
    declared_kernels,
    emit_gemm,
    emit_kernel_family,
    kernel_family,
    scratch_bytes,
    tile_spec,
)
from chainrule.compiler.backends.vector_target import vector_target

I32, I64, POINTER = ir.IntType(32), ir.IntType(64), ir.PointerType()

pytestmark = needs_guard_pages


@functools.cache
def family_object(isa, dtype):
    """The family, compiled once: exactly how a disk cache would keep it."""
    module = emit_kernel_family(vector_target(isa), dtype)
    return machine(isa).emit_object(llvm.parse_assembly(str(module)))


# ---- a driver: one native function that reads everything it needs from an array of i64 ----

ARGUMENTS = ("a", "b", "c", "scratch", "tid", "nthreads", "m", "n", "k")
ARGUMENTS += ("a_m", "a_k", "b_k", "b_n", "c_m", "c_n")


@functools.cache
def driver(isa, dtype, fixed=(), epilogue=None):
    """Compile a contraction; ``fixed`` (name, int) pairs are known while compiling."""
    target = vector_target(isa)
    module = ir.Module("driver")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "drive")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    given = {}
    for index, name in enumerate(ARGUMENTS):
        address = builder.gep(function.args[0], [I64(index)], source_etype=I64)
        value = builder.load(address, typ=I64)
        if name in ("a", "b", "c", "scratch"):
            value = builder.inttoptr(value, POINTER)
        elif name in ("tid", "nthreads"):
            value = builder.trunc(value, I32)
        given[name] = value
    given |= dict(fixed)
    g = {name: given[name] for name in ("m", "n", "k", "a", "b", "a_m", "a_k", "b_k", "b_n")}
    problem = Gemm(dtype, **g)
    if epilogue is None:
        finish = Store(given["c"], given["c_m"], given["c_n"])
    else:
        finish = functools.partial(EPILOGUES[epilogue], given)
    emit_gemm(
        builder,
        target,
        problem,
        finish,
        tid=given["tid"],
        nthreads=given["nthreads"],
        scratch=given["scratch"],
    )
    builder.ret_void()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine(isa))
    engine.add_object_file(llvm.ObjectFileRef.from_data(family_object(isa, dtype)))
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("drive"))
    call.engine = engine
    return call, scratch_bytes(target, problem, finish)


def accumulate_into_c(given, builder, tile):
    """c[m, n] += sum: wrong if any element is finished twice, or never."""

    def body(vector):
        pointer = vector.at(given["c"], given["c_m"])
        vector.store(builder.fadd(vector.load(pointer), vector.value), pointer)

    tile.each_vector(builder, body)


EPILOGUES = {"accumulate": accumulate_into_c}


def run(
    isa,
    dtype,
    extents,
    layout=("row", "row"),
    *,
    threads=1,
    fixed=(),
    epilogue=None,
    before=False,
    c_gap=0,
    c_by_columns=False,
    initial=7.0,
):
    """Contract random integers-and-a-half; return (C, the exact answer in float64)."""
    m, n, k = extents
    rng = np.random.default_rng(m * 1009 + n * 31 + k)
    a_count, a_m, a_k = strides_of(layout[0], m, k)
    b_count, b_k, b_n = strides_of(layout[1], k, n)
    c_m, c_n = (1, m + c_gap) if c_by_columns else (n + c_gap, 1)
    c_count = (n if c_by_columns else m) * max(c_m, c_n)
    numbers = {"m": m, "n": n, "k": k, "a_m": a_m, "a_k": a_k, "b_k": b_k, "b_n": b_n}
    numbers |= {"c_m": c_m, "c_n": c_n}
    unit = {
        ("a", "row"): "a_k",
        ("a", "column"): "a_m",
        ("b", "row"): "b_n",
        ("b", "column"): "b_k",
    }
    known = {unit[key] for key in zip("ab", layout, strict=True) if key in unit}
    if not c_by_columns:
        known.add("c_n")
    chosen = tuple((name, numbers[name]) for name in sorted({*known, *fixed}))
    call, scratch_size = driver(isa, dtype, chosen, epilogue)
    arrays = [
        Guarded(a_count, dtype, before=before),
        Guarded(b_count, dtype, before=before),
        Guarded(c_count, dtype, before=before),
        Guarded(max(scratch_size, 64), np.uint8),
    ]
    a, b, c, scratch = arrays
    try:
        a.array[:] = rng.integers(-8, 9, a_count) + 0.25
        b.array[:] = rng.integers(-8, 9, b_count) + 0.5
        c.array[:] = initial
        size = np.dtype(dtype).itemsize
        view = functools.partial(np.lib.stride_tricks.as_strided, writeable=False)
        exact_a = view(a.array, (m, k), (a_m * size, a_k * size)).astype(np.float64)
        exact_b = view(b.array, (k, n), (b_k * size, b_n * size)).astype(np.float64)
        for tid in range(threads):
            scratch.array[:] = 255  # every float in it is NaN
            pointers = [x.address for x in arrays]
            rest = [numbers[name] for name in ARGUMENTS[6:]]
            packed = np.array([*pointers, tid, threads, *rest], dtype=np.int64)
            call(packed.ctypes.data)
        result = view(c.array, (m, n), (c_m * size, c_n * size)).copy()
        if c_gap:
            whole = c.array.reshape(-1, max(c_m, c_n))
            assert (whole[:, (m if c_by_columns else n) :] == initial).all()
        return result, exact_a @ exact_b
    finally:
        for array in arrays:
            array.close()


def strides_of(layout, rows, columns):
    """Return (elements, stride along rows, stride along columns)."""
    if layout == "row":
        return rows * columns, columns, 1
    if layout == "column":
        return rows * columns, 1, rows
    return 3 * rows * columns, 3 * columns, 3


def assert_close(found, wanted, dtype, k):
    bound = (k + 1) * 64 * 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=0, atol=bound)


SIZES = [
    (1, 1, 1), (1, 70, 33), (2, 5, 3), (3, 33, 1), (5, 16, 40), (13, 31, 17), (14, 32, 16),
    (15, 32, 15), (16, 10, 32), (16, 32, 64), (29, 47, 300), (64, 10, 129), (64, 33, 16),
    (64, 64, 20), (100, 1, 40), (113, 130, 270),
]  # fmt: skip
LAYOUTS = [(a, b) for a in ("row", "column", "strided") for b in ("row", "column", "strided")]


@each_isa("float32", "float64")
@pytest.mark.parametrize("layout", LAYOUTS, ids="-".join)
def test_matches_numpy_and_stays_in_bounds(isa, dtype, layout):
    for index, extents in enumerate(SIZES):
        for before in (False, True):
            found, wanted = run(isa, dtype, extents, layout, before=before, c_gap=index % 3)
            assert_close(found, wanted, dtype, extents[2])


@each_isa("float32", "float64")
def test_empty_extents(isa, dtype):
    found, _ = run(isa, dtype, (20, 40, 0))
    assert (found == 0).all()
    for extents in ((0, 40, 3), (20, 0, 3), (0, 0, 0)):
        for fixed in ((), ("m", "n", "k")):
            found, _ = run(isa, dtype, extents, fixed=fixed)
            assert found.size == 0
    found, _ = run(isa, dtype, (20, 40, 0), fixed=("m", "n", "k"))
    assert (found == 0).all()


@each_isa("float32", "float64")
@pytest.mark.parametrize("extents", [(64, 10, 512), (30, 64, 40), (1, 1, 1), (16, 8, 700)], ids=str)
@pytest.mark.parametrize("layout", [("row", "row"), ("column", "column")], ids="-".join)
def test_extents_known_while_compiling(isa, dtype, extents, layout):
    fixed = ("m", "n", "k", "a_m", "a_k", "b_k", "b_n", "c_m")
    found, wanted = run(isa, dtype, extents, layout, fixed=fixed, threads=2)
    assert_close(found, wanted, dtype, extents[2])


@each_isa("float32")
@pytest.mark.parametrize("layout", [("row", "row"), ("column", "column")], ids="-".join)
def test_number_of_threads_changes_no_bit(isa, dtype, layout):
    for extents in ((64, 100, 300), (600, 70, 40), (1100, 40, 30), (7, 33, 90), (1, 300, 50)):
        one, wanted = run(isa, dtype, extents, layout)
        assert_close(one, wanted, dtype, extents[2])
        for threads in (2, 3, 7):
            many, _ = run(isa, dtype, extents, layout, threads=threads)
            np.testing.assert_array_equal(one, many)


@each_isa("float32", "float64")
def test_output_stored_by_columns(isa, dtype):
    for extents in ((30, 40, 20), (64, 10, 600), (3, 2, 1)):
        found, wanted = run(isa, dtype, extents, c_by_columns=True, c_gap=2)
        assert_close(found, wanted, dtype, extents[2])


@each_isa("float32", "float64")
@pytest.mark.parametrize("threads", [1, 3])
def test_epilogue_sees_each_finished_element_once(isa, dtype, threads):
    """Also with k split: sums then wait in scratch, in blocks of rows and groups of panels."""
    for extents in ((64, 96, 100), (30, 37, 20), (16, 10, 32), (5, 7, 0), (300, 600, 1100)):
        found, wanted = run(isa, dtype, extents, threads=threads, epilogue="accumulate")
        assert_close(found, wanted + 7.0, dtype, extents[2])


@each_isa("float32")
def test_epilogue_with_known_columns(isa, dtype):
    for n in (64, 40, 10, 3):
        found, wanted = run(
            isa, dtype, (50, n, 60), fixed=("n", "k"), epilogue="accumulate", threads=2
        )
        assert_close(found, wanted + 7.0, dtype, 60)


@each_isa("float32", "float64")
def test_rows_cut_into_blocks_for_the_second_cache(isa, dtype):
    found, wanted = run(isa, dtype, (1500, 20, 600), threads=2)
    assert_close(found, wanted, dtype, 600)


# ---- what the machine code looks like ----


def x86_assembly(isa, dtype, kernel):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = emit_kernel_family(
        vector_target(isa), dtype, [kernel], triple="x86_64-unknown-linux-gnu"
    )
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    host = target.create_target_machine(cpu=X86_CPUS[isa], opt=2, reloc="pic", codemodel="small")
    return host.emit_assembly(llvm.parse_assembly(str(module)))


@pytest.mark.parametrize("isa", ["avx512", "avx2", "sse2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("walk", ["columns", "rows"])
def test_the_largest_tile_never_spills_an_accumulator(isa, dtype, walk):
    spec = tile_spec(vector_target(isa), dtype)
    assembly = x86_assembly(isa, dtype, TileKernel(spec.rows, spec.vectors, walk))
    stack = [line for line in assembly.splitlines() if re.search(r"\(%r[sb]p", line)]
    assert not [line for line in stack if "mm" in line.split("#")[0].split("%")[-1]]
    assert not [line for line in stack if re.search(r"%[xyz]mm", line)]
    products = r"v?fmadd\d+p[sd]|mulp[sd]" if isa != "sse2" else r"mulp[sd]"
    assert len(re.findall(products, assembly)) == spec.rows * spec.vectors
    if isa == "avx512":
        assert "zmm27" in assembly


def test_transposes_are_single_instruction_shuffles():
    assembly = x86_assembly("avx512", "float32", PackKernel(1, "transpose"))
    assert len(re.findall(r"vunpck[lh]p[sd]|vshuff\d+x\d", assembly)) == 64
    assert "vperm" not in assembly


# ---- the family and what a module asks of it ----


@pytest.mark.parametrize(
    ("m", "heights"), [(64, {12, 13}), (10, {10}), (784, set(range(7, 15)))], ids=str
)
def test_a_module_declares_only_the_kernels_that_it_can_reach(m, heights):
    target = vector_target("avx512")
    module = ir.Module("driver")
    kind = ir.FunctionType(ir.VoidType(), [POINTER] * 4)
    function = ir.Function(module, kind, "contract")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    a, b, c, scratch = function.args
    problem = Gemm("float32", m, 512, 784, a, b, a_m=784, a_k=1, b_k=512, b_n=1)
    store = Store(c, 512)
    emit_gemm(builder, target, problem, store, tid=0, nthreads=1, scratch=scratch)
    builder.ret_void()
    wanted = set(declared_kernels(module, target, "float32"))
    family = set(kernel_family(target, "float32"))
    assert wanted < family
    assert {kernel for kernel in wanted if isinstance(kernel, PackKernel)} == {
        PackKernel(1, "transpose"),
        PackKernel(2, "copy"),
    }
    tiles = {kernel for kernel in wanted if isinstance(kernel, TileKernel)}
    assert {(t.vectors, t.walk) for t in tiles} == {(2, "columns")}
    assert {t.rows for t in tiles} == heights
