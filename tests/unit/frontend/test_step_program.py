"""Who is trained: groups, owners, frozen and unused parameters, penalties, updates of any rule."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim

GENERATOR = np.random.default_rng(8)
X = GENERATOR.normal(size=(12, 3))


@pytest.fixture(params=["numpy", "native"])
def backend(request):
    return request.param


def two_layers():
    cr.manual_seed(3)
    x = cr.input("x", ("batch", 3), dtype="float64")
    first, second = nn.Linear(3, 4, dtype="float64"), nn.Linear(4, 2, dtype="float64")
    return x, first, second, second(first(x).tanh())


def gradients_of(loss, parameters):
    named = {str(i): g for i, g in enumerate(cr.grad(loss, parameters))}
    return list(cr.compile(named, backend="numpy")(x=X).values())


# -- warnings and errors --------------------------------------------------------------------------


def test_a_parameter_that_the_loss_does_not_need_is_named():
    _, first, _, y = two_layers()
    idle = cr.parameter(np.zeros(7), "idle")
    with pytest.warns(cr.TrainingWarning, match=r"does not depend on 'idle' float64\(7,\)"):
        train = cr.compile_train(
            y.square().mean(), optim.SGD(0.1), params=[*first.parameters(), idle], backend="numpy"
        )
    train.step(x=X)
    assert not idle.value.any()


def test_a_parameter_behind_stop_gradient_is_named_and_not_decayed():
    x, first, second, _ = two_layers()
    y = second(cr.stop_gradient(first(x)))
    before = [p.numpy() for p in first.parameters()]
    with pytest.warns(cr.TrainingWarning, match="no derivative with respect to 'weight'"):
        train = cr.compile_train(
            y.square().mean(), optim.AdamW(0.1, weight_decay=0.5), backend="numpy"
        )
    train.step(x=X)
    for a, p in zip(before, first.parameters(), strict=True):
        np.testing.assert_array_equal(a, p.value)
    first.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cr.compile_train(y.square().mean(), optim.SGD(), backend="numpy")


def test_nothing_to_train_is_refused():
    x, first, second, y = two_layers()
    loss = y.square().mean()
    with pytest.raises(cr.GraphError, match="params is empty"):
        cr.compile_train(loss, optim.SGD(), params=[])
    other = cr.parameter(np.zeros(7), "other")
    with pytest.raises(cr.GraphError, match=r"nothing to train \('other'"):
        cr.compile_train(loss, optim.SGD(), params=[other])
    first.requires_grad_(False)
    second.requires_grad_(False)
    with pytest.raises(cr.GraphError, match="all 4 are frozen"):
        cr.compile_train(loss, optim.SGD())
    with pytest.raises(cr.GraphError, match="depends on none"):
        cr.compile_train(x.square().mean(), optim.SGD())


def test_nan_is_located_with_operator_element_and_step(backend):
    x, _, _, y = two_layers()
    train = cr.compile_train(
        cr.log(y.square() + x.sum()).mean(), optim.SGD(0.0), check="nan", backend=backend
    )
    bad = np.full((12, 3), -9.0)
    train.step(x=np.abs(X))
    with pytest.raises(cr.CheckFailed, match=r"log gives nan at element \d+ .* in step 1 \(epoch"):
        train.step(x=bad)
    batches = [(np.abs(X),), (np.abs(X),), (bad,)]
    with pytest.raises(cr.CheckFailed, match=r"in step 3 \(epoch 0, batch 2"):
        train.fit(batches, verbose=0)
    compiled = cr.compile(cr.log(x), check="nan", backend=backend)
    with pytest.raises(cr.CheckFailed, match="log gives nan"):
        compiled(x=bad)


# -- owners and groups ----------------------------------------------------------------------------


@pytest.mark.parametrize("owner", ["params of the program", "params of the optimizer", "module"])
def test_an_optimizer_owns_parameters(owner):
    _, first, second, y = two_layers()
    loss = y.square().mean()
    if owner == "params of the optimizer":
        train = cr.compile_train(loss, optim.SGD(0.1, params=first.parameters()), backend="numpy")
    else:
        given = first if owner == "module" else first.parameters()
        train = cr.compile_train(loss, optim.SGD(0.1), params=given, backend="numpy")
    before = [p.numpy() for p in (*first.parameters(), *second.parameters())]
    train.step(x=X)
    after = [p.value for p in (*first.parameters(), *second.parameters())]
    changed = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
    assert changed == [True, True, False, False]


def test_every_option_can_differ_between_groups(backend):
    _, first, second, y = two_layers()
    parameters = [*first.parameters(), *second.parameters()]
    loss = y.square().mean()
    before, slopes = [p.numpy() for p in parameters], gradients_of(loss, parameters)
    optimizer = optim.SGD(
        0.1,
        groups=[
            {"params": first, "lr": 0.3, "weight_decay": 0.2, "maximize": True},
            {"params": second.weight, "l1": 0.05, "clip_value": 0.01},
            {"params": [second.bias], "trainable": False},
        ],
    )
    cr.compile_train(loss, optimizer, backend=backend).step(x=X)
    expected = [
        *(p - 0.3 * (-g + 0.2 * p) for p, g in zip(before[:2], slopes[:2], strict=True)),
        before[2] - 0.1 * (np.clip(slopes[2], -0.01, 0.01) + 0.05 * np.sign(before[2])),
        before[3],
    ]
    for p, value in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(p.value, value, rtol=1e-12, atol=1e-14)


def test_norms_are_clipped_within_a_group(backend):
    _, first, second, y = two_layers()
    parameters = [*first.parameters(), *second.parameters()]
    loss = y.square().mean()
    before, slopes = [p.numpy() for p in parameters], gradients_of(loss, parameters)
    optimizer = optim.SGD(1.0, clip_norm=0.02, groups=[{"params": first, "clip_norm": 0.01}])
    cr.compile_train(loss, optimizer, backend=backend).step(x=X)
    for members, bound in ((slice(0, 2), 0.01), (slice(2, 4), 0.02)):
        norm = np.sqrt(sum((g**2).sum() for g in slopes[members]))
        assert norm > bound
        for p, a, g in zip(parameters[members], before[members], slopes[members], strict=True):
            np.testing.assert_allclose(p.value, a - g * bound / (norm + 1e-6), rtol=1e-10)


def test_groups_that_mean_nothing_are_refused():
    _, first, _, _ = two_layers()
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        optim.SGD(0.1, groups=[{"params": first, "clip_norm": 0.0}])
    with pytest.raises(ValueError, match="l1 must be in"):
        optim.SGD(0.1, l1=-1.0)
    with pytest.raises(ValueError, match="has no nesterow"):
        optim.SGD(0.1, groups=[{"params": first, "nesterow": True}])


# -- penalties ------------------------------------------------------------------------------------


def test_penalties_by_hand(backend):
    _, first, second, _ = two_layers()
    model = nn.Sequential(first, second)
    a, b = first.weight.numpy(), second.weight.numpy()
    r = nn.regularization
    terms = {
        "l1": (r.l1(model, 0.5), 0.5 * (np.abs(a).sum() + np.abs(b).sum())),
        "l2": (r.l2([first.weight, first.bias]), (a**2).sum() + (first.bias.value**2).sum()),
        "elastic": (
            r.elastic_net(first.weight, 2.0, 0.3),
            2.0 * (0.3 * np.abs(a).sum() + 0.35 * (a**2).sum()),
        ),
        "group": (
            r.group_lasso(model),
            np.sqrt(3) * np.linalg.norm(a, axis=1).sum()
            + np.sqrt(4) * np.linalg.norm(b, axis=1).sum(),
        ),
        "orthogonal": (
            r.orthogonality(model),
            ((a.T @ a - np.eye(3)) ** 2).sum() + ((b @ b.T - np.eye(2)) ** 2).sum(),
        ),
    }
    found = cr.compile({name: term for name, (term, _) in terms.items()}, backend=backend)()
    for name, (_, expected) in terms.items():
        assert found[name] == pytest.approx(expected, rel=1e-12), name


def test_penalties_train(backend):
    _, first, _, y = two_layers()
    loss = y.square().mean()
    slope = gradients_of(loss, [first.weight])[0]
    before = first.weight.numpy()
    penalty = nn.regularization.l2(first.weight, 0.1) + nn.regularization.l1(first.weight, 0.2)
    cr.compile_train(loss + penalty, optim.SGD(1.0), params=[first.weight], backend=backend).step(
        x=X
    )
    expected = before - slope - 0.2 * before - 0.2 * np.sign(before)
    np.testing.assert_allclose(first.weight.value, expected, rtol=1e-12)


def test_a_penalty_of_nothing_is_refused():
    with pytest.raises(cr.GraphError, match="no parameter to penalise"):
        nn.regularization.l2(nn.ReLU())
    with pytest.raises(cr.GraphError, match="l1_ratio"):
        nn.regularization.elastic_net(cr.parameter(np.ones(2)), 1.0, 2.0)
    with pytest.raises(cr.GraphError, match="needs matrices"):
        nn.regularization.orthogonality(cr.parameter(np.ones(2)))


# -- two programs over one storage ----------------------------------------------------------------


class Adversaries:
    """A generator and a discriminator, each with batch normalisation."""

    def __init__(self, backend, modules):
        cr.manual_seed(1)
        z, x = cr.input("z", ("batch", 2)), cr.input("x", ("batch", 3))
        self.g = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
        self.d = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1))
        fake = self.g(z)
        loss_d = ((self.d(fake) + 1.0).square() + (self.d(x) - 1.0).square()).mean()
        loss_g = (self.d(fake) - 1.0).square().mean()
        how = {"backend": backend, "seed": 0}
        params = (self.d, self.g) if modules else (self.d.parameters(), self.g.parameters())
        self.step_d = cr.compile_train(loss_d, optim.SGD(0.1), params=params[0], **how)
        self.step_g = cr.compile_train(
            loss_g, optim.SGD(0.1), {"fake": fake}, params=params[1], **how
        )

    def state(self):
        return {
            f"{name}.{key}": value.copy()
            for name, module in (("g", self.g), ("d", self.d))
            for key, value in module.state_dict().items()
        }


def changed(before, after):
    return {name for name in before if (before[name] != after[name]).any()}


@pytest.mark.parametrize("modules", [True, False], ids=["modules", "lists"])
def test_adversaries_share_storage_and_change_what_is_theirs(backend, modules):
    rng = np.random.default_rng(0)
    z, x = rng.normal(size=(9, 2)).astype("f4"), rng.normal(size=(9, 3)).astype("f4")
    gan = Adversaries(backend, modules)
    running = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    start = gan.state()
    gan.step_d.step(z=z, x=x)
    after_d = gan.state()
    moved = changed(start, after_d)
    assert {n for n in moved if n.startswith("d.")} == {f"d.{n}" for n in gan.d.state_dict()}
    of_other = {f"g.{n}" for n in running} if not modules else set()
    assert {n for n in moved if n.startswith("g.")} == of_other
    gan.step_g.step(z=z)
    moved = changed(after_d, gan.state())
    weights = {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}
    assert moved >= {f"g.{n}" for n in running}
    assert not moved & {f"d.{n}" for n in weights}
    assert (f"d.{next(iter(running))}" in moved) is not modules
    # d was applied twice in its own step: to the fakes and to the data
    tracked = gan.d.state_dict()["1.num_batches_tracked"]
    assert tracked == (2 if modules else 3)


def test_adversaries_agree_on_both_backends():
    rng = np.random.default_rng(0)
    z, x = rng.normal(size=(9, 2)).astype("f4"), rng.normal(size=(9, 3)).astype("f4")
    states = []
    for name in ("numpy", "native"):
        gan = Adversaries(name, True)
        for _ in range(5):
            gan.step_d.step(z=z, x=x)
            gan.step_g.step(z=z)
        states.append(gan.state())
    for key, value in states[0].items():
        np.testing.assert_allclose(value, states[1][key], rtol=1e-4, atol=1e-5, err_msg=key)


# -- updates of any rule --------------------------------------------------------------------------


def test_a_self_organising_map(backend):
    """Kohonen 1982: the unit nearest to x, and its neighbours, move towards it."""
    rng = np.random.default_rng(2)
    units = cr.Variable(rng.uniform(size=(10, 2)), "units", "buffer")
    x = cr.input("x", (2,), dtype="float64")
    rate = cr.input("rate", (), dtype="float64")
    winner = (units - x).square().sum(1).argmin()
    distance = (cr.arange(10) - winner).astype("float64")
    pull = cr.exp(-distance.square() / 2.0) * rate
    step = cr.compile(
        {"winner": winner},
        updates={units: units + pull.expand_dims(1) * (x - units)},
        backend=backend,
    )
    expected = units.numpy()
    for sample in rng.uniform(size=(30, 2)):
        best = ((expected - sample) ** 2).sum(1).argmin()
        share = 0.5 * np.exp(-((np.arange(10) - best) ** 2) / 2.0)
        expected += share[:, None] * (sample - expected)
        assert step(x=sample, rate=0.5)["winner"] == best
        np.testing.assert_allclose(units.value, expected, rtol=1e-12)
