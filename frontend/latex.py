"""Graphs as readable mathematics: LaTeX, and plain text with Unicode for terminals.

One walk makes both: a `Style` says how a quotient, a sum or a root looks.  Softmax, log-softmax,
means and matrix products are recognised; a subexpression that is long and used more than once is
named, and its definition follows under "where".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..compiler.autodiff.reverse import gradient
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, scalar_value, topological
from ..compiler.ir.rewrite import strip
from ..compiler.ir.scalars import Formula
from ..compiler.ir.terms import inline_formula
from ..compiler.rewrites.stability import stabilize_nodes

#: A shared subexpression whose text is longer than this gets a name.
_LONG = 24
# Levels of binding: a sum, a product, a prefix, a power, an atom.
_SUM, _PRODUCT, _POWER, _ATOM = 1, 2, 4, 5
Text = tuple[str, int]
_INDICES = "ijklmn"
_WORD = re.compile(r"\\?[A-Za-z]\w*(?:\{\d+\})?")


@dataclass(frozen=True)
class Style:
    """How mathematics is written: templates, ``{0}`` and ``{1}`` are the operands."""

    fraction: str
    fraction_level: int
    power: str
    root: str
    absolute: str
    total: str
    mean: str
    maximum: str
    times: str
    cases: str
    functions: dict[str, str]
    call: str
    subscript: str
    where: str
    define: str
    line: str
    letters: tuple[str, ...]
    signs: dict[str, str]


_LATEX = Style(
    fraction=r"\frac{{{0}}}{{{1}}}",
    fraction_level=_ATOM,
    power="{{{0}}}^{{{1}}}",
    root=r"\sqrt{{{0}}}",
    absolute=r"\left|{0}\right|",
    total=r"\sum_{{{1}}} {0}",
    mean=r"\frac{{1}}{{{2}}} \sum_{{{1}}} {0}",
    maximum=r"\{2}_{{{1}}} {0}",
    times=r"{0} \, {1}",
    cases=r"\begin{{cases}} {1} & {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
    functions={
        "exp": r"\exp", "log": r"\log", "tanh": r"\tanh", "sin": r"\sin", "cos": r"\cos",
        "tan": r"\tan", "sinh": r"\sinh", "cosh": r"\cosh", "sigmoid": r"\sigma",
        "maximum": r"\max", "minimum": r"\min", "lgamma": r"\log\Gamma", "digamma": r"\psi",
        "asin": r"\arcsin", "acos": r"\arccos", "atan": r"\arctan",
    },
    call=r"{0}\left({1}\right)",
    subscript="{0}_{{{1}}}",
    where=r"\text{where}",
    define="{0} = {1}",
    line=r" \\ ",
    letters=tuple("uvstqrgh"),
    signs={"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"},
)  # fmt: skip
_TEXT = Style(
    fraction="{0} / {1}",
    fraction_level=_PRODUCT,
    power="{0}^{1}",
    root="√({0})",
    absolute="|{0}|",
    total="Σ_{1} {0}",
    mean="1/{2} Σ_{1} {0}",
    maximum="{2}_{1} {0}",
    times="{0}·{1}",
    cases="({1} if {0} else {2})",
    functions={"sigmoid": "σ", "maximum": "max", "minimum": "min", "digamma": "ψ"},
    call="{0}({1})",
    subscript="{0}[{1}]",
    where="where",
    define="{0} = {1}",
    line="\n  ",
    letters=tuple("uvstqrgh"),
    signs={"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"},
)


def to_latex(node: Node, name: str | None = None) -> str:
    """Return the graph of ``node`` as LaTeX; with ``name``, as an equation."""
    return _Printer(node, _LATEX).document(name)


def to_text(node: Node, name: str | None = None) -> str:
    """Return the graph of ``node`` as plain text with Unicode, for terminals."""
    return _Printer(node, _TEXT).document(name)


class _HasNode(Protocol):
    """A tensor; ``tensor.py`` imports this module."""

    @property
    def node(self) -> Node: ...


def tensor_latex(tensor: _HasNode) -> str:
    """Return a tensor's formula as LaTeX, after the stability rules."""
    return to_latex(stabilize_nodes([tensor.node])[0])


