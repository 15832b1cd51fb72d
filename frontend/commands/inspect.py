"""``chainrule inspect``: a program at every stage, from the trace to machine code."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from .. import losses, nn, optim
from ..api import compile, compile_train
from ..latex import gradient_text, to_text
from ..state import Variable, variable_of
from ..tensor import Tensor, input
from ..training import TrainingProgram
from .user_file import load_object, tensors_of

HELP = "show a small model, or file.py:name, at every stage of the compiler"
#: What the levels show; each level shows those before it too.
LEVELS = {
    0: "mathematics",
    1: "trace",
    2: "graph before scheduling",
    3: "kernels",
    4: "loop IR",
    5: "LLVM IR",
    6: "assembly",
}
_STAGES = {1: "trace", 2: "legalize", 4: "lower"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "target", nargs="?", help="file.py:name of a tensor, a dict of tensors or a TrainingProgram"
    )
    levels = ", ".join(f"{level} {what}" for level, what in LEVELS.items())
    parser.add_argument("--level", type=int, choices=tuple(LEVELS), default=3, help=f"{levels}")
    parser.add_argument("--only", action="store_true", help="that level alone")
    parser.add_argument(
        "--batch", type=int, default=64, help="for every symbolic size; default: 64"
    )


def run(options: argparse.Namespace) -> int:
    """Print the levels that were asked for."""
    subject: Any = load_object(options.target)[0] if options.target else _example()
    wanted = [options.level] if options.only else range(options.level + 1)
    with tempfile.TemporaryDirectory() as folder:
        compiled, tensors = _compile_again(subject, options.target or "", Path(folder))
        for level in wanted:
            print(f"== {LEVELS[level]}\n")
            print(_show(level, compiled, tensors, Path(folder), options.batch).rstrip(), end="\n\n")
    return 0


def _example() -> TrainingProgram:
    x, y = input("x", ("batch", 16)), input("y", ("batch",), "int64")
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    loss = losses.sparse_categorical_crossentropy(model(x), y, from_logits=True)
    return compile_train(loss, optim.SGD(0.1), backend="numpy")


def _compile_again(subject: Any, target: str, folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Compile with dumps; return what explains itself, and the tensors that it computes."""
    if isinstance(subject, TrainingProgram):
        tensors = {"loss": subject.loss, **subject.outputs}
        trained = [v for v in subject.parameters if v.trainable]
        return compile_train(
            subject.loss,
            _fresh(subject),
            subject.outputs,
            params=trained,
            backend="native",
            dump=folder,
        ), tensors
    tensors = tensors_of(subject, target)
    return compile(tensors, backend="native", dump=folder), tensors


def _fresh(program: TrainingProgram) -> optim.Optimizer:
    """Return an optimizer of the same kind for a second program over the same parameters."""
    return type(program.optimizer)()


def _show(level: int, compiled: Any, tensors: dict[str, Tensor], folder: Path, batch: int) -> str:
    if level == 0:
        return _mathematics(compiled, tensors)
    if level == 3:
        sizes = {name: batch for name in compiled.executable.binder.symbols}
        return compiled.explain(**sizes)
    if level in _STAGES:
        (path,) = folder.glob(f"*_{_STAGES[level]}.txt")
        return path.read_text(encoding="utf-8")
    (path,) = folder.glob("*_program.ll" if level == 5 else "*_program.s")
    return path.read_text(encoding="utf-8")


def _mathematics(compiled: Any, tensors: dict[str, Tensor]) -> str:
    lines = [to_text(tensor.node, name) for name, tensor in tensors.items()]
    loss = tensors.get("loss")
    states = compiled.states if isinstance(compiled, TrainingProgram) else []
    parameters = [v for v in states if isinstance(v, Variable) and v.role == "parameter"]
    if loss is not None and parameters:
        last = variable_of(parameters[-1].node)
        lines += ["", f"d loss / d {last.name} = {gradient_text(loss, last)}"]
    return "\n".join(lines)
