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
from ..compiler.ir.dims import format_shape
from ..compiler.ir.graph import Node
from ..compiler.ir.infer import broadcast_shapes
from ..compiler.ir.types import FLOATS, INTEGERS, Dim, Shape
from .initializers import seed_initializers
from .manipulation import take
from .promotion import canonical_dtype
from .shaping import nonnegative_shape, normalize_axis
from .sorting import argsort, topk
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
    training_only: bool = False,
) -> Tensor:
    """Return draws from N(mean, std²) of ``shape``, which may be symbolic.

    Box–Muller: ``sqrt(-2 log u) cos(2π v)``, u in (0, 1] and v in [0, 1) from the two words of one
    counter (Box & Muller, "A note on the generation of random normal deviates", 1958).
    """
    name = _float(dtype, "normal")
    first, second = (generator or _default).bits(shape, 2, training_only)
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


#: Attempts of the rejection below: each succeeds in over 95 % of the cases, so all fail once in
#: 10**10 draws, which then give the mode.
_ATTEMPTS = 8


def gamma(
    shape: object,
    a: float,
    scale: float = 1.0,
    dtype: object = "float32",
    generator: Generator | None = None,
    training_only: bool = False,
) -> Tensor:
    """Return draws of the gamma distribution with ``a`` > 0, density ~ x**(a-1) exp(-x/scale).

    Marsaglia & Tsang, "A simple method for generating gamma variables", 2000, with a fixed number
    of attempts.
    """
    draws = apply("exp", _log_gamma(shape, a, dtype, generator, training_only))
    return draws if scale == 1 else draws * scale


def beta(
    shape: object,
    a: float,
    b: float,
    dtype: object = "float32",
    generator: Generator | None = None,
    training_only: bool = False,
) -> Tensor:
    """Return draws of the beta distribution, density ~ x**(a-1) (1-x)**(b-1), from two of gamma."""
    first = _log_gamma(shape, a, dtype, generator, training_only)
    second = _log_gamma(shape, b, dtype, generator, training_only)
    # X/(X + Y) of logarithms: for a small a both would underflow to 0/0.
    return apply("sigmoid", first - second)


def _log_gamma(
    shape: object, a: float, dtype: object, generator: Generator | None, training_only: bool
) -> Tensor:
    """Return logarithms of gamma draws."""
    if not (isinstance(a, (int, float)) and a > 0):
        fail(f"gamma, beta: the parameters must be positive numbers, not {a!r}")
    how = {"dtype": dtype, "generator": generator, "training_only": training_only}
    boost = None
    if a < 1:  # Gamma(a) = Gamma(a + 1) * U**(1/a)
        boost = apply("log", 1.0 - uniform(shape, **how)) * (1.0 / a)
        a += 1.0
    d = a - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    logarithm: Tensor | None = None
    for _ in range(_ATTEMPTS):
        x = normal(shape, **how)
        edge = 1.0 + c * x
        inside = edge > 0
        log_v = apply("log", apply("where", inside, edge, 1.0)) * 3.0
        bound = 0.5 * x.square() + d - d * apply("exp", log_v) + d * log_v
        taken = inside & (apply("log", 1.0 - uniform(shape, **how)) < bound)
        # The last of several successes counts; each attempt is as good as any other.
        earlier = 0.0 if logarithm is None else logarithm
        logarithm = apply("where", taken, log_v, earlier)
    assert logarithm is not None
    result = logarithm + math.log(d)
    return result if boost is None else result + boost


# -- draws made of uniform ones -------------------------------------------------------------------


def _open_unit(shape: object, dtype: str, generator: Generator | None) -> Tensor:
    """Return draws from (0, 1]: none of them is 0, so that logarithms are finite."""
    return 1.0 - uniform(shape, dtype=dtype, generator=generator)


def _shape_for(shape: object, *parameters: object) -> object:
    """Return ``shape``, or what the parameters broadcast to where it is None."""
    if shape is not None:
        return shape
    return broadcast_shapes(*(as_tensor(x).shape for x in parameters))


def exponential(
    shape: object = None,
    rate: object = 1.0,
    dtype: object = "float32",
    generator: Generator | None = None,
) -> Tensor:
    """Return draws of the exponential distribution with density ``rate * exp(-rate * x)``.

    ``shape``: by default that of ``rate``.
    """
    name = _float(dtype, "exponential")
    draws = -apply("log", _open_unit(_shape_for(shape, rate), name, generator))
    return draws if isinstance(rate, (int, float)) and rate == 1 else draws / rate


def gumbel(
    shape: object = (),
    loc: object = 0.0,
    scale: object = 1.0,
    dtype: object = "float32",
    generator: Generator | None = None,
) -> Tensor:
    """Return draws of the Gumbel distribution, ``loc - scale * log(-log u)``."""
    name = _float(dtype, "gumbel")
    # u in (0, 1), both ends excluded after rounding too: their logarithms would be infinite
    digits = 23 if name == "float32" else 52
    unit = uniform(shape, dtype=name, generator=generator) * (1.0 - 2.0**-digits)
    unit = unit + 2.0 ** -(digits + 2)
    draws = -apply("log", -apply("log", unit))
    return draws * scale + loc


