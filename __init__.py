"""chainrule: a symbolic-to-compiled graph compiler for neural networks.

    import chainrule as cr
    from chainrule import nn, losses, optim

Tensors and functions of them build a graph; `compile` and `compile_train` turn it into machine
code; `grad` gives gradients as tensors again; `formula` makes an operator of a formula.
"""

import sys as _sys

from .compiler.errors import (
    CacheWarning,
    ChainruleError,
    CheckFailed,
    CheckpointError,
    DomainWarning,
    FormulaError,
    GraphError,
    GraphTypeError,
    IndexRangeError,
    InputError,
    InputTypeError,
    TrainingWarning,
    VerificationError,
)
from .frontend import (
    activations,
    augment,
    callbacks,
    data,
    detection,
    losses,
    metrics,
    models,
    nn,
    optim,
    random,
    schedules,
    sklearn,
)
from .frontend import functional as F
from .frontend.activations import (
    elu,
    gelu,
    leaky_relu,
    mish,
    relu,
    selu,
    silu,
    softplus,
)
from .frontend.api import (
    CompiledFunction,
    compile,
    compile_train,
    evaluate,
    grad,
    hessian_vector_product,
)
from .frontend.formula import FormulaOperator, formula
from .frontend.functional import *  # noqa: F403
from .frontend.random import manual_seed
from .frontend.state import Variable, parameter
from .frontend.tensor import Tensor, as_tensor, constant, input
from .frontend.training import TrainingProgram
from .frontend.verification import VerificationReport, verify

__version__ = "0.1.0"

# ``from chainrule.nn import Linear``: public modules can be imported by the names they have here,
# and are the same modules.
_INSIDE = f"{__name__}.frontend."
for _name, _module in list(_sys.modules.items()):
    if _name.startswith(_INSIDE):
        _part = globals().get(_name.removeprefix(_INSIDE).split(".")[0])
        if isinstance(_part, type(_sys)):  # a module, and no function of the same name
            _sys.modules.setdefault(_name.replace(_INSIDE, f"{__name__}.", 1), _module)
del _name, _module, _part

__all__ = [
    "CacheWarning",
    "ChainruleError",
    "CheckFailed",
    "CheckpointError",
    "CompiledFunction",
    "DomainWarning",
    "F",
    "FormulaOperator",
    "FormulaError",
    "GraphError",
    "GraphTypeError",
    "IndexRangeError",
    "InputError",
    "InputTypeError",
    "Tensor",
    "TrainingProgram",
    "TrainingWarning",
    "Variable",
    "VerificationError",
    "VerificationReport",
    "activations",
    "as_tensor",
    "augment",
    "callbacks",
    "compile",
    "compile_train",
    "constant",
    "data",
    "detection",
    "elu",
    "evaluate",
    "formula",
    "gelu",
    "grad",
    "hessian_vector_product",
    "input",
    "leaky_relu",
    "losses",
    "manual_seed",
    "metrics",
    "mish",
    "models",
    "nn",
    "optim",
    "parameter",
    "random",
    "relu",
    "schedules",
    "selu",
    "silu",
    "sklearn",
    "softplus",
    "verify",
]
