"""Verification: a formula against the interpreter, machine code and finite differences.

The reference is the graph as it was written, interpreted in float64.  Values, gradients and
Hessian-vector products of every backend are compared with it, and its derivatives with central
differences along random directions.
"""

from __future__ import annotations

import io
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.errors import GraphError, InputError, VerificationError
from ..compiler.ir import ops
from ..compiler.ir.graph import Node, Program, make, topological
from ..compiler.ir.types import TensorType
from ..compiler.options import options_from_environment
from ..compiler.rewrites.stability import stabilize_nodes
from ..runtime.interpreter import Interpreter
from .api import Outputs, grad
from .build import build_executable, requirements_of
from .state import variable_of
from .tensor import Tensor, as_tensor

Arrays = Mapping[str, np.ndarray]

#: Rounding that a result may have lost, in units of its type's epsilon relative to the largest
#: element: 128 covers sums of some thousand terms; a second derivative loses about 8 times more.
VALUE_SLACK, PRODUCT_SLACK = 128, 1024
#: A backend may also lose this many times what NumPy loses on the same graph (ill-conditioned).
CONDITION_SLACK = 4
#: Of a derivative by differences, relative to the sum of the magnitudes of its terms.
FIRST_TOLERANCE, SECOND_TOLERANCE = 1e-6, 1e-5
#: Steps along directions whose elements are of size 1, from the most accurate for smooth functions
#: to the least likely to meet a kink.
STEPS = (1e-4, 1e-5, 1e-6, 1e-7)
DIRECTIONS = 3

_VALUE, _GRADIENT, _PRODUCT = "value", "gradient", "Hessian-vector product"


@dataclass(frozen=True)
class Check:
    """One comparison.

    ``error`` is relative: to the largest element for a backend, to the sum of the magnitudes of the
    terms for differences.  ``ulp`` is the largest distance of an element in units in its last place
    (large where an element nearly cancels), None for differences.  A check that is not ``judged``
    neither passes nor fails; its ``note`` says why.
    """

    quantity: str
    name: str
    against: str
    error: float
    tolerance: float
    ulp: float | None = None
    judged: bool = True
    note: str = ""

    @property
    def passed(self) -> bool:
        return not self.judged or bool(self.error <= self.tolerance)

    @property
    def verdict(self) -> str:
        if not self.judged:
            return "not judged"
        return "ok" if self.passed else "FAILED"


@dataclass(frozen=True)
class VerificationReport:
    """Every comparison that `verify` made; printing it gives a table."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def raise_if_failed(self) -> VerificationReport:
        """Return the report; raise VerificationError where something failed."""
        if not self.ok:
            raise VerificationError(f"{len(self.failures)} checks failed\n{self.as_text()}")
        return self

    def summary(self) -> str:
        """Return one line: how many checks, how many failed, how many were not judged."""
        open_ = sum(not check.judged for check in self.checks)
        parts = [f"{len(self.checks)} checks", f"{len(self.failures)} failed"]
        if open_:
            parts.append(f"{open_} not judged")
        return ", ".join(parts)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's cells, the heading first."""
        rows = [("quantity", "of", "against float64", "ULP", "error", "tolerance", "", "")]
        for c in self.checks:
            ulp = "" if c.ulp is None else f"{c.ulp:.3g}"
            error, tolerance = f"{c.error:.1e}", f"{c.tolerance:.1e}"
            rows.append((c.quantity, c.name, c.against, ulp, error, tolerance, c.verdict, c.note))
        return rows

    def as_text(self) -> str:
        """Return the table in plain characters, and the summary."""
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join(line.rstrip() for line in [*lines, self.summary()])

    def __rich__(self) -> Any:
        """Return the table as rich draws it in a terminal."""
        from rich.console import Group
        from rich.table import Table

        heading, *rows = self.rows()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, title in enumerate(heading):
            table.add_column(title, justify="right" if number in (3, 4, 5) else "left")
        colours = {"ok": "green", "FAILED": "bold red", "not judged": "yellow"}
        for row in rows:
            verdict = f"[{colours[row[6]]}]{row[6]}[/]"
            table.add_row(*row[:6], verdict, row[7])
        return Group(table, self.summary())

    def __str__(self) -> str:
        if sys.stdout is None or not sys.stdout.isatty():
            return self.as_text()
        from rich.console import Console

        width = shutil.get_terminal_size().columns
        console = Console(file=io.StringIO(), force_terminal=True, width=width)
        console.print(self)
        return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


