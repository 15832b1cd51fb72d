"""Recurrent layers and cells, with the arguments and parameter layouts of PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from ...compiler.errors import GraphTypeError
from ...compiler.ir.dims import format_shape
from ...compiler.ir.types import INTEGERS
from .. import activations
from .. import functional as F
from ..checks import register_range_check
from ..dropout import dropout
from ..initializers import uniform
from ..products import linear
from ..recurrence import (
    CellWeights,
    State,
    Step,
    gru_step,
    lstm_step,
    rnn_step,
    run_layer,
    valid_steps,
    zero_state,
)
from ..state import Variable
from ..tensor import Tensor, as_tensor
from ..tracing import fail
from .module import Module
from .packed import PackedSequence

_NONLINEARITIES = {"tanh": activations.tanh, "relu": activations.relu}


def _nonlinearity(name: str, layer: str) -> Step:
    if name not in _NONLINEARITIES:
        fail(f"{layer}: nonlinearity {name!r} is not one of {', '.join(_NONLINEARITIES)}")
    return rnn_step(_NONLINEARITIES[name])


class _Weights(Module):
    """Parameters named ``weight_ih…`` and so on, uniform in ±1/sqrt(hidden_size)."""

    hidden_size: int

    def _add(self, name: str, suffix: str, shape: tuple[int, ...], dtype: str) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size else 0.0
        self.register_parameter(
            name + suffix, Variable(uniform(shape, -bound, bound), name + suffix, dtype=dtype)
        )

    def _cell(self, suffix: str) -> CellWeights:
        def parameter(name: str) -> Tensor | None:
            return getattr(self, name + suffix, None)

        weight_ih, weight_hh = parameter("weight_ih"), parameter("weight_hh")
        assert weight_ih is not None and weight_hh is not None
        return CellWeights(
            weight_ih,
            weight_hh,
            parameter("bias_ih"),
            parameter("bias_hh"),
            parameter("weight_hr"),
        )


class _Recurrent(_Weights):
    """A stack of layers of one kind of cell, each a compiled loop over the steps."""

    _gates: ClassVar[int] = 1
    _states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: str = "float32",
    ) -> None:
        name = type(self).__name__
        if hidden_size <= 0 or num_layers <= 0 or input_size < 0:
            fail(f"{name}: sizes must be positive: {input_size=}, {hidden_size=}, {num_layers=}")
        if not 0 <= dropout <= 1:
            fail(f"{name}: the dropout probability must lie in [0, 1], not {dropout}")
        if not 0 <= proj_size < hidden_size:
            fail(f"{name}: proj_size {proj_size} must be smaller than hidden_size {hidden_size}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        rows = self._gates * hidden_size
        state = proj_size or hidden_size
        features = input_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                self._add("weight_ih", suffix, (rows, features), dtype)
                self._add("weight_hh", suffix, (rows, state), dtype)
                if bias:
                    self._add("bias_ih", suffix, (rows,), dtype)
                    self._add("bias_hh", suffix, (rows,), dtype)
                if proj_size:
                    self._add("weight_hr", suffix, (proj_size, hidden_size), dtype)
            features = state * self.directions

    @property
    def directions(self) -> int:
        """1, or 2 where the layer is bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def _state_sizes(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)[: self._states]

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}{way}" for way in ("", "_reverse")[: self.directions]]

    def _step(self) -> Step:
        raise NotImplementedError

    def _run(
        self, input: object, hx: Sequence[object] | None, lengths: object
    ) -> tuple[Tensor | PackedSequence, State]:
        """Return the outputs and the last states, each (layers * directions, batch, size)."""
        name = type(self).__name__
        packed = input if isinstance(input, PackedSequence) else None
        x = as_tensor(packed.data if packed is not None else input)
        if packed is not None:
            lengths = packed.lengths
        batch_first = packed.batch_first if packed is not None else self.batch_first
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            fail(
                f"{name}: an input of shape {format_shape(x.shape)} does not fit; it must be "
                f"(steps, {self.input_size}) or 3-d with a last axis of {self.input_size}"
            )
        unbatched = x.ndim == 2
        if unbatched:
            x = x.expand_dims(1)
        elif batch_first:
            x = x.swapaxes(0, 1)
        states = self._initial(x, hx, unbatched)
        valid = None
        if lengths is not None:
            valid = valid_steps(self._checked(lengths, x), x)
        last: list[State] = []
        step = self._step()
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = dropout(x, self.dropout)
            outputs = []
            for way, suffix in enumerate(self._suffixes(layer)):
                state = tuple(s[layer * self.directions + way] for s in states)
                output, final = run_layer(step, x, state, self._cell(suffix), way == 1, valid)
                outputs.append(output)
                last.append(final)
            x = outputs[0] if len(outputs) == 1 else F.concatenate(outputs, -1)
        finals = tuple(F.stack(parts, 0) for parts in zip(*last, strict=True))
        if unbatched:
            return x.squeeze(1), tuple(final.squeeze(1) for final in finals)
        x = x.swapaxes(0, 1) if batch_first else x
        return (x if packed is None else PackedSequence(x, packed.lengths, batch_first)), finals

    def _checked(self, lengths: object, x: Tensor) -> Tensor:
        sizes = as_tensor(lengths)
        name = type(self).__name__
        if sizes.dtype not in INTEGERS:
            fail(f"{name}: lengths are integers, not {sizes.dtype}", GraphTypeError)
        message = f"{name}: length of a sequence in a tensor of {x.shape[0]} steps"
        register_range_check(sizes.node, 0, x.shape[0] + 1, message=message)
        return sizes

    def _initial(self, x: Tensor, hx: Sequence[object] | None, unbatched: bool) -> list[Tensor]:
        """Return the initial states (layers * directions, batch, size), zero where not given."""
        count = self.num_layers * self.directions
        if hx is None:
            zero = zero_state(x, self._state_sizes)
            return [F.broadcast_to(s, (count, *s.shape)) for s in zero]
        states = []
        for given, size in zip(hx, self._state_sizes, strict=True):
            state = as_tensor(given)
            wanted = (count, size) if unbatched else (count, x.shape[1], size)
            if state.shape != wanted:
                fail(
                    f"{type(self).__name__}: an initial state of shape "
                    f"{format_shape(state.shape)} does not fit; it must be {format_shape(wanted)}"
                )
            states.append(state.expand_dims(1) if unbatched else state)
        return states

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (
            ("proj_size", 0),
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0.0),
            ("bidirectional", False),
        ):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