def gradient_latex(loss: _HasNode, wrt: _HasNode) -> str:
    """Return the gradient of the 0-d ``loss`` with respect to ``wrt`` as LaTeX."""
    return to_latex(_gradient(loss, wrt))


def gradient_text(loss: _HasNode, wrt: _HasNode) -> str:
    """Return the gradient of the 0-d ``loss`` with respect to ``wrt`` as plain text."""
    return to_text(_gradient(loss, wrt))


def _gradient(loss: _HasNode, wrt: _HasNode) -> Node:
    (stable,) = stabilize_nodes([loss.node])
    return stabilize_nodes(gradient([stable], [wrt.node]))[0]


class _Printer:
    def __init__(self, root: Node, style: Style) -> None:
        self.root = root
        self.style = style
        self.latex = style is _LATEX
        order = topological([root])
        self.uses = Counter(strip(x) for node in order for x in node.inputs)
        self.names: dict[Node, str] = {}
        self.definitions: dict[str, str] = {}
        self.written: dict[Node, Text] = {}
        self.taken = {_label(n) for n in order}
        self.symbols = self.name_leaves([n for n in order if _label(n)])
        for node in order:  # inputs first, so that the recursion below is shallow
            self.text(node)

    def name_leaves(self, leaves: list[Node]) -> dict[Node, str]:
        """Return the symbol of each leaf; of several parameters of one name, with a number."""
        seen: Counter[str] = Counter()
        many = Counter(map(_label, leaves))
        symbols = {}
        for leaf in sorted(leaves, key=lambda n: getattr(n.op, "key", 0)):  # in order of making
            label = _label(leaf)
            symbol = _symbol(label, self.latex)
            if many[label] > 1:
                seen[label] += 1
                symbol += f"_{{{seen[label]}}}" if self.latex else f"{seen[label]}"
            symbols[leaf] = symbol
        return symbols

    def document(self, name: str | None) -> str:
        text = self.text(self.root)[0]
        if name:
            text = self.style.define.format(name, text)
        used = self.used_definitions(text)
        if not used:
            return text
        lines = [self.style.define.format(letter, self.definitions[letter]) for letter in used]
        return self.style.line.join([text, self.style.where, *lines])

    def used_definitions(self, text: str) -> list[str]:
        """Return the letters that ``text`` needs, through definitions, in order of definition."""
        used: set[str] = set()
        pending = [text]
        while pending:
            words = set(_WORD.findall(pending.pop()))
            fresh = [letter for letter in self.definitions if letter in words - used]
            used.update(fresh)
            pending += [self.definitions[letter] for letter in fresh]
        return [letter for letter in self.definitions if letter in used]

    def text(self, node: Node) -> Text:
        node = strip(node)
        if node in self.names:
            return self.names[node], _ATOM
        if node not in self.written:
            self.written[node] = text = self.write(node)
            shared = self.uses[node] > 1 and node.inputs and node is not self.root
            if shared and len(text[0]) > _LONG:
                self.names[node] = letter = self.letter()
                self.definitions[letter] = text[0]
                return letter, _ATOM
        return self.written[node]

    def letter(self) -> str:
        for letter in self.style.letters:
            if letter not in self.taken:
                self.taken.add(letter)
                return letter
        number = len(self.definitions) + 1
        return f"u_{{{number}}}" if self.latex else f"u{number}"

    def wrap(self, node: Node, level: int) -> str:
        text, own = self.text(node)
        if own >= level:
            return text
        return rf"\left({text}\right)" if self.latex else f"({text})"

    def write(self, node: Node) -> Text:
        if special := _recognise(node):
            function, x = special
            return self.call(function, x)
        writer = _WRITERS.get(type(node.op))
        if writer is not None:
            return writer(self, node)
        return self.call(node.op.name, *node.inputs)

    def call(self, function: str, *inputs: Node) -> Text:
        name = self.style.functions.get(function)
        if name is None:
            plain = function.replace("_", r"\_") if self.latex else function
            name = rf"\operatorname{{{plain}}}" if self.latex else plain
        args = ", ".join(self.text(x)[0] for x in inputs)
        return self.style.call.format(name, args), _ATOM

    # -- one writer for each primitive --

    def leaf(self, node: Node) -> Text:
        return self.symbols[node], _ATOM

    def iota(self, node: Node) -> Text:
        return "j" if node.type.rank == 1 else _INDICES[node.op.axis % 6], _ATOM  # type: ignore[attr-defined]

    def constant(self, node: Node) -> Text:
        value = scalar_value(node)
        if value is None:
            return (r"\mathbf{c}" if self.latex else "c"), _ATOM
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        text = f"{value:.7g}" if isinstance(value, float) else str(value)
        if self.latex and "e" in text:
            digits, exponent = text.split("e")
            factor = "" if digits == "1" else digits + r" \cdot "
            return f"{factor}10^{{{int(exponent)}}}", _PRODUCT
        return text, _SUM if text.startswith("-") else _ATOM

    def extent(self, node: Node) -> Text:
        text = str(node.op.dim)  # type: ignore[attr-defined]
        return _symbol(text, self.latex) if text.isidentifier() else text, _ATOM

    def map(self, node: Node) -> Text:
        function, inputs = node.op.function, node.inputs  # type: ignore[attr-defined]
        if isinstance(function, Formula):
            return self.text(inline_formula(function, inputs))
        if function in self.style.signs:
            sign = f" {self.style.signs[function]} "
            return self.wrap(inputs[0], _SUM) + sign + self.wrap(inputs[1], _SUM), 0
        if function in _ARITHMETIC:
            return _ARITHMETIC[function](self, *inputs)
        return self.call(function, *inputs)

    def add(self, a: Node, b: Node) -> Text:
        if not a.inputs and b.inputs:  # x W + b, not b + x W
            a, b = b, a
        right = self.wrap(b, _SUM)
        if right.startswith("-"):
            return f"{self.wrap(a, _SUM)} - {right[1:]}", _SUM
        return f"{self.wrap(a, _SUM)} + {right}", _SUM

    def sub(self, a: Node, b: Node) -> Text:
        return f"{self.wrap(a, _SUM)} - {self.wrap(b, _PRODUCT)}", _SUM

    def mul(self, a: Node, b: Node) -> Text:
        for factor, rest in ((a, b), (b, a)):
            rest = strip(rest)
            if _is_map(rest, "div") and (split := _softmax_part(factor, rest.inputs[1])):
                return self.weighted(rest.inputs[0], split)
        if scalar_value(b) is not None:
            a, b = b, a
        return self.style.times.format(self.wrap(a, _PRODUCT), self.wrap(b, _PRODUCT)), _PRODUCT

    def neg(self, x: Node) -> Text:
        return "-" + self.wrap(x, _PRODUCT), _SUM

    def div(self, a: Node, b: Node) -> Text:
        if split := _weighted_softmax(a, b):
            return self.weighted(*split)
        level = 0 if self.latex else _PRODUCT
        text = self.style.fraction.format(self.wrap(a, level), self.wrap(b, level and _POWER))
        return text, self.style.fraction_level

    def weighted(self, weight: Node, x: Node) -> Text:
        parts = self.call("softmax", x)[0], self.wrap(weight, _PRODUCT)
        return self.style.times.format(*parts), _PRODUCT

    def reciprocal(self, x: Node) -> Text:
        level = 0 if self.latex else _POWER
        return self.style.fraction.format("1", self.wrap(x, level)), self.style.fraction_level

    def square(self, x: Node) -> Text:
        return self.style.power.format(self.wrap(x, _ATOM), "2"), _POWER

    def pow(self, a: Node, b: Node) -> Text:
        exponent = self.text(b)[0] if self.latex else self.wrap(b, _ATOM)
        return self.style.power.format(self.wrap(a, _ATOM), exponent), _POWER

    def sqrt(self, x: Node) -> Text:
        return self.style.root.format(self.text(x)[0]), _ATOM

    def rsqrt(self, x: Node) -> Text:
        return self.style.fraction.format("1", self.sqrt(x)[0]), self.style.fraction_level

    def absolute(self, x: Node) -> Text:
        return self.style.absolute.format(self.text(x)[0]), _ATOM

    def where(self, condition: Node, a: Node, b: Node) -> Text:
        if _is_map(condition, "isfinite") and strip(condition.inputs[0]) is strip(a):
            return self.text(a)  # the guard of a shift by a maximum
        parts = (self.text(x)[0] for x in (condition, a, b))
        return self.style.cases.format(*parts), _ATOM

    def transparent(self, node: Node) -> Text:
        return self.text(node.inputs[0])

    def stop_gradient(self, x: Node) -> Text:
        return self.text(x)

    def transpose(self, node: Node) -> Text:
        mark = r"\top" if self.latex else "T"
        return self.style.power.format(self.wrap(node.inputs[0], _ATOM), mark), _POWER

    def reduce(self, node: Node) -> Text:
        (x,) = node.inputs
        kind, axes = node.op.kind, node.op.axes  # type: ignore[attr-defined]
        index = (", " if self.latex else "").join(_INDICES[a % 6] for a in axes)
        body = self.wrap(x, _PRODUCT)
        if kind == "sum":
            return self.style.total.format(body, index), _PRODUCT
        if kind in {"max", "min"}:
            return self.style.maximum.format(body, index, kind), _PRODUCT
        name = self.style.functions.get(kind, rf"\operatorname{{{kind}}}" if self.latex else kind)
        return self.style.call.format(f"{name}_{index}", self.text(x)[0]), _ATOM

    def contract(self, node: Node) -> Text:
        a, b = node.inputs
        flips = _matmul_flips(node)
        if flips is None:
            sign = r" \ast " if self.latex else " * "
            return self.wrap(a, _ATOM) + sign + self.wrap(b, _ATOM), _PRODUCT
        mark = r"^{\top}" if self.latex else "ᵀ"
        parts = [
            self.wrap(x, _ATOM) + (mark if flip else "")
            for x, flip in zip((a, b), flips[1:], strict=True)
        ]
        if flips[0]:
            parts.reverse()
        return (" " if self.latex else " @ ").join(parts), _PRODUCT

    def gather(self, node: Node) -> Text:
        x, indices = node.inputs
        return self.style.subscript.format(self.wrap(x, _ATOM), self.text(indices)[0]), _ATOM


