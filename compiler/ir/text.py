"""The text form of a program: one line per node, and the parser that reads it back exactly.

    program  = 'program' name { body } { node | output | update | require }
    body     = 'body' '@'number { node } 'end' 'formals' '(' { '%'number } ')'
               'results' '(' { '%'number } ')'
    node     = '%'number '=' op '(' { '%'number } ')' { field '=' value } ':' type [ '@' source ]
    output   = 'output' name '=' '%'number
    update   = 'update' '%'number '=' '%'number
    require  = 'require' '%'number 'low' '=' dim 'high' '=' dim [ 'ignore' '=' number ]
               text [ '@' source ]

Inner bodies stand before the bodies that use them; a body's node numbers are its own.

``op`` is a primitive's name, or an elementary function's for a `Map` of one.  `_FIELDS` lists the
fields of every primitive and the codec of each; `_CODECS` says how a codec prints and reads.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import GraphError, SourceLine
from . import ops
from .dims import FloorDiv, Symbol, SymbolicDim
from .graph import Node, Program, Requirement, make, topological
from .scalars import SCALAR_FUNCTIONS, Formula, Term, call, number, param, subterms
from .types import ITEM_BYTES, Dim, Shape, TensorType

#: Primitive -> its fields as ``(attribute, codec)``, in the order of printing.  A leaf's type is
#: the line's type.
_FIELDS: dict[type[ops.Op], tuple[tuple[str, str], ...]] = {
    ops.Input: (("label", "text"), ("type", "type")),
    ops.State: (("label", "text"), ("role", "name"), ("key", "integer"), ("type", "type")),
    ops.Constant: (("value", "value"),),
    ops.Extent: (("dim", "dim"), ("dtype", "name")),
    ops.Training: (),
    ops.Iota: (("axis", "integer"), ("type", "type")),
    ops.RandomBits: (("shape", "shape"), ("stream", "integer"), ("word", "integer")),
    ops.Map: (("function", "function"),),
    ops.Cast: (("dtype", "name"),),
    ops.Contract: (
        ("sizes", "shape"),
        ("maps", "maps"),
        ("output_map", "map"),
        ("output_shape", "shape"),
    ),
    ops.FlatContract: (("sizes", "shape"), ("left", "shape"), ("right", "shape")),
    ops.Reduce: (("kind", "name"), ("axes", "shape")),
    ops.Reshape: (("shape", "shape"),),
    ops.Transpose: (("permutation", "shape"),),
    ops.Broadcast: (("shape", "shape"),),
    ops.Slice: (("starts", "shape"), ("sizes", "shape"), ("steps", "shape")),
    ops.Pad: (("low", "shape"), ("high", "shape"), ("interior", "shape")),
    ops.Flip: (("axes", "shape"),),
    ops.Window: (("shape", "shape"), ("map", "map")),
    ops.Concat: (("axis", "integer"),),
    ops.Gather: (("axis", "integer"),),
    ops.ScatterAdd: (("axis", "integer"), ("size", "dim")),
    ops.Scan: (
        ("body", "body"),
        ("carries", "integer"),
        ("sequences", "integer"),
        ("length", "dim"),
        ("reverse", "flag"),
        ("output", "integer"),
    ),
    ops.Cond: (("then", "body"), ("other", "body"), ("output", "integer")),
    ops.While: (("condition", "body"), ("body", "body"), ("output", "integer")),
    ops.ArgSort: (("axis", "integer"), ("descending", "flag")),
    ops.LinearRecurrence: (("axis", "integer"), ("reverse", "flag")),
    ops.RunningExtremum: (("kind", "name"), ("axis", "integer"), ("reverse", "flag")),
    ops.CustomGradient: (("rule", "body"), ("count", "integer"), ("output", "integer")),
}
_PRIMITIVES = {kind.__name__.lower(): kind for kind in _FIELDS}

# Constants of at most this many elements are printed as numbers, of this many bytes in hexadecimal.
_DECIMAL_ELEMENTS = 8
_HEX_BYTES = 64


# -- printing -------------------------------------------------------------------------------------


def format_program(program: Program, sources: bool = False) -> str:
    """Return the text form of ``program``; ``sources`` adds the user's line to every node."""
    order = topological((*program.nodes(), *(r.input for r in program.requirements)))
    names = {node: f"%{position}" for position, node in enumerate(order)}
    lines = [f"program {json.dumps(program.name)}"]
    bodies: dict[ops.Body, str] = {}
    for body in _inner_first(order):
        bodies[body] = f"@{len(bodies)}"
        lines += _format_body(body, bodies, sources)
    lines += [f"  {format_node(node, names, sources, bodies)}" for node in order]
    lines += [f"  output {json.dumps(name)} = {names[node]}" for name, node in program.outputs]
    lines += [f"  update {names[state]} = {names[new]}" for state, new in program.updates]
    lines += [f"  {_format_requirement(r, names[r.input])}" for r in program.requirements]
    return "\n".join(lines) + "\n"