class RNN(_Recurrent):
    """Elman's network h' = tanh(W x + b + U h + c), or relu (``nonlinearity``).

    Parameters are ``weight_ih_l0`` (hidden, input), ``weight_hh_l0`` (hidden, hidden),
    ``bias_ih_l0``, ``bias_hh_l0``; ``_reverse`` is the second direction, ``l1`` the next layer.
    ``dropout`` falls between the layers, in training.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: str = "float32",
    ) -> None:
        _nonlinearity(nonlinearity, "RNN")
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype
        )

    def _step(self) -> Step:
        return _nonlinearity(self.nonlinearity, "RNN")

    def forward(
        self, input: object, hx: object = None, lengths: object = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Return the outputs of all steps and the last hidden state.

        Parameters
        ----------
        input : (steps, batch, input_size), (batch, steps, input_size) with ``batch_first``,
            (steps, input_size) for one sequence, or a `PackedSequence`
        hx : (layers * directions, batch, hidden_size), optional
            The initial state, zero by default.
        lengths : (batch,) integers, optional
            How many steps each sequence has; the outputs after its end are zero, and its last
            state is the one at its end.  A length beyond the tensor raises IndexRangeError.

        Returns
        -------
        output : like ``input``, with directions * hidden_size features
        h_n : (layers * directions, batch, hidden_size)
        """
        output, (hidden,) = self._run(input, None if hx is None else (hx,), lengths)
        return output, hidden


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014), the gates in the order reset, update, new.

    Parameters are ``weight_ih_l0`` (3 * hidden, input), ``weight_hh_l0`` (3 * hidden, hidden),
    ``bias_ih_l0``, ``bias_hh_l0``; ``_reverse`` is the second direction, ``l1`` the next layer.
    """

    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: str = "float32",
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype
        )

    def _step(self) -> Step:
        return gru_step

    def forward(
        self, input: object, hx: object = None, lengths: object = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Return the outputs of all steps and the last hidden state; see `RNN.forward`."""
        output, (hidden,) = self._run(input, None if hx is None else (hx,), lengths)
        return output, hidden


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), gates input, forget, cell, output.

    Parameters are ``weight_ih_l0`` (4 * hidden, input), ``weight_hh_l0`` (4 * hidden, state),
    ``bias_ih_l0``, ``bias_hh_l0`` and, where ``proj_size`` makes the state smaller (Sak et al.
    2014), ``weight_hr_l0`` (proj_size, hidden).
    """

    _gates = 4
    _states = 2

    def _step(self) -> Step:
        return lstm_step

    def forward(
        self,
        input: object,
        hx: tuple[object, object] | None = None,
        lengths: object = None,
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """Return the outputs of all steps and the last ``(hidden, cell)`` states.

        ``hx``: the initial hidden (layers * directions, batch, proj_size or hidden_size) and cell
        (layers * directions, batch, hidden_size) states; the rest as in `RNN.forward`.
        """
        output, (hidden, cell) = self._run(input, hx, lengths)
        return output, (hidden, cell)


class _Cell(_Weights):
    """One step of a recurrent network."""

    _gates: ClassVar[int] = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: str = "float32"
    ) -> None:
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = self._gates * hidden_size
        self._add("weight_ih", "", (rows, input_size), dtype)
        self._add("weight_hh", "", (rows, hidden_size), dtype)
        if bias:
            self._add("bias_ih", "", (rows,), dtype)
            self._add("bias_hh", "", (rows,), dtype)

    def _advance(self, step: Step, input: object, hx: Sequence[object] | None, count: int) -> State:
        name = type(self).__name__
        x = as_tensor(input)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            fail(
                f"{name}: an input of shape {format_shape(x.shape)} does not fit; it must be "
                f"(batch, {self.input_size}) or ({self.input_size},)"
            )
        wanted = (*x.shape[:-1], self.hidden_size)
        if hx is None:
            states = tuple(F.zeros(wanted, x.dtype) for _ in range(count))
        else:
            states = tuple(as_tensor(h) for h in hx)
        for state in states:
            if state.shape != wanted:
                fail(
                    f"{name}: a state of shape {format_shape(state.shape)} does not fit; it must "
                    f"be {format_shape(wanted)}"
                )
        weights = self._cell("")
        return step(linear(x, weights.input, weights.input_bias), states, weights)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}"


class RNNCell(_Cell):
    """One step of `RNN`: (batch, input_size) and (batch, hidden_size) to (batch, hidden_size)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: str = "float32",
    ) -> None:
        _nonlinearity(nonlinearity, "RNNCell")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, dtype)

    def forward(self, input: object, hx: object = None) -> Tensor:
        """Return the next state; ``hx`` is zero by default."""
        step = _nonlinearity(self.nonlinearity, "RNNCell")
        return self._advance(step, input, None if hx is None else (hx,), 1)[0]


class GRUCell(_Cell):
    """One step of `GRU`: (batch, input_size) and (batch, hidden_size) to (batch, hidden_size)."""

    _gates = 3

    def forward(self, input: object, hx: object = None) -> Tensor:
        """Return the next state; ``hx`` is zero by default."""
        return self._advance(gru_step, input, None if hx is None else (hx,), 1)[0]


class LSTMCell(_Cell):
    """One step of `LSTM`: an input and ``(hidden, cell)`` to the next ``(hidden, cell)``."""

    _gates = 4

    def forward(
        self, input: object, hx: tuple[object, object] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the next hidden and cell state; ``hx`` is zero by default."""
        hidden, cell = self._advance(lstm_step, input, hx, 2)
        return hidden, cell