_ARITHMETIC: dict[str, Callable[..., Text]] = {
    "add": _Printer.add,
    "sub": _Printer.sub,
    "mul": _Printer.mul,
    "neg": _Printer.neg,
    "div": _Printer.div,
    "reciprocal": _Printer.reciprocal,
    "square": _Printer.square,
    "pow": _Printer.pow,
    "sqrt": _Printer.sqrt,
    "rsqrt": _Printer.rsqrt,
    "abs": _Printer.absolute,
    "where": _Printer.where,
    "stop_gradient": _Printer.stop_gradient,
}
_WRITERS: dict[type, Callable[[_Printer, Node], Text]] = {
    ops.Input: _Printer.leaf,
    ops.State: _Printer.leaf,
    ops.Constant: _Printer.constant,
    ops.Iota: _Printer.iota,
    ops.Extent: _Printer.extent,
    ops.Map: _Printer.map,
    ops.Cast: _Printer.transparent,
    ops.Reshape: _Printer.transparent,
    ops.Transpose: _Printer.transpose,
    ops.Reduce: _Printer.reduce,
    ops.Contract: _Printer.contract,
    ops.Gather: _Printer.gather,
}

_GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "sigma", "tau", "phi"),
    *("rho", "omega", "eta", "kappa", "nu", "xi", "psi", "zeta"),
}


