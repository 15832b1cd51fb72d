"""CTC loss against PyTorch and against the sum over all alignments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler.errors import GraphError, GraphTypeError, IndexRangeError

torch = pytest.importorskip("torch")

STEPS, BATCH, CLASSES, LABELS = 9, 4, 5, 3
TARGETS = np.array([[1, 2, 3], [2, 2, 2], [4, 0, 0], [1, 1, 0]])
INPUT_LENGTHS, TARGET_LENGTHS = np.array([9, 8, 3, 5]), np.array([3, 3, 1, 2])


def loss_and_gradient(logits, targets, frames, counts, **arguments):
    x = cr.input("x", logits.shape, dtype="float64")
    scores = cr.F.log_softmax(x, -1)
    loss = nn.CTCLoss(**arguments)(scores, targets, frames, counts)
    (slope,) = cr.grad(loss.sum(), [x])
    return cr.compile([loss, slope], backend="numpy")(x=logits)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("joined", [False, True], ids=["rows", "joined"])
def test_agrees_with_torch(reduction, joined) -> None:
    logits = np.random.default_rng(0).normal(size=(STEPS, BATCH, CLASSES))
    targets = TARGETS
    if joined:
        targets = np.concatenate([r[:n] for r, n in zip(TARGETS, TARGET_LENGTHS, strict=True)])
    leaf = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.CTCLoss(reduction=reduction)(
        leaf.log_softmax(-1),
        torch.tensor(targets),
        torch.tensor(INPUT_LENGTHS),
        torch.tensor(TARGET_LENGTHS),
    )
    expected.sum().backward()
    loss, slope = loss_and_gradient(
        logits, targets, INPUT_LENGTHS, TARGET_LENGTHS, reduction=reduction
    )
    np.testing.assert_allclose(loss, expected.detach(), rtol=1e-10)
    np.testing.assert_allclose(slope, leaf.grad, rtol=1e-8, atol=1e-10)


def test_is_the_sum_over_all_alignments() -> None:
    steps, classes, target = 4, 3, (2, 1)
    scores = np.log(np.random.default_rng(0).dirichlet(np.ones(classes), steps))
    total = 0.0
    for path in itertools.product(range(classes), repeat=steps):
        collapsed = [label for label, _ in itertools.groupby(path)]
        if tuple(label for label in collapsed if label) == target:
            total += np.exp(sum(scores[t, label] for t, label in enumerate(path)))
    loss = cr.F.ctc_loss(scores, np.array(target), steps, len(target), reduction="sum")
    np.testing.assert_allclose(cr.evaluate(loss), -np.log(total), rtol=1e-12)


def test_targets_that_do_not_fit_and_empty_ones() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, CLASSES))
    frames, counts = np.array([2, 2, 2]), np.array([3, 2, 0])
    targets = np.array([[1, 2, 3], [1, 1, 0], [0, 0, 0]])
    loss, slope = loss_and_gradient(logits, targets, frames, counts, reduction="none")
    blanks = -np.log(np.exp(logits)[:, 2, 0] / np.exp(logits)[:, 2].sum(-1)).sum()
    assert np.isinf(loss[:2]).all()
    np.testing.assert_allclose(loss[2], blanks)
    assert np.isfinite(slope).all()
    zeroed, _ = loss_and_gradient(
        logits, targets, frames, counts, reduction="none", zero_infinity=True
    )
    assert zeroed[:2].tolist() == [0, 0]


def test_bad_input_is_refused() -> None:
    scores = cr.input("scores", (STEPS, BATCH, CLASSES))
    fits = (scores, TARGETS, INPUT_LENGTHS, TARGET_LENGTHS)
    with pytest.raises(GraphError, match="none of the 5 classes"):
        cr.F.ctc_loss(*fits, blank=7)
    with pytest.raises(GraphTypeError, match="targets are integers"):
        cr.F.ctc_loss(scores, TARGETS * 1.0, *fits[2:])
    with pytest.raises(GraphError, match="do not fit batch 4"):
        cr.F.ctc_loss(scores, TARGETS[:2], *fits[2:])
    with pytest.raises(IndexRangeError, match="input_lengths, at most 9"):
        cr.F.ctc_loss(scores, TARGETS, INPUT_LENGTHS + 1, TARGET_LENGTHS)
    with pytest.raises(GraphError, match="constant target_lengths"):
        cr.F.ctc_loss(scores, np.arange(4), INPUT_LENGTHS, cr.input("n", (4,), dtype="int64"))
