"""Schedules against the sequences of torch.optim.lr_scheduler."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chainrule.frontend import optim, schedules
from chainrule.frontend.state import Variable

POSITIONS = 40


def torch_sequence(make, steps=POSITIONS, lr=0.1, momentum=0.9, metrics=None):
    torch = pytest.importorskip("torch")
    params = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(params, lr=lr, momentum=momentum)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    found = []
    for i in range(steps):
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        scheduler.step(*([metrics[i]] if metrics else []))
    return np.array(found)


def sequence(make, steps=POSITIONS, lr=0.1, momentum=0.9, metrics=None):
    optimizer = optim.SGD(lr, momentum=momentum)
    schedule = make(schedules, optimizer)
    found = []
    for i in range(steps):
        group = optimizer.groups[0]
        found.append((group.get("lr"), group.get("momentum")))
        schedule.step(*([metrics[i]] if metrics else []))
    return np.array(found)


CASES = {
    "StepLR": lambda m, o: m.StepLR(o, 7, 0.3),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [30, 5, 5, 12], 0.5),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.25, 4),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.1, 0.9, 11),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 17, 2.0),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda i: 0.95**i),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda i: 1 - 1 / (i + 2)),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 13, 0.01),
    "WarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 5, 2, 0.01),
    "WarmRestarts1": lambda m, o: m.CosineAnnealingWarmRestarts(o, 5),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.5, total_steps=POSITIONS + 1),
    "OneCycleLR3": lambda m, o: m.OneCycleLR(
        o, 0.5, epochs=6, steps_per_epoch=7, three_phase=True, anneal_strategy="linear"
    ),
    "OneCycleLRPlain": lambda m, o: m.OneCycleLR(o, 0.5, 50, cycle_momentum=False),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 5, 8),
    "CyclicLR2": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 6, mode="triangular2"),
    "CyclicLRExp": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 6, mode="exp_range", gamma=0.9),
    "CyclicLRFn": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 6, scale_fn=lambda c: 1 / c),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, 1.0, 5), m.CosineAnnealingLR(o, 20)], [5]
    ),
    "SequentialLR3": lambda m, o: m.SequentialLR(
        o, [m.ConstantLR(o, 0.1, 4), m.ExponentialLR(o, 0.9), m.StepLR(o, 3)], [4, 20]
    ),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler(
        [m.ConstantLR(o, 0.1, 4), m.ExponentialLR(o, 0.9)]
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_numbers_of_torch(name):
    np.testing.assert_allclose(
        sequence(CASES[name]), torch_sequence(CASES[name]), rtol=1e-9, atol=1e-15
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patience": 2, "factor": 0.5},
        {"mode": "max", "patience": 1},
        {"patience": 1, "cooldown": 2, "threshold": 0.1},
        {"patience": 0, "threshold_mode": "abs", "threshold": 0.2, "min_lr": 0.01},
    ],
)
def test_the_plateau_gives_the_numbers_of_torch(options):
    metrics = [1 + math.cos(i) / (i + 1) + (i > 20) for i in range(POSITIONS)]

    def make(module, optimizer):
        return module.ReduceLROnPlateau(optimizer, **options)

    np.testing.assert_allclose(
        sequence(make, metrics=metrics), torch_sequence(make, metrics=metrics), rtol=1e-12
    )


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_goes_on_from_its_state(name):
    def make():
        optimizer = optim.SGD(0.1, momentum=0.9)
        return optimizer, CASES[name](schedules, optimizer)

    first, schedule = make()
    for _ in range(17):
        schedule.step()
    second, resumed = make()
    resumed.load_state_dict(schedule.state_dict())
    schedule.step()
    resumed.step()
    assert first.lr == second.lr
    with pytest.raises(ValueError, match="position"):
        resumed.load_state_dict({})


def test_an_optimizer_takes_a_schedule_for_its_learning_rate():
    optimizer = optim.Adam(schedules.StepLR(0.5, 2, 0.1))
    assert optimizer.lr == 0.5
    optimizer.schedule.step()
    optimizer.schedule.step()
    assert optimizer.lr == pytest.approx(0.05)
    assert optimizer.schedule.get_last_lr() == [optimizer.lr]
    cycle = optim.Adam(schedules.OneCycleLR(None, 0.5, 100))
    assert cycle.lr == pytest.approx(0.5 / 25)
    assert cycle.groups[0].get("beta1") == 0.95
    warm = schedules.SequentialLR(
        0.3, [schedules.LinearLR(None), schedules.CosineAnnealingLR(None, 10)], [5]
    )
    assert optim.Adam(warm).lr == pytest.approx(0.1)
    with pytest.raises(ValueError, match="names no base"):
        optim.Adam(schedules.StepLR(None, 2))


def test_groups_keep_their_own_base():
    p = Variable(np.ones(2), "p")
    optimizer = optim.SGD(0.1, groups=[{"params": [p], "lr": 0.2}])
    schedule = schedules.StepLR(optimizer, 1, 0.5)
    schedule.step()
    assert schedule.get_last_lr() == [0.05, 0.1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.OneCycleLR(0.1, 0.5),
        lambda: schedules.OneCycleLR(0.1, 0.5, 10, anneal_strategy="cubic"),
        lambda: schedules.OneCycleLR(optim.Adagrad(), 0.5, 10),
        lambda: schedules.CyclicLR(0.1, 0.1, 0.5, mode="square"),
        lambda: schedules.SequentialLR(0.1, [schedules.StepLR(None, 1)], [3]),
        lambda: schedules.ChainedScheduler([]),
        lambda: schedules.ReduceLROnPlateau(0.1, factor=1.0),
        lambda: schedules.ReduceLROnPlateau(0.1, mode="most"),
        lambda: schedules.ReduceLROnPlateau(optim.SGD()).step(),
        lambda: schedules.StepLR(0.1, 3, interval="day"),
        lambda: schedules.StepLR(0.1, 3).step(),
        lambda: schedules.CosineAnnealingWarmRestarts(0.1, 0),
    ],
)
def test_what_makes_no_schedule_is_refused(make):
    with pytest.raises(ValueError):
        make()
