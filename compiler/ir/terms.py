"""Scalar terms as graphs of elementwise nodes, and back."""

from __future__ import annotations

from collections.abc import Mapping

from . import construct, ops
from .graph import Node, apply, constant, scalar_value
from .scalars import Formula, Term, call, number, param, subterms


def inline_term(term: Term, bindings: Mapping[str, Node], dtype: str) -> Node:
    """Return nodes that compute ``term``, its parameters bound to nodes.

    Numbers become 0-d constants of ``dtype``.
    """
    built: dict[int, Node] = {}
    for item in subterms(term):
        if item.op == "param":
            node = bindings[str(item.value)]
        elif item.op == "number":
            node = constant(item.value, dtype)
        else:
            node = apply(item.op, *(built[id(arg)] for arg in item.args))
        built[id(item)] = node
    return built[id(term)]


def inline_formula(formula: Formula, inputs: tuple[Node, ...]) -> Node:
    """Return nodes that compute ``formula`` of ``inputs``, of the shape they broadcast to."""
    bindings = dict(zip(formula.params, inputs, strict=True))
    node = inline_term(formula.body, bindings, inputs[0].dtype)
    shape = construct.broadcast_shapes(*(x.shape for x in inputs))
    return construct.broadcast_to(node, shape)


def extract_term(node: Node, leaves: Mapping[Node, str]) -> Term:
    """Return the term that a graph of elementwise nodes computes from ``leaves``.

    Raises KeyError at a node that is neither elementwise, a number nor a leaf.
    """
    done: dict[Node, Term] = {leaf: param(name) for leaf, name in leaves.items()}
    stack = [node]
    while stack:
        item = stack[-1]
        if item in done:
            stack.pop()
            continue
        value = scalar_value(item)
        if value is not None:
            done[item] = number(value)
            continue
        if not isinstance(item.op, (ops.Map, ops.Broadcast)):
            raise KeyError(f"{item!r} is not elementwise")
        missing = [x for x in item.inputs if x not in done]
        if missing:
            stack.extend(missing)
            continue
        terms = [done[x] for x in item.inputs]
        if isinstance(item.op, ops.Broadcast):
            done[item] = terms[0]
        elif isinstance(item.op.function, Formula):
            formula = item.op.function
            done[item] = substitute(formula.body, dict(zip(formula.params, terms, strict=True)))
        else:
            done[item] = call(item.op.function, *terms)
    return done[node]


def substitute(term: Term, bindings: Mapping[str, Term]) -> Term:
    """Return ``term`` with parameters replaced."""
    built: dict[int, Term] = {}
    for item in subterms(term):
        if item.op == "param":
            built[id(item)] = bindings.get(str(item.value), item)
        elif item.args:
            built[id(item)] = Term(item.op, tuple(built[id(arg)] for arg in item.args))
        else:
            built[id(item)] = item
    return built[id(term)]


def parameters(term: Term) -> tuple[str, ...]:
    """Return the names of the parameters of ``term``, in order of first appearance."""
    names: dict[str, None] = {}
    for item in subterms(term):
        if item.op == "param":
            names[str(item.value)] = None
    return tuple(names)
