"""Cases of leaves, random bits and states."""

from __future__ import annotations

import numpy as np
from cases import Case, N, program, sample, sampled, tensor
from closeness import Tolerance

from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Node, Program, apply, constant, make
from chainrule.compiler.ir.types import ITEM_BYTES, TensorType

# -- leaves ---------------------------------------------------------------------------------------


def _leaves() -> list[Case]:
    x = tensor("x", (N, 3))
    kinds = ("float32", "float64", "int32", "int64", "uint32")
    sizes = ({"x": (5, 3)}, {"x": (0, 3)}, {"x": (65, 3)})
    cases = [
        Case(
            f"iota-{dtype}-axis{axis}",
            program(make(ops.Iota(TensorType(dtype, (N, 3, 2)), axis)), x),
            sampled(*sizes),
            lambda x, axis=axis, dtype=dtype: {
                "y0": np.indices((len(x), 3, 2))[axis].astype(dtype),
                "y1": x,
            },
        )
        for dtype in kinds
        for axis in range(3)
    ]
    cases += [
        Case(
            f"extent-{dtype}",
            program(make(ops.Extent(N * 3 + 1, dtype)), make(ops.Extent(N * N, dtype)), x),
            sampled(*sizes),
            lambda x, dtype=dtype: {
                "y0": np.array(3 * len(x) + 1, dtype),
                "y1": np.array(len(x) ** 2, dtype),
                "y2": x,
            },
        )
        for dtype in kinds
    ]
    cases += [
        Case(
            f"constant-{dtype}-{shape}".replace(" ", ""),
            program(constant(sample(shape, dtype), dtype)),
            ({},),
            lambda dtype=dtype, shape=shape: {"y": sample(shape, dtype)},
        )
        for dtype in ITEM_BYTES
        for shape in ((), (1,), (17,), (0, 2), (3, 4, 5))
    ]
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-40, 3e38], np.float32)
    cases.append(
        Case("constant-edges", program(constant(values, "float32")), ({},), lambda: {"y": values})
    )
    cases.append(
        Case(
            "training",
            program(make(ops.Training())),
            ({},),
            lambda: {"y": np.array(False)},
        )
    )
    cases += [
        Case(
            f"input-is-output-{dtype}",
            program(a=tensor("x", (N,), dtype), b=tensor("x", (N,), dtype)),
            ({"x": sample((7,), dtype)}, {"x": sample((0,), dtype)}),
            lambda x: {"a": x, "b": x},
        )
        for dtype in ITEM_BYTES
    ]
    return cases


def _random() -> list[Case]:
    cases = []
    for position, (seed, draw, shape, stream) in enumerate(
        [(0, 0, (5,), 0), (1, 2, (3, 7), 1), (2**31, 5, (), 3), (2**31 - 1, 2**32 - 1, (65,), 9)]
    ):
        key = np.array(seed << 32 | draw if seed < 2**31 else (seed - 2**32) << 32 | draw, np.int64)
        state = make(
            ops.State(f"random{position}", TensorType("int64", ()), "random", 900 + position)
        )
        bits = [make(ops.RandomBits(shape, stream, word), state) for word in (0, 1)]
        fraction = apply("mul", make(ops.Cast("float32"), bits[0]), constant(2.0**-32, "float32"))
        advanced = apply("add", state, constant(1, "int64"))
        cases.append(
            Case(
                f"random-bits-{position}",
                Program(
                    (("first", bits[0]), ("second", bits[1]), ("fraction", fraction)),
                    ((state, advanced),),
                ),
                ({}, {}),
                states={state: key},
            )
        )
    state = make(ops.State("random", TensorType("int64", ()), "random", 910))
    x = tensor("x", (N, 3))
    bits = make(ops.RandomBits((N, 3), 4, 0), state)
    kept = apply("lt", bits, constant(2**31, "uint32"))
    dropped = apply("where", kept, apply("mul", x, constant(2, "float32")), constant(0, "float32"))
    cases.append(
        Case(
            "random-dropout",
            program(dropped),
            sampled({"x": (33, 3)}, {"x": (1, 3)}),
            None,
            differentiate=("x",),
            states={state: np.array(77 << 32, np.int64)},
        )
    )
    return cases


# -- states ---------------------------------------------------------------------------------------


def _state(name: str, shape, key: int, dtype: str = "float32", role: str = "parameter") -> Node:
    return make(ops.State(name, TensorType(dtype, shape), role, key))


def _states() -> list[Case]:
    a, b = _state("a", (3, 4), 920), _state("b", (3, 4), 921)
    count = _state("count", (), 922, "int64", "slot")
    x = tensor("x", (N, 4))
    values = {a: sample((3, 4), seed=1), b: sample((3, 4), seed=2), count: np.array(5)}
    total = make(ops.Reduce("sum", (0,)), x)
    step = apply("sub", a, apply("mul", total, constant(0.1, "float32")))
    calls = sampled({"x": (5, 4)}, {"x": (1, 4)}, {"x": (17, 4)})
    near = Tolerance(relative=2e-6)
    return [
        Case("state-swap", Program((("a", a),), ((a, b), (b, a))), ({}, {}, {}), states=values),
        Case("state-read", program(apply("add", a, b)), ({},), states=values),
        Case(
            "state-step",
            Program((("old", a), ("new", step)), ((a, step),)),
            calls,
            tolerance=near,
            states=values,
        ),
        Case("state-step-unread", Program((), ((a, step),)), calls, tolerance=near, states=values),
        Case("state-chain", Program((), ((a, step), (b, a))), calls, tolerance=near, states=values),
        Case(
            "state-counter",
            Program((("count", count),), ((count, apply("add", count, constant(1, "int64"))),)),
            ({}, {}, {}),
            states=values,
        ),
        Case("state-to-itself", Program((("a", a),), ((a, a),)), ({}, {}), states=values),
        Case(
            "state-to-constant",
            Program((("a", a),), ((a, make(ops.Broadcast((3, 4)), constant(2, "float32"))),)),
            ({}, {}),
            states=values,
        ),
        Case(
            "state-to-view",
            Program((("a", a),), ((a, make(ops.Flip((0, 1)), a)),)),
            ({}, {}),
            states=values,
        ),
        Case(
            "state-to-input",
            Program((("a", a),), ((a, tensor("x", (3, 4))),)),
            sampled({"x": (3, 4)}, {"x": (3, 4)}),
            states=values,
        ),
    ]


CASES = [*_leaves(), *_random(), *_states()]
