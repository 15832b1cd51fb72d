"""The methods of the estimators; scikit-learn's base classes join them in the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..callbacks import Callback, EarlyStopping
from ..data import shuffled_indices
from ..optimizer import Optimizer
from .programs import (
    ACTIVATIONS,
    FEATURES,
    OPTIMIZERS,
    TARGETS,
    Architecture,
    Builder,
    NetworkProgram,
    program_of,
)

_LARGEST_SEED = 2**31 - 1
#: Samples in a batch where batch_size is "auto", at most.
AUTO_BATCH = 200


class NetworkMethods:
    """What all estimators share.

    Parameters
    ----------
    hidden : tuple of int
        Sizes of the hidden layers.
    network : function, optional
        In place of them: a function of the numbers of features and outputs that returns a module.
    activation : str
        Between the layers: relu, tanh, logistic, gelu, silu, elu, …
    optimizer : str or function
        adam, adamw, nadam, radam, adamax, sgd (Nesterov, 0.9), rmsprop, adagrad, lion; or a
        function of the learning rate, such as an optimizer's class.
    learning_rate : float
        The step size.
    alpha : float
        Weight of the penalty Σ w²/2 over all matrices.
    batch_size : int or "auto"
        Samples in a step; ``"auto"``: 200, or all where there are fewer.
    epochs : int
        Passes over the data, at most.
    shuffle : bool
        Take the samples in another order in each epoch.
    tol, patience : float, int
        Stop once the loss has not improved by ``tol`` for ``patience`` epochs (None: never).
    early_stopping : bool
        Watch the loss of a part of the data that is set aside, and go back to its best epoch.
    validation_fraction : float
        The share of the samples to set aside for that.
    warm_start : bool
        Begin a further `fit` from the weights of the last one.
    random_state : int, RandomState or None
        What initial weights, the order of the samples and dropout depend on.
    dtype : str, optional
        float32 or float64; by default that of X.
    backend, threads
        As for `chainrule.compile`.
    verbose : int
        As for `TrainingProgram.fit`.

    Attributes
    ----------
    n_features_in_, n_iter_, loss_, loss_curve_
        Features, epochs trained, the last epoch's loss, the loss of each.
    """

    _kind: str

    hidden: Sequence[int]
    network: Builder | None
    activation: str
    optimizer: str | Callable[[float], Optimizer]
    learning_rate: float
    alpha: float
    batch_size: int | str
    epochs: int
    shuffle: bool
    tol: float
    patience: int | None
    early_stopping: bool
    validation_fraction: float
    warm_start: bool
    random_state: Any
    dtype: str | None
    backend: str | None
    threads: int | None
    verbose: int

    n_features_in_: int
    n_outputs_: int
    _dtype: str
    state_: dict[str, np.ndarray]
    loss_curve_: list[float]

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        *,
        network: Builder | None = None,
        activation: str = "relu",
        optimizer: str | Callable[[float], Optimizer] = "adam",
        learning_rate: float = 1e-3,
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        epochs: int = 200,
        shuffle: bool = True,
        tol: float = 1e-4,
        patience: int | None = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        dtype: str | None = None,
        backend: str | None = None,
        threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.hidden = hidden
        self.network = network
        self.activation = activation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.alpha = alpha
        self.batch_size = batch_size
        self.epochs = epochs
        self.shuffle = shuffle
        self.tol = tol
        self.patience = patience
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.dtype = dtype
        self.backend = backend
        self.threads = threads
        self.verbose = verbose

    # -- the compiled network ---------------------------------------------------------------------

    def _program(self) -> NetworkProgram:
        """Return the compiled network of this estimator's parameters."""
        network = self.network
        if network is None:
            sizes = (self.hidden,) if isinstance(self.hidden, int) else self.hidden
            network = tuple(int(size) for size in sizes)
            if any(size < 1 for size in network):
                raise ValueError(f"hidden layers need at least one unit, not {self.hidden}")
        for name, table in (("activation", ACTIVATIONS), ("optimizer", OPTIMIZERS)):
            given = getattr(self, name)
            if isinstance(given, str) and given not in table:
                raise ValueError(f"{name} {given!r} is not one of {', '.join(table)}")
        return program_of(
            Architecture(
                self._kind,
                self.n_features_in_,
                self.n_outputs_,
                network,
                self.activation,
                self.optimizer,
                self._dtype,
                self.backend,
                self.threads,
            )
        )

    def _validated(self, x: Any, *y: Any, reset: bool, **how: Any) -> Any:
        """Return features, and targets where they are given, None included, as arrays that fit."""
        from sklearn.utils.validation import validate_data

        kinds = [np.float64, np.float32] if self.dtype is None else np.dtype(self.dtype)
        if not reset:
            kinds = np.dtype(self._dtype)
        return validate_data(self, x, *y, reset=reset, dtype=kinds, **how)

    def _run(self, name: str, x: np.ndarray) -> np.ndarray:
        program = self._program()
        with program.lock:
            program.restore(self.state_)
            return np.array(program.run(name, np.ascontiguousarray(x)))

    # -- training ---------------------------------------------------------------------------------

    def _seeds(self) -> tuple[int, int]:
        from sklearn.utils import check_random_state

        source = check_random_state(self.random_state)
        first, second = source.randint(_LARGEST_SEED, size=2)
        return int(first), int(second)

    def _train(self, data: dict[str, np.ndarray], weights: Any, again: bool = False) -> None:
        """Train on arrays that fit the network's inputs; ``again``: one epoch more of the same."""
        from sklearn.utils.validation import _check_sample_weight

        if self.epochs < 1 or not self.learning_rate > 0 or self.alpha < 0:
            raise ValueError("epochs and learning_rate must be positive, alpha not negative")
        x = data[FEATURES]
        if weights is not None:
            weights = _check_sample_weight(weights, x, ensure_non_negative=True)
            data = {**data, "sample_weight": weights}
            # A sample of weight 0 is as if it were not there, in the order of the others too.
            data = {name: array[weights > 0] for name, array in data.items()}
            if not len(data[FEATURES]):
                raise ValueError("all sample weights are 0")
        initial, order = self._seeds()
        data, validation = self._set_aside(data, order, again)
        count = len(data[FEATURES])
        size = min(AUTO_BATCH, count) if self.batch_size == "auto" else int(self.batch_size)
        if size < 1:
            raise ValueError(f"batch_size must be positive, not {self.batch_size}")
        goes_on = hasattr(self, "state_") and (again or self.warm_start)
        program = self._program()
        with program.lock:
            program.begin(initial)
            if goes_on:
                program.restore(self.state_)
                program.training.epoch = len(self.loss_curve_)  # another order of the samples
            history = program.fit(
                data,
                validation,
                epochs=1 if again else self.epochs,
                learning_rate=self.learning_rate,
                alpha=self.alpha,
                batch_size=min(size, count),
                shuffle=self.shuffle,
                seed=order,
                callbacks=[] if again else self._callbacks(validation is not None),
                verbose=self.verbose,
            )
            self.state_ = program.saved()
        curve = [float(loss) for loss in history["loss"]]
        self.loss_curve_ = [*self.loss_curve_, *curve] if goes_on else curve
        self.n_iter_, self.loss_ = len(self.loss_curve_), curve[-1]

    def _set_aside(
        self, data: dict[str, np.ndarray], seed: int, again: bool
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        """Return the samples to train on, and those to watch, where that is asked for."""
        count = len(data[FEATURES])
        held = round(count * self.validation_fraction)
        if not self.early_stopping or again:
            return data, None
        if not 0 < held < count:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {count} samples leaves "
                "training or validation empty"
            )
        order = shuffled_indices(count, seed, _LARGEST_SEED)
        kept, watched = order[held:], order[:held]
        return (
            {name: array[kept] for name, array in data.items()},
            {name: array[watched] for name, array in data.items()},
        )

    def _callbacks(self, watched: bool) -> list[Callback]:
        if self.patience is None:
            return []
        return [
            EarlyStopping(
                "val_loss" if watched else "loss",
                self.patience,
                self.tol,
                restore_best=watched,
            )
        ]

    # -- pickling ---------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes; the network's arrays as bytes in the safetensors format."""
        from safetensors.numpy import save

        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        if "state_" in state:
            state["state_"] = save({k: np.asarray(v) for k, v in state["state_"].items()})
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        from safetensors.numpy import load

        if isinstance(state.get("state_"), bytes):
            arrays = load(state["state_"])
            for array in arrays.values():
                array.setflags(write=False)
            state = {**state, "state_": arrays}
        super().__setstate__(state)  # type: ignore[misc]


