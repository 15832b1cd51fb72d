"""Errors that a user sees: each names the user's line, the operator and the shapes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLine:
    """A line of the user's program."""

    filename: str
    lineno: int
    function: str

    def __str__(self) -> str:
        return f"{self.filename}:{self.lineno}"

    @property
    def short(self) -> str:
        """The line without the folder of its file."""
        return f"{self.filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{self.lineno}"


class ChainruleError(Exception):
    """The base of every error that chainrule raises on purpose."""


class GraphError(ChainruleError, ValueError):
    """A graph that cannot be built: shapes or values do not fit."""


class GraphTypeError(ChainruleError, TypeError):
    """A graph that cannot be built: element types do not fit."""


class InputError(ChainruleError, ValueError):
    """A call whose arrays do not fit the compiled function."""


class InputTypeError(ChainruleError, TypeError):
    """A call whose arrays are of a type that cannot be converted without loss of meaning."""


class IndexRangeError(ChainruleError, IndexError):
    """A label or index that points outside its axis."""


class FormulaError(ChainruleError, ValueError):
    """A formula string that cannot be parsed, or that names something unknown."""


class CheckpointError(ChainruleError, ValueError):
    """A checkpoint that is damaged or belongs to another model."""


class VerificationError(ChainruleError, AssertionError):
    """An intermediate form that breaks its own rules: a bug in chainrule, never in user code."""


class CheckFailed(ChainruleError, FloatingPointError):
    """A checked run met a NaN, an infinity or an index out of range."""


class CacheWarning(UserWarning):
    """The object cache could not be used; work goes on without it."""


class TrainingWarning(UserWarning):
    """A training that can run but is likely not the one that was meant."""


class DomainWarning(UserWarning):
    """A formula leaves its domain or the range of its element type for some inputs."""


def locate(message: str, source: SourceLine | None) -> str:
    """Return ``message`` preceded by the user's line."""
    return f"{source}: {message}" if source else message
