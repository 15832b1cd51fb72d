"""The text form: exact round trips, and refusals that name the line."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from chainrule.compiler.errors import GraphError, SourceLine
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.bodies import make_branch
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.graph import Node, Program, Requirement, apply, constant, make
from chainrule.compiler.ir.ops import Affine
from chainrule.compiler.ir.scalars import Formula, Term, call, number, param
from chainrule.compiler.ir.text import format_node, format_nodes, format_program, parse_program
from chainrule.compiler.ir.types import TensorType

N = SymbolicDim.of("n")
ODD = SymbolicDim.of("batch size")
LINE = SourceLine('a "b" \\ é.py', 12, "<lambda>")


def tensor(name: str, shape: tuple, dtype: str = "float32") -> Node:
    return make(ops.Input(name, TensorType(dtype, shape)), source=LINE)


def every_primitive() -> Program:
    """Return a program with every primitive and every kind of field."""
    x, y = tensor("x", (N, 4)), tensor('odd "name"\n', (ODD, 2 * N + 1))
    i = tensor("i", (3,), "int64")
    w = make(ops.State("w", TensorType("float32", (4, 3)), "parameter", 4001))
    seed = make(ops.State("seed", TensorType("int64", ()), "random", 4002))
    index = [Affine(((axis, 1),)) for axis in range(3)]
    product = make(
        ops.Contract(
            (N, 3, 4), ((index[0], index[2]), (index[2], index[1])), (index[0], index[1]), (N, 3)
        ),
        x,
        w,
    )
    strange = make(
        ops.Contract(
            (N, 4),
            ((Affine(((0, -1),), 7), Affine((), -2)), (Affine(((1, 2), (0, -3)), -1), Affine(()))),
            (Affine(((1, 1),), 0), Affine((), 0)),
            (N * N // 2 * 3, 5),
        ),
        x,
        w,
    )
    swish = Formula(
        "swish",
        ("x", "b c"),
        call(
            "div",
            param("x"),
            call("add", number(1), call("exp", call("mul", param("b c"), number(-0.5)))),
        ),
    )
    wild = Formula(
        "numbers",
        ("inf", "neg"),
        call(
            "where",
            call("lt", param("inf"), number(float("-inf"))),
            call("add", param("neg"), number(1e-300)),
            call("mul", number(1e22), number(-7)),
        ),
    )
    rule = make_branch([x, i], [apply("neg", x)])
    outputs = {
        "product": product,
        "strange": strange,
        "y": y,
        "swish": make(ops.Map(swish), product, product),
        "wild": make(ops.Map(wild), x, x),
        "sum": make(ops.Reduce("sum", (0,)), x),
        "all": make(ops.Reduce("max", (0, 1)), x),
        "argmax": make(ops.Reduce("argmax", (1,)), x),
        "reshape": make(ops.Reshape((N * 4,)), x),
        "transpose": make(ops.Transpose((1, 0)), x),
        "broadcast": make(ops.Broadcast((2, N, 4)), x),
        "slice": make(ops.Slice((N - 1, 0), (1, 2), (1, 2)), x),
        "pad": make(ops.Pad((N // 3, 0), (0, 1), (0, 1)), x),
        "flip": make(ops.Flip((0,)), x),
        "concat": make(ops.Concat(0), x, x, x),
        "gather": make(ops.Gather(1), x, i),
        "scatter": make(
            ops.ScatterAdd(0, N), make(ops.Broadcast((3, 2)), constant(1, "float32")), i
        ),
        "order": make(ops.ArgSort(1, True), x),
        "recurrence": make(ops.LinearRecurrence(0, False), x, x),
        "leader": make(ops.RunningExtremum("min", 1, True), x),
        "ruled": make(ops.CustomGradient(rule, 1, 0), x, x, i),
        "cast": make(ops.Cast("bool"), x),
        "extent": make(ops.Extent(N * 3 - 1, "float64")),
        "training": make(ops.Training()),
        "iota": make(ops.Iota(TensorType("int32", (N, 2)), 1)),
        "bits": make(ops.RandomBits((N, 2), 3, 1), seed),
        "where": apply("where", make(ops.Cast("bool"), x), x, x),
    }
    return Program(
        tuple(outputs.items()),
        ((w, w), (seed, apply("add", seed, constant(1, "int64")))),
        name='train "it"',
        requirements=(
            Requirement(i, 0, N, None, "labels\nünïcode \u2028", LINE),
            Requirement(i, -3, 2 * N + 1, -100, "index {value}", None),
        ),
    )


def assert_round_trip(program: Program) -> None:
    for sources in (False, True):
        text = format_program(program, sources)
        again = parse_program(text)
        assert again == program
        assert all(a is b for a, b in zip(again.roots, program.roots, strict=True))
        assert format_program(again, sources) == text


def test_every_primitive_comes_back():
    assert_round_trip(every_primitive())


def test_an_empty_program_comes_back():
    assert_round_trip(Program(()))


CONSTANTS = {
    "scalar": np.float32(0.1),
    "negative zero": np.array([-0.0, 0.0]),
    "infinite": np.array([np.inf, -np.inf], np.float32),
    "nan with a payload": np.array([0x7FC12345, 0xFFC00001], np.uint32).view(np.float32),
    "subnormal": np.array([5e-324, 1e-310, 1.7e308]),
    "extreme integers": np.array([-(2**63), 2**63 - 1]),
    "unsigned": np.array([0, 2**32 - 1], np.uint32),
    "bool": np.array([[True], [False]]),
    "empty": np.zeros((0, 3), np.float32),
    "some": np.random.default_rng(0).standard_normal(9).astype(np.float32),
    "many": np.random.default_rng(0).standard_normal((17, 33)),
    "many bools": np.random.default_rng(0).integers(0, 2, 100).astype(bool),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_come_back_bit_for_bit(name):
    array = np.asarray(CONSTANTS[name])
    program = Program((("y", constant(array, array.dtype.name)),))
    assert_round_trip(program)
    again = parse_program(format_program(program)).outputs[0][1].op.value.array
    assert (again.dtype, again.shape, again.tobytes()) == (
        array.dtype,
        array.shape,
        array.tobytes(),
    )


def test_another_process_reads_the_text():
    """Nothing is left in that process to be found by hash-consing."""
    text = format_program(every_primitive(), sources=True)
    script = (
        "import sys; from chainrule.compiler.ir.text import *\n"
        "text = sys.stdin.read(); program = parse_program(text)\n"
        "assert format_program(program, True) == text; print(len(program.nodes()))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert int(result.stdout) == len(every_primitive().nodes())


def test_a_deep_formula_comes_back():
    body = param("x")
    for _ in range(200):
        body = call("neg", body)
    assert_round_trip(
        Program((("y", make(ops.Map(Formula("deep", ("x",), body)), tensor("x", (3,)))),))
    )


def test_lines_read_well():
    x = tensor("x", (N, 4))
    w = tensor("w", (4, 3))
    i, j, k = (Affine(((axis, 1),)) for axis in range(3))
    y = make(ops.Contract((N, 3, 4), ((i, k), (k, j)), (i, j), (N, 3)), x, w)
    program = Program((("y", apply("mul", y, constant(2, "float32"))),), name="dense")
    assert format_program(program) == (
        'program "dense"\n'
        '  %0 = input() label="x" : float32(n, 4)\n'
        '  %1 = input() label="w" : float32(4, 3)\n'
        "  %2 = contract(%0, %1) sizes=(n, 3, 4) maps=([i0, i2], [i2, i1]) output_map=[i0, i1]"
        " output_shape=(n, 3) : float32(n, 3)\n"
        "  %3 = constant() value=float32()[2.0] : float32()\n"
        "  %4 = mul(%2, %3) : float32(n, 3)\n"
        '  output "y" = %4\n'
    )
    assert format_node(y).startswith(f"%{y.serial} = contract(%{x.serial}, ")
    assert format_nodes([y]).count("\n") == 2


HEAD = 'program "p"\n'
BAD = {
    "expected 'program'": "%0 = training() : bool()",
    "line 1": "",
    "line 2: no operator is called 'frobnicate'": HEAD + "%0 = frobnicate() : bool()",
    "line 2: %7 is used before it is defined": HEAD + "%0 = neg(%7) : float32()",
    "line 3: %0 is defined twice": HEAD + "%0 = training() : bool()\n%0 = training() : bool()",
    "gives bool.*, not float32": HEAD + "%0 = training() : float32()",
    "unknown dtype 'float33'": HEAD + '%0 = input() label="x" : float33(3)',
    "neg: needs numeric": HEAD + "%0 = training() : bool()\n%1 = neg(%0) : bool()",
    "cannot read": HEAD + '%0 = input() label="x : float32(3)',
    "unexpected 'more'": HEAD + "%0 = training() : bool() more",
    "expected 'shape'": HEAD + "%0 = training() : bool()\n%1 = reshape(%0) size=() : bool()",
    "needs 3 elements": HEAD + "%0 = constant() value=float32(3)[1.0] : float32(3)",
    "needs 12 bytes": HEAD + '%0 = constant() value=float32(3) hex "00" : float32(3)',
    "hex is damaged": HEAD + '%0 = constant() value=float32(3) hex "zz" : float32(3)',
    "base64 is damaged": HEAD + '%0 = constant() value=float32(3) base64 "!" : float32(3)',
    "shape is known": HEAD + "%0 = constant() value=float32(n)[1.0] : float32(n)",
    "is no int32": HEAD + "%0 = constant() value=int32()[99999999999] : int32()",
    "no elementary function": HEAD + '%0 = input() label="x" : float32()\n'
    '%1 = map(%0) function="f"(x) -> system(x) : float32()',
    "neg takes 1 arguments": HEAD + '%0 = input() label="x" : float32()\n'
    '%1 = map(%0) function="f"(x) -> neg(x, x) : float32()',
    "floordiv needs": HEAD + "%0 = extent() dim=floordiv(n, 0) dtype=int64 : int64()",
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_wrong_is_said(message):
    with pytest.raises(GraphError, match=message):
        parse_program(BAD[message])


def test_damage_never_escapes_as_another_error():
    text = format_program(every_primitive(), sources=True)
    rng = random.Random(0)
    characters = '%0123456789abcxyz()[]"=:+-*,@ \n.\\'
    for _ in range(1500):
        damaged = list(text)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(damaged))
            kind = rng.randrange(3)
            if kind == 0:
                damaged[place] = rng.choice(characters)
            elif kind == 1:
                del damaged[place : place + rng.randint(1, 12)]
            else:
                damaged.insert(place, rng.choice(characters))
        try:
            parse_program("".join(damaged))
        except GraphError:
            pass
        except TypeError as error:  # GraphTypeError is one
            pytest.fail(f"{error!r}")


def test_deep_nesting_is_refused_not_fatal():
    text = HEAD + '%0 = input() label="x" : float32()\n%1 = map(%0) function="f"(x) -> '
    text += "neg(" * 50_000 + "x" + ")" * 50_000 + " : float32()"
    with pytest.raises(GraphError):
        parse_program(text)


def test_a_term_of_numpy_numbers_is_printed_as_numbers():
    formula = Formula("f", ("x",), Term("add", (param("x"), number(np.float64(0.5)))))
    node = make(ops.Map(formula), tensor("x", ()))
    assert "add(x, 0.5)" in format_node(node)