def _inner_first(nodes: Iterable[Node]) -> list[ops.Body]:
    """Return the bodies of ``nodes``, each once, behind those that it uses."""
    found: dict[ops.Body, None] = {}
    for node in nodes:
        if isinstance(node.op, ops.Nested):
            for body in node.op.bodies:
                if body not in found:
                    found |= dict.fromkeys(_inner_first(topological(body.results)))
                    found[body] = None
    return list(found)


def _format_body(body: ops.Body, bodies: Mapping[ops.Body, str], sources: bool) -> list[str]:
    order = topological((*body.formals, *body.results))
    names = {node: f"%{position}" for position, node in enumerate(order)}
    formals, results = (", ".join(names[x] for x in part) for part in (body.formals, body.results))
    return [
        f"  body {bodies[body]}",
        *(f"    {format_node(node, names, sources, bodies)}" for node in order),
        f"  end formals({formals}) results({results})",
    ]


def format_node(
    node: Node,
    names: Mapping[Node, str] | None = None,
    sources: bool = False,
    bodies: Mapping[ops.Body, str] | None = None,
) -> str:
    """Return the line of one node; ``names`` says what to call nodes (default: their serials)."""

    def name(x: Node) -> str:
        return f"%{x.serial}" if names is None else names[x]

    op = node.op
    elementary = isinstance(op, ops.Map) and isinstance(op.function, str)
    head = op.function if elementary else type(op).__name__.lower()
    parts = [f"{name(node)} = {head}({', '.join(map(name, node.inputs))})"]
    if not elementary:
        for field, codec in _FIELDS[type(op)]:
            value = getattr(op, field)
            if codec == "body":
                parts.append(f"{field}={repr(value) if bodies is None else bodies[value]}")
            elif field != "type":
                parts.append(f"{field}={_CODECS[codec][0](value)}")
    parts.append(f": {_format_type(node.type)}")
    if sources and node.source is not None:
        parts.append(_format_source(node.source))
    return " ".join(parts)


def format_nodes(roots: Iterable[Node]) -> str:
    """Return the lines of everything that ``roots`` need, for messages about a piece of a graph."""
    order = topological(roots)
    names = {node: f"%{position}" for position, node in enumerate(order)}
    return "\n".join(format_node(node, names) for node in order)


def _format_source(line: SourceLine) -> str:
    return f"@ {json.dumps(line.filename)}:{line.lineno} {json.dumps(line.function)}"


def _format_requirement(requirement: Requirement, name: str) -> str:
    """Return the line of a requirement; its source belongs to it and is always printed."""
    low, high = _format_dim(requirement.low), _format_dim(requirement.high)
    parts = [f"require {name} low={low} high={high}"]
    if requirement.ignore is not None:
        parts.append(f"ignore={requirement.ignore}")
    parts.append(json.dumps(requirement.message))
    if requirement.source is not None:
        parts.append(_format_source(requirement.source))
    return " ".join(parts)


_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")
_RESERVED = {"inf", "nan", "floordiv"}


def _format_word(word: str) -> str:
    """Return a name bare where it reads back as one, else quoted."""
    bare = _IDENTIFIER.match(word) and word.isascii() and word not in _RESERVED
    return word if bare else json.dumps(word)


def _format_dim(dim: Dim) -> str:
    if isinstance(dim, int):
        return str(dim)
    parts = []
    for monomial, coefficient in dim.terms:
        factors = [_format_atom(atom) for atom in monomial]
        if coefficient != 1 or not factors:
            factors.insert(0, str(coefficient))
        parts.append("*".join(factors))
    return " + ".join(parts)


def _format_atom(atom: Symbol | FloorDiv) -> str:
    if isinstance(atom, Symbol):
        return _format_word(atom.name)
    return f"floordiv({_format_dim(atom.numerator)}, {atom.denominator})"


def _format_shape(shape: Shape) -> str:
    return "(" + ", ".join(map(_format_dim, shape)) + ")"


