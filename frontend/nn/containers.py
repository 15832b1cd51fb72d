"""Modules that hold modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from ...compiler.errors import GraphTypeError
from ..state import Variable
from ..tracing import fail
from .module import Module

Item = TypeVar("Item", Module, Variable)


class _Listed(Module):
    """A container whose children are named by their place."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._items: list[tuple[str, Module]] = []
        self.extend(modules)

    def members(self) -> Iterator[tuple[str, Variable | Module]]:
        yield from self._items

    def _check(self, module: object) -> Module:
        if not isinstance(module, Module):
            fail(
                f"{type(self).__name__}: takes modules, not {type(module).__name__}; for a "
                "function of tensors, use nn.Lambda",
                GraphTypeError,
            )
        return module

    def append(self, module: Module) -> _Listed:
        """Add a module at the end and return the container."""
        self._items.append((str(len(self._items)), self._check(module)))
        return self

    def extend(self, modules: Iterable[Module]) -> _Listed:
        """Add modules at the end and return the container."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> _Listed:
        """Put a module before place ``index``; the later ones are renamed."""
        modules = list(self)
        modules.insert(index, self._check(module))
        self._items = [(str(i), m) for i, m in enumerate(modules)]
        return self

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)._of([module for _, module in self._items[index]])
        return self._items[index][1]

    def __setitem__(self, index: int, module: Module) -> None:
        self._items[index] = (self._items[index][0], self._check(module))

    @classmethod
    def _of(cls, modules: list[Module]) -> _Listed:
        return cls(modules)


class Sequential(_Listed):
    """Modules applied one after the other: ``Sequential(a, b)(x)`` is ``b(a(x))``.

    Takes modules, or one mapping of names to modules; named ones are attributes as well.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self._items.append((name, self._check(module)))
        else:
            self.extend(modules)  # type: ignore[arg-type]

    @classmethod
    def _of(cls, modules: list[Module]) -> Sequential:
        return cls(*modules)

    def __getattr__(self, name: str) -> Module:
        for label, module in vars(self).get("_items", ()):
            if label == name:
                return module
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def forward(self, x: Any) -> Any:
        """Return the output of the last module."""
        for module in self:
            x = module(x)
        return x


class ModuleList(_Listed):
    """A list of modules, whose parameters are found."""


class _Named(Module, Generic[Item]):
    """A container whose members have names of the user's."""

    _items: dict[str, Item]

    def members(self) -> Iterator[tuple[str, Variable | Module]]:
        yield from self._items.items()

    def __getitem__(self, name: str) -> Item:
        return self._items[name]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def keys(self) -> Iterable[str]:
        """Return the names."""
        return self._items.keys()

    def values(self) -> Iterable[Item]:
        """Return the members."""
        return self._items.values()

    def items(self) -> Iterable[tuple[str, Item]]:
        """Return the names with their members."""
        return self._items.items()


class ModuleDict(_Named[Module]):
    """A dictionary of modules, whose parameters are found."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self._items = dict(modules or {})

    def __setitem__(self, name: str, module: Module) -> None:
        self._items[name] = module


def _parameter(value: object, name: str) -> Variable:
    return value if isinstance(value, Variable) else Variable(value, name)


class ParameterList(Module):
    """A list of parameters; arrays become trainable variables."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._items: list[Variable] = []
        self.extend(values)

    def members(self) -> Iterator[tuple[str, Variable | Module]]:
        yield from ((str(i), variable) for i, variable in enumerate(self._items))

    def append(self, value: object) -> ParameterList:
        """Add a parameter at the end and return the list."""
        self._items.append(_parameter(value, str(len(self._items))))
        return self

    def extend(self, values: Iterable[object]) -> ParameterList:
        """Add parameters at the end and return the list."""
        for value in values:
            self.append(value)
        return self

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Variable]:
        return iter(self._items)

    def __getitem__(self, index: Any) -> Any:
        return ParameterList(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __setitem__(self, index: int, value: object) -> None:
        self._items[index] = _parameter(value, str(index))


class ParameterDict(_Named[Variable]):
    """A dictionary of parameters; arrays become trainable variables."""

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self._items = {}
        self.update(values or {})

    def update(self, values: Mapping[str, object]) -> None:
        """Add parameters by name."""
        for name, value in values.items():
            self[name] = value

    def __setitem__(self, name: str, value: object) -> None:
        self._items[name] = _parameter(value, name)
