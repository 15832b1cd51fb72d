"""Convolutions against PyTorch: values, gradients, geometry, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError, GraphTypeError
from chainrule.frontend import convolution as C
from chainrule.frontend.tensor import input as tensor_input

torch = pytest.importorskip("torch", reason="compares with PyTorch")
rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


# rank, input, weight, bias, arguments
CONVOLUTIONS = [
    (1, (2, 3, 9), (4, 3, 3), True, {}),
    (1, (2, 3, 9), (4, 3, 3), False, {"stride": 2, "padding": 1}),
    (1, (2, 4, 9), (6, 2, 2), True, {"groups": 2, "dilation": 3, "padding": (2,)}),
    (1, (3, 9), (4, 3, 4), True, {"padding": "same"}),
    (1, (2, 3, 5), (4, 3, 5), True, {"padding": "valid"}),
    (2, (2, 3, 6, 7), (4, 3, 3, 3), True, {"padding": 1}),
    (2, (2, 3, 6, 7), (4, 3, 3, 2), False, {"stride": (2, 3), "padding": (2, 0)}),
    (2, (2, 3, 9, 8), (5, 3, 2, 3), True, {"dilation": (3, 2), "padding": (1, 2)}),
    (2, (2, 6, 6, 5), (6, 1, 3, 3), True, {"groups": 6, "padding": 1}),
    (2, (2, 6, 6, 5), (12, 1, 3, 3), False, {"groups": 6, "stride": 2}),
    (2, (2, 4, 6, 5), (6, 2, 1, 1), True, {"groups": 2}),
    (2, (2, 4, 6, 6), (3, 4, 1, 1), True, {"stride": 3}),
    (2, (2, 3, 6, 7), (4, 3, 4, 2), True, {"padding": "same", "dilation": (1, 3)}),
    (2, (3, 6, 7), (4, 3, 3, 3), True, {"padding": (1, 2)}),
    (2, (1, 2, 4, 4), (3, 2, 4, 4), True, {}),
    (2, (1, 2, 3, 3), (3, 2, 2, 2), True, {"padding": 4}),
    (2, (1, 2, 7, 7), (3, 2, 2, 2), True, {"stride": 5}),
    (2, (0, 2, 5, 5), (3, 2, 2, 2), True, {}),
    (3, (2, 2, 4, 5, 4), (3, 2, 2, 3, 2), True, {"padding": 1, "stride": (1, 2, 1)}),
    (3, (2, 4, 4, 4, 4), (4, 2, 2, 2, 2), False, {"groups": 2, "dilation": 2, "padding": "same"}),
]


def as_operands(shape, weight, bias, channels):
    arrays = [draw(*shape), draw(*weight)]
    return [*arrays, draw(channels)] if bias else arrays


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions(case, agrees) -> None:
    rank, shape, weight, bias, arguments = case
    ours, theirs = getattr(C, f"conv{rank}d"), getattr(torch.nn.functional, f"conv{rank}d")
    agrees(
        lambda *operands: ours(*operands, **arguments),
        lambda *operands: theirs(*operands, **arguments),
        *as_operands(shape, weight, bias, weight[0]),
        symbolic=len(shape) == rank + 2,
    )


TRANSPOSED = [
    (1, (2, 3, 5), (3, 4, 3), True, {}),
    (1, (2, 4, 5), (4, 3, 3), True, {"stride": 3, "output_padding": 2, "groups": 2}),
    (1, (3, 5), (3, 4, 2), False, {"dilation": 3, "output_padding": 2, "padding": 1}),
    (2, (2, 3, 4, 5), (3, 4, 3, 3), True, {"stride": 2, "padding": 1, "output_padding": 1}),
    (2, (2, 3, 4, 5), (3, 4, 2, 2), True, {"stride": 2}),
    (2, (2, 3, 4, 5), (3, 4, 2, 3), False, {"stride": (3, 1), "padding": (0, 2)}),
    (2, (2, 6, 4, 3), (6, 1, 3, 3), True, {"groups": 6, "stride": 2, "padding": 1}),
    (2, (2, 6, 4, 3), (6, 2, 3, 2), True, {"groups": 3, "dilation": (2, 1), "padding": 1}),
    (2, (1, 2, 1, 1), (2, 3, 4, 4), True, {}),
    (3, (1, 2, 3, 2, 3), (2, 3, 2, 3, 2), True, {"stride": 2, "output_padding": (1, 0, 1)}),
    (3, (2, 3, 2, 3), (2, 3, 2, 2, 2), True, {"padding": 1, "stride": (2, 1, 2)}),
]


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolutions(case, agrees) -> None:
    rank, shape, weight, bias, arguments = case
    name = f"conv_transpose{rank}d"
    ours, theirs = getattr(C, name), getattr(torch.nn.functional, name)
    channels = weight[1] * arguments.get("groups", 1)
    agrees(
        lambda *operands: ours(*operands, **arguments),
        lambda *operands: theirs(*operands, **arguments),
        *as_operands(shape, weight, bias, channels),
        symbolic=len(shape) == rank + 2,
    )


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((2, 3, 6, 7), {"kernel_size": 3}),
        ((2, 3, 6, 7), {"kernel_size": (2, 3), "padding": (1, 2), "stride": (2, 1)}),
        ((3, 6, 7), {"kernel_size": 2, "dilation": (3, 2), "padding": 1, "stride": 3}),
        ((2, 3, 4, 4), {"kernel_size": 4}),
    ],
    ids=str,
)
def test_unfold_and_fold(shape, arguments, agrees) -> None:
    theirs = torch.nn.functional
    agrees(
        lambda x: C.unfold(x, **arguments),
        lambda x: theirs.unfold(x, **arguments),
        draw(*shape),
        symbolic=len(shape) == 4,
    )
    columns = theirs.unfold(torch.zeros(shape), **arguments).shape
    agrees(
        lambda x: C.fold(x, shape[-2:], **arguments),
        lambda x: theirs.fold(x, shape[-2:], **arguments),
        draw(*columns),
        symbolic=len(shape) == 4,
    )


@pytest.mark.parametrize("number", [1, 6, 7, 9, 13, 18])
def test_machine_code_of_convolutions(number, agrees) -> None:
    rank, shape, weight, bias, arguments = CONVOLUTIONS[number]
    ours, theirs = getattr(C, f"conv{rank}d"), getattr(torch.nn.functional, f"conv{rank}d")
    agrees(
        lambda *operands: ours(*operands, **arguments),
        lambda *operands: theirs(*operands, **arguments),
        *as_operands(shape, weight, bias, weight[0]),
        symbolic=len(shape) == rank + 2,
        native=True,
        dtypes=["float32"],
    )


@pytest.mark.parametrize("number", [1, 3, 7])
def test_machine_code_of_transposed_convolutions(number, agrees) -> None:
    rank, shape, weight, bias, arguments = TRANSPOSED[number]
    name = f"conv_transpose{rank}d"
    ours, theirs = getattr(C, name), getattr(torch.nn.functional, name)
    agrees(
        lambda *operands: ours(*operands, **arguments),
        lambda *operands: theirs(*operands, **arguments),
        *as_operands(shape, weight, bias, weight[1] * arguments.get("groups", 1)),
        symbolic=True,
        native=True,
        dtypes=["float32"],
    )


def test_machine_code_of_unfold_and_fold(agrees) -> None:
    arguments = {"kernel_size": (2, 3), "padding": (1, 2), "stride": (2, 1)}
    agrees(
        lambda x: C.fold(C.unfold(x, **arguments) ** 2, (6, 7), **arguments),
        lambda x: torch.nn.functional.fold(
            torch.nn.functional.unfold(x, **arguments) ** 2, (6, 7), **arguments
        ),
        draw(2, 3, 6, 7),
        symbolic=True,
        native=True,
        dtypes=["float32"],
    )


def test_symbolic_sizes(evaluate) -> None:
    x = tensor_input("x", ("n", 3, "h", "w"), "float64")
    array, weight = draw(2, 3, 7, 8), draw(4, 3, 3, 2)
    for arguments in ({"padding": 1}, {"padding": "same"}, {"stride": 2, "padding": (0, 1)}):
        result = evaluate(C.conv2d(x, weight, **arguments), x=array)
        wanted = torch.nn.functional.conv2d(torch.tensor(array), torch.tensor(weight), **arguments)
        np.testing.assert_allclose(result, wanted, rtol=1e-10, atol=1e-12)


def refused(text: str, function, *operands, error=GraphError, **arguments) -> None:
    with pytest.raises(error, match=text) as caught:
        function(*operands, **arguments)
    assert "test_convolution.py" in str(caught.value)


def test_what_does_not_fit_is_refused() -> None:
    x, w = tensor_input("x", ("n", 4, 6, 6)), tensor_input("w", (6, 4, 3, 3))
    refused("4 channels does not fit.*groups: 8 channels would", C.conv2d, x, w, groups=2)
    refused("kernel of 3 dilated by 4 to 9 is larger than the axis of size 6", C.conv2d, x, w,
            dilation=4)  # fmt: skip
    refused("padded to 8", C.conv2d, x, w, dilation=4, padding=1)
    refused("groups do not divide the 6 channels", C.conv2d, x, w, groups=4)
    refused("'same' goes with stride 1", C.conv2d, x, w, padding="same", stride=2)
    refused("'same', 'valid' or ints", C.conv2d, x, w, padding="full")
    refused("stride must be at least 1", C.conv2d, x, w, stride=0)
    refused("padding must be at least 0", C.conv2d, x, w, padding=-1)
    refused("one int or 2 would", C.conv2d, x, w, stride=(1, 2, 3))
    refused("stride is an int", C.conv2d, x, w, stride=1.5, error=GraphTypeError)
    refused(r"\(batch, channels, height, width\)", C.conv2d, tensor_input("x", (4, 6)), w)
    refused("with 1 kernel size would", C.conv1d, tensor_input("y", (2, 4, 6)), w)
    refused("bias of shape", C.conv2d, x, w, np.zeros(4, "f"))
    refused("6 channels would", C.conv_transpose2d, x, w)
    v = tensor_input("v", (4, 6, 3, 3))
    refused("output_padding 2 must be smaller", C.conv_transpose2d, x, v, stride=2,
            output_padding=2)  # fmt: skip
    refused("leaves a size of -12", C.conv_transpose2d, x, v, padding=10)
    refused("do not divide the 10 rows", C.fold, np.zeros((1, 10, 4), "f"), 4, 3)
    refused("4 columns would", C.fold, np.zeros((1, 9, 5), "f"), 4, 3)