def _described(methods: type) -> type:
    """Give a class the parameters of `NetworkMethods` as a part of its docstring."""
    shared = (NetworkMethods.__doc__ or "").partition("\n\n")[2]
    methods.__doc__ = f"{(methods.__doc__ or '').rstrip()}\n\n{shared}"
    return methods


@_described
class ClassifierMethods(NetworkMethods):
    """A classifier by a network: softmax and cross-entropy, labels of any type.

    ``classes_`` holds the labels in the order of the columns of `predict_proba`.
    """

    _kind = "classifier"
    classes_: np.ndarray

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on ``X`` (samples, features) and labels ``y`` (samples,)."""
        x, labels = self._checked(X, y, reset=True)
        if not (self.warm_start and hasattr(self, "classes_")):
            self.classes_ = np.unique(labels)
            self.n_outputs_ = len(self.classes_)
        self._train({FEATURES: x, TARGETS: self._numbers(labels)}, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Train one epoch more; the first call names all ``classes``, unless ``y`` holds them."""
        first = not hasattr(self, "classes_")
        x, labels = self._checked(X, y, reset=first)
        if first:
            self.classes_ = np.unique(labels if classes is None else classes)
            self.n_outputs_ = len(self.classes_)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes {classes} are not those of the first call, {self.classes_}")
        self._train({FEATURES: x, TARGETS: self._numbers(labels)}, sample_weight, again=True)
        return self

    def _checked(self, x: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.utils import column_or_1d
        from sklearn.utils.multiclass import check_classification_targets

        x, y = self._validated(x, y, reset=reset)
        check_classification_targets(y)
        if reset:
            self._dtype = x.dtype.name
        return x, column_or_1d(y, warn=True)

    def _numbers(self, labels: np.ndarray) -> np.ndarray:
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(f"y holds labels {unknown} that are not among {self.classes_}")
        return np.searchsorted(self.classes_, labels).astype("int64")

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (samples, classes)."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return self._run("probabilities", self._validated(X, reset=False))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of the most probable class of each sample."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]


