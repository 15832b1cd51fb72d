"""The base of layers: named parameters, buffers and children, as in PyTorch's nn.Module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...compiler.errors import CheckpointError
from ...compiler.ir.dims import format_shape
from ..promotion import array_of
from ..state import Variable


class Parameter(Variable):
    """A variable that optimizers change, by PyTorch's name and arguments.

    ``data``: its first value, floats as float32 unless it is an array.
    """

    __slots__ = ()

    def __init__(self, data: object, requires_grad: bool = True) -> None:
        super().__init__(data, "parameter", trainable=requires_grad)


class KeyMismatch(NamedTuple):
    """What `Module.load_state_dict` did not find, and what it found too much."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A function of tensors with parameters.

    Subclasses set `Variable` and `Module` attributes in ``__init__`` and define ``forward``.  There
    is no train or eval mode: a compiled training step trains, a compiled prediction predicts.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output for its inputs."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def members(self) -> Iterator[tuple[str, Variable | Module]]:
        """Yield the module's own variables and children by name, in the order they were set."""
        for name, value in vars(self).items():
            if isinstance(value, (Variable, Module)):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it, each once, with dotted names."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, member in self.members():
            if isinstance(member, Module):
                yield from member._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules directly below this one."""
        return ((name, m) for name, m in self.members() if isinstance(m, Module))

    def children(self) -> Iterator[Module]:
        """Yield the modules directly below this one, without names."""
        return (module for _, module in self.named_children())

    def named_variables(self, prefix: str = "") -> Iterator[tuple[str, Variable]]:
        """Yield every parameter and buffer with its dotted name, shared ones under each name."""
        for name, member in self.members():
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(member, Variable):
                yield path, member
            else:
                yield from member.named_variables(path)

    def _named(self, role: str, prefix: str) -> list[tuple[str, Variable]]:
        seen: dict[int, tuple[str, Variable]] = {}
        for name, variable in self.named_variables(prefix):
            if variable.role == role:
                seen.setdefault(id(variable), (name, variable))
        return list(seen.values())

    def named_parameters(self, prefix: str = "") -> list[tuple[str, Variable]]:
        """Return every parameter once, with its dotted name."""
        return self._named("parameter", prefix)

    def parameters(self) -> list[Variable]:
        """Return every parameter once."""
        return [variable for _, variable in self.named_parameters()]

    def named_buffers(self, prefix: str = "") -> list[tuple[str, Variable]]:
        """Return every buffer once, with its dotted name."""
        return self._named("buffer", prefix)

    def buffers(self) -> list[Variable]:
        """Return every buffer once."""
        return [variable for _, variable in self.named_buffers()]

    def register_buffer(self, name: str, value: object) -> None:
        """Set attribute ``name`` to a buffer: a saved value that no optimizer changes."""
        if value is not None and not isinstance(value, Variable):
            value = Variable(value, name, "buffer")
        setattr(self, name, value)

    def register_parameter(self, name: str, value: object) -> None:
        """Set attribute ``name`` to a parameter."""
        if value is not None and not isinstance(value, Variable):
            value = Variable(value, name)
        setattr(self, name, value)

    def apply(self, function: Callable[[Module], object]) -> Module:
        """Call ``function`` with every module below and with this one; return this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def requires_grad_(self, flag: bool = True) -> Module:
        """Say whether optimizers change the parameters; return the module."""
        for variable in self.parameters():
            variable.set_trainable(flag)
        return self

    def state_dict(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Return a copy of every parameter and buffer by its dotted name."""
        return {
            prefix + name: variable.numpy()
            for name, variable in self.named_variables()
            if variable.role in ("parameter", "buffer")
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> KeyMismatch:
        """Copy arrays into the parameters and buffers of the same names.

        ``state``: NumPy arrays, or anything with ``__array__`` or DLPack (PyTorch tensors).
        Nothing is changed unless everything fits.  Raises CheckpointError for shapes that differ,
        and, where ``strict``, for missing and unexpected names.
        """
        own = {
            name: variable
            for name, variable in self.named_variables()
            if variable.role in ("parameter", "buffer")
        }
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        arrays = {name: array_of(state[name]) for name in own if name in state}
        for name, array in arrays.items():
            if array.shape != own[name].value.shape:
                problems.append(
                    f"{name} has shape {format_shape(array.shape)} in the state and "
                    f"{format_shape(own[name].value.shape)} in the model"
                )
            elif not np.can_cast(array.dtype, own[name].value.dtype, "same_kind"):
                problems.append(
                    f"{name} is {array.dtype} in the state and {own[name].dtype} in the model"
                )
        if problems:
            raise CheckpointError(
                f"{type(self).__name__}: the state does not fit; " + "; ".join(problems)
            )
        for name, array in arrays.items():
            own[name].assign(array)
        return KeyMismatch(missing, unexpected)

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the module's own line."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self.named_children()
        ]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"
