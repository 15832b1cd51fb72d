"""A training that is killed at any moment, and resumed, ends with the bits of one never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.runtime.checkpoint import load_arrays

# Everything that has a state: dropout, running statistics, moments, a schedule, accumulated
# gradients, averages, a callback, metrics within an epoch, a log, and the order of the samples.
TRAINING = """
    import json, os, signal, sys
    from pathlib import Path

    import numpy as np
    import chainrule as cr
    from chainrule import losses, metrics, nn, optim, schedules
    from chainrule.frontend import callbacks as cb

    folder, backend, fault = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

    def die_in(name, call):
        # Be killed as the call number `call` of os.`name` is made, or has just returned.
        inner, calls = getattr(os, name), [0]

        def outer(*arguments, **how):
            calls[0] += 1
            if calls[0] == abs(call) and call > 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = inner(*arguments, **how)
            if calls[0] == abs(call):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, outer)

    cr.manual_seed(0)
    x = cr.input("x", ("batch", 2))
    y = cr.input("y", ("batch",), dtype="int64")
    model = nn.Sequential(
        nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
    )
    logits = model(x)
    train = cr.compile_train(
        losses.cross_entropy(logits, y),
        optim.AdamW(schedules.OneCycleLR(None, 0.05, 100), clip_norm=1.0),
        {"logits": logits},
        metrics=["accuracy", "auc", "confusion_matrix"],
        accumulate=2,
        ema=0.9,
        backend=backend,
        seed=3,
    )
    data = cr.data.spirals(150, seed=1)
    held_out = cr.data.spirals(40, seed=2)
    path = folder / "run.safetensors"
    if path.exists():
        train.load(path)
    print("ready", train.steps, flush=True)
    if fault != "none":
        name, call = fault.split(":")
        die_in(name, int(call))
    train.fit(
        data,
        total_epochs=4,
        batch_size=16,
        validation_data=held_out,
        verbose=0,
        prefetch=2,
        callbacks=[
            cb.EarlyStopping("val_loss", patience=50, restore_best=True),
            cb.CSVLogger(folder / "log.csv", append=True),
            cb.Checkpoint(path, every_batches=3),
        ],
    )
    train.save(folder / "end.safetensors")
    (folder / "history.json").write_text(json.dumps(train.history.state_dict()))
    print("done", flush=True)
"""

EPOCHS, BATCHES = 4, 10


def start(folder: Path, backend: str, fault: str = "none") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TRAINING), str(folder), backend, fault],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> bool:
    """Return whether the training came to its end, after having said where it began."""
    output, _ = process.communicate()
    assert output.startswith("ready")
    return output.endswith("done\n")


def result(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], str, str]:
    arrays, notes = load_arrays(folder / "end.safetensors")
    position = json.loads(notes["training"])
    for state in position["callbacks"].values():
        state.pop("written", None)  # the paths of this folder
    return arrays, position, (folder / "history.json").read_text(), (folder / "log.csv").read_text()


def assert_same(found: tuple, expected: tuple) -> None:
    assert found[0].keys() == expected[0].keys()
    for name, array in expected[0].items():
        assert found[0][name].tobytes() == array.tobytes(), name
    assert found[1:] == expected[1:]


@pytest.mark.parametrize("backend", ["native", pytest.param("numpy", marks=pytest.mark.slow)])
def test_killed_and_resumed_training_gives_the_same_bits(tmp_path, backend):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert finish(start(whole, backend))
    expected = result(whole)
    history = json.loads(expected[2])
    assert history["epochs"] == list(range(EPOCHS))
    assert set(history["values"]) >= {"loss", "auc", "val_auc", "val_loss", "lr"}

    # In the middle of a write, between the write and the name, and just after it.
    for fault in ("fsync:2", "replace:3", "replace:-2", "fsync:-4"):
        process = start(killed, backend, fault)
        assert not finish(process)
        assert process.returncode < 0
        assert not (killed / "end.safetensors").exists()
    # At moments that nobody chose.
    generator = np.random.default_rng(os.getpid())
    for _ in range(3):
        process = start(killed, backend)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        time.sleep(generator.uniform(0.0, 0.06))
        process.kill()
        process.communicate()
    assert finish(start(killed, backend))
    assert_same(result(killed), expected)
    # What was being written is left behind under a name of its own, never under that of the file.
    left = {p.name for p in killed.iterdir() if p.suffix == ".tmp"}
    assert all(name.startswith(".run.safetensors") for name in left)