@_described
class RegressorMethods(NetworkMethods):
    """A regressor by a network: squared error, one target or several."""

    _kind = "regressor"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on ``X`` (samples, features) and targets (samples,) or (samples, targets)."""
        x, target = self._checked(X, y, reset=True)
        self._train({FEATURES: x, TARGETS: target}, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train one epoch more."""
        x, target = self._checked(X, y, reset=not hasattr(self, "state_"))
        self._train({FEATURES: x, TARGETS: target}, sample_weight, again=True)
        return self

    def _checked(self, x: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        x, y = self._validated(x, y, reset=reset, multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            from sklearn.utils import column_or_1d

            y = column_or_1d(y, warn=True)
        flat, width = y.ndim == 1, 1 if y.ndim == 1 else y.shape[1]
        if reset:
            self._dtype, self._flat, self.n_outputs_ = x.dtype.name, flat, width
        elif width != self.n_outputs_:
            raise ValueError(f"y has {width} targets, the first call had {self.n_outputs_}")
        return x, np.ascontiguousarray(y.reshape(len(y), width), dtype=x.dtype)

    def predict(self, X: Any) -> np.ndarray:
        """Return the targets of each sample, of the shape that ``y`` had."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        result = self._run("output", self._validated(X, reset=False))
        return result.reshape(-1) if self._flat else result


@_described
class TransformerMethods(NetworkMethods):
    """An autoencoder: `transform` gives the narrow middle of a network that rebuilds its input.

    ``n_components``: the width of the middle.  ``hidden``: the sizes between features and middle,
    passed in reverse on the way back.  ``network``: a function of the numbers of features and
    components that returns encoder and decoder.
    """

    _kind = "autoencoder"
    n_components: int

    def __init__(
        self,
        n_components: int = 2,
        hidden: Sequence[int] = (100,),
        *,
        network: Builder | None = None,
        activation: str = "relu",
        optimizer: str | Callable[[float], Optimizer] = "adam",
        learning_rate: float = 1e-3,
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        epochs: int = 200,
        shuffle: bool = True,
        tol: float = 1e-4,
        patience: int | None = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        dtype: str | None = None,
        backend: str | None = None,
        threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        # scikit-learn reads the parameters from this signature: it has to name them all.
        super().__init__(
            hidden,
            network=network,
            activation=activation,
            optimizer=optimizer,
            learning_rate=learning_rate,
            alpha=alpha,
            batch_size=batch_size,
            epochs=epochs,
            shuffle=shuffle,
            tol=tol,
            patience=patience,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            warm_start=warm_start,
            random_state=random_state,
            dtype=dtype,
            backend=backend,
            threads=threads,
            verbose=verbose,
        )
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Train on ``X`` (samples, features)."""
        self._begin(X, sample_weight, reset=True)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Train one epoch more."""
        first = not hasattr(self, "state_")
        self._begin(X, sample_weight, reset=first, again=True)
        return self

    def _begin(self, x: Any, weights: Any, *, reset: bool, again: bool = False) -> None:
        x = self._validated(x, reset=reset)
        if reset:
            if self.n_components < 1:
                raise ValueError(f"n_components must be positive, not {self.n_components}")
            self._dtype, self.n_outputs_ = x.dtype.name, self.n_components
        self._train({FEATURES: x}, weights, again)

    @property
    def _n_features_out(self) -> int:
        return self.n_outputs_

    def transform(self, X: Any) -> np.ndarray:
        """Return the middle of the network, (samples, n_components)."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return self._run("transform", self._validated(X, reset=False))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the features that the decoder makes of ``X`` (samples, n_components)."""
        from sklearn.utils import check_array
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        code = check_array(X, dtype=np.dtype(self._dtype))
        if code.shape[1] != self.n_outputs_:
            raise ValueError(f"X has {code.shape[1]} columns; {self.n_outputs_} would fit")
        return self._run("inverse", code)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the share of the variance of ``X`` that the network rebuilds (R²)."""
        from sklearn.metrics import r2_score

        return float(r2_score(X, self.inverse_transform(self.transform(X))))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
