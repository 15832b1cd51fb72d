"""Networks as scikit-learn estimators: in pipelines, searches and cross-validation.

    from chainrule.sklearn import NetworkClassifier        # pip install "chainrule[sklearn]"
    make_pipeline(StandardScaler(), NetworkClassifier((64, 64))).fit(X, y)

scikit-learn is loaded when the first estimator is asked for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .estimators import ClassifierMethods, RegressorMethods, TransformerMethods

if TYPE_CHECKING:
    NetworkClassifier: Any
    NetworkRegressor: Any
    NetworkTransformer: Any

__all__ = ["NetworkClassifier", "NetworkRegressor", "NetworkTransformer"]

#: Estimator -> its methods, and the mixins of scikit-learn that go before BaseEstimator.
_ESTIMATORS: dict[str, tuple[type, tuple[str, ...]]] = {
    "NetworkClassifier": (ClassifierMethods, ("ClassifierMixin",)),
    "NetworkRegressor": (RegressorMethods, ("RegressorMixin", "MultiOutputMixin")),
    "NetworkTransformer": (
        TransformerMethods,
        ("ClassNamePrefixFeaturesOutMixin", "TransformerMixin"),
    ),
}


@lru_cache
def _estimator(name: str) -> type:
    """Return the estimator called ``name``, joined from its methods and scikit-learn's bases."""
    try:
        import sklearn.base as base
    except ImportError as error:
        raise ImportError(
            f'{name} is an estimator of scikit-learn: pip install "chainrule[sklearn]"'
        ) from error
    methods, mixins = _ESTIMATORS[name]
    bases = (methods, *(getattr(base, mixin) for mixin in mixins), base.BaseEstimator)
    body = {"__module__": __name__, "__qualname__": name, "__doc__": methods.__doc__}
    return type(name, bases, body)


def __getattr__(name: str) -> Any:
    if name in _ESTIMATORS:
        return _estimator(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ESTIMATORS])
