"""``chainrule info``: versions, processor, threads, cache, extras, environment."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path

from ...compiler.backends.vector_target import vector_target
from ...compiler.options import ENVIRONMENT, environment_values, options_from_environment
from ...runtime.threads import available_threads

HELP = "versions, processor, threads, cache, extras, environment"
#: An extra and the modules that it brings.
EXTRAS = {
    "demo": ("sklearn",),
    "viz": ("matplotlib", "graphviz"),
    "onnx": ("onnx",),
    "cuda": ("cuda",),
    "mpi": ("mpi4py",),
    "torch": ("torch",),
    "bench": ("torch", "jax", "optax"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    lines = describe_installation()
    width = max(len(title) for title, _ in lines)
    for title, text in lines:
        print(f"{title:{width}}  {text}".rstrip())
    return 0


def describe_installation() -> list[tuple[str, str]]:
    """Return titles and texts, one line each."""
    from ...runtime.cpu_jit import host_machine, llvm_version

    machine = host_machine()
    target = vector_target(machine.isa)
    settings = options_from_environment()
    usable = available_threads()
    lines = [
        ("chainrule", metadata.version("chainrule")),
        ("python", f"{platform.python_version()} ({platform.machine()}, {platform.system()})"),
        ("numpy", metadata.version("numpy")),
        ("llvmlite", f"{metadata.version('llvmlite')}, LLVM {llvm_version()}"),
        ("sympy", metadata.version("sympy")),
        ("networkx", metadata.version("networkx")),
        ("processor", f"{processor_name()} (LLVM: {machine.cpu})"),
        (
            "vectors",
            f"{machine.isa}, {8 * target.vector_bytes} bits: {target.lanes('float32')} float32 or "
            f"{target.lanes('float64')} float64",
        ),
        (
            "threads",
            f"{settings.threads or usable} in use; {usable} allowed by affinity and quota; "
            f"{os.cpu_count()} processors",
        ),
        ("backend", settings.backend),
        ("cache", describe_cache(settings.cache)),
    ]
    for extra, modules in EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        lines.append((f"[{extra}]", "installed" if not missing else f"no {', '.join(missing)}"))
    for name, value in environment_values().items():
        lines.append((name, value or f"not set ({ENVIRONMENT[name]})"))
    return lines


def processor_name() -> str:
    """Return the processor's name, as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_cache(folder: Path | None) -> str:
    """Return the cache folder, and the number and size of the objects in it."""
    if folder is None:
        return "off"
    try:
        sizes = [path.stat().st_size for path in folder.glob("*.o")]
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return f"{folder}: {len(sizes)} objects, {sum(sizes) / 1e6:.1f} MB"
