"""The scikit-learn estimators: its own checks, and use in pipelines, searches and pickles."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim

checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="compares with its checks")

from sklearn.base import clone, is_classifier, is_regressor  # noqa: E402
from sklearn.datasets import load_iris, make_regression  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from chainrule.frontend.sklearn import programs  # noqa: E402
from chainrule.sklearn import (  # noqa: E402
    NetworkClassifier,
    NetworkRegressor,
    NetworkTransformer,
)

FAST = {"learning_rate": 1e-2, "epochs": 100, "backend": "native"}


INTERPRETED = {"learning_rate": 3e-2, "epochs": 30, "backend": "numpy"}


# scikit-learn warns about what a check does on purpose
@pytest.mark.filterwarnings("ignore")
@checks.parametrize_with_checks(
    [
        NetworkClassifier((16,), **INTERPRETED),
        NetworkRegressor((32,), **INTERPRETED),
        NetworkTransformer(2, (16,), **INTERPRETED),
    ]
)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@checks.parametrize_with_checks(
    [
        NetworkClassifier((16,), **FAST),
        NetworkRegressor((32,), **FAST),
        NetworkTransformer(2, (16,), **FAST),
    ]
)
def test_the_checks_of_scikit_learn_in_machine_code(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True, as_frame=False)
    names = np.array(["setosa", "versicolor", "virginica"])
    order = np.random.default_rng(0).permutation(len(x))
    return StandardScaler().fit_transform(x)[order], names[y][order]


def quick(kind=NetworkClassifier, **how):
    return kind(**{"hidden": (8,), "random_state": 0, **FAST, **how})


def test_a_pipeline_and_cross_validation(iris):
    x, y = iris
    pipeline = make_pipeline(StandardScaler(), quick())
    scores = cross_val_score(pipeline, x, y, cv=3)
    assert scores.min() > 0.9
    pipeline.fit(x, y)
    assert list(pipeline.classes_) == ["setosa", "versicolor", "virginica"]
    shares = pipeline.predict_proba(x)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-9)
    np.testing.assert_array_equal(pipeline.classes_[shares.argmax(1)], pipeline.predict(x))
    np.testing.assert_allclose(pipeline.predict_log_proba(x), np.log(shares))
    assert is_classifier(pipeline) and is_regressor(quick(NetworkRegressor))


def test_a_search_compiles_each_architecture_once(iris):
    x, y = iris
    programs._programs.clear()
    search = GridSearchCV(
        quick(epochs=20),
        {"hidden": [(4,), (6,)], "learning_rate": [1e-3, 3e-2], "alpha": [0.0, 1e-2]},
        cv=3,
    )
    search.fit(x, y)
    assert len(programs._programs) == 2
    assert search.best_params_["learning_rate"] == 3e-2
    assert search.score(x, y) > 0.8


def test_fits_of_one_architecture_do_not_disturb_each_other(iris):
    x, y = iris
    first = quick(random_state=1).fit(x, y)
    expected = first.predict_proba(x)
    second = quick(random_state=2).fit(x[:100], y[:100])
    np.testing.assert_array_equal(first.predict_proba(x), expected)
    assert np.abs(second.predict_proba(x) - expected).max() > 1e-3
    again = quick(random_state=1).fit(x, y)
    np.testing.assert_array_equal(again.predict_proba(x), expected)


def test_an_estimator_leaves_the_users_random_numbers_alone(iris):
    x, y = iris

    def draws(fit):
        cr.manual_seed(5)
        if fit:
            quick(epochs=2).fit(x, y)
        weights = nn.Linear(3, 3).weight.numpy()
        return weights, cr.compile(cr.random.uniform((4,)), backend="numpy")()

    for a, b in zip(draws(False), draws(True), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("copying", ["pickle", "deepcopy", "clone"])
def test_copies(iris, copying):
    x, y = iris
    model = quick().fit(x, y)
    if copying == "clone":
        other = clone(model)
        with pytest.raises(NotFittedError):
            other.predict(x)
        other.fit(x, y)
    else:
        other = copy.deepcopy(model) if copying == "deepcopy" else pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.predict_proba(x), other.predict_proba(x))
    model.partial_fit(x, y)
    other.partial_fit(x, y)  # the optimizer's state has been copied as well
    if copying != "clone":
        np.testing.assert_array_equal(model.predict_proba(x), other.predict_proba(x))


def test_a_pickle_holds_bytes_and_loads_in_another_process(iris, tmp_path):
    x, y = iris
    model = quick().fit(x, y)
    state = model.__getstate__()
    assert isinstance(state["state_"], bytes) and b"parameter/weight" in state["state_"]
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps((model, x)))
    code = (
        "import pickle, sys; model, x = pickle.load(open(sys.argv[1], 'rb'));"
        "print(*model.predict(x)[:5], repr(float(model.predict_proba(x)[0, 0])))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert found[:5] == list(model.predict(x)[:5])
    assert float(found[5]) == model.predict_proba(x)[0, 0]


def test_partial_fit_is_fit_in_steps(iris):
    x, y = iris
    whole = quick(epochs=5, patience=None, shuffle=False).fit(x, y)
    parts = quick(shuffle=False)
    for _ in range(5):
        parts.partial_fit(x, y)
    np.testing.assert_array_equal(parts.predict_proba(x), whole.predict_proba(x))
    assert parts.n_iter_ == 5 and parts.loss_curve_ == whole.loss_curve_
    one = quick()
    one.partial_fit(x[:10], y[:10], classes=np.unique(y))
    assert one.predict_proba(x).shape == (150, 3)
    with pytest.raises(ValueError, match="not those of the first call"):
        one.partial_fit(x, y, classes=["a", "b"])
    with pytest.raises(ValueError, match="not among"):
        one.partial_fit(x, np.where(y == "setosa", "rose", y))


def test_warm_start_goes_on(iris):
    x, y = iris
    model = quick(epochs=5, warm_start=True, patience=None)
    first = model.fit(x, y).loss_
    assert model.fit(x, y).loss_ < first and model.n_iter_ == 10


def test_early_stopping_watches_a_part(iris):
    x, y = iris
    model = quick(
        epochs=500, early_stopping=True, validation_fraction=0.2, patience=5, tol=1e-3
    ).fit(x, y)
    assert model.n_iter_ < 500 and model.score(x, y) > 0.9
    with pytest.raises(ValueError, match="validation_fraction"):
        quick(early_stopping=True, validation_fraction=0.001).fit(x, y)


@pytest.mark.parametrize("targets", [1, 3])
def test_regression_of_one_target_and_of_several(targets):
    x, y = make_regression(150, 6, n_targets=targets, noise=1.0, random_state=0)
    y = y / y.std(0)
    model = quick(NetworkRegressor, hidden=(16,), epochs=150).fit(x, y)
    assert model.predict(x).shape == y.shape and model.score(x, y) > 0.95
    weights = np.where(np.arange(150) < 75, 1.0, 0.0)
    weighted = quick(NetworkRegressor, epochs=20).fit(x, y, sample_weight=weights)
    halved = quick(NetworkRegressor, epochs=20).fit(x[:75], y[:75])
    np.testing.assert_array_equal(weighted.predict(x), halved.predict(x))
    with pytest.raises(ValueError, match=r"non-zero|are 0"):
        model.fit(x, y, sample_weight=np.zeros(150))
    if targets == 3:
        with pytest.raises(ValueError, match="2 targets"):
            model.partial_fit(x, y[:, :2])


def test_an_autoencoder_finds_what_pca_finds(iris):
    """Without activations it spans the leading components: it rebuilds as much as PCA can."""
    x, _ = iris
    model = quick(
        NetworkTransformer, n_components=2, hidden=(), alpha=0.0, epochs=400, patience=None
    ).fit(x)
    codes = model.transform(x)
    assert codes.shape == (150, 2)
    assert list(model.get_feature_names_out()) == ["networktransformer0", "networktransformer1"]
    pca = PCA(2).fit(x)
    best = ((x - pca.inverse_transform(pca.transform(x))) ** 2).sum()
    found = ((x - model.inverse_transform(codes)) ** 2).sum()
    assert best < found < 1.1 * best
    assert model.score(x) > 0.9
    with pytest.raises(ValueError, match="2 would fit"):
        model.inverse_transform(x)


def convolutional(features, outputs, dropout):
    side = int(features**0.5)
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * (side - 2) ** 2, outputs),
    )


def test_a_network_of_ones_own():
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 0.5, (80, 36)).astype("float32")
    y = rng.integers(0, 2, 80)
    x[y == 1, 14:22] += 0.6
    build = partial(convolutional, dropout=0.2)
    model = quick(network=build, optimizer=optim.NAdam, epochs=30, batch_size=16).fit(x, y)
    assert model.score(x, y) > 0.9
    assert model.predict_proba(x).dtype == np.float32
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    same = quick(network=build, optimizer=optim.NAdam, epochs=30, batch_size=16).fit(x, y)
    np.testing.assert_array_equal(same.predict_proba(x), model.predict_proba(x))
    both = quick(
        NetworkTransformer,
        network=lambda n, k: (nn.Linear(n, k), nn.Linear(k, n)),
        n_components=3,
        epochs=3,
    )
    assert both.fit_transform(x).shape == (80, 3)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"activation": "step"}, "activation 'step' is not one of"),
        ({"optimizer": "newton"}, "optimizer 'newton' is not one of"),
        ({"hidden": (0,)}, "at least one unit"),
        ({"epochs": 0}, "must be positive"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"network": lambda n, k: None}, "must return a module"),
        ({"network": lambda n, k: nn.Linear(n, k + 1)}, "would fit"),
    ],
)
def test_what_makes_no_network_is_refused(iris, how, message):
    with pytest.raises(ValueError, match=message):
        quick(**how).fit(*iris)


def test_both_backends_agree(iris):
    x, y = iris
    native, numpy = (quick(epochs=10, backend=b).fit(x, y) for b in ("native", "numpy"))
    np.testing.assert_allclose(native.predict_proba(x), numpy.predict_proba(x), rtol=1e-8)


def test_public_modules_can_be_imported_by_their_names():
    code = (
        "import chainrule.nn.init as init, chainrule as cr, sys;"
        "from chainrule.nn import Linear; from chainrule.sklearn import __all__ as names;"
        "from chainrule.optim import Adam; import chainrule.losses as losses;"
        "assert Linear is cr.nn.Linear and Adam is cr.optim.Adam and init is cr.nn.init;"
        "assert losses is cr.losses and 'sklearn' not in sys.modules and len(names) == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="NetworkOracle"):
        cr.sklearn.NetworkOracle
    assert "NetworkClassifier" in dir(cr.sklearn)
