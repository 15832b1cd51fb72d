"""Optimizers, each written as its paper writes it; arguments, defaults and results of torch.optim.

``optimizer.formulas()`` prints the rules that are compiled into the step.  ``p`` is the parameter,
``g`` its gradient, ``t`` the step from 1 on; every other letter is a slot that starts at zero.
Every optimizer also takes ``params``, ``groups``, ``l1``, ``maximize``, ``clip_value`` and
``clip_norm`` (`Optimizer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from .averaging import WeightAverage
from .optimizer import Group, Optimizer, clip_by_global_norm, clip_by_value
from .schedules import Schedule

__all__ = [
    "SGD",
    "Adagrad",
    "RMSprop",
    "Adadelta",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "Lion",
    "Optimizer",
    "Group",
    "WeightAverage",
    "clip_by_value",
    "clip_by_global_norm",
]

Rate = float | Schedule
Options = Mapping[str, Any]

#: Decay as a penalty in the loss, and decay of the parameter itself (Loshchilov & Hutter 2019).
L2_DECAY = "g = g + weight_decay*p"
DECOUPLED_DECAY = "p = p - lr*weight_decay*p"


class SGD(Optimizer):
    """Gradient descent with momentum (Polyak 1964; Sutskever et al. 2013 for ``nesterov``).

    ``averaged=True`` keeps an average of the gradients, ``b = momentum*b + (1 - momentum)*g``, in
    place of torch's sum; ``dampening`` then has no part.
    """

    def __init__(
        self,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        averaged: bool = False,
        **options: Any,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs a momentum and no dampening")
        if averaged and dampening:
            raise ValueError("averaged momentum has no dampening")
        super().__init__(
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "averaged": averaged,
            },
            **options,
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield L2_DECAY
        if not on["momentum"]:
            yield "p = p - lr*g"
            return
        if on["averaged"]:
            yield "b = momentum*b + (1 - momentum)*g"
        elif on["dampening"]:
            yield "b = momentum*b + where(t == 1, 1, 1 - dampening)*g"
        else:
            yield "b = momentum*b + g"
        yield "p = p - lr*(g + momentum*b)" if on["nesterov"] else "p = p - lr*b"


class Adagrad(Optimizer):
    """Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning", 2011."""

    initial_slots: ClassVar = {"s": "initial_accumulator_value"}

    def __init__(
        self,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        **options: Any,
    ) -> None:
        super().__init__(
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
            },
            **options,
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield L2_DECAY
        yield "s = s + g**2"
        rate = "lr / (1 + (t - 1)*lr_decay)" if on["lr_decay"] else "lr"
        yield f"p = p - {rate} * (g / (sqrt(s) + eps))"


class RMSprop(Optimizer):
    """Tieleman & Hinton, lecture 6.5, 2012; ``centered`` from Graves 2013."""

    def __init__(
        self,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
            },
            **options,
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield L2_DECAY
        yield "v = alpha*v + (1 - alpha)*g**2"
        variance = "v"
        if on["centered"]:
            yield "a = alpha*a + (1 - alpha)*g"
            # Rounding can take the difference below zero, where the root would be NaN.
            variance = "maximum(v - a**2, 0)"
        scaled = f"g / (sqrt({variance}) + eps)"
        if on["momentum"]:
            yield f"b = momentum*b + {scaled}"
            yield "p = p - lr*b"
        else:
            yield f"p = p - lr*({scaled})"


class Adadelta(Optimizer):
    """Zeiler, "ADADELTA: an adaptive learning rate method", 2012."""

    def __init__(
        self,
        lr: Rate = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}, **options
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield L2_DECAY
        yield "v = rho*v + (1 - rho)*g**2"
        yield "d = sqrt((u + eps) / (v + eps)) * g"
        yield "u = rho*u + (1 - rho)*d**2"
        yield "p = p - lr*d"


