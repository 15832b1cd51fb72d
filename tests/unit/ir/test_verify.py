"""Verification: sound programs pass, and each rule catches what breaks it."""

from __future__ import annotations

import pytest

from chainrule.compiler.errors import SourceLine, VerificationError
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.dims import SymbolicDim
from chainrule.compiler.ir.graph import Node, Program, Requirement, apply, constant, make
from chainrule.compiler.ir.ops import Affine
from chainrule.compiler.ir.scalars import Formula, Term, call, number, param
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.ir.verify import verify_program

N = SymbolicDim.of("n")
LINE = SourceLine("model.py", 12, "forward")


def tensor(name: str, shape: tuple = (3,), dtype: str = "float32") -> Node:
    return make(ops.Input(name, TensorType(dtype, shape)))


def state(label: str, key: int, role: str = "parameter", dtype: str = "float32") -> Node:
    return make(ops.State(label, TensorType(dtype, (3,)), role, key))


def returning(node: Node) -> Program:
    return Program((("y", node),))


def forged(op: ops.Op, kind: TensorType, *inputs: Node) -> Node:
    """Return a node that `make` would not build."""
    node = Node.__new__(Node)
    node.op, node.inputs, node.type, node.source, node.serial = op, inputs, kind, LINE, 10**9
    return node


def test_a_sound_program_passes():
    x, w = tensor("x", (N, 3)), state("w", 5001)
    y = apply("add", x, w)
    swish = Formula(
        "f", ("a",), call("where", call("lt", param("a"), number(0)), param("a"), number(1.5))
    )
    verify_program(
        Program(
            (("y", y), ("z", make(ops.Map(swish), y))), ((w, make(ops.Reduce("sum", (0,)), y)),)
        )
    )


def cyclic() -> Node:
    x = tensor("x")
    a = forged(ops.Map("add"), x.type, x, x)
    a.inputs = (x, forged(ops.Map("neg"), x.type, a))
    return a


def formula_node(body: Term, *params: str) -> Node:
    params = params or ("a",)
    return make(ops.Map(Formula("f", params, body)), *[tensor(p) for p in params])


FLOAT3 = TensorType("float32", (3,))
_I, _J = Affine(((0, 1),)), Affine(((1, 1),))

BROKEN = {
    "has a cycle": cyclic,
    "is marked float64": lambda: forged(ops.Map("neg"), TensorType("float64", (3,)), tensor("x")),
    "ill-typed": lambda: forged(ops.Map("add"), FLOAT3, tensor("x")),
    "cannot be typed": lambda: forged(ops.Gather(0), FLOAT3, tensor("x")),
    "has a twin": lambda: forged(ops.Map("neg"), FLOAT3, tensor("x")),
    "which is no node": lambda: forged(ops.Map("neg"), FLOAT3, 3),
    "negative dimension": lambda: tensor("x", (-1,)),
    "role 'weights'": lambda: state("w", 5002, role="weights"),
    "an extent is a number": lambda: make(ops.Extent(3, "bool")),
    "axis 2 does not fit": lambda: make(ops.Iota(FLOAT3, 2)),
    "an index is a number": lambda: make(ops.Iota(TensorType("bool", (3,)), 0)),
    "word 2": lambda: make(ops.RandomBits((3,), 0, 2), make_seed()),
    "stream -1": lambda: make(ops.RandomBits((3,), -1, 0), make_seed()),
    "are not distinct": lambda: make(
        ops.Map(Formula("f", ("a", "a"), param("a"))), tensor("x"), tensor("x")
    ),
    "none of its parameters": lambda: formula_node(param("b")),
    "is no int or float": lambda: formula_node(call("add", param("a"), Term("number", (), "1"))),
    "no elementary function": lambda: formula_node(Term("system", (param("a"),))),
    "neg 2 arguments": lambda: formula_node(Term("neg", (param("a"), param("a")))),
    "logical_not arguments of types number": lambda: formula_node(call("logical_not", param("a"))),
    "add arguments of types bool, number": lambda: formula_node(
        call("add", call("isnan", param("a")), param("a"))
    ),
    "where arguments of types number": lambda: formula_node(
        call("where", param("a"), param("a"), param("a"))
    ),
    "bit_and arguments": lambda: formula_node(call("bit_and", param("a"), param("a"))),
    "the formula gives bool, the node": lambda: formula_node(
        call("where", *[call("isnan", param("a"))] * 3)
    ),
    "an index beyond the 1 sizes": lambda: make(
        ops.Contract((3,), ((_J,), ()), (_I,), (3,)), tensor("x"), constant(1, "float32")
    ),
    "mentions an index twice": lambda: make(
        ops.Contract((3,), ((Affine(((0, 1), (0, 1))),), ()), (_I,), (3,)),
        tensor("x"),
        constant(1, "float32"),
    ),
    "index has a negative size": lambda: make(
        ops.Contract((-3,), ((_I,), ()), (_I,), (3,)), tensor("x"), constant(1, "float32")
    ),
    "interior padding is negative": lambda: make(ops.Pad((5,), (0,), (-1,)), tensor("x")),
    "a start is negative": lambda: make(ops.Slice((-1,), (0,), (1,)), tensor("x")),
    "axes .0, 0. are not distinct": lambda: make(ops.Flip((0, 0)), tensor("x")),
    "no input's shape tells the size n": lambda: make(ops.Broadcast((N, 3)), tensor("x")),
    "two inputs are called 'x'": lambda: apply("add", tensor("x"), tensor("x", (1,))),
    "two states have key 5003": lambda: apply("add", state("a", 5003), state("b", 5003)),
}


def make_seed() -> Node:
    return make(ops.State("seed", TensorType("int64", ()), "random", 5004))


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_rule_is_named(message):
    with pytest.raises(VerificationError, match=message):
        verify_program(returning(BROKEN[message]()))


def test_programs_rules():
    x, w = tensor("x"), state("w", 5005)
    for program, message in [
        (Program((("y", x), ("y", w))), "two outputs are called 'y'"),
        (Program((), ((x, x),)), "replaces what is no state"),
        (Program((), ((w, x), (w, w))), "updated twice"),
        (Program((), ((w, make(ops.Cast("float64"), x)),)), "gets a value of type float64"),
    ]:
        with pytest.raises(VerificationError, match=message):
            verify_program(program)


def test_a_size_may_be_told_from_outside():
    loose = returning(make(ops.Broadcast((N, 3)), tensor("x")))
    verify_program(loose, sizes=frozenset({"n"}))


def test_a_requirement_is_on_an_input():
    x = tensor("x", dtype="int64")
    for node, fits in ((x, True), (apply("neg", x), False)):
        needed = Requirement(node, 0, 10, None, "label", None)
        program = Program((("y", apply("neg", x)),), requirements=(needed,))
        if fits:
            verify_program(program)
        else:
            with pytest.raises(VerificationError, match="no input"):
                verify_program(program)


def test_the_piece_at_fault_and_the_line_are_shown():
    x = tensor("x")
    bad = forged(ops.Map("neg"), TensorType("float64", (3,)), x)
    with pytest.raises(VerificationError) as caught:
        verify_program(returning(bad))
    assert str(caught.value).splitlines() == [
        "model.py:12: is marked float64(3,), but has type float32(3,)",
        f"  %1000000000 = neg(%{x.serial}) : float64(3)",
        f'  %{x.serial} = input() label="x" : float32(3)',
    ]
