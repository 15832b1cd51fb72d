"""The interface of a compiled program over the NumPy interpreter: ``backend="numpy"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..compiler.ir.graph import Node, Program
from .interpreter import Interpreter


class InterpretedExecutable:
    """A program that the interpreter runs; calls update ``states`` in place."""

    def __init__(
        self,
        program: Program,
        states: Mapping[Node, np.ndarray],
        training: bool = False,
        check_nan: bool = False,
    ) -> None:
        self.program = program
        self.states = dict(states)
        self._interpreter = Interpreter(program, training=training, check_nan=check_nan)

    def __call__(self, arrays: Mapping[str, object]) -> dict[str, Any]:
        """Run once; return the outputs by name."""
        outputs, states = self._interpreter.run(arrays, self.states)
        for node, value in states.items():
            np.copyto(self.states[node], value)
        return outputs
