"""Connectionist temporal classification (Graves et al. 2006): labels without an alignment."""

from __future__ import annotations

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.dims import format_shape
from ..compiler.ir.types import INTEGERS
from .checks import register_range_check
from .control_flow import scan
from .creation import full, iota
from .elementwise import exp, log, logical_and, maximum, stop_gradient, where
from .manipulation import broadcast_to, concatenate, stack, take_along_axis
from .tensor import Tensor, as_tensor, floating
from .tracing import fail

#: The logarithm of an impossible path: finite, so that differences of two such are numbers.
_NEVER = -1e30


def ctc_loss(
    log_probs: object,
    targets: object,
    input_lengths: object,
    target_lengths: object,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Return -log p(targets) over all alignments (Graves et al. 2006, section 4.1).

    Parameters
    ----------
    log_probs : (steps, batch, classes) or (steps, classes)
        Logarithms of probabilities.
    targets : (batch, labels) or (labels,) integers; or the labels of all sequences one after the
        other, where ``target_lengths`` is constant
        Classes other than ``blank``, padded at the end.
    input_lengths, target_lengths : (batch,) integers, or one
    reduction : ``"mean"`` divides each loss by the length of its target and averages over the
        batch; ``"sum"`` or ``"none"``
    zero_infinity : bool
        Whether losses of targets that do not fit their input are zero.

    Raises
    ------
    GraphError, GraphTypeError
        Shapes or element types that do not fit.  IndexRangeError at run time for lengths beyond the
        tensors.
    """
    scores = floating(log_probs)
    single = scores.ndim == 2
    if single:
        scores = scores.expand_dims(1)
    if scores.ndim != 3:
        fail(f"ctc_loss: log_probs are (steps, batch, classes), not {format_shape(scores.shape)}")
    steps, batch, classes = scores.shape
    if isinstance(classes, int) and not 0 <= blank < classes:
        fail(f"ctc_loss: blank {blank} is none of the {classes} classes")
    frames = _lengths("input_lengths", input_lengths, batch, steps)
    labels, counts = _labels(targets, target_lengths, batch, single)
    extended = _with_blanks(labels, blank)
    emitted = take_along_axis(scores, broadcast_to(extended, (steps, *extended.shape)), 2)
    last = _forward(emitted, extended, frames, blank)
    ends = stack([counts * 2, maximum(counts * 2 - 1, 0)], 1)
    finals = take_along_axis(last, ends.astype("int64"), 1)
    total = where(counts == 0, finals[:, 0], _log_sum(finals[:, 0], finals[:, 1]))
    possible = total > _NEVER / 2
    loss = where(possible, -total, 0.0 if zero_infinity else np.inf)
    match reduction:
        case "mean":
            return (loss / maximum(counts, 1).astype(loss.dtype)).mean()
        case "sum":
            return loss.sum()
        case "none":
            return loss.squeeze(0) if single else loss
    fail(f"ctc_loss: reduction {reduction!r} is not one of mean, sum, none")


def _lengths(what: str, lengths: object, batch: object, longest: object) -> Tensor:
    sizes = as_tensor(lengths)
    if sizes.dtype not in INTEGERS:
        fail(f"ctc_loss: {what} are integers, not {sizes.dtype}", GraphTypeError)
    sizes = sizes.reshape((-1,)) if sizes.ndim == 0 else sizes
    if sizes.shape != (batch,):
        fail(f"ctc_loss: {what} of shape {format_shape(sizes.shape)} do not fit batch {batch}")
    message = f"ctc_loss: one of {what}, at most {longest}"
    register_range_check(sizes.node, 0, longest + 1, message=message)  # type: ignore[operator]
    return sizes.astype("int64")


def _labels(targets: object, lengths: object, batch: object, single: bool) -> tuple[Tensor, Tensor]:
    """Return the labels (batch, longest) and how many of each row count."""
    labels = as_tensor(targets)
    if labels.dtype not in INTEGERS:
        fail(f"ctc_loss: targets are integers, not {labels.dtype}", GraphTypeError)
    if labels.ndim == 1 and single:
        labels = labels.expand_dims(0)
    if labels.ndim == 1:
        sizes = as_tensor(lengths).node.op
        if not isinstance(sizes, ops.Constant):
            fail("ctc_loss: targets of one axis need constant target_lengths; pad them to rows")
        counts = sizes.value.array.reshape(-1)
        if labels.shape != (int(counts.sum()),):
            fail(
                f"ctc_loss: {labels.shape[0]} labels do not fit target_lengths, which sum to "
                f"{int(counts.sum())}"
            )
        longest = int(counts.max(initial=0))
        starts = np.cumsum(counts) - counts
        places = np.clip(starts[:, None] + np.arange(longest), 0, max(int(counts.sum()) - 1, 0))
        labels = labels[places]
    if labels.ndim != 2 or labels.shape[0] != batch:
        fail(f"ctc_loss: targets of shape {format_shape(labels.shape)} do not fit batch {batch}")
    return labels.astype("int64"), _lengths("target_lengths", lengths, batch, labels.shape[1])


def _with_blanks(labels: Tensor, blank: int) -> Tensor:
    """Return a blank before, between and after the labels: (batch, 2 * labels + 1)."""
    batch, count = labels.shape
    pairs = stack([full(labels.shape, blank, "int64"), labels], 2).reshape((batch, count * 2))
    return concatenate([pairs, full((batch, 1), blank, "int64")], 1)


def _log_sum(*terms: Tensor) -> Tensor:
    peak = terms[0]
    for term in terms[1:]:
        peak = maximum(peak, term)
    peak = stop_gradient(peak)
    total = exp(terms[0] - peak)
    for term in terms[1:]:
        total = total + exp(term - peak)
    return maximum(log(total) + peak, _NEVER)


def _forward(emitted: Tensor, extended: Tensor, frames: Tensor, blank: int) -> Tensor:
    """Return the log-probability of having emitted each prefix at the end of each sequence."""
    steps, batch, states = emitted.shape
    emitted = maximum(emitted, _NEVER)
    place = iota((batch, states), 1)
    before = concatenate([full((batch, 2), blank, "int64"), extended], 1)[:, :states]
    skips = logical_and(extended != blank, extended != before)
    first = where(place < 2, emitted[0], _NEVER)

    def step(alpha: Tensor, item: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        score, time = item
        padded = concatenate([full((batch, 2), _NEVER, alpha.dtype), alpha], 1)
        stayed, moved = alpha, padded[:, 1 : states + 1]
        jumped = where(skips, padded[:, :states], _NEVER)
        after = maximum(_log_sum(stayed, moved, jumped) + score, _NEVER)
        return where((time < frames).expand_dims(1), after, alpha), None

    times = iota((steps,), 0)
    last, _ = scan(step, first, (emitted[1:], times[1:]))
    return last
