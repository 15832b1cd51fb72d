"""The adaptive softmax against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler.errors import GraphError, GraphTypeError

from .peer import assert_close, measure

torch = pytest.importorskip("torch", reason="the reference is PyTorch")


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize(("cutoffs", "bias"), [([3, 7], True), ([4], False)])
def test_adaptive_softmax_agrees_with_torch(backend: str, cutoffs: list[int], bias: bool) -> None:
    arguments = {"cutoffs": cutoffs, "div_value": 2.0, "head_bias": bias}
    ours = nn.AdaptiveLogSoftmaxWithLoss(8, 12, **arguments, dtype="float64")
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 12, **arguments, dtype=torch.float64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    array = np.random.default_rng(0).normal(size=(6, 8))
    labels = np.array([0, 3, 11, 7, 2, 4])
    x, y = cr.input("x", ("n", 8), "float64"), cr.input("y", ("n",), "int64")
    leaf = torch.tensor(array, requires_grad=True)
    output, loss = theirs(leaf, torch.tensor(labels))
    gradients = torch.autograd.grad(loss, [leaf, *theirs.parameters()])
    found = measure(
        list(ours(x, y)),
        [x, *ours.parameters()],
        [np.zeros(6), np.ones(())],
        {"x": array, "y": labels},
        backend,
    )
    assert_close(found, [output, loss, *gradients], "float64")
    run = cr.compile([ours.log_prob(x), ours.predict(x)], backend=backend)
    log_p, chosen = run(x=array)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(log_p, theirs.log_prob(leaf).detach(), rtol=1e-10)
    np.testing.assert_array_equal(chosen, theirs.predict(leaf))


def test_refusals() -> None:
    for cutoffs in ([], [3, 3], [0, 2], [5, 10], [4, 2]):
        with pytest.raises(GraphError, match="must increase, each from 1 to 9"):
            nn.AdaptiveLogSoftmaxWithLoss(4, 10, cutoffs)
    layer = nn.AdaptiveLogSoftmaxWithLoss(4, 10, [5])
    with pytest.raises(GraphError, match=r"is not \(batch, 4\)"):
        layer.log_prob(np.ones((2, 3)))
    with pytest.raises(GraphTypeError, match="targets are integers"):
        layer(np.ones((2, 4)), np.ones(2))
    with pytest.raises(GraphError, match=r"\(2,\) would"):
        layer(np.ones((2, 4)), np.ones((2, 1), int))
