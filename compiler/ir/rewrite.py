"""The rule engine: rewrite rules as data, applied bottom-up to a fixpoint in one pass.

An elementwise rule is written as it is read::

    Rule("log_of_one_plus_exp_to_softplus", "log(exp(x) + 1)", "softplus(x)", why="...")

In a pattern a lower-case name stands for any value (the same value each time), a name that begins
with ``c`` for a constant of equal elements, a number for itself.  ``+`` and ``*`` match in either
order; broadcasts are seen through.  ``x - 1`` is read as ``x + -1`` and ``1 / x`` as
``reciprocal(x)``, which is how `canonicalize` spells them.  A rule about other primitives gives a
Python function for ``after`` and the operator class it starts from.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import VerificationError, locate
from . import construct, ops
from .bodies import rebuilt, through_bodies
from .graph import Node, Program, apply, constant, make, scalar_value, topological
from .scalars import SCALAR_FUNCTIONS, Formula, Term, call, number, param

Bindings = dict[str, Node]
Pattern = tuple  # ("any", name) | ("constant", name) | ("number", value) | (function, *patterns)
Replacement = Callable[[Node], "Node | None"]
OnFire = Callable[["Rule", Node, Node], None]

_LEAVES = frozenset({"any", "constant", "number"})
_COMMUTATIVE = frozenset({"add", "mul"})


@dataclass(frozen=True, eq=False)
class Rule:
    """``before → after`` where ``when`` holds; ``why`` says that it is numerically safe.

    ``name`` is a sentence.  With ``root``, ``before`` and ``after`` are documentation and
    ``replace`` does the work: it returns the new node, or None where the rule does not apply.
    ``whole`` makes ``after`` one `Formula`, whose derivatives are taken of it as a whole.
    """

    name: str
    before: str
    after: str
    why: str
    when: Callable[[Bindings], bool] | None = None
    root: type[ops.Op] | str | None = None
    replace: Replacement | None = None
    whole: bool = False
    key: object = field(init=False)
    _match: tuple[Pattern, Pattern | None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.replace is None:
            before, after = _parse(self.before), _parse(self.after)
            object.__setattr__(self, "key", before[0])
            object.__setattr__(self, "_match", (before, after))
        else:
            object.__setattr__(self, "key", self.root)
            object.__setattr__(self, "_match", ((), None))

    def __call__(self, node: Node) -> Node | None:
        """Return what ``node`` becomes, or None where the rule does not apply."""
        if self.replace is not None:
            return self.replace(node)
        before, after = self._match
        assert after is not None
        bindings: Bindings = {}
        if not match(before, node, bindings) or (self.when and not self.when(bindings)):
            return None
        if self.whole:
            formula = Formula(self.after, tuple(bindings), term_of(after))
            return construct.broadcast_to(apply(formula, *bindings.values()), node.shape)
        return construct.broadcast_to(build(after, bindings, _dtype(node)), node.shape)


def _dtype(node: Node) -> str:
    """Return the element type of the numbers of a pattern rooted at ``node``."""
    return node.inputs[-1].dtype


# -- patterns -------------------------------------------------------------------------------------

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.USub: "neg",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
}


def _parse(text: str) -> Pattern:
    return _read(ast.parse(text, mode="eval").body)


def _read(tree: ast.AST) -> Pattern:
    match tree:
        case ast.Constant(value=value):
            return ("number", value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)):
            return ("number", -value)  # type: ignore[operator]
        case ast.UnaryOp(op=operator, operand=operand):
            return (_OPERATORS[type(operator)], _read(operand))
        case ast.BinOp(left=left, op=ast.Sub(), right=ast.Constant(value=value)):
            return ("add", _read(left), ("number", -value))  # type: ignore[operator]
        case ast.BinOp(left=ast.Constant(value=1), op=ast.Div(), right=right):
            return ("reciprocal", _read(right))
        case ast.BinOp(left=left, op=operator, right=right):
            return (_OPERATORS[type(operator)], _read(left), _read(right))
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            return (_OPERATORS[type(operator)], _read(left), _read(right))
        case ast.Call(func=ast.Name(id=name), args=args):
            if name not in SCALAR_FUNCTIONS or len(args) != SCALAR_FUNCTIONS[name].arity:
                raise ValueError(f"no elementary function {name} of {len(args)} arguments")
            return (name, *map(_read, args))
        case ast.Name(id=name):
            if name in {"nan", "inf"}:
                return ("number", float(name))
            return ("constant" if name.startswith("c") else "any", name)
        case _:
            raise ValueError(f"no pattern: {ast.unparse(tree)}")


def strip(node: Node) -> Node:
    """Return ``node`` without the broadcasts around it."""
    while isinstance(node.op, ops.Broadcast):
        node = node.inputs[0]
    return node


def match(pattern: Pattern, node: Node, bindings: Bindings) -> bool:
    """Return whether ``pattern`` matches ``node``; ``bindings`` gets what its names stand for."""
    head = pattern[0]
    if head not in _LEAVES:
        node = strip(node)
        if not isinstance(node.op, ops.Map) or node.op.function != head:
            return False
        return _match_inputs(pattern, node.inputs, bindings)
    if head == "number":
        return scalar_value(node) == pattern[1]
    if head == "constant" and scalar_value(node) is None:
        return False
    return bindings.setdefault(pattern[1], node := strip(node)) is node


def _match_inputs(pattern: Pattern, inputs: Sequence[Node], bindings: Bindings) -> bool:
    if len(inputs) == 1:
        return match(pattern[1], inputs[0], bindings)
    if pattern[0] not in _COMMUTATIVE:
        return all(match(p, x, bindings) for p, x in zip(pattern[1:], inputs, strict=True))
    (_, p, q), (a, b) = pattern, inputs
    for first, second in ((a, b), (b, a)):
        trial = dict(bindings)
        if match(p, first, trial) and match(q, second, trial):
            bindings.update(trial)
            return True
    return False


_SMART: Mapping[str, Callable[..., Node]] = {
    "mul": construct.mul,
    "div": construct.div,
    "neg": construct.neg,
    "add": construct.add,
    "where": construct.where,
}


def build(pattern: Pattern, bindings: Bindings, dtype: str) -> Node:
    """Return the nodes of ``pattern`` with its names replaced."""
    head = pattern[0]
    if head == "number":
        return constant(pattern[1], dtype)
    if head in _LEAVES:
        return bindings[pattern[1]]
    args = [build(p, bindings, dtype) for p in pattern[1:]]
    if head in _SMART:
        return _SMART[head](*args)
    return apply(head, *args)


def term_of(pattern: Pattern) -> Term:
    """Return ``pattern`` as a scalar term, its names as parameters."""
    if pattern[0] == "number":
        return number(pattern[1])
    if pattern[0] in _LEAVES:
        return param(pattern[1])
    return call(pattern[0], *map(term_of, pattern[1:]))


# -- the engine -----------------------------------------------------------------------------------

#: A node that is rewritten more often than this has two rules that undo each other.
_PATIENCE = 200
#: So has a program of n nodes in which more than this and 50 n rules fire.
_BUDGET = 2000


class _Pass:
    def __init__(self, rules: Iterable[Rule], on_fire: OnFire | None) -> None:
        self.by_key: dict[object, list[Rule]] = {}
        for rule in rules:
            self.by_key.setdefault(rule.key, []).append(rule)
        self.on_fire = on_fire
        self.fired, self.budget = 0, _BUDGET
        self.settled: dict[Node, Node] = {}

    def settle(self, root: Node) -> Node:
        """Return ``root`` with no rule left to apply to it or below it."""
        stack: list[tuple[Node, list[Node]]] = [(root, [])]  # a node, and what became it
        while stack:
            node, history = stack[-1]
            if node not in self.settled:
                missing = [x for x in node.inputs if x not in self.settled]
                if missing:
                    stack.extend((x, []) for x in reversed(missing))
                    continue
                inputs = tuple(self.settled[x] for x in node.inputs)
                now = node
                if inputs != node.inputs:
                    now = make(node.op, *inputs, source=node.source)
                after = self.settled.get(now)
                if after is None:
                    after = self.fire(now)
                    if after is now:
                        self.settled[now] = now
                    elif after not in self.settled:
                        self.fired += 1
                        if len(history) > _PATIENCE or self.fired > self.budget:
                            message = f"rules undo each other at {node!r}"
                            raise VerificationError(locate(message, node.source))
                        stack[-1] = (after, [*history, node, now])
                        continue
                self.settled[node] = self.settled[after]
            for earlier in history:
                self.settled[earlier] = self.settled[node]
            stack.pop()
        return self.settled[root]

    def fire(self, node: Node) -> Node:
        """Return what the first rule that applies makes of ``node``; ``node`` where none does."""
        op = node.op
        key: object = type(op)
        if isinstance(op, ops.Map):
            key = Formula if isinstance(op.function, Formula) else op.function
            rules = [*self.by_key.get(key, ()), *self.by_key.get(ops.Map, ())]
        else:
            rules = self.by_key.get(key, ())
        for rule in rules:
            after = rule(node)
            if after is not None and after is not node:
                if after.type != node.type:
                    message = f"{rule.name} made {after.type} of {node!r}"
                    raise VerificationError(locate(message, node.source))
                if self.on_fire is not None:
                    self.on_fire(rule, node, after)
                return after
        return node


def rewrite_nodes(
    roots: Sequence[Node], rules: Iterable[Rule], on_fire: OnFire | None = None
) -> list[Node]:
    """Return ``roots`` rewritten by ``rules`` until none applies; see `apply_rules`."""
    rules = tuple(rules)

    def rewritten(roots: Sequence[Node]) -> list[Node]:
        work = _Pass(rules, on_fire)
        order = topological(roots)
        work.budget += 50 * len(order)
        for node in order:
            work.settle(node)
        return [work.settled[root] for root in roots]

    return through_bodies(roots, rewritten)


def apply_rules(program: Program, rules: Iterable[Rule], on_fire: OnFire | None = None) -> Program:
    """Return ``program`` with ``rules`` applied, inputs before their users, until none applies.

    Bodies of loops and branches are rewritten first, each as a graph of its own.
    Of the rules that match a node the first one fires.  ``on_fire(rule, before, after)`` hears of
    each.  Raises VerificationError where a rule changes a type or rules undo each other.
    """
    return program.with_roots(rewrite_nodes(program.roots, rules, on_fire))


def replace_nodes(roots: Sequence[Node], substitute: Callable[[Node], Node | None]) -> list[Node]:
    """Return ``roots`` rebuilt with each node for which ``substitute`` gives another one replaced.

    ``substitute`` sees nodes whose inputs have been replaced already, in bodies too.
    """

    def replaced(roots: Sequence[Node]) -> list[Node]:
        done: dict[Node, Node] = {}
        for node in topological(roots):
            now = rebuilt(node, tuple(done[x] for x in node.inputs))
            done[node] = substitute(now) or now
        return [done[root] for root in roots]

    return through_bodies(roots, replaced)