def _label(node: Node) -> str:
    return str(getattr(node.op, "label", ""))


def _symbol(label: str, latex: bool) -> str:
    if not latex:
        return label
    head, _, tail = label.partition("_")
    if label in _GREEK:
        return "\\" + label
    if head in _GREEK and tail:
        return rf"\{head}_{{\mathrm{{{tail}}}}}".replace("_", "_", 1)
    if len(label) == 1:
        return label
    return r"\mathrm{" + label.replace("_", r"\_") + "}"


def _unreshaped(node: Node) -> Node:
    while isinstance(node.op, (ops.Reshape, ops.Broadcast)):
        node = node.inputs[0]
    return node


def _is_map(node: Node, function: str) -> bool:
    return isinstance(node.op, ops.Map) and node.op.function == function


def _shifted(node: Node) -> Node:
    """Return x for ``x - max(x)``, else the node."""
    node = strip(node)
    if _is_map(node, "sub"):
        shift = _unreshaped(node.inputs[1])
        while isinstance(shift.op, ops.Map) and shift.op.function in {"where", "stop_gradient"}:
            shift = _unreshaped(shift.inputs[1 if shift.op.function == "where" else 0])
        x = strip(node.inputs[0])
        largest = isinstance(shift.op, ops.Reduce) and shift.op.kind == "max"
        if largest and strip(shift.inputs[0]) is x:
            return x
    return node


