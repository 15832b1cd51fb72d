"""Machines of every vector width that this CPU has, and memory that ends where its array ends."""

import ctypes
import functools
import mmap
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest

from chainrule.compiler.backends.vector_target import isa_of_features

X86_CPUS = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "sse2": "x86-64"}
WIDEST_FIRST = ("avx512", "avx2", "sse2")

needs_guard_pages = pytest.mark.skipif(sys.platform == "win32", reason="guard pages use mprotect")


@functools.cache
def host_isas():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    widest = isa_of_features(llvm.get_default_triple(), llvm.get_host_cpu_features())
    if widest == "neon":
        return ("neon",)
    return WIDEST_FIRST[WIDEST_FIRST.index(widest) :]


def each_isa(*dtypes):
    names = ("avx512", "avx2", "sse2", "neon")
    pairs = [(isa, dtype) for isa in names for dtype in dtypes]
    return pytest.mark.parametrize(("isa", "dtype"), pairs, ids=["-".join(p) for p in pairs])


def machine(isa):
    if isa not in host_isas():
        pytest.skip(f"this CPU has no {isa}")
    cpu = X86_CPUS.get(isa, llvm.get_host_cpu_name())
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, opt=2, jit=True, reloc="pic", codemodel="small"
    )


# ---- arrays that end (or begin) at a page nobody may touch ----

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """``count`` elements with an untouchable page directly behind (or before) them."""

    def __init__(self, count, dtype, *, before=False):
        page = mmap.PAGESIZE
        size = max(count, 1) * np.dtype(dtype).itemsize
        body = -(-size // page) * page
        self.size = body + 2 * page
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.start = libc.mmap(None, self.size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        for guard in (self.start, self.start + page + body):
            assert libc.mprotect(guard, page, 0) == 0
        self.address = self.start + page + (0 if before else body - size)
        buffer = (ctypes.c_char * size).from_address(self.address)
        self.array = np.frombuffer(buffer, dtype=dtype)[:count]

    def close(self):
        libc.munmap(self.start, self.size)