def laplace(
    shape: object = (),
    loc: object = 0.0,
    scale: object = 1.0,
    dtype: object = "float32",
    generator: Generator | None = None,
) -> Tensor:
    """Return draws of the Laplace distribution, density ``exp(-|x - loc| / scale) / 2scale``."""
    name = _float(dtype, "laplace")
    side, size = (generator or _default).bits(shape, 2)
    magnitude = -apply("log", ((size >> 8).astype(name) + 1.0) * 2.0**-24)
    return apply("where", (side & 1) == 1, magnitude, -magnitude) * scale + loc


def truncated_normal(
    shape: object = (),
    low: float = -2.0,
    high: float = 2.0,
    mean: object = 0.0,
    std: object = 1.0,
    dtype: object = "float32",
    generator: Generator | None = None,
) -> Tensor:
    """Return draws of N(mean, std²) conditioned on ``mean + std * [low, high]``.

    ``low`` and ``high`` are numbers, in standard deviations.  Inverts the distribution function at
    a uniform draw between its values at the bounds.
    """
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float)) and low < high):
        fail(f"truncated_normal: low={low!r}, high={high!r} are no numbers in increasing order")
    name = _float(dtype, "truncated_normal")
    unit = uniform(shape, dtype=name, generator=generator)
    draws = _invert_normal(unit, float(low), float(high))
    if not (isinstance(std, (int, float)) and std == 1):
        draws = draws * std
    return draws if isinstance(mean, (int, float)) and mean == 0 else draws + mean


#: Halvings of an interval of at most 80 standard deviations down to the spacing of float32 numbers.
_HALVINGS = 30


def _invert_normal(unit: Tensor, low: float, high: float) -> Tensor:
    """Return the points between two bounds that a share ``unit`` of the mass between lies below.

    By bisection: as many steps for any draw, and no division by a vanishing density.  A pair of
    bounds above zero is mirrored, so that both masses are differences of small numbers.
    """
    if low > 0:
        return -_invert_normal(1.0 - unit, -high, -low)
    left, right = max(low, -40.0), min(high, 40.0)
    start, stop = (0.5 * math.erfc(-x / math.sqrt(2.0)) for x in (left, right))
    wanted = unit * (stop - start) + start
    below, above = unit * 0.0 + left, unit * 0.0 + right
    for _ in range(_HALVINGS):
        middle = (below + above) * 0.5
        mass = apply("erfc", middle * (-1.0 / math.sqrt(2.0))) * 0.5
        less = mass < wanted
        below, above = apply("where", less, middle, below), apply("where", less, above, middle)
    return (below + above) * 0.5


def categorical(
    logits: object, axis: int = -1, shape: object = None, generator: Generator | None = None
) -> Tensor:
    """Return int64 draws of the classes along ``axis``, with probability ~ exp(logit).

    ``shape``: of the result; by default that of ``logits`` without ``axis``, which its last axes
    must match.  The greatest of the logits with Gumbel noise added is such a draw (Gumbel, 1954).
    Logits of -inf are never drawn.
    """
    scores = as_tensor(logits)
    scores = scores if scores.dtype in FLOATS else scores.astype("float32")
    place = normalize_axis(axis, scores.ndim, "categorical")
    order = [*(a for a in range(scores.ndim) if a != place), place]
    scores = scores.transpose(order)
    batch = scores.shape[:-1]
    sizes = batch if shape is None else nonnegative_shape(shape, "categorical")
    if len(sizes) < len(batch) or sizes[len(sizes) - len(batch) :] != batch:
        fail(
            f"categorical: draws of shape {format_shape(sizes)} do not fit logits of "
            f"{format_shape(batch)}; a shape that ends so would"
        )
    noise = gumbel((*sizes, scores.shape[-1]), dtype=scores.dtype, generator=generator)
    return (scores + noise).argmax(-1)


def multinomial(
    probabilities: object,
    count: int,
    replacement: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Return ``count`` int64 draws a row of ``probabilities`` (..., n), which need not sum to 1.

    Without ``replacement`` the draws of a row differ: those with the greatest noisy logits (Kool et
    al., "Stochastic beams and where to find them", 2019).
    """
    weights = as_tensor(probabilities)
    weights = weights if weights.dtype in FLOATS else weights.astype("float32")
    logits = apply("log", weights)
    if replacement:
        draws = categorical(logits, -1, (count, *weights.shape[:-1]), generator)
        return draws.transpose((*range(1, draws.ndim), 0))
    noise = gumbel(weights.shape, dtype=weights.dtype, generator=generator)
    return topk(logits + noise, count, -1)[1]


def permutation(n: Dim, generator: Generator | None = None) -> Tensor:
    """Return the integers 0 to n-1 in random order; ``n`` may be symbolic.

    Sorts 32 random bits an element; equal ones keep their order, a bias below n / 2**32.
    """
    (bits,) = (generator or _default).bits((n,))
    return argsort(bits, 0)


def shuffle(x: object, axis: int = 0, generator: Generator | None = None) -> Tensor:
    """Return ``x`` with its slices along ``axis`` in random order."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim, "shuffle")
    return take(tensor, permutation(tensor.shape[place], generator), place)