def _format_type(kind: TensorType) -> str:
    return f"{kind.dtype}{_format_shape(kind.shape)}"


def _format_map(index_map: ops.IndexMap) -> str:
    return "[" + ", ".join(map(_format_affine, index_map)) + "]"


def _format_affine(affine: ops.Affine) -> str:
    parts = [f"i{i}" if c == 1 else f"{c}*i{i}" for i, c in affine.terms]
    if affine.offset or not parts:
        parts.append(str(affine.offset))
    return " + ".join(parts)


def _format_number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _format_value(value: ops.Value) -> str:
    array = value.array
    kind = f"{array.dtype.name}{_format_shape(array.shape)}"
    readable = array.dtype.kind != "f" or not np.isnan(array).any()
    if array.size <= _DECIMAL_ELEMENTS and readable:
        elements = [int(x) if x is True or x is False else x for x in array.reshape(-1).tolist()]
        return f"{kind}[{', '.join(map(_format_number, elements))}]"
    raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    if len(raw) <= _HEX_BYTES:
        return f'{kind} hex "{raw.hex()}"'
    return f'{kind} base64 "{base64.b64encode(raw).decode()}"'


def _format_formula(formula: Formula) -> str:
    texts: dict[int, str] = {}
    for term in subterms(formula.body):
        if term.op == "param":
            texts[id(term)] = _format_word(str(term.value))
        elif term.op == "number":
            texts[id(term)] = _format_number(term.value)  # type: ignore[arg-type]
        else:
            texts[id(term)] = f"{term.op}({', '.join(texts[id(x)] for x in term.args)})"
    params = ", ".join(map(_format_word, formula.params))
    return f"{json.dumps(formula.name)}({params}) -> {texts[id(formula.body)]}"


