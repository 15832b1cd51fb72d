"""Recurrent networks as functions: one step of each cell, and layers of steps compiled as loops.

Gates are stacked in PyTorch's order along the rows of the weights: input, forget, cell, output for
the LSTM, reset, update, new for the GRU.  What depends on the inputs alone is one product over all
steps before the loop; a step multiplies its state and does the rest elementwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..compiler.ir.dims import format_shape
from .control_flow import scan
from .creation import iota, zeros
from .elementwise import tanh, where
from .products import linear
from .tensor import Tensor, apply, as_tensor
from .tracing import fail

#: What a step carries: the hidden state, and for the LSTM the cell state.
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class CellWeights:
    """The parameters of one layer in one direction; ``gates`` rows of ``hidden`` each.

    ``input`` (gates * hidden, features), ``hidden`` (gates * hidden, state), the biases
    (gates * hidden,), ``projection`` (state, hidden) for the LSTM with a projected state.
    """

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None


def _split(x: Tensor, parts: int) -> list[Tensor]:
    size = x.shape[-1] // parts
    return [x[..., i * size : (i + 1) * size] for i in range(parts)]


def rnn_step(activation: Callable[[Tensor], Tensor]) -> Step:
    """Return the step h' = activation(x W + h U + b) (Elman 1990)."""

    def step(projected: Tensor, state: State, weights: CellWeights) -> State:
        (hidden,) = state
        return (activation(projected + linear(hidden, weights.hidden, weights.hidden_bias)),)

    return step


def lstm_step(projected: Tensor, state: State, weights: CellWeights) -> State:
    """Return the next hidden and cell state (Hochreiter & Schmidhuber 1997, with forget gates).

    c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c'), projected where there is a projection (Sak et
    al. 2014).
    """
    hidden, cell = state
    gates = projected + linear(hidden, weights.hidden, weights.hidden_bias)
    into, forget, new, out = _split(gates, 4)
    cell = apply("sigmoid", forget) * cell + apply("sigmoid", into) * tanh(new)
    hidden = apply("sigmoid", out) * tanh(cell)
    if weights.projection is not None:
        hidden = linear(hidden, weights.projection, None)
    return hidden, cell


def gru_step(projected: Tensor, state: State, weights: CellWeights) -> State:
    """Return h' = (1 - z) n + z h with n = tanh(x W + r (h U + b)) (Cho et al. 2014)."""
    (hidden,) = state
    reset_x, update_x, new_x = _split(projected, 3)
    reset_h, update_h, new_h = _split(linear(hidden, weights.hidden, weights.hidden_bias), 3)
    reset = apply("sigmoid", reset_x + reset_h)
    update = apply("sigmoid", update_x + update_h)
    new = tanh(new_x + reset * new_h)
    return (new + update * (hidden - new),)


#: From the projected input (batch, gates * hidden) and a state to the next state.
Step = Callable[[Tensor, State, CellWeights], State]


def run_layer(
    step: Step,
    x: Tensor,
    state: State,
    weights: CellWeights,
    reverse: bool = False,
    valid: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run one layer in one direction.

    Parameters
    ----------
    x : (steps, batch, features)
    state : tensors (batch, hidden)
    valid : (steps, batch, 1) bool, optional
        Where a sequence has an item.  Elsewhere the state stays and the output is zero, so a
        reversed layer begins at each sequence's own end.

    Returns
    -------
    outputs (steps, batch, hidden), last state
    """
    projected = linear(x, weights.input, weights.input_bias)

    def body(held: State, item: tuple[Tensor, Tensor | None]) -> tuple[State, Tensor]:
        now, present = item
        after = step(now, held, weights)
        if present is None:
            return after, after[0]
        kept = tuple(where(present, new, old) for new, old in zip(after, held, strict=True))
        return kept, where(present, after[0], 0.0)

    last, outputs = scan(body, state, (projected, valid), reverse=reverse)
    return outputs, last


def valid_steps(lengths: object, x: Tensor) -> Tensor:
    """Return (steps, batch, 1) bools: where ``x`` (steps, batch, …) has an item of a sequence."""
    sizes = as_tensor(lengths)
    if sizes.shape != (x.shape[1],):
        fail(
            f"lengths of shape {format_shape(sizes.shape)} do not fit a batch of {x.shape[1]}: "
            "one length for each sequence is needed"
        )
    places = iota((x.shape[0], x.shape[1], 1), 0, sizes.dtype)
    return places < sizes.reshape((1, -1, 1))


def zero_state(x: Tensor, sizes: Sequence[int]) -> State:
    """Return zeros (batch, size) for each of ``sizes``; ``x`` is (steps, batch, …)."""
    return tuple(zeros((x.shape[1], size), x.dtype) for size in sizes)