class Adam(Optimizer):
    """Kingma & Ba, "Adam: a method for stochastic optimization", 2015.

    ``weight_decay`` is a penalty in the loss; `AdamW` decays the parameter.  ``amsgrad`` from
    Reddi, Kale & Kumar, "On the convergence of Adam and beyond", 2018.
    """

    decay = L2_DECAY

    def __init__(
        self,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
            },
            **options,
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield self.decay
        yield "m = beta1*m + (1 - beta1)*g"
        yield "v = beta2*v + (1 - beta2)*g**2"
        second = "v"
        if on["amsgrad"]:
            yield "u = maximum(u, v)"
            second = "u"
        yield (f"p = p - lr/(1 - beta1**t) * (m / (sqrt({second})/sqrt(1 - beta2**t) + eps))")


class AdamW(Adam):
    """Loshchilov & Hutter, "Decoupled weight decay regularization", 2019."""

    decay = DECOUPLED_DECAY

    def __init__(
        self,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, amsgrad, **options)


class Adamax(Optimizer):
    """Adam with the infinity norm (Kingma & Ba 2015, section 7.1)."""

    def __init__(
        self,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, **options
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield L2_DECAY
        yield "m = beta1*m + (1 - beta1)*g"
        yield "u = maximum(beta2*u, abs(g) + eps)"
        yield "p = p - lr/(1 - beta1**t) * (m/u)"


class NAdam(Optimizer):
    """Dozat, "Incorporating Nesterov momentum into Adam", 2016."""

    initial_slots: ClassVar = {"mu_product": 1.0}
    shared_slots: ClassVar = ("mu_product",)

    def __init__(
        self,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
            **options,
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield DECOUPLED_DECAY if on["decoupled_weight_decay"] else L2_DECAY
        yield "mu = beta1*(1 - 0.5 * 0.96**(t*momentum_decay))"
        yield "mu_next = beta1*(1 - 0.5 * 0.96**((t + 1)*momentum_decay))"
        yield "mu_product = mu_product*mu"
        yield "m = beta1*m + (1 - beta1)*g"
        yield "v = beta2*v + (1 - beta2)*g**2"
        yield "n = (1 - mu)/(1 - mu_product) * g + mu_next/(1 - mu_product*mu_next) * m"
        yield "p = p - lr*(n / (sqrt(v)/sqrt(1 - beta2**t) + eps))"


class RAdam(Optimizer):
    """Liu et al., "On the variance of the adaptive learning rate and beyond", 2020."""

    def __init__(
        self,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
            **options,
        )

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield DECOUPLED_DECAY if on["decoupled_weight_decay"] else L2_DECAY
        yield "m = beta1*m + (1 - beta1)*g"
        yield "v = beta2*v + (1 - beta2)*g**2"
        yield "rho_inf = 2/(1 - beta2) - 1"
        yield "rho = rho_inf - 2*t*beta2**t / (1 - beta2**t)"
        # Below 5 the average is too short to have a variance: the step is plain momentum.  The
        # unused branch is computed as well and must stay finite there, hence the bound.
        yield "rho_safe = maximum(rho, 5)"
        yield (
            "r = ((rho_safe - 4)*(rho_safe - 2)*rho_inf"
            " / ((rho_inf - 4)*(rho_inf - 2)*rho_safe) * (1 - beta2**t))**0.5"
        )
        yield "p = p - lr/(1 - beta1**t) * (m * where(rho > 5, r/(sqrt(v) + eps), 1))"


class Lion(Optimizer):
    """Chen et al., "Symbolic discovery of optimization algorithms", 2023, program 1."""

    def __init__(
        self,
        lr: Rate = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__({"lr": lr, "betas": betas, "weight_decay": weight_decay}, **options)

    def rules(self, on: Options) -> Iterator[str]:
        if on["weight_decay"]:
            yield DECOUPLED_DECAY
        yield "p = p - lr*sign(beta1*m + (1 - beta1)*g)"
        yield "m = beta2*m + (1 - beta2)*g"