# -- reading --------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?: (?P<node>%\d+)
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<float>\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+)
    | (?P<integer>\d+)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<mark>->|[()\[\],=:+\-*@]) )""",
    re.VERBOSE | re.ASCII,
)


class _Reader:
    """The tokens of one line, read from left to right."""

    def __init__(self, line: str, bodies: Mapping[int, ops.Body]) -> None:
        self.bodies = bodies
        self.tokens: list[tuple[str, str]] = []
        self.position = 0
        start = 0
        line = line.rstrip()
        while start < len(line):
            match = _TOKEN.match(line, start)
            if match is None:
                raise GraphError(f"cannot read {line[start:].strip()[:40]!r}")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match.group(kind)))
            start = match.end()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "end")

    def take(self, kind: str) -> str:
        found, text = self.peek()
        if found != kind:
            raise GraphError(f"expected a {kind}, found {text!r}")
        self.position += 1
        return text

    def accept(self, text: str) -> bool:
        kind, found = self.peek()
        if found != text or kind == "text":
            return False
        self.position += 1
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise GraphError(f"expected {text!r}, found {self.peek()[1]!r}")

    def sequence(self, close: str, item: Callable[[], Any]) -> tuple:
        """Read comma-separated items up to and with ``close``."""
        items = []
        while not self.accept(close):
            if items:
                self.expect(",")
            items.append(item())
        return tuple(items)

    def text(self) -> str:
        return json.loads(self.take("text"))

    def word(self) -> str:
        """Read a name, bare or quoted."""
        return self.text() if self.peek()[0] == "text" else self.take("word")

    def source(self) -> SourceLine | None:
        """Read ``@ "file":line "function"``, if it is there."""
        if not self.accept("@"):
            return None
        filename = self.text()
        self.expect(":")
        lineno = self.integer()
        return SourceLine(filename, lineno, self.text())

    def field(self, name: str, read: Callable[[], Any]) -> Any:
        """Read ``name=value``."""
        self.expect(name)
        self.expect("=")
        return read()

    def integer(self) -> int:
        return -self.integer() if self.accept("-") else int(self.take("integer"))

    def number(self) -> float | int:
        if self.accept("-"):
            return -self.number()
        kind, text = self.peek()
        if kind not in {"integer", "float"} and text not in {"inf", "nan"}:
            raise GraphError(f"expected a number, found {text!r}")
        self.position += 1
        return int(text) if kind == "integer" else float(text)

    def dim(self) -> Dim:
        total: Dim = 0
        while True:
            product: Dim = self.factor()
            while self.accept("*"):
                product = self.factor() * product
            total = product + total
            if not self.accept("+"):
                return total

    def factor(self) -> Dim:
        kind, text = self.peek()
        if kind == "integer" or text == "-":
            return self.integer()
        if kind == "word" and text == "floordiv":
            self.position += 1
            self.expect("(")
            numerator = self.dim()
            self.expect(",")
            denominator = self.integer()
            self.expect(")")
            if not isinstance(numerator, SymbolicDim) or denominator == 0:
                raise GraphError("floordiv needs a symbolic size and a divisor that is not 0")
            return SymbolicDim((((FloorDiv(numerator, denominator),), 1),))
        return SymbolicDim.of(self.word())

    def shape(self) -> Shape:
        self.expect("(")
        return self.sequence(")", self.dim)

    def type(self) -> TensorType:
        dtype = self.take("word")
        if dtype not in ITEM_BYTES:
            raise GraphError(f"unknown dtype {dtype!r}; known: {', '.join(ITEM_BYTES)}")
        return TensorType(dtype, self.shape())

    def map(self) -> ops.IndexMap:
        self.expect("[")
        return self.sequence("]", self.affine)

    def maps(self) -> tuple[ops.IndexMap, ...]:
        self.expect("(")
        return self.sequence(")", self.map)

    def affine(self) -> ops.Affine:
        terms, offset = [], 0
        while True:
            value = 1 if self.peek()[0] == "word" else self.integer()
            if self.peek()[0] == "word" or self.accept("*"):
                index = self.take("word")
                if not re.fullmatch(r"i\d+", index):
                    raise GraphError(f"expected an index such as i0, found {index!r}")
                terms.append((int(index[1:]), value))
            else:
                offset += value
            if not self.accept("+"):
                return ops.Affine(tuple(terms), offset)

    def value(self) -> ops.Value:
        kind = self.type()
        if any(not isinstance(dim, int) for dim in kind.shape):
            raise GraphError(f"a constant's shape is known, not {kind}")
        count = math.prod(dim for dim in kind.shape if isinstance(dim, int))
        dtype = np.dtype(kind.dtype)
        if self.accept("["):
            try:
                array = np.array(self.sequence("]", self.number), dtype=dtype)
            except (OverflowError, ValueError) as error:
                raise GraphError(f"a constant's element is no {dtype}: {error}") from None
        else:
            encoding, text = self.take("word"), self.text()
            if encoding not in {"hex", "base64"}:
                raise GraphError(f"expected hex or base64, found {encoding!r}")
            try:
                raw = (
                    bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text, None, True)
                )
            except ValueError as error:
                raise GraphError(f"a constant's {encoding} is damaged: {error}") from None
            if len(raw) != count * dtype.itemsize:
                raise GraphError(f"{kind} needs {count * dtype.itemsize} bytes, not {len(raw)}")
            array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
        if array.size != count:
            raise GraphError(f"{kind} needs {count} elements, not {array.size}")
        return ops.Value(array.reshape(kind.shape))  # type: ignore[arg-type]

    def flag(self) -> bool:
        return bool(self.integer())

    def body_number(self) -> int:
        self.expect("@")
        return self.integer()

    def body(self) -> ops.Body:
        number = self.body_number()
        if number not in self.bodies:
            raise GraphError(f"body @{number} is used before it is defined")
        return self.bodies[number]

    def formula(self) -> Formula:
        name = self.text()
        self.expect("(")
        params = self.sequence(")", self.word)
        self.expect("->")
        return Formula(name, params, self.term())

    def term(self) -> Term:
        """Read a term with a stack of open calls, so that no depth exhausts Python's own."""
        calls: list[tuple[str, list[Term]]] = []
        while True:
            kind, text = self.peek()
            if kind in {"integer", "float"} or text in {"-", "inf", "nan"}:
                done = number(self.number())
            else:
                word = self.word()
                if kind == "word" and self.accept("("):
                    calls.append((word, []))
                    continue
                done = param(word)
            while calls:
                calls[-1][1].append(done)
                if self.accept(","):
                    break
                self.expect(")")
                function, args = calls.pop()
                if function not in SCALAR_FUNCTIONS:
                    raise GraphError(f"no elementary function is called {function!r}")
                try:
                    done = call(function, *args)
                except ValueError as error:
                    raise GraphError(str(error)) from None
            else:
                return done


