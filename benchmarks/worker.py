"""One peer with one workload in a process of its own, driven by lines of JSON.

``prepare`` answers whether the workload can run; ``run`` does some steps and tells how long they
took and the last value. What the libraries print goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from . import peak
from .peers import PEERS
from .workloads import WORKLOADS, FirstStep

PEAK = "peak"


def build(peer: str, workload_name: str) -> tuple[Callable[[int], float], float]:
    """The timed loop and the operations in one step of it."""
    workload = next(w for w in WORKLOADS if w.name == workload_name)
    if isinstance(workload, FirstStep):
        workload = workload.of
    if peer == PEAK:
        return peak.build(workload.threads)
    return PEERS[peer](workload), workload.operations


def answer(request: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "prepare":
        state["run"], operations = build(request["peer"], request["workload"])
        return {"operations": operations}
    started = time.perf_counter()
    value = state["run"](request["steps"])
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "value": value if math.isfinite(value) else None}


def serve(requests: TextIO, replies: TextIO) -> None:
    state: dict[str, Any] = {}
    for line in requests:
        try:
            reply = answer(json.loads(line), state)
        except ModuleNotFoundError as missing:
            reply = {"skip": str(missing)}
        except Exception as error:
            # Whatever a peer's library raises is a result to show, not the end of the session.
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, replies)
