"""What the vector unit and the near caches of a CPU offer to code generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ELEMENT_BYTES = {"float32": 4, "float64": 8}


@dataclass(frozen=True)
class VectorTarget:
    """The vector instruction set and the cache sizes that tile shapes depend on.

    Parameters
    ----------
    isa : ``"avx512"``, ``"avx2"``, ``"sse2"`` or ``"neon"``.
    vector_bytes : width of one vector register in bytes.
    registers : number of architectural vector registers.
    has_fma : whether fused multiply-add is one instruction.
    l1_bytes, l2_bytes : data cache sizes of one core in bytes.
    """

    isa: str
    vector_bytes: int
    registers: int
    has_fma: bool
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10

    def lanes(self, dtype: str) -> int:
        """Return how many elements of ``dtype`` one vector register holds."""
        return self.vector_bytes // ELEMENT_BYTES[dtype]

    @property
    def has_masked_memory(self) -> bool:
        """Whether a masked load or store costs about as much as a plain one."""
        return self.isa == "avx512"


_BASELINES = {
    "avx512": VectorTarget("avx512", 64, 32, True, 32 << 10, 1 << 20),
    "avx2": VectorTarget("avx2", 32, 16, True, 32 << 10, 512 << 10),
    "sse2": VectorTarget("sse2", 16, 16, False, 32 << 10, 256 << 10),
    "neon": VectorTarget("neon", 16, 32, True, 64 << 10, 512 << 10),
}


def vector_target(
    isa: str, *, l1_bytes: int | None = None, l2_bytes: int | None = None
) -> VectorTarget:
    """Return the target of that name, with measured cache sizes where they are known."""
    base = _BASELINES[isa]
    return VectorTarget(
        base.isa,
        base.vector_bytes,
        base.registers,
        base.has_fma,
        l1_bytes or base.l1_bytes,
        l2_bytes or base.l2_bytes,
    )


def isa_of_features(triple: str, features: Mapping[str, bool]) -> str:
    """Return the widest instruction set that an LLVM feature map allows.

    ``triple`` is an LLVM target triple; ``features`` is what
    ``llvmlite.binding.get_host_cpu_features`` returns. An architecture without vectors of its
    own here gets 128-bit vectors, which LLVM splits as it must.
    """
    architecture = triple.split("-", 1)[0]
    if architecture in ("aarch64", "arm64"):
        return "neon"
    needed = ("avx512f", "avx512vl", "avx512dq", "avx512bw")
    if all(features.get(name) for name in needed):
        return "avx512"
    if features.get("avx2") and features.get("fma"):
        return "avx2"
    return "sse2"
