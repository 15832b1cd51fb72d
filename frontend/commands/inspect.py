"""``chainrule inspect``: a program at every stage, from the trace to machine code."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import losses, nn, optim
from ..api import compile, compile_train
from ..build import build_executable
from ..explanation import explain_executable
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
        compiled = _compile_again(subject, options.target or "", Path(folder))
        for level in wanted:
            print(f"== {LEVELS[level]}\n")
            print(_show(level, compiled, Path(folder), options.batch).rstrip(), end="\n\n")
    return 0


def _example() -> TrainingProgram:
    x, y = input("x", ("batch", 16)), input("y", ("batch",), "int64")
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    loss = losses.sparse_categorical_crossentropy(model(x), y, from_logits=True)
    return compile_train(loss, optim.SGD(0.1), backend="numpy")


def _compile_again(
    subject: Any, target: str, folder: Path
) -> tuple[Any, dict[str, Tensor], list[Variable]]:
    """Compile with dumps; return the executable, what it computes, and what is trained."""
    if isinstance(subject, TrainingProgram):
        options = replace(subject.options, backend="native", training=True, dump=folder)
        states = {node: variable_of(node).value for node in subject.program.states()}
        executable = build_executable(subject.program, options, states)
        trained = [v for v in subject.parameters if v.trainable]
        return executable, {"loss": subject.loss, **subject.outputs}, trained
    tensors = tensors_of(subject, target)
    return compile(tensors, backend="native", dump=folder).executable, tensors, []


def _show(
    level: int,
    compiled: tuple[Any, dict[str, Tensor], list[Variable]],
    folder: Path,
    size: int,
) -> str:
    executable, tensors, trained = compiled
    if level == 0:
        return _mathematics(tensors, trained)
    if level == 3:
        return explain_executable(executable, **dict.fromkeys(executable.binder.symbols, size))
    patterns = {5: "*_program.ll", 6: "*_program.s"}
    (path,) = folder.glob(patterns.get(level) or f"*_{_STAGES[level]}.txt")
    return path.read_text(encoding="utf-8")


def _mathematics(tensors: dict[str, Tensor], trained: list[Variable]) -> str:
    lines = [to_text(tensor.node, name) for name, tensor in tensors.items()]
    if trained:
        last = trained[-1]
        lines += ["", f"d loss / d {last.name} = {gradient_text(tensors['loss'], last)}"]
    return "\n".join(lines)
