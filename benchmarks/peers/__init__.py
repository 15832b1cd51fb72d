"""One adapter for each library that is measured.

An adapter is a function ``build(workload) -> run``. It imports its library, prepares the data in
the library's own types, and returns ``run(steps) -> value``: the timed loop, which ends when the
last result is in memory. ``value`` is the last loss of a training, else one element of the result.
It raises ModuleNotFoundError where its library is missing or has no such thing to measure.
"""

from __future__ import annotations

from collections.abc import Callable

from ..workloads import Steady
from . import chainrule_peer, jax_peer, numpy_peer, torch_peer

PEERS: dict[str, Callable[[Steady], Callable[[int], float]]] = {
    "chainrule": chainrule_peer.build,
    "torch": torch_peer.build_eager,
    "torch_compile": torch_peer.build_compiled,
    "jax": jax_peer.build,
    "numpy": numpy_peer.build,
}
DISTRIBUTIONS = ("chainrule", "llvmlite", "torch", "jax", "jaxlib", "optax", "numpy")