def verify(
    outputs: Outputs,
    inputs: Mapping[str, object],
    wrt: Sequence[Tensor] | None = None,
    seed: int = 0,
    backends: Sequence[str] = ("numpy", "native"),
    order: int = 2,
    training: bool = False,
) -> VerificationReport:
    """Compare what backends compute with float64, and derivatives with finite differences.

    Parameters
    ----------
    outputs : Tensor, sequence of Tensor, or dict of str to Tensor
        What to check.  The derivatives are those of all float outputs, each weighted with random
        numbers unless it is a single 0-d one.
    inputs : dict of str to array
        Where to check.  Parameters are taken at their present values; nothing is updated.
    wrt : list of Tensor, optional
        Inputs and parameters to differentiate by; default: every one of a float type.
    seed : int
        What the directions and weights depend on.
    backends : sequence of str
        Which of ``"numpy"``, ``"native"`` to compare.
    order : int
        0: values; 1: gradients too; 2: Hessian-vector products too.
    training : bool
        Check the graph as it is during training (dropout, batch statistics).

    Raises
    ------
    InputError
        ``inputs`` do not fit, or hold a name that no output depends on.
    GraphError
        ``wrt`` names something that is neither an input nor a variable, or is not of a float type.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"order is 0, 1 or 2, not {order}")
    subject = _Subject(_name_outputs(outputs), inputs, wrt, seed, order, training)
    checks = [check for backend in backends for check in subject.compare_backend(backend)]
    if order >= 1:
        checks += subject.compare_differences(_GRADIENT)
    if order >= 2:
        checks += subject.compare_differences(_PRODUCT)
    ranks = {_VALUE: 0, _GRADIENT: 1, _PRODUCT: 2}
    return VerificationReport(tuple(sorted(checks, key=lambda c: ranks[c.quantity])))


def _name_outputs(outputs: Outputs) -> dict[str, Tensor]:
    if isinstance(outputs, Tensor):
        return {"output": outputs}
    if isinstance(outputs, Mapping):
        return {name: as_tensor(value) for name, value in outputs.items()}
    return {f"output{n}": as_tensor(value) for n, value in enumerate(outputs)}


def _label(leaf: Node) -> str:
    assert isinstance(leaf.op, (ops.Input, ops.State))
    return leaf.op.label


class _Subject:
    """The graph under test at one point, with its derivatives and the float64 reference."""

    def __init__(
        self,
        outputs: dict[str, Tensor],
        inputs: Mapping[str, object],
        wrt: Sequence[Tensor] | None,
        seed: int,
        order: int,
        training: bool,
    ) -> None:
        self.training = training
        self.rng = np.random.default_rng(seed)
        roots = [tensor.node for tensor in outputs.values()]
        leaves = [n for n in topological(roots) if isinstance(n.op, (ops.Input, ops.State))]
        self.wrt = _choose_leaves(leaves, wrt) if order else []
        self.names = _distinct_names(self.wrt)
        self.inputs = {name: np.asarray(array) for name, array in inputs.items()}
        unknown = set(self.inputs) - {_label(n) for n in leaves if isinstance(n.op, ops.Input)}
        if unknown:
            raise InputError(f"no output depends on {', '.join(sorted(unknown))}")
        self.states = {
            n: variable_of(n).value.copy() for n in leaves if isinstance(n.op, ops.State)
        }

        self.values = {f"{_VALUE}.{name}": tensor for name, tensor in outputs.items()}
        base = self._interpret(self.values)
        self.differentiated = [t for t in outputs.values() if t.node.type.is_float]
        self.weights: list[Tensor] | None = None
        if not (len(self.differentiated) == 1 and not self.differentiated[0].ndim):
            self.weights = []
            for name, tensor in outputs.items():
                if tensor.node.type.is_float:
                    shape = base[f"{_VALUE}.{name}"].shape
                    self.weights.append(self._add_input(f"weight.{name}", tensor.node.type, shape))
        self.gradients: dict[str, Tensor] = {}
        self.products: dict[str, Tensor] = {}
        points = [Tensor(leaf) for leaf in self.wrt]
        if order >= 1 and self.differentiated and self.wrt:
            found = grad(self.differentiated, points, self.weights)
            self.gradients = self._named(_GRADIENT, found)
        if order >= 2 and self.gradients:
            vectors = []
            for leaf, name in zip(self.wrt, self.names, strict=True):
                shape = self.at(leaf).shape
                vectors.append(self._add_input(f"vector.{name}", leaf.type, shape, unit=True))
            found = grad(list(self.gradients.values()), points, vectors)
            self.products = self._named(_PRODUCT, found)
        self.everything = {**self.values, **self.gradients, **self.products}
        self.reference = self._interpret(self.everything)
        self.rescued: set[str] = set()
        self.differenced = self._rescue_values()

    def _rescue_values(self) -> dict[str, Tensor]:
        """Return the outputs as written, or in their stable form where those are not finite.

        The reference's elements that are not finite become those of the stable form.
        """
        keys = [k for k in self.values if not np.all(np.isfinite(self.reference[k]))]
        if not keys:
            return self.values
        stable = stabilize_nodes([self.values[key].node for key in keys])
        forms = dict(zip(keys, map(Tensor, stable), strict=True))
        for key, value in self._interpret({**self.values, **forms}).items():
            written = np.asarray(self.reference[key])
            if key in forms and np.any(np.isfinite(value) & ~np.isfinite(written)):
                self.reference[key] = np.where(np.isfinite(written), written, value)
                self.rescued.add(key)
        return {key: forms[key] if key in self.rescued else t for key, t in self.values.items()}

    def _named(self, quantity: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return {f"{quantity}.{n}": t for n, t in zip(self.names, tensors, strict=True)}

    def _add_input(
        self, label: str, kind: TensorType, shape: tuple[int, ...], unit: bool = False
    ) -> Tensor:
        """Return a new input of ``kind`` that holds random numbers."""
        values = self.rng.standard_normal(shape)
        if unit:
            values /= max(float(np.sqrt(np.mean(np.square(values)))) if values.size else 1.0, 1e-3)
        self.inputs[label] = values.astype(kind.dtype)
        return Tensor(make(ops.Input(label, kind)))

    def at(self, leaf: Node) -> np.ndarray:
        """Return where ``leaf`` stands."""
        return self.inputs[_label(leaf)] if isinstance(leaf.op, ops.Input) else self.states[leaf]

    # -- running ----------------------------------------------------------------------------------

    def _program(self, tensors: Mapping[str, Tensor]) -> Program:
        program = Program(tuple((name, tensor.node) for name, tensor in tensors.items()))
        return Program(program.outputs, (), "verify", requirements_of(program))

    def _interpret(self, tensors: Mapping[str, Tensor], promote: bool = True) -> dict[str, Any]:
        return _interpreter(self._program(tensors), promote, self.training)(
            self.inputs, self.states
        )

    def _run(self, backend: str) -> dict[str, Any]:
        if backend == "numpy":
            return self._interpret(self.everything, promote=False)
        options = options_from_environment(backend=backend, training=self.training, verify=True)
        program = self._program(self.everything)
        executable = build_executable(program, options, self.states)
        used = {_label(node) for node in program.inputs()}
        return executable({k: v for k, v in self.inputs.items() if k in used})

    # -- backends ---------------------------------------------------------------------------------

    def compare_backend(self, backend: str) -> Iterator[Check]:
        found = self._run(backend)
        baseline = found if backend == "numpy" else self._run("numpy")
        for key, tensor in self.everything.items():
            quantity, name = key.split(".", 1)
            slack = PRODUCT_SLACK if quantity == _PRODUCT else VALUE_SLACK
            yield _compare(
                (quantity, name, backend),
                np.asarray(found[key]),
                np.asarray(self.reference[key]),
                np.asarray(baseline[key]),
                np.dtype(tensor.dtype),
                slack,
                rescued=key in self.rescued,
            )

    # -- differences ------------------------------------------------------------------------------

    def compare_differences(self, quantity: str) -> Iterator[Check]:
        if not self.gradients:
            return
        first = quantity == _GRADIENT
        function = self._frozen(
            self.differenced if first else {**self.differenced, **self.gradients}
        )
        tolerance = FIRST_TOLERANCE if first else SECOND_TOLERANCE
        for number, leaf in enumerate(self.wrt):
            name = self.names[number]
            exact = np.asarray(self.reference[f"{quantity}.{name}"], dtype=np.float64)
            if not exact.size:
                continue
            along = self._along_values(leaf, function) if first else None
            if along is None:
                along = self._along_gradient(name, function)
            yield _settle((quantity, name, "differences"), along, exact, tolerance)

    def _along_values(self, leaf: Node, function: _Function) -> _Along:
        """Return the weighted sum of the outputs on a line through ``leaf``'s value."""
        weights: list[Any] = [1.0]
        if self.weights is not None:
            weights = [self.inputs[_label(w.node)].astype(np.float64) for w in self.weights]
        names = [k for k, t in self.values.items() if t.node.type.is_float]

        def total(direction: np.ndarray, h: float) -> tuple[float, float]:
            result = function(*self._moved({leaf: direction}, h))
            terms = [w * result[n] for w, n in zip(weights, names, strict=True)]
            return float(sum(np.sum(t) for t in terms)), float(
                sum(np.sum(np.abs(t)) for t in terms)
            )

        return _Along(total, lambda: self._direction(self.at(leaf).shape))

    def _along_gradient(self, name: str, function: _Function) -> _Along:
        """Return the gradient's product with a direction, on the line of the Hessian's vectors."""
        line = {
            leaf: self.inputs[f"vector.{n}"].astype(np.float64)
            for leaf, n in zip(self.wrt, self.names, strict=True)
        }

        def total(direction: np.ndarray, h: float) -> tuple[float, float]:
            terms = direction * function(*self._moved(line, h))[f"{_GRADIENT}.{name}"]
            return float(np.sum(terms)), float(np.sum(np.abs(terms)))

        leaf = self.wrt[self.names.index(name)]
        return _Along(total, lambda: self._direction(self.at(leaf).shape))

    def _direction(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.standard_normal(shape)

    def _moved(self, line: Mapping[Node, np.ndarray], h: float) -> tuple[Arrays, dict]:
        inputs, states = dict(self.inputs), dict(self.states)
        for leaf, direction in line.items():
            value = self.at(leaf).astype(np.float64) + h * direction
            if isinstance(leaf.op, ops.Input):
                inputs[_label(leaf)] = value
            else:
                states[leaf] = value
        return inputs, states

    def _frozen(self, tensors: Mapping[str, Tensor]) -> _Function:
        """Return ``tensors`` as a function in which what `stop_gradient` stops does not move."""
        stopped = [
            n
            for n in topological([t.node for t in tensors.values()])
            if isinstance(n.op, ops.Map) and n.op.function == "stop_gradient"
        ]
        if not stopped:
            return _interpreter(self._program(tensors), True, self.training)
        labels = {node: f"stopped.{number}" for number, node in enumerate(stopped)}
        held = self._interpret({labels[node]: Tensor(node) for node in stopped} | dict(self.values))
        leaves = {node: make(ops.Input(label, node.type)) for node, label in labels.items()}
        roots = _replace_inputs([t.node for t in tensors.values()], leaves)
        frozen = dict(zip(tensors, map(Tensor, roots), strict=True))
        run = _interpreter(self._program(frozen), True, self.training)
        fixed = {label: np.asarray(held[label]) for label in labels.values()}
        return lambda inputs, states: run({**inputs, **fixed}, states)


_Function = Callable[[Arrays, Mapping[Node, np.ndarray]], dict[str, Any]]


def _interpreter(program: Program, promote: bool, training: bool) -> _Function:
    interpreter = Interpreter(program, promote=promote, training=training)
    used = set(interpreter.binder.names)

    def run(inputs: Arrays, states: Mapping[Node, np.ndarray]) -> dict[str, Any]:
        given = {name: array for name, array in inputs.items() if name in used}
        if promote:
            given = {
                k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in given.items()
            }
        return interpreter.run(given, states)[0]

    return run


def _replace_inputs(roots: Sequence[Node], leaves: Mapping[Node, Node]) -> list[Node]:
    """Return ``roots`` with the outermost of the given nodes replaced by leaves."""
    rebuilt: dict[Node, Node] = {}
    for node in topological(roots):
        if node in leaves:
            rebuilt[node] = leaves[node]
        else:
            inputs = tuple(rebuilt[x] for x in node.inputs)
            same = inputs == node.inputs
            rebuilt[node] = node if same else make(node.op, *inputs, source=node.source)
    return [rebuilt[root] for root in roots]


def _choose_leaves(leaves: Sequence[Node], wrt: Sequence[Tensor] | None) -> list[Node]:
    if wrt is None:
        return [
            n
            for n in leaves
            if n.type.is_float and (isinstance(n.op, ops.Input) or n.op.role == "parameter")  # type: ignore[attr-defined]
        ]
    chosen = []
    for tensor in wrt:
        if tensor.node not in leaves:
            raise GraphError(f"verify: {tensor!r} is no input or variable of the outputs")
        if not tensor.node.type.is_float:
            raise GraphError(f"verify: {tensor!r} is not of a float type")
        chosen.append(tensor.node)
    return chosen


def _distinct_names(leaves: Sequence[Node]) -> list[str]:
    """Return the leaves' labels, numbered where several are alike."""
    labels = [_label(leaf) for leaf in leaves]
    names, seen = [], dict.fromkeys(labels, 0)
    for label in labels:
        seen[label] += 1
        names.append(label if labels.count(label) == 1 else f"{label}#{seen[label]}")
    return names


# -- judging --------------------------------------------------------------------------------------


def _compare(
    who: tuple[str, str, str],
    found: np.ndarray,
    reference: np.ndarray,
    baseline: np.ndarray,
    dtype: np.dtype,
    slack: int,
    rescued: bool = False,
) -> Check:
    """Judge a backend's array against the reference; ``baseline`` is NumPy's at this precision.

    Where the reference was ``rescued`` by the stable form, NumPy, which computes what was written,
    may give what is not finite.
    """
    if found.shape != reference.shape:
        note = f"shape {found.shape}, not {reference.shape}"
        return Check(*who, float("inf"), 0.0, float("inf"), note=note)
    if dtype.kind != "f":
        wrong = int(np.count_nonzero(found != reference))
        as_numpy = bool(wrong and np.array_equal(found, baseline))
        note = "differs as NumPy does: near a tie" if as_numpy else ""
        share = wrong / max(found.size, 1)
        return Check(*who, share, 0.0, float(wrong), judged=not as_numpy, note=note)
    tolerance = slack * float(np.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        limit = float(np.finfo(dtype).max)
        rounded = np.where(np.abs(reference) > limit, np.copysign(np.inf, reference), reference)
        fragile = np.isfinite(rounded) & ~np.isfinite(found) & (who[2] == "numpy")
        compared = ~fragile
        error, ulp = _distances(found[compared], rounded[compared], dtype)
        loss, _ = _distances(baseline[compared], rounded[compared], dtype)
    note = "as written it is not finite; compared with its stable form" if rescued else ""
    if fragile.any():
        note = f"{np.count_nonzero(fragile)} of {found.size} not finite as written"
    if error > tolerance and np.isfinite(loss) and error <= CONDITION_SLACK * loss:
        tolerance, note = CONDITION_SLACK * loss, "ill-conditioned: NumPy loses as much"
    return Check(*who, error, tolerance, ulp, note=note)


def _distances(found: np.ndarray, wanted: np.ndarray, dtype: np.dtype) -> tuple[float, float]:
    """Return the largest error relative to the largest element, and the largest in ULP."""
    if not found.size:
        return 0.0, 0.0
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    if same.all():
        return 0.0, 0.0
    gap = np.where(same, 0.0, np.abs(found - wanted))
    if not np.isfinite(gap).all():
        return float("inf"), float("inf")
    size = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
    spacing = np.spacing(np.abs(wanted).astype(dtype)).astype(np.float64)
    ulp = np.where(same, 0.0, gap / np.where(np.isfinite(spacing), spacing, 1.0))
    smallest = float(np.finfo(dtype).tiny)
    return float(gap.max() / max(size, smallest)), float(ulp.max())


@dataclass(frozen=True)
class _Along:
    """A scalar function on lines: ``total(direction, h)`` gives it and the size of its terms."""

    total: Callable[[np.ndarray, float], tuple[float, float]]
    draw: Callable[[], np.ndarray]


def _settle(who: tuple[str, str, str], along: _Along, exact: np.ndarray, tolerance: float) -> Check:
    """Compare ``exact`` with central differences, over directions and steps until they agree."""
    if not np.isfinite(exact).all():
        return Check(*who, float("inf"), tolerance, judged=False, note="not finite here")
    best, settled, kink = float("inf"), False, True
    for _ in range(DIRECTIONS):
        direction = along.draw()
        terms = exact * direction
        value, size = float(np.sum(terms)), float(np.sum(np.abs(terms)))
        estimates = []
        for h in STEPS:
            estimate, noise = _difference(along, direction, h)
            scale = size + noise / tolerance
            if not scale:
                return Check(*who, 0.0 if value == estimate else float("inf"), tolerance)
            best = min(best, abs(estimate - value) / scale)
            if best <= tolerance:
                return Check(*who, best, tolerance)
            estimates.append((estimate, scale))
        steady = _is_steady(estimates, tolerance)
        settled |= steady
        kink &= _is_kink(along, direction, value, tolerance)
    if kink or not settled:
        note = (
            "at a kink: one-sided slopes differ"
            if kink
            else "differences do not settle: a kink is near"
        )
        return Check(*who, best, tolerance, judged=False, note=note)
    return Check(*who, best, tolerance)


def _difference(along: _Along, direction: np.ndarray, h: float) -> tuple[float, float]:
    """Return the derivative by Richardson's extrapolation, and the size of its rounding error."""
    far, near = h, h / 2
    (a, size), (b, _) = along.total(direction, far), along.total(direction, -far)
    (c, _), (d, _) = along.total(direction, near), along.total(direction, -near)
    estimate = (4 * (c - d) / (2 * near) - (a - b) / (2 * far)) / 3
    return estimate, 16 * float(np.finfo(np.float64).eps) * size / h


def _is_steady(estimates: Sequence[tuple[float, float]], tolerance: float) -> bool:
    """Whether two neighbouring step sizes give the same derivative."""
    return any(
        abs(left - right) <= 10 * tolerance * max(scale, other)
        for (left, scale), (right, other) in itertools.pairwise(estimates)
    )


def _is_kink(along: _Along, direction: np.ndarray, value: float, tolerance: float) -> bool:
    """Whether the slopes on both sides stay apart as the step shrinks, with ``value`` between."""
    middle, size = along.total(direction, 0.0)
    gaps = []
    slopes = (0.0, 0.0)
    for h in STEPS[:3]:
        right = (along.total(direction, h)[0] - middle) / h
        left = (middle - along.total(direction, -h)[0]) / h
        slopes = (min(left, right), max(left, right))
        gaps.append(slopes[1] - slopes[0])
    room = 1e-3 * gaps[-1] + tolerance * (abs(value) + size)
    apart = gaps[-1] > max(0.5 * gaps[0], room / 10)
    return apart and slopes[0] - room <= value <= slopes[1] + room
