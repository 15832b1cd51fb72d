"""Cases of `Contract`: matrix products, einsums, convolutions, pools, and odd index maps."""

from __future__ import annotations

import numpy as np
import torch
from cases import Case, M, N, program, sample, sampled, tensor
from closeness import EXACT, Tolerance

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Node, Program, apply, constant, make
from chainrule.compiler.ir.ops import Affine


def einsum(equation: str, left: Node, right: Node) -> Node:
    """Return the contraction that an einsum equation of two operands without dots stands for."""
    operands, output = equation.split("->")
    letters = sorted(set(operands) - {","})
    sizes = {}
    for subscript, operand in zip(operands.split(","), (left, right), strict=True):
        sizes.update(zip(subscript, operand.shape, strict=True))
    maps = [
        tuple(Affine(((letters.index(x), 1),)) for x in subscript)
        for subscript in (*operands.split(","), output)
    ]
    return make(
        ops.Contract(
            tuple(sizes[x] for x in letters),
            (maps[0], maps[1]),
            maps[2],
            tuple(sizes[x] for x in output),
        ),
        left,
        right,
    )


def _terms(node: Node, bound: dict) -> int:
    sizes = [bound.get(d, d) for d in node.op.sizes]
    outputs = [bound.get(d, d) for d in node.op.output_shape]
    return max(int(np.prod(sizes, dtype=np.int64) // max(np.prod(outputs, dtype=np.int64), 1)), 1)


def _einsum_case(equation: str, left, right, dtype: str = "float32", label: str = "") -> Case:
    node = einsum(equation, tensor("a", left, dtype), tensor("b", right, dtype))
    symbolic = any(not isinstance(d, int) for d in left + right)
    bindings = [
        {N: n, M: m} for n, m in (((17, 5), (1, 1), (65, 33), (0, 3)) if symbolic else ((0, 0),))
    ]
    calls = sampled(
        *(
            {"a": tuple(s.get(d, d) for d in left), "b": tuple(s.get(d, d) for d in right)}
            for s in bindings
        ),
        dtype=dtype,
    )

    def expected(a, b):
        wide = np.float64 if dtype == "float32" else a.dtype
        return {"y": np.einsum(equation, a.astype(wide), b.astype(wide)).astype(dtype)}

    is_float = dtype.startswith("float")
    return Case(
        f"einsum-{equation}-{left}-{right}-{dtype}{label}".replace(" ", ""),
        program(node),
        calls,
        expected,
        Tolerance(terms=max(_terms(node, s) for s in bindings)) if is_float else EXACT,
        promote=dtype == "float32",
        differentiate=("a", "b") if is_float else (),
    )


def _products() -> list[Case]:
    sizes = [
        (1, 1, 1),
        (3, 7, 17),
        (7, 17, 33),
        (17, 33, 65),
        (33, 65, 3),
        (65, 1, 7),
        (1, 65, 1),
        (65, 65, 65),
        (16, 32, 64),
        (14, 32, 5),
        (130, 257, 96),
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
    ]
    cases = [_einsum_case("mk,kn->mn", (m, k), (k, n)) for m, n, k in sizes]
    for dtype in ("float64", "int32", "int64", "uint32"):
        cases += [_einsum_case("mk,kn->mn", (m, k), (k, n), dtype) for m, n, k in sizes[1:8:3]]
    for equation in ("km,kn->mn", "mk,nk->mn", "km,nk->mn", "mk,kn->nm", "km,nk->nm"):
        left, right = equation.split("->")[0].split(",")
        extent = {"m": 17, "n": 33, "k": 7}
        cases.append(
            _einsum_case(equation, tuple(extent[x] for x in left), tuple(extent[x] for x in right))
        )
    for equation, left, right in [
        ("mk,kn->mn", (N, 33), (33, 17)),
        ("km,kn->mn", (N, 33), (N, 17)),
        ("mk,kn->mn", (N, M), (M, 7)),
        ("mk,nk->mn", (N, 65), (M, 65)),
        ("bmk,bkn->bmn", (N, 3, 7), (N, 7, 5)),
        ("bmk,bkn->bmn", (4, N, 16), (4, 16, N)),
        ("bhqd,bhkd->bhqk", (N, 2, 7, 8), (N, 2, 5, 8)),
        ("bhqk,bhkd->bhqd", (2, 3, 7, 5), (2, 3, 5, 8)),
        ("bqhd,bkhd->bhqk", (2, 7, 3, 8), (2, 5, 3, 8)),
        ("bmk,kn->bmn", (N, 3, 7), (7, 17)),
        ("bmk,bmn->kn", (N, 3, 7), (N, 3, 5)),
        ("k,k->", (33,), (33,)),
        ("k,k->", (N,), (N,)),
        ("mk,k->m", (17, 33), (33,)),
        ("k,kn->n", (33,), (33, 17)),
        ("m,n->mn", (17,), (33,)),
        ("mn,mn->mn", (7, 9), (7, 9)),
        ("mn,mn->nm", (7, 9), (7, 9)),
        ("mn,n->mn", (N, 9), (9,)),
        (",mn->mn", (), (7, 9)),
        (",->", (), ()),
        ("mk,n->mn", (7, 9), (5,)),
        ("mk,nl->mn", (7, 9), (5, 4)),
        ("ii,ij->ij", (5, 5), (5, 7)),
        ("ii,i->", (5, 5), (5,)),
        ("abcde,e->abcd", (2, 3, 1, 5, 4), (4,)),
        ("abcde,fbd->aecf", (2, 3, 1, 5, 4), (2, 3, 5)),
    ]:
        cases.append(_einsum_case(equation, left, right))
    cases.append(_einsum_case("bmk,bkn->bmn", (2, 3, 7), (2, 7, 5), "float64", "-wide"))
    return cases


# -- convolutions ---------------------------------------------------------------------------------


def convolution(
    x: Node,
    w: Node,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Node:
    """Return the convolution of ``x`` (batch, channels, space…) with ``w`` as in PyTorch.

    ``padding`` is the same on both sides, or (before, after).  With groups, the channels are an
    axis of their own: index space (batch, group, out, space…, channels, window…).
    """
    rank = len(x.shape) - 2
    window = w.shape[2:]
    before, after = (padding, padding) if isinstance(padding, int) else padding
    space = tuple(
        (size + before + after - dilation * (width - 1) - 1) // stride + 1
        for size, width in zip(x.shape[2:], window, strict=True)
    )
    outs, ins = w.shape[0] // groups, w.shape[1]
    sizes = (x.shape[0], groups, outs, *space, ins, *window)
    batch, group, out = 0, 1, 2
    channel = 3 + rank
    places = [3 + d for d in range(rank)]
    taps = [channel + 1 + d for d in range(rank)]
    x_map = (
        Affine(((batch, 1),)),
        Affine(((group, ins), (channel, 1))),
        *(
            Affine(((place, stride), (tap, dilation)), -before)
            for place, tap in zip(places, taps, strict=True)
        ),
    )
    channel_out = Affine(((group, outs), (out, 1)))
    w_map = (channel_out, Affine(((channel, 1),)), *(Affine(((tap, 1),)) for tap in taps))
    y_map = (Affine(((batch, 1),)), channel_out, *(Affine(((place, 1),)) for place in places))
    shape = (x.shape[0], w.shape[0], *space)
    return make(ops.Contract(sizes, (x_map, w_map), y_map, shape), x, w)


def transposed_convolution(
    x: Node,
    w: Node,
    stride: int = 1,
    padding: int = 0,
    more: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Node:
    """Return PyTorch's transposed convolution; ``more`` is its ``output_padding``."""
    rank = len(x.shape) - 2
    ins, outs, window = w.shape[0] // groups, w.shape[1], w.shape[2:]
    space = tuple(
        (size - 1) * stride - 2 * padding + dilation * (width - 1) + more + 1
        for size, width in zip(x.shape[2:], window, strict=True)
    )
    sizes = (x.shape[0], groups, outs, *x.shape[2:], ins, *window)
    channel = 3 + rank
    places, taps = range(3, channel), range(channel + 1, channel + 1 + rank)
    channel_in = Affine(((1, ins), (channel, 1)))
    reached = (
        Affine(((place, stride), (tap, dilation)), -padding)
        for place, tap in zip(places, taps, strict=True)
    )
    x_map = (Affine(((0, 1),)), channel_in, *(Affine(((place, 1),)) for place in places))
    w_map = (channel_in, Affine(((2, 1),)), *(Affine(((tap, 1),)) for tap in taps))
    y_map = (Affine(((0, 1),)), Affine(((1, outs), (2, 1))), *reached)
    shape = (x.shape[0], groups * outs, *space)
    return make(ops.Contract(sizes, (x_map, w_map), y_map, shape), x, w)


def adjoint_of_left(node: Node, cotangent: Node) -> Node:
    """Return the contraction's adjoint with respect to its left operand: the maps trade places."""
    op, (left, right) = node.op, node.inputs
    traded = ops.Contract(op.sizes, (op.output_map, op.maps[1]), op.maps[0], left.shape)
    return make(traded, cotangent, right)


def adjoint_of_right(node: Node, cotangent: Node) -> Node:
    """Return the contraction's adjoint with respect to its right operand."""
    op, (left, right) = node.op, node.inputs
    traded = ops.Contract(op.sizes, (op.maps[0], op.output_map), op.maps[1], right.shape)
    return make(traded, left, cotangent)


#: x shape, w shape, stride, padding, dilation, groups.
_CONVOLUTIONS = [
    ((N, 3, 9), (4, 3, 3), 1, 1, 1, 1),
    ((2, 1, 7), (1, 1, 1), 1, 0, 1, 1),
    ((2, 3, 17), (5, 3, 4), 3, 2, 2, 1),
    ((N, 3, 8, 8), (16, 3, 3, 3), 1, 1, 1, 1),
    ((N, 16, 7, 9), (17, 16, 3, 3), 2, 1, 1, 1),
    ((2, 3, 9, 8), (4, 3, 3, 2), 2, 1, 2, 1),
    ((2, 4, 7, 7), (6, 2, 3, 3), 1, 1, 1, 2),
    ((2, 5, 7, 7), (5, 1, 3, 3), 1, 1, 1, 5),
    ((1, 3, 5, 5), (4, 3, 5, 5), 1, 0, 1, 1),
    ((2, 3, 5, 5), (4, 3, 1, 1), 1, 0, 1, 1),
    ((1, 1, 1, 1), (1, 1, 3, 3), 1, 1, 1, 1),
    ((2, 2, 5, 4, 6), (3, 2, 3, 2, 3), 1, 1, 1, 1),
    ((2, 33, 4, 4), (65, 33, 3, 3), 1, 1, 1, 1),
]


def _convolution_cases() -> list[Case]:
    cases = []
    for x_shape, w_shape, *settings in _CONVOLUTIONS:
        stride, padding, dilation, groups = settings
        function = getattr(torch.nn.functional, f"conv{len(x_shape) - 2}d")
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        label = f"{x_shape}-{w_shape}-{stride}{padding}{dilation}{groups}".replace(" ", "")
        batches = (3, 1, 5) if x_shape[0] is N else (x_shape[0],)

        def run(x, w, function=function, options=options):
            return function(x, w, **options)

        for dtype in ("float32", "float64") if len(cases) < 12 else ("float32",):
            x, w = tensor("x", x_shape, dtype), tensor("w", w_shape, dtype)
            y = convolution(x, w, stride, padding, dilation, groups)
            g = tensor("g", y.shape, dtype)
            forward = [{"x": (n, *x_shape[1:]), "w": w_shape} for n in batches]
            backward = [
                {**shapes, "g": (n, *y.shape[1:])}
                for n, shapes in zip(batches, forward, strict=True)
            ]
            count = {
                "forward": int(np.prod(w_shape[1:])),
                "input": w_shape[0] * int(np.prod(w_shape[2:])),
                "weight": max(batches) * int(np.prod(y.shape[2:])),
            }
            promoted = {"promote": dtype == "float32"}
            cases += [
                Case(
                    f"conv-{label}-{dtype}",
                    program(y),
                    sampled(*forward, dtype=dtype),
                    lambda x, w, run=run: {"y": _by_torch(run, x, w)},
                    Tolerance(terms=count["forward"]),
                    differentiate=("x", "w"),
                    **promoted,
                ),
                Case(
                    f"conv-by-input-{label}-{dtype}",
                    program(y, adjoint_of_left(y, g)),
                    sampled(*backward, dtype=dtype),
                    lambda x, w, g, run=run: _gradient_by_torch(run, x, w, g, 0),
                    Tolerance(terms=max(count.values())),
                    **promoted,
                ),
                Case(
                    f"conv-by-weight-{label}-{dtype}",
                    program(y, adjoint_of_right(y, g)),
                    sampled(*backward, dtype=dtype),
                    lambda x, w, g, run=run: _gradient_by_torch(run, x, w, g, 1),
                    Tolerance(terms=max(count.values())),
                    **promoted,
                ),
            ]
    return cases


#: x shape, w shape, stride, (padding before, after), dilation, groups.
_UNEVEN = [
    ((N, 3, 8), (4, 3, 3), 2, (2, 0), 1, 1),
    ((2, 4, 7, 6), (6, 2, 3, 2), 2, (1, 2), 2, 2),
    ((2, 3, 9, 9), (4, 3, 2, 2), 3, (0, 0), 1, 1),
    ((2, 3, 9, 9), (4, 3, 3, 3), 1, (-1, -2), 1, 1),
    ((2, 2, 6, 5, 4), (4, 2, 3, 2, 1), 2, (1, 0), 1, 1),
    ((N, 1, 1, 6), (3, 1, 1, 3), 1, (1, 1), 1, 1),
    ((2, 6, 5, 7), (12, 1, 3, 3), 2, (1, 1), 1, 6),
    ((2, 3, 4, 4), (5, 3, 7, 7), 1, (3, 3), 1, 1),
    ((2, 3, 12, 10), (8, 3, 5, 4), 3, (2, 1), 1, 1),
    ((N, 2, 7, 19), (3, 2, 2, 3), 1, (0, 1), 2, 1),
]

#: x shape, w shape, stride, padding, output padding, dilation, groups.
_TRANSPOSED = [
    ((N, 3, 5), (3, 4, 3), 2, 1, 1, 1, 1),
    ((2, 4, 5, 4), (4, 3, 3, 3), 2, 1, 1, 1, 2),
    ((2, 3, 4, 4), (3, 5, 2, 2), 2, 0, 0, 1, 1),
    ((2, 3, 4, 4), (3, 5, 3, 3), 1, 0, 0, 2, 1),
    ((2, 3, 3, 4), (3, 2, 2, 3), 3, 0, 2, 1, 1),
    ((2, 3, 4, 3), (3, 2, 4, 3), 2, 2, 0, 3, 1),
    ((2, 4, 5, 5), (4, 1, 4, 4), 2, 1, 0, 1, 4),
    ((1, 2, 3, 2, 3), (2, 3, 2, 3, 2), 2, 1, 1, 1, 1),
]


def _general_cases() -> list[Case]:
    """Return convolutions with uneven paddings, and transposed ones, with their gradients."""
    rows = []
    for x_shape, w_shape, *settings in _UNEVEN:
        stride, padding, dilation, groups = settings
        rank = len(x_shape) - 2

        def run(x, w, rank=rank, padding=padding, rest=(stride, 0, dilation, groups)):
            function = getattr(torch.nn.functional, f"conv{rank}d")
            return function(torch.nn.functional.pad(x, padding * rank), w, None, *rest)

        rows.append(("uneven", x_shape, w_shape, settings, convolution, run))
    for x_shape, w_shape, *settings in _TRANSPOSED:
        stride, padding, more, dilation, groups = settings
        rank = len(x_shape) - 2

        def run(x, w, rank=rank, rest=(stride, padding, more, groups, dilation)):
            return getattr(torch.nn.functional, f"conv_transpose{rank}d")(x, w, None, *rest)

        rows.append(("transposed", x_shape, w_shape, settings, transposed_convolution, run))
    cases = []
    for position, (kind, x_shape, w_shape, settings, function, run) in enumerate(rows):
        dtype = ("float32", "float64")[position % 2]
        x, w = tensor("x", x_shape, dtype), tensor("w", w_shape, dtype)
        y = function(x, w, *settings)
        g = tensor("g", y.shape, dtype)
        batches = (3, 0, 1) if x_shape[0] is N else (x_shape[0],)
        forward = [{"x": (n, *x_shape[1:]), "w": w_shape} for n in batches]
        backward = [
            {**shapes, "g": (n, *y.shape[1:])} for n, shapes in zip(batches, forward, strict=True)
        ]
        label = f"{kind}-{x_shape}-{w_shape}-{settings}-{dtype}".replace(" ", "")
        tolerance = Tolerance(terms=4 * int(np.prod(w_shape)) * max(batches))
        promote = dtype == "float32"
        cases += [
            Case(
                f"general-conv-{label}",
                program(y),
                sampled(*forward, dtype=dtype),
                lambda x, w, run=run: {"y": _by_torch(run, x, w)},
                tolerance,
                promote,
                differentiate=("x", "w"),
            ),
            Case(
                f"general-conv-by-input-{label}",
                program(y, adjoint_of_left(y, g)),
                sampled(*backward, dtype=dtype),
                lambda x, w, g, run=run: _gradient_by_torch(run, x, w, g, 0),
                tolerance,
                promote,
                differentiate=("x", "w", "g"),
            ),
            Case(
                f"general-conv-by-weight-{label}",
                program(y, adjoint_of_right(y, g)),
                sampled(*backward, dtype=dtype),
                lambda x, w, g, run=run: _gradient_by_torch(run, x, w, g, 1),
                tolerance,
                promote,
                differentiate=("x", "w", "g"),
            ),
        ]
    return cases


def _symbolic_length_cases() -> list[Case]:
    """Return convolutions whose batch and length are both known only when called."""
    cases = []
    for stride, padding, width in ((1, 1, 3), (2, 1, 3), (3, 1, 4)):
        x, w = tensor("x", (N, 3, M)), tensor("w", (4, 3, width))
        y = convolution(x, w, stride, padding)
        # The result itself is the cotangent: no input's shape could tell its length.
        back = (adjoint_of_left(y, y), adjoint_of_right(y, y))

        def run(x, w, stride=stride, padding=padding):
            leaves = [torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w)]
            y = torch.nn.functional.conv1d(*leaves, None, stride, padding)
            slopes = torch.autograd.grad(y, leaves, y.detach())
            results = (y.detach(), *slopes)
            return {f"y{i}": r.numpy().astype(np.float32) for i, r in enumerate(results)}

        shapes = [
            {"x": (n, 3, m), "w": (4, 3, width)} for n, m in ((2, 7), (1, 8), (3, 19), (2, 5))
        ]
        cases.append(
            Case(
                f"general-conv-any-length-{stride}{padding}{width}",
                program(y, *back),
                sampled(*shapes),
                run,
                Tolerance(ulps=16, relative=1e-5),
                promote=True,
            )
        )
    return cases


def _trained_cases() -> list[Case]:
    """Return steps that move a convolution's weight, which its gradient's kernel does in place."""
    cases = []
    for number, (x_shape, w_shape) in enumerate(
        [((N, 3, 5, 6), (4, 3, 3, 3)), ((2, 3, 4, 4), (5, 3, 1, 1))]
    ):
        x = tensor("x", x_shape)
        kind = tensor("w", w_shape).type
        weight = make(ops.State("w", kind, "parameter", 960 + 2 * number))
        velocity = make(ops.State("v", kind, "slot", 961 + 2 * number))
        y = convolution(x, weight, 1, 1)
        slope = adjoint_of_right(y, tensor("g", y.shape))
        moved = apply("add", apply("mul", velocity, constant(0.9, "float32")), slope)
        step = apply("sub", weight, apply("mul", moved, constant(0.1, "float32")))
        batches = (3, 1) if x_shape[0] is N else (2,)
        calls = [{"x": (n, *x_shape[1:]), "g": (n, *y.shape[1:])} for n in batches]
        cases.append(
            Case(
                f"general-conv-trained-{w_shape}".replace(" ", ""),
                Program((("y", y),), ((weight, step), (velocity, moved))),
                sampled(*calls),
                tolerance=Tolerance(ulps=16, relative=1e-5),
                promote=True,
                states={weight: sample(w_shape), velocity: sample(w_shape, seed=1)},
            )
        )
    return cases


def _by_torch(run, *arrays: np.ndarray) -> np.ndarray:
    """Return ``run`` of the arrays, computed by PyTorch in float64."""
    result = run(*(torch.from_numpy(x.astype(np.float64)) for x in arrays))
    return result.numpy().astype(arrays[0].dtype)


def _gradient_by_torch(run, x, w, g, which: int) -> dict[str, np.ndarray]:
    leaves = [torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w)]
    y = run(*leaves)
    (gradient,) = torch.autograd.grad(y, leaves[which], torch.from_numpy(g.astype(np.float64)))
    return {"y0": y.detach().numpy().astype(x.dtype), "y1": gradient.numpy().astype(x.dtype)}


# -- the rest -------------------------------------------------------------------------------------


def _odd_maps() -> list[Case]:
    """Return contractions that no einsum and no convolution makes."""
    x, y = tensor("a", (N, 9)), tensor("b", (9,))
    one = constant(1.0, "float32")
    i, j, k = (Affine(((axis, 1),)) for axis in range(3))
    reversal = make(ops.Contract((N, 9), ((i, Affine(((1, -1),), 8)), (j,)), (i, j), (N, 9)), x, y)
    pool = make(
        ops.Contract((N, 3, 3), ((i, Affine(((1, 3), (2, 1)))), ()), (i, j), (N, 3)), x, one
    )
    overlapping = make(
        ops.Contract((N, 5, 3), ((i, Affine(((1, 2), (2, 1)), -1)), ()), (i, j), (N, 5)), x, one
    )
    absent = make(ops.Contract((N, 9, 4), ((i, j), (j,)), (i,), (N,)), x, y)
    repeated = make(ops.Contract((N, 9, 4), ((i, j), (j,)), (i, k), (N, 4)), x, y)
    part = make(ops.Contract((N, 4), ((i, j), (j,)), (i, j), (N, 4)), x, y)
    outside = make(ops.Contract((N, 12), ((i, j), (j,)), (i, j), (N, 12)), x, y)
    holes = make(ops.Contract((N, 9), ((i, j), (j,)), (i, Affine(((1, 2),), 1)), (N, 20)), x, y)
    dropped = make(ops.Contract((N, 9), ((i, j), (j,)), (i, Affine(((1, 1),), -3)), (N, 4)), x, y)
    fixed = make(
        ops.Contract((N,), ((i, Affine((), 4)), (Affine((), 2),)), (i, Affine((), 1)), (N, 3)), x, y
    )
    scattered = make(
        ops.Contract((N, 9, 2), ((i, j), (j,)), (i, Affine(((1, 1), (2, 1)))), (N, 10)), x, y
    )

    def at_column(a, b, column=1, width=3):
        result = np.zeros((len(a), width), np.float32)
        result[:, column] = a[:, 4] * b[2]
        return result

    def windows_of_three(a):
        padded = np.pad(a.astype("f8"), ((0, 0), (1, 1)))
        return np.stack([padded[:, r : r + 9 : 2] for r in range(3)])

    rows = [
        ("reversed", reversal, lambda a, b: a[:, ::-1] * b),
        ("absent-index", absent, lambda a, b: 4 * (a.astype("f8") @ b)),
        ("repeated-output", repeated, lambda a, b: np.repeat((a.astype("f8") @ b)[:, None], 4, 1)),
        ("part-of-operand", part, lambda a, b: a[:, :4] * b[:4]),
        ("beyond-operand", outside, lambda a, b: np.pad(a * b, ((0, 0), (0, 3)))),
        (
            "holes-in-output",
            holes,
            lambda a, b: np.stack(
                [np.zeros((len(a), 10), "f4"), np.pad(a * b, ((0, 0), (0, 1)))], 2
            ).reshape(len(a), 20),
        ),
        ("dropped-outputs", dropped, lambda a, b: (a * b)[:, 3:7]),
        ("fixed-elements", fixed, at_column),
        (
            "overlapping-outputs",
            scattered,
            lambda a, b: np.pad(a * b, ((0, 0), (0, 1))) + np.pad(a * b, ((0, 0), (1, 0))),
        ),
    ]
    shapes = [{"a": (n, 9), "b": (9,)} for n in (7, 1, 33, 0)]
    cases = [
        Case(
            f"contract-{name}",
            program(node),
            sampled(*shapes),
            lambda a, b, expected=expected: {"y": np.asarray(expected(a, b), np.float32)},
            Tolerance(terms=36),
            promote=True,
            differentiate=("a", "b"),
        )
        for name, node, expected in rows
    ]
    cases.append(
        Case(
            "contract-average-pool",
            program(pool),
            tuple({"a": sample((n, 9))} for n in (7, 1)),
            lambda a: {"y": a.reshape(-1, 3, 3).astype("f8").sum(2).astype("f4")},
            Tolerance(terms=3),
            promote=True,
            differentiate=("a",),
        )
    )
    cases.append(
        Case(
            "contract-overlapping-pool",
            program(overlapping),
            tuple({"a": sample((n, 9))} for n in (7, 1, 33)),
            lambda a: {"y": windows_of_three(a).sum(0).astype("f4")},
            Tolerance(terms=3),
            promote=True,
            differentiate=("a",),
        )
    )
    return cases


CASES = [
    *_products(),
    *_convolution_cases(),
    *_general_cases(),
    *_symbolic_length_cases(),
    *_trained_cases(),
    *_odd_maps(),
]
