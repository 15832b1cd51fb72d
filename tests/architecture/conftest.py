"""The package's own source, parsed once, with every import resolved to a full module name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = ("compiler", "runtime", "frontend", "benchmarks")


@dataclass(frozen=True)
class Import:
    """One import; ``target`` is ``compiler.ir.graph`` for ours, ``numpy.linalg`` for others'."""

    target: str
    ours: bool
    relative: bool
    in_function: bool
    line: int


@dataclass(frozen=True)
class Module:
    """One source file; ``name`` is ``compiler.ir.graph``, or '' for the root's ``__init__``."""

    name: str
    path: Path
    is_package: bool
    tree: ast.Module

    @property
    def area(self) -> str:
        """The first component: compiler, runtime, frontend, benchmarks; '' for the root's files."""
        return "" if self.name in ("", "__main__") else self.name.split(".")[0]

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


class Sources:
    """Every packaged module by name, and what each imports."""

    def __init__(self) -> None:
        paths = [ROOT / "__init__.py", ROOT / "__main__.py"]
        for area in PACKAGED:
            paths += sorted((ROOT / area).rglob("*.py"))
        self.modules = {m.name: m for m in (_parse(p) for p in paths if p.exists())}
        self.imports = {name: list(self._imports_of(m)) for name, m in self.modules.items()}

    def _imports_of(self, module: Module) -> Iterator[Import]:
        for node, in_function in _walk_with_function_flag(module.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield self._absolute(alias.name, in_function, node.lineno)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module is not None
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    known = _own_name(submodule) in self.modules
                    target = submodule if known else node.module
                    yield self._absolute(target, in_function, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                base = _resolve_relative(module, node)
                for alias in node.names:
                    submodule = f"{base}.{alias.name}" if base else alias.name
                    target = submodule if submodule in self.modules else base
                    yield Import(target, True, True, in_function, node.lineno)

    def _absolute(self, name: str, in_function: bool, line: int) -> Import:
        own = _own_name(name)
        return Import(name if own is None else own, own is not None, False, in_function, line)


def _own_name(name: str) -> str | None:
    """``compiler.ir`` for ``chainrule.compiler.ir``, ``''`` for ``chainrule``, None for others'."""
    if name == "chainrule":
        return ""
    return name.removeprefix("chainrule.") if name.startswith("chainrule.") else None


def _resolve_relative(module: Module, node: ast.ImportFrom) -> str:
    """The module that ``from ..x import y`` names, by Python's own rule."""
    parts = module.name.split(".") if module.name else []
    package = parts if module.is_package else parts[:-1]
    climb = node.level - 1
    if climb > len(package):
        raise AssertionError(f"{module.at(node.lineno)}: relative import leaves the package")
    kept = package[: len(package) - climb]
    return ".".join([*kept, *(node.module.split(".") if node.module else [])])


def _walk_with_function_flag(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it lies inside a function body."""
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, inside = stack.pop()
        yield node, inside
        within = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        stack.extend((child, within) for child in ast.iter_child_nodes(node))


def _parse(path: Path) -> Module:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    if is_package:
        parts.pop()
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return Module(".".join(parts), path, is_package, tree)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root, which is also the package's directory."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> Sources:
    """All packaged modules with their imports."""
    return Sources()
