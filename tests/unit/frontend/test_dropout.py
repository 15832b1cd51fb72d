"""Dropout that keeps mean and variance, and dropout of whole channels."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError
from chainrule.frontend import functional as F
from chainrule.frontend import nn
from chainrule.frontend.random import manual_seed

ONES = np.ones((40, 50), np.float32)


def test_alpha_dropout_keeps_mean_and_variance(evaluate) -> None:
    manual_seed(0)
    x = np.random.default_rng(0).normal(size=(300, 300)).astype("f")
    for p in (0.1, 0.5):
        out = evaluate(F.alpha_dropout(x, p), training=True)
        assert abs(out.mean()) < 0.02
        assert abs(out.std() - 1) < 0.02
        np.testing.assert_array_equal(evaluate(F.alpha_dropout(x, p)), x)
        # what is dropped has one value, and the rest is an affine function of x
        scale = ((1.7580993408473766**2 * p + 1) * (1 - p)) ** -0.5
        low = 1.7580993408473766 * scale * (p - 1)
        dropped = np.isclose(out, low, rtol=1e-6)
        assert abs(dropped.mean() - p) < 0.02
        kept = x * np.float32(scale) + np.float32(1.7580993408473766 * scale * p)
        np.testing.assert_allclose(out[~dropped], kept[~dropped], rtol=1e-5, atol=1e-6)


def test_extreme_probabilities(evaluate) -> None:
    assert not evaluate(F.alpha_dropout(ONES, 1.0), training=True).any()
    assert (evaluate(F.alpha_dropout(ONES, 0.0), training=True) == 1).all()
    with pytest.raises(GraphError, match=r"\[0, 1\], not 1.5"):
        F.alpha_dropout(ONES, 1.5)


@pytest.mark.parametrize(
    ("layer", "shape", "channel_axis"),
    [
        (nn.Dropout1d, (4, 8, 5), 1),
        (nn.Dropout1d, (8, 5), 0),
        (nn.Dropout2d, (4, 8, 5, 3), 1),
        (nn.Dropout3d, (4, 8, 2, 3, 2), 1),
        (nn.Dropout3d, (8, 2, 3, 2), 0),
        (nn.FeatureAlphaDropout, (4, 8, 5, 3), 1),
    ],
)
def test_channels_are_dropped_as_a_whole(layer, shape, channel_axis, evaluate) -> None:
    manual_seed(1)
    out = evaluate(layer(0.5)(np.ones(shape, np.float32)), training=True)
    channels = out.reshape((*shape[: channel_axis + 1], -1))
    assert (channels == channels[..., :1]).all()
    assert len(np.unique(out)) == 2
