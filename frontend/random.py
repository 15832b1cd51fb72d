"""Random numbers that depend on a seed, a step and a place in the graph, and on nothing else.

The generator is counter-based (Philox 2x32-10, see `ops.RandomBits`): the same seed gives the same
numbers on any backend and for any number of threads.  Each call of a function here is a new stream.
A compiled program advances the generator's step by one at each call.
"""

from __future__ import annotations

import math

import numpy as np

from ..compiler.errors import GraphTypeError
from ..compiler.ir import ops
from ..compiler.ir.graph import Node
from ..compiler.ir.types import FLOATS, INTEGERS, Shape
from .initializers import seed_initializers
from .promotion import canonical_dtype
from .shaping import nonnegative_shape
from .state import Variable, register_effect
from .tensor import Tensor, apply, as_tensor
from .tracing import build, fail

_MASK_32 = 0xFFFFFFFF


class Generator:
    """A source of streams of random numbers.

    ``state`` is a 0-d int64 variable: the seed in its high 32 bits, the step in its low ones.
    """

    def __init__(self, seed: int = 0) -> None:
        self.state = Variable(np.zeros((), np.int64), "random_state", "random", trainable=False)
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> None:
        """Start again at step 0 of ``seed`` (its low 32 bits count) and number streams from 0.

        Programs traced before go on with the new seed.
        """
        word = (int(seed) & _MASK_32) << 32
        self.state.value[...] = np.uint64(word).astype(np.int64)
        self._streams = 0

    def new_stream(self) -> int:
        """Return the number of a stream that nothing traced since the last seeding uses."""
        self._streams += 1
        return self._streams - 1

    def bits(
        self, shape: object, words: int = 1, training_only: bool = False
    ) -> tuple[Tensor, ...]:
        """Return ``words`` (1 or 2) uint32 tensors of ``shape`` from one new stream."""
        sizes = nonnegative_shape(shape, "random")
        stream = self.new_stream()
        return tuple(self._word(sizes, stream, word, training_only) for word in range(words))

    def _word(self, shape: Shape, stream: int, word: int, training_only: bool) -> Tensor:
        node: Node = build(ops.RandomBits(shape, stream, word), self.state.node)
        register_effect(
            self.state, node, lambda step: step + 1, once=True, training_only=training_only
        )
        return Tensor(node)


_default = Generator()


def default_generator() -> Generator:
    """Return the generator that is used where none is given."""
    return _default


def manual_seed(seed: int) -> None:
    """Seed the default generator and the initial values of parameters."""
    _default.manual_seed(seed)
    seed_initializers(seed)


def _unit(bits: tuple[Tensor, ...], dtype: str) -> Tensor:
    """Return uniform numbers in [0, 1): multiples of 2**-24 (float32) or 2**-53 (float64)."""
    if dtype == "float32":
        return (bits[0] >> 8).astype(dtype) * 2.0**-24
    high, low = (bits[0] >> 5).astype(dtype), (bits[1] >> 6).astype(dtype)
    return (high * 2.0**26 + low) * 2.0**-53


def _words(dtype: str) -> int:
    return 1 if dtype == "float32" else 2


def _float(dtype: object, what: str) -> str:
    name = canonical_dtype(dtype)
    if name not in FLOATS:
        fail(f"{what}: needs a floating-point dtype, not {name}", GraphTypeError)
    return name


def uniform(
    shape: object = (),
    low: object = 0.0,
    high: object = 1.0,
    dtype: object = "float32",
    generator: Generator | None = None,
    training_only: bool = False,
) -> Tensor:
    """Return draws from U[low, high) of ``shape``, which may be symbolic.

    ``training_only``: the draws matter in training alone, so the generator does not advance in
    inference.
    """
    name = _float(dtype, "uniform")
    unit = _unit((generator or _default).bits(shape, _words(name), training_only), name)
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        scaled = unit if high - low == 1 else unit * (high - low)
        return scaled if low == 0 else scaled + low
    return unit * (as_tensor(high, unit) - low) + low


def normal(
    shape: object = (),
    mean: object = 0.0,
    std: object = 1.0,
    dtype: object = "float32",
    generator: Generator | None = None,
) -> Tensor:
    """Return draws from N(mean, std²) of ``shape``, which may be symbolic.

    Box–Muller: ``sqrt(-2 log u) cos(2π v)``, u in (0, 1] and v in [0, 1) from the two words of one
    counter (Box & Muller, "A note on the generation of random normal deviates", 1958).
    """
    name = _float(dtype, "normal")
    first, second = (generator or _default).bits(shape, 2)
    radius = ((first >> 8).astype(name) + 1.0) * 2.0**-24
    angle = (second >> 8).astype(name) * (2.0 * math.pi * 2.0**-24)
    draws = apply("sqrt", apply("log", radius) * -2.0) * apply("cos", angle)
    if not (isinstance(std, (int, float)) and std == 1):
        draws = draws * std
    return draws if isinstance(mean, (int, float)) and mean == 0 else draws + mean


def bernoulli(
    p: object,
    shape: object = None,
    dtype: object = "bool",
    generator: Generator | None = None,
    training_only: bool = False,
) -> Tensor:
    """Return draws that are true with probability ``p`` (rounded to a multiple of 2**-24).

    ``shape``: by default the shape of ``p``.  ``training_only``: the draws matter in training
    alone, so the generator does not advance in inference.
    """
    if shape is None:
        shape = p.shape if isinstance(p, (Tensor, np.ndarray)) else ()
    bits = (generator or _default).bits(shape, training_only=training_only)
    return (_unit(bits, "float32") < p).astype(dtype)


def randint(
    low: int,
    high: int,
    shape: object = (),
    dtype: object = "int64",
    generator: Generator | None = None,
) -> Tensor:
    """Return integers from ``low`` to ``high - 1``, uniform up to a bias below (high - low)/2**32.

    Raises GraphTypeError for a dtype that is no integer, GraphError for an empty or too wide range.
    """
    name = canonical_dtype(dtype)
    if name not in INTEGERS:
        fail(f"randint: needs an integer dtype, not {name}", GraphTypeError)
    if not 0 < high - low <= _MASK_32:
        fail(f"randint: the range [{low}, {high}) must hold 1 to 2**32 - 1 integers")
    (bits,) = (generator or _default).bits(shape)
    return ((bits % (high - low)).astype("int64") + low).astype(name)
