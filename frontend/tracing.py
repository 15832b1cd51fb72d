"""Building graph nodes that remember the line of the user's program they come from."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from ..compiler.errors import GraphError, SourceLine, locate
from ..compiler.ir import graph, ops
from ..compiler.ir.graph import Node

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: The parts of the package that trace on a user's behalf; examples, benchmarks and tests do not.
_LIBRARY = tuple(
    os.path.join(_PACKAGE, part)
    for part in (
        "frontend" + os.sep,
        "compiler" + os.sep,
        "runtime" + os.sep,
        "__init__.py",
        "__main__.py",
    )
)
_is_library: dict[str, bool] = {}


def user_line() -> SourceLine | None:
    """Return the innermost line on the call stack that is outside of the library."""
    frame = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        inside = _is_library.get(filename)
        if inside is None:
            inside = _is_library[filename] = filename.startswith(_LIBRARY)
        if not inside:
            return SourceLine(filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def build(op: ops.Op, *inputs: Node) -> Node:
    """Return the node of ``op`` over ``inputs``, located at the user's line."""
    return graph.make(op, *inputs, source=user_line())


def refusal(message: str, error: type[Exception] = GraphError) -> Exception:
    """Return ``error`` with ``message`` preceded by the user's line."""
    return error(locate(message, user_line()))


def fail(message: str, error: type[Exception] = GraphError) -> NoReturn:
    """Raise ``error`` with ``message`` preceded by the user's line."""
    raise refusal(message, error)