#: Codec -> how to print a field and how to read it.
_CODECS: dict[str, tuple[Callable[[Any], str], Callable[[_Reader], Any]]] = {
    "text": (json.dumps, _Reader.text),
    "name": (_format_word, _Reader.word),
    "integer": (str, _Reader.integer),
    "dim": (_format_dim, _Reader.dim),
    "shape": (_format_shape, _Reader.shape),
    "map": (_format_map, _Reader.map),
    "maps": (lambda maps: "(" + ", ".join(map(_format_map, maps)) + ")", _Reader.maps),
    "value": (_format_value, _Reader.value),
    "function": (_format_formula, _Reader.formula),
    "flag": (lambda flag: str(int(flag)), _Reader.flag),
    "body": (repr, _Reader.body),
}


def parse_program(text: str) -> Program:
    """Return the program that ``text``, as printed by `format_program`, stands for.

    Nodes are hash-consed: in the process that printed the text, the very same nodes come back.
    Raises GraphError, which names the line, where the text is not a well-typed program.
    """
    nodes: dict[str, Node] = {}
    outside = nodes
    bodies: dict[int, ops.Body] = {}
    opened: int | None = None
    outputs: list[tuple[str, Node]] = []
    updates: list[tuple[Node, Node]] = []
    requirements: list[Requirement] = []
    name: str | None = None
    for lineno, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            reader = _Reader(line, bodies)
            if name is None:
                reader.expect("program")
                name = reader.text()
            elif reader.peek()[0] == "node":
                label = reader.take("node")
                if label in nodes:
                    raise GraphError(f"{label} is defined twice")
                nodes[label] = _read_node(reader, nodes)
            elif opened is None and reader.accept("body"):
                opened = reader.body_number()
                if opened in bodies:
                    raise GraphError(f"body @{opened} is defined twice")
                nodes = {}
            elif opened is not None:
                bodies[opened] = _read_end_of_body(reader, nodes)
                nodes, opened = outside, None
            elif reader.accept("output"):
                label = reader.text()
                reader.expect("=")
                outputs.append((label, _read_reference(reader, nodes)))
            elif reader.accept("update"):
                state = _read_reference(reader, nodes)
                reader.expect("=")
                updates.append((state, _read_reference(reader, nodes)))
            elif reader.accept("require"):
                requirements.append(_read_requirement(reader, nodes))
            else:
                raise GraphError(f"unexpected {reader.peek()[1]!r}")
            if reader.peek()[0] != "end":
                raise GraphError(f"unexpected {reader.peek()[1]!r}")
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise GraphError(f"line {lineno}: {error}") from error
    if name is None:
        raise GraphError("line 1: expected 'program', found nothing")
    if opened is not None:
        raise GraphError(f"body @{opened} has no end")
    return Program(tuple(outputs), tuple(updates), name, tuple(requirements))


def _read_reference(reader: _Reader, nodes: Mapping[str, Node]) -> Node:
    label = reader.take("node")
    if label not in nodes:
        raise GraphError(f"{label} is used before it is defined")
    return nodes[label]


def _read_end_of_body(reader: _Reader, nodes: Mapping[str, Node]) -> ops.Body:
    parts = []
    reader.expect("end")
    for what in ("formals", "results"):
        reader.expect(what)
        reader.expect("(")
        parts.append(reader.sequence(")", lambda: _read_reference(reader, nodes)))
    return ops.Body(*parts)


def _read_requirement(reader: _Reader, nodes: Mapping[str, Node]) -> Requirement:
    node = _read_reference(reader, nodes)
    low, high = reader.field("low", reader.dim), reader.field("high", reader.dim)
    limited = reader.peek()[1] == "ignore"
    ignore = reader.field("ignore", reader.integer) if limited else None
    return Requirement(node, low, high, ignore, reader.text(), reader.source())


def _read_node(reader: _Reader, nodes: Mapping[str, Node]) -> Node:
    reader.expect("=")
    head = reader.take("word")
    reader.expect("(")
    inputs = reader.sequence(")", lambda: _read_reference(reader, nodes))
    kind = _PRIMITIVES.get(head)
    fields: dict[str, Any] = {}
    if kind is None:
        if head not in SCALAR_FUNCTIONS:
            raise GraphError(f"no operator is called {head!r}")
        kind, fields = ops.Map, {"function": head}
    else:
        for field, codec in _FIELDS[kind]:
            if field != "type":
                fields[field] = reader.field(field, lambda c=codec: _CODECS[c][1](reader))
    reader.expect(":")
    declared = reader.type()
    if ("type", "type") in _FIELDS[kind]:
        fields["type"] = declared
    node = make(kind(**fields), *inputs, source=reader.source())
    if node.type != declared:
        raise GraphError(f"{head} gives {node.type}, not {declared}")
    return node
