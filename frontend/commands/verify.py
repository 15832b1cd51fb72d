"""``chainrule verify``: formulas against the interpreter, machine code and differences."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from .. import losses, nn, random
from ..tensor import Tensor, input
from ..verification import VerificationReport, verify
from .user_file import load_object, random_inputs, tensors_of

HELP = "check values and derivatives of built-in models, or of file.py:loss"

_ACTIVATIONS = ("ReLU", "GELU", "SiLU", "Tanh", "Sigmoid", "Softplus", "ELU", "Mish", "LogSoftmax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("target", nargs="?", help="file.py:name of a tensor or a dict of tensors")
    parser.add_argument("--order", type=int, choices=(0, 1, 2), default=2, help="default: 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="TEXT", help="built-in subjects whose name holds TEXT")
    parser.add_argument("--all", action="store_true", help="every row, not only a line a subject")


def run(options: argparse.Namespace) -> int:
    """Verify and print; 1 where something failed."""
    if options.target:
        tensors = tensors_of(load_object(options.target)[0], options.target)
        inputs: dict[str, Any] = random_inputs(list(tensors.values()), options.seed)
        report = verify(tensors, inputs, seed=options.seed, order=options.order)
        print(report)
        return 0 if report.ok else 1
    subjects = {n: s for n, s in SUBJECTS.items() if not options.only or options.only in n}
    if not subjects:
        print(f"there are: {', '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    width = max(map(len, subjects))
    failed = False
    for name, build in subjects.items():
        start = time.perf_counter()
        report = verify_subject(build, options.seed, options.order)
        seconds = time.perf_counter() - start
        failed |= not report.ok
        verdict = "ok" if report.ok else "FAILED"
        worst = max(
            (c.error / c.tolerance for c in report.checks if c.judged and c.tolerance), default=0
        )
        print(
            f"{name:{width}}  {verdict:6}  {report.summary()}, worst error {worst:.2g} of its "
            f"tolerance, {seconds:.1f} s",
            flush=True,
        )
        if options.all or not report.ok:
            print(report)
    return int(failed)


def verify_subject(build: Callable[[], Tensor], seed: int, order: int) -> VerificationReport:
    """Build a subject and verify it at random inputs."""
    random.manual_seed(seed)
    tensor = build()
    return verify(tensor, random_inputs([tensor], seed), seed=seed, order=order)


def _activation(name: str) -> Callable[[], Tensor]:
    return lambda: getattr(nn, name)()(input("x", ("batch", 9)))


def _classifier() -> Tensor:
    x, y = input("x", ("batch", 8)), input("y", ("batch",), "int64")
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 5))
    return losses.sparse_categorical_crossentropy(model(x), y, from_logits=True)


def _autoencoder() -> Tensor:
    x = input("x", ("batch", 12))
    encode, decode = nn.Linear(12, 6), nn.Linear(3, 12)
    code = encode(x)
    mean, log_variance = code[:, :3], code[:, 3:]
    restored = decode(mean + F.exp(log_variance * 0.5) * 0.1)
    return losses.mse(restored, x) + losses.gaussian_kl(mean, log_variance)


def _pairwise(loss: Callable[..., Tensor], **how: object) -> Callable[[], Tensor]:
    return lambda: loss(input("x", ("batch", 4)), F.sigmoid(input("y", ("batch", 4))), **how)


def _naive_logistic() -> Tensor:
    x = input("x", ("batch", 5)) * np.float32(300.0)
    return F.log(1.0 + F.exp(x)).mean()


SUBJECTS: dict[str, Callable[[], Tensor]] = {
    "classifier": _classifier,
    "autoencoder": _autoencoder,
    "naive log(1 + exp(300 x))": _naive_logistic,
    "loss mse": _pairwise(losses.mse),
    "loss huber": _pairwise(losses.huber),
    "loss binary_crossentropy": _pairwise(losses.binary_crossentropy, from_logits=True),
    **{f"activation {name}": _activation(name) for name in _ACTIVATIONS},
}
