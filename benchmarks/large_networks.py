"""``python -m benchmarks.large_networks``: large image classifiers, run and trained a little.

For each network: its parameters, what compiling a prediction and a training step takes, the memory
that is planned for each before the first run, how long a prediction of one full-size image takes,
and the losses of a few steps on one small batch, which should fall.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

#: Networks by name, with the size of the images of the training steps.
NETWORKS = {
    "alexnet": 128,
    "vgg16": 64,
    "vgg19": 64,
    "resnet18": 64,
    "resnet50": 64,
    "resnet101": 64,
    "resnet152": 64,
    "densenet121": 64,
    "mobilenet_v2": 64,
    "squeezenet1_1": 64,
}
CLASSES, FULL_SIZE, BATCH, STEPS = 10, 224, 4, 3


@dataclass(frozen=True)
class Report:
    """What one network took."""

    name: str
    parameters: int
    compile_seconds: float
    planned_bytes: int
    predict_seconds: float
    train_compile_seconds: float
    train_planned_bytes: int
    step_seconds: float
    losses: tuple[float, ...]


def measure(name: str, full_size: int = FULL_SIZE, train_size: int | None = None) -> Report:
    """Build, compile, run and train the network called ``name``."""
    import chainrule as cr
    from chainrule import losses, models, optim

    cr.manual_seed(0)
    model = getattr(models, name)(num_classes=CLASSES)
    parameters = sum(parameter.value.size for parameter in model.parameters())
    image = cr.input("image", (1, 3, full_size, full_size))
    started = time.perf_counter()
    predict = cr.compile(model(image))
    compiled = time.perf_counter() - started
    pixels = np.random.default_rng(0)
    whole = pixels.normal(size=image.shape).astype(np.float32)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        predict(image=whole)
        times.append(time.perf_counter() - started)

    size = NETWORKS[name] if train_size is None else train_size
    x = cr.input("x", (BATCH, 3, size, size))
    y = cr.input("y", (BATCH,), dtype="int64")
    started = time.perf_counter()
    train = cr.compile_train(losses.cross_entropy(model(x), y), optim.SGD(1e-3, momentum=0.9))
    train_compiled = time.perf_counter() - started
    batch = pixels.normal(size=x.shape).astype(np.float32)
    labels = np.arange(BATCH) % CLASSES
    found, steps = [], []
    for _ in range(STEPS):
        started = time.perf_counter()
        found.append(float(train.step(x=batch, y=labels)["loss"]))
        steps.append(time.perf_counter() - started)
    return Report(
        name,
        parameters,
        compiled,
        predict.executable.peak_bytes,
        min(times),
        train_compiled,
        train.executable.peak_bytes,
        min(steps),
        tuple(found),
    )


def rows(reports: Iterator[Report]) -> Iterator[tuple[str, ...]]:
    """Return the cells of a table."""
    for report in reports:
        yield (
            report.name,
            f"{report.parameters / 1e6:.1f} M",
            f"{report.compile_seconds:.1f} s",
            f"{report.planned_bytes / 1e6:.0f} MB",
            f"{1e3 * report.predict_seconds:.0f} ms",
            f"{report.train_compile_seconds:.1f} s",
            f"{report.train_planned_bytes / 1e6:.0f} MB",
            f"{1e3 * report.step_seconds:.0f} ms",
            " ".join(f"{loss:.3f}" for loss in report.losses),
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure the networks that the command line names, by default all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_networks", description=__doc__
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}")
    chosen = parser.parse_args(arguments).names or list(NETWORKS)
    unknown = sorted(set(chosen) - set(NETWORKS))
    if unknown:
        parser.error(f"no network {', '.join(unknown)}; there are: {', '.join(NETWORKS)}")
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    table = Table(
        "network", "parameters", "compile", "planned", "predict", "compile step", "planned",
        "step", "losses",
        caption=f"predict: one {FULL_SIZE}×{FULL_SIZE} image; step: {BATCH} smaller ones",
    )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 120)
    with Live(table, console=console, refresh_per_second=1):
        for cells in rows(measure(name) for name in chosen):
            table.add_row(*cells)
    return 0


if __name__ == "__main__":
    sys.exit(main())
