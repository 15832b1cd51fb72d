"""Kernels that differ only in their buffers: layers of one shape share machine code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from .ir import Kernel, LoopProgram
from .text import format_kernel

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|%?[A-Za-z_][A-Za-z0-9_.]*')


def share_kernels(program: LoopProgram) -> dict[str, Kernel]:
    """Return, for the name of every kernel, the first kernel that does the same.

    Two do the same where their texts agree once buffers are numbered in the order in which the
    kernels name them; the one can then run on the buffers of the other.
    """
    first: dict[str, Kernel] = {}
    return {
        kernel.name: first.setdefault(kernel_signature(kernel, program.names), kernel)
        for kernel in program.kernels
    }


def kernel_signature(kernel: Kernel, symbols: Sequence[str]) -> str:
    """Return what a kernel does, apart from its name, its label and the names of its buffers."""
    numbers: dict[str, str] = {}
    for number, use in enumerate(kernel.buffers):
        if use.name not in symbols:  # a size of that name could not be told from the buffer
            numbers[use.name] = f"@{number}"

    def renamed(match: re.Match[str]) -> str:
        token = match.group()
        name = json.loads(token) if token.startswith('"') else token
        return numbers.get(name, token)

    uses = [f"{use.dtype}{'!' if use.written else ''}" for use in kernel.buffers]
    body = format_kernel(kernel).partition("\n")[2]
    return "\n".join([", ".join(uses), _TOKEN.sub(renamed, body)])
