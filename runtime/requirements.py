"""What a program requires of its inputs, checked with NumPy; the errors' words come from here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..compiler.errors import IndexRangeError, locate
from ..compiler.ir import ops
from ..compiler.ir.dims import evaluate
from ..compiler.ir.graph import Program


def check_requirements(
    program: Program, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> None:
    """Raise IndexRangeError at the first element of an input outside the range it must lie in."""
    for requirement in program.requirements:
        assert isinstance(requirement.input.op, ops.Input)
        label = requirement.input.op.label
        array = inputs.get(label)
        if array is None:
            continue
        low, high = evaluate(requirement.low, sizes), evaluate(requirement.high, sizes)
        fits = (array >= low) & (array < high)
        if requirement.ignore is not None:
            fits |= array == requirement.ignore
        if not fits.all():
            position = tuple(int(i) for i in np.argwhere(~fits)[0])
            at = f" at position {position}" if position else ""
            message = (
                f"{requirement.message} {array[position]}{at} of {label!r} is outside "
                f"{low} to {high - 1}"
            )
            raise IndexRangeError(locate(message, requirement.source))