def _recognise(node: Node) -> tuple[str, Node] | None:
    """Return ``("softmax", x)`` or ``("log_softmax", x)`` where ``node`` computes that of x."""
    if not isinstance(node.op, ops.Map) or node.op.function not in {"sub", "div"}:
        return None
    top, bottom = strip(node.inputs[0]), _unreshaped(node.inputs[1])
    name = "softmax"
    if _is_map(node, "sub"):
        if not _is_map(bottom, "log"):
            return None
        bottom, name = _unreshaped(bottom.inputs[0]), "log_softmax"
    elif not _is_map(top, "exp"):
        return None
    if not isinstance(bottom.op, ops.Reduce) or bottom.op.kind != "sum":
        return None
    terms = strip(bottom.inputs[0])
    if not _is_map(terms, "exp"):
        return None
    inside = strip(terms.inputs[0])
    mine = strip(top.inputs[0]) if name == "softmax" else top
    return (name, _shifted(inside)) if mine is inside else None


def _softmax_part(factor: Node, bottom: Node) -> Node | None:
    """Return x where ``factor / bottom`` is ``softmax(x)``."""
    total = _unreshaped(bottom)
    if not isinstance(total.op, ops.Reduce) or total.op.kind != "sum":
        return None
    terms = strip(total.inputs[0])
    if _is_map(terms, "exp") and strip(factor) is terms:
        return _shifted(strip(terms.inputs[0]))
    return None


def _weighted_softmax(top: Node, bottom: Node) -> tuple[Node, Node] | None:
    """Return ``(weight, x)`` where ``top / bottom`` is ``softmax(x) * weight``."""
    top = strip(top)
    if _is_map(top, "mul"):
        for weight, factor in (top.inputs, top.inputs[::-1]):
            if (x := _softmax_part(factor, bottom)) is not None:
                return weight, x
    return None


def _matmul_flips(node: Node) -> tuple[bool, bool, bool] | None:
    """Return (operands exchanged, first transposed, second transposed) for a matrix product."""
    op = node.op
    assert isinstance(op, ops.Contract)
    indices: list[list[int]] = []
    for index_map in (*op.maps, op.output_map):
        if any(a.offset or len(a.terms) != 1 or a.terms[0][1] != 1 for a in index_map):
            return None
        indices.append([a.terms[0][0] for a in index_map])
    left, right, out = indices
    if len(set(left) & set(right)) != 1 or len(left) > 2 or len(right) > 2:
        return None
    (inner,) = set(left) & set(right)
    if inner in out or len(out) != len(left) + len(right) - 2:
        return None
    exchanged = bool(out) and len(left) == 2 and len(right) == 2 and out[0] in right
    first_left = not exchanged
    flip_left = len(left) == 2 and (left[0] == inner) == first_left
    flip_right = len(right) == 2 and (right[-1] == inner) == first_left
    return exchanged, flip_left, flip_right
