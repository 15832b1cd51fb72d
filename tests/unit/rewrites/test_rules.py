"""Every elementwise rule: alone, through the whole phase, and by value."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler.autodiff.expand import expand_formulas
from chainrule.compiler.errors import VerificationError
from chainrule.compiler.ir import ops
from chainrule.compiler.ir.graph import Program, apply, constant, make, topological
from chainrule.compiler.ir.rewrite import Rule, apply_rules, build, rewrite_nodes
from chainrule.compiler.ir.scalars import Formula
from chainrule.compiler.ir.types import TensorType
from chainrule.compiler.rewrites import algebraic, canonicalize, folding, stability
from chainrule.runtime.interpreter import run_program

ALL = stability.RULES
WRITTEN = [rule for rule in ALL if rule.replace is None]
#: Points inside the domain of both sides, for rules that need care.
RANGE = {
    "log_of_one_minus": (-3, 0.9), "log_of_one_plus": (-0.9, 3), "log_of_one_minus_exp": (-5, -0.1),
    "log1p_over_argument": (-0.9, 3), "log_of_reciprocal": (0.1, 5), "expm1_of_log1p": (-0.9, 4),
    "log_of_exp_times": (0.1, 3), "log_of_exp_over": (0.1, 3), "exp_of_log": (0.1, 5),
    "log_over_argument_minus_one": (0.1, 5), "reciprocal_root": (0.1, 5), "log_of_sum_over": (1, 2),
    "log_of_sum_times": (1, 2),
}  # fmt: skip


def leaf(name, shape=(7,), dtype="float64"):
    return make(ops.Input(name, TensorType(dtype, shape)))


def names_of(pattern, kind):
    if pattern[0] == kind:
        return {pattern[1]}
    if pattern[0] in {"any", "constant", "number"}:
        return set()
    return set().union(*(names_of(p, kind) for p in pattern[1:]))


def bindings_of(rule):
    before = rule._match[0]
    truths = {"p"} if before[0] == "where" else set()
    nodes = {
        n: leaf(n, dtype="bool" if n in truths else "float64") for n in names_of(before, "any")
    }
    values = {"c": 4.0 if rule.name == "divide_by_power_of_two" else 0.375, "c2": 1.7}
    nodes |= {n: constant(values[n], "float64") for n in names_of(before, "constant")}
    return nodes


def values_of(node, rule):
    rng = np.random.default_rng(3)
    arrays = {}
    for x in topological([node]):
        if isinstance(x.op, ops.Input):
            low, high = RANGE.get(rule.name, (-2, 2))
            values = rng.uniform(low, high, x.shape)
            arrays[x.op.label] = values > 0 if x.dtype == "bool" else values
    return arrays


def run(node, arrays):
    program = Program((("o", node),))
    used = {n.op.label for n in program.inputs()}
    outputs, _ = run_program(program, {k: v for k, v in arrays.items() if k in used})
    return outputs["o"]


def plain_build(pattern, bindings):
    """Build exactly what the pattern says, without any smart constructor."""
    if pattern[0] == "number":
        return constant(pattern[1], "float64")
    if pattern[0] in {"any", "constant"}:
        return bindings[pattern[1]]
    return apply(pattern[0], *(plain_build(p, bindings) for p in pattern[1:]))


# These need an operand of a certain form; they are tested below.
CONDITIONAL = {"log_of_sum_over", "log_of_sum_times"}
SIMPLE = [rule for rule in WRITTEN if rule.name not in CONDITIONAL]


@pytest.mark.parametrize("rule", SIMPLE, ids=lambda r: r.name)
def test_a_rule_alone(rule):
    bindings = bindings_of(rule)
    before = plain_build(rule._match[0], bindings)
    fired = []
    (after,) = rewrite_nodes([before], [rule], lambda r, *_: fired.append(r.name))
    assert rule.name in fired, f"{rule.before} was not matched"
    assert after is not before
    if rule.whole:
        assert isinstance(after.op.function, Formula)
    else:
        assert after is rewrite_nodes([build(rule._match[1], bindings, "float64")], [rule])[0]


@pytest.mark.parametrize("rule", SIMPLE, ids=lambda r: r.name)
def test_a_rule_keeps_the_value(rule):
    before = plain_build(rule._match[0], bindings_of(rule))
    (after,) = rewrite_nodes([before], [rule])
    arrays = values_of(before, rule)
    np.testing.assert_allclose(run(after, arrays), run(before, arrays), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", SIMPLE, ids=lambda r: r.name)
def test_a_rule_through_the_whole_phase(rule):
    """Both sides end as one graph: no earlier rule renames the pattern away."""
    bindings = bindings_of(rule)
    before = plain_build(rule._match[0], bindings)
    arrays = values_of(before, rule)
    (settled,) = stability.stabilize_nodes([before])
    if not rule.whole:
        (wanted,) = stability.stabilize_nodes([build(rule._match[1], bindings, "float64")])
        assert settled is wanted
    else:
        assert any(
            isinstance(getattr(n.op, "function", None), Formula) for n in topological([settled])
        )
    expanded = expand_formulas(Program((("o", settled),)))
    ((_, final),) = algebraic.simplify_algebra(expanded).outputs
    np.testing.assert_allclose(run(final, arrays), run(before, arrays), rtol=1e-9, atol=1e-12)


def test_names_are_unique_sentences():
    counts = Counter(rule.name for rule in ALL)
    assert [name for name, count in counts.items() if count > 1] == []
    assert all(rule.why and rule.before and rule.after for rule in ALL)


def test_rules_that_undo_each_other_are_reported():
    there = Rule("there", "sin(x)", "cos(x)", "wrong")
    back = Rule("back", "cos(x)", "sin(x)", "wrong")
    with pytest.raises(VerificationError, match="undo each other"):
        rewrite_nodes([apply("sin", leaf("x"))], [there, back])


def test_a_rule_that_changes_the_type_is_reported():
    wrong = Rule(
        "wrong", "sin(x)", "x > 0", "wrong", root="sin",
        replace=lambda node: apply("isnan", node.inputs[0]),
    )  # fmt: skip
    with pytest.raises(VerificationError, match="wrong made bool"):
        rewrite_nodes([apply("sin", leaf("x"))], [wrong])


def test_counts_of_fired_rules():
    x = leaf("x")
    one = constant(1, "float64")
    program = Program((("o", apply("log", apply("add", one, apply("exp", x)))),))
    counts: Counter[str] = Counter()
    result = apply_rules(program, ALL, lambda rule, *_: counts.update([rule.name]))
    assert result.outputs[0][1] is apply("softplus", x)
    assert counts == {"order_of_sum": 1, "log_of_one_plus_exp_to_softplus": 1}


def test_integers_keep_their_meaning():
    i = leaf("i", dtype="int64")
    zero, one, two = (constant(v, "int64") for v in (0, 1, 2))
    assert rewrite_nodes([apply("add", i, zero)], ALL)[0] is i
    assert rewrite_nodes([apply("mul", i, one)], ALL)[0] is i
    kept = rewrite_nodes([apply("sub", i, two)], ALL)[0]
    assert run(kept, {"i": np.arange(7)}).tolist() == [-2, -1, 0, 1, 2, 3, 4]


def test_folding_and_modes():
    x = leaf("x")
    mode = make(ops.Training())
    node = apply("where", mode, apply("sin", x), apply("mul", x, constant(3, "float64")))
    program = Program((("o", node),))
    training = canonicalize.canonicalize(folding.specialize_mode(program, True))
    assert training.outputs[0][1] is apply("sin", x)
    inference = canonicalize.canonicalize(folding.specialize_mode(program, False))
    assert inference.outputs[0][1] is apply("mul", x, constant(3, "float64"))
    known = apply("exp", apply("add", constant([1.0, 2], "float64"), constant(1, "float64")))
    ((_, folded),) = folding.fold_constants(Program((("o", known),))).outputs
    np.testing.assert_allclose(folded.op.value.array, np.exp([2.0, 3]))


@pytest.mark.parametrize("scale", [-1.0, 1.0, -3.0, 0.5])
def test_softmax_of_any_multiple_is_shifted_once(scale):
    """However algebra spells the difference from the maximum, it is recognised."""
    x = cr.input("x", (3, 4))
    scaled = -x if scale == -1.0 else x * scale
    weights = cr.exp(scaled - cr.stop_gradient(scaled.max(1, keepdims=True)))
    value = (weights / weights.sum(1, keepdims=True) * np.arange(4.0, dtype=np.float32)).sum()
    nodes = stability.stabilize_nodes([cr.grad(value, [x])[0].node, value.node])
    maxima = {n for n in topological(nodes) if isinstance(n.op, ops.Reduce) and n.op.kind != "sum"}
    assert len(maxima) == 1


@pytest.mark.parametrize(
    ("function", "shape", "axes", "moved"),
    [
        ("div", (3, 1), (2,), True),
        ("mul", (3, 1), (0, 2), True),
        ("mul", (2, 1, 1), (1, 2), True),
        ("mul", (4,), (1,), True),
        ("div", (4,), (0,), True),
        ("mul", (2, 3, 1), (1,), False),
        ("div", (3, 4), (2,), False),
    ],
)
def test_a_factor_of_a_whole_row_leaves_the_sum(function, shape, axes, moved):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((2, 3, 4)), "c": rng.uniform(1, 2, shape)}
    x, c = leaf("x", (2, 3, 4)), leaf("c", shape)
    total = make(ops.Reduce("sum", axes), apply(function, x, c))
    (after,) = rewrite_nodes([total], algebraic.RULES)
    assert isinstance(after.op, ops.Map) == moved
    values, _ = run_program(Program((("before", total), ("after", after))), arrays)
    np.testing.assert_allclose(values["after"], values["before"], rtol=1e-13)


def test_the_gradient_of_a_softmax_divides_once_an_element():
    x, g = cr.input("x", ("rows", 40)), cr.input("g", ("rows", 40))
    (slope,) = cr.grad([cr.F.softmax(x)], [x], [g])
    program = algebraic.simplify_algebra(Program((("slope", slope.node),)))
    wide = [n for n in program.nodes() if n.op.name == "div" and n.type.rank == 2]
    assert len([n for n in wide if n.shape[1] != 1]) == 1
