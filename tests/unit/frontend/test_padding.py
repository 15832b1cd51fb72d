"""Padding against PyTorch and NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError, GraphTypeError
from chainrule.frontend import functional as F
from chainrule.frontend import nn
from chainrule.frontend.tensor import input as tensor_input

torch = pytest.importorskip("torch", reason="compares with PyTorch")
rng = np.random.default_rng(0)

PADS = [
    ("constant", (2, 3), (1, 2)),
    ("constant", (2, 3, 4), (1, -1, 0, 2)),
    ("constant", (2, 3), (-1, -1, 0, 3)),
    ("constant", (2, 3, 4), (0, 0, 1, 1, 2, 0)),
    ("reflect", (2, 3, 5), (2, 3)),
    ("reflect", (2, 3, 4, 5), (1, 4, 2, 0)),
    ("reflect", (2, 2, 3, 4, 3), (1, 2, 0, 1, 2, 2)),
    ("reflect", (2, 3, 5), (-2, 3)),
    ("reflect", (2, 3, 5), (4, -3)),
    ("replicate", (2, 3, 5), (2, 7)),
    ("replicate", (2, 3, 5), (-5, 7)),
    ("replicate", (2, 3, 4, 5), (3, -4, -3, 1)),
    ("replicate", (2, 3, 4, 1), (1, 4, 2, 0)),
    ("replicate", (2, 2, 3, 4, 3), (1, 2, 0, 1, 4, 2)),
    ("circular", (2, 3, 5), (2, 5)),
    ("circular", (2, 3, 4, 5), (1, 4, 0, 2)),
    ("circular", (2, 2, 3, 4, 3), (1, 2, 0, 1, 3, 2)),
]


@pytest.mark.parametrize("value", [0.0, 2.5])
@pytest.mark.parametrize(("mode", "shape", "sides"), PADS, ids=str)
def test_pad_last(mode, shape, sides, value, agrees) -> None:
    if mode != "constant" and value:
        return
    theirs = torch.nn.functional.pad
    agrees(
        lambda x: F.pad_last(x, sides, mode, value),
        lambda x: theirs(x, sides, mode, value),
        rng.normal(size=shape),
        symbolic=mode != "constant" or len(sides) < 2 * len(shape),
    )


@pytest.mark.parametrize("value", [-np.inf, np.inf])
def test_infinite_padding_spoils_nothing(value, agrees) -> None:
    agrees(
        lambda x: F.pad(x, (1, 2), value),
        lambda x: torch.nn.functional.pad(x, (1, 2), value=value),
        rng.normal(size=3),
        dtypes=["float64"],
    )


@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("edge", "edge"),
                                                  ("wrap", "wrap")])  # fmt: skip
def test_modes_of_numpy(mode, numpy_mode, evaluate) -> None:
    array = rng.normal(size=(3, 4))
    width = ((1, 2), (3, 0))
    np.testing.assert_array_equal(
        evaluate(F.pad(array, width, mode=mode)), np.pad(array, width, numpy_mode)
    )


LAYERS = [
    (f"{kind}Pad{rank}d", rank)
    for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular")
    for rank in (1, 2, 3)
]


@pytest.mark.parametrize(("name", "rank"), LAYERS)
def test_layers(name, rank, agrees) -> None:
    arguments = (1.5,) if name.startswith("Constant") else ()
    sides = tuple(range(1, 1 + 2 * rank)) if "Const" in name else (1, 0, 2, 1, 1, 2)[: 2 * rank]
    for padding, shape in ((2, (2, 3, 4, 5, 4)[: rank + 2]), (sides, (3, 4, 5, 4)[: rank + 1])):
        ours, theirs = (getattr(module, name)(padding, *arguments) for module in (nn, torch.nn))
        agrees(ours, theirs, rng.normal(size=shape), dtypes=["float64"])


def test_what_does_not_fit_is_refused() -> None:
    x = tensor_input("x", ("n", 3, 4))
    with pytest.raises(GraphError, match="up to 3 would"):
        F.pad_last(x, (4, 0), "reflect")
    with pytest.raises(GraphError, match="up to 4 would"):
        F.pad_last(x, (5, 0), "circular")
    with pytest.raises(GraphError, match="crop more than axis 2"):
        F.pad_last(x, (-3, -2))
    with pytest.raises(GraphError, match="an even number up to 6 would"):
        F.pad_last(x, (1, 2, 3))
    with pytest.raises(GraphTypeError, match="no mode is called 'mirror'"):
        F.pad(x, 1, mode="mirror")
    with pytest.raises(GraphError, match=r"ReflectionPad1d.*\(channels, length\)"):
        nn.ReflectionPad1d(1)(tensor_input("y", (2, 3, 4, 5)))
