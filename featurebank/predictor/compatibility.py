"""Models that another version of scikit-learn wrote: made to fit the one that is installed, or refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import numpy as np

from featurebank.errors import PredictorError, one_line

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

INSTALLED = version("scikit-learn")
_DEPRECATED = "deprecated"
"""What scikit-learn puts for a parameter that is going away and was not given."""


def estimators_in(value: Any) -> Iterator[BaseEstimator]:
    """Yield the estimators in a fitted model, itself among them.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> [type(each).__name__ for each in estimators_in(make_pipeline(SVC()))]
    ['Pipeline', 'SVC']
    """
    from sklearn.base import BaseEstimator

    if isinstance(value, BaseEstimator):
        yield value
        value = list(vars(value).values())
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from estimators_in(each)


def suit(model: Any) -> Any:
    """Return a model that was just read, with its estimators changed to what the installed scikit-learn expects.

    A parameter that the writer did not know, or had deprecated, gets its default. What `SVC` keeps beside its
    parameters since scikit-learn 1.9, whether it has probabilities of its own, is added where an older one wrote it.

    Examples
    --------
    >>> from sklearn.svm import SVC
    >>> model = SVC().fit([[0.0], [1.0]], [0, 1])
    >>> del model._effective_probability, model.tol
    >>> suit(model).tol, model.predict([[1.0]]).tolist()
    (0.001, [1])
    """
    for each in estimators_in(model):
        for name, default in _defaults(type(each)).items():
            value = vars(each).get(name, Parameter.empty)
            is_gone = isinstance(value, str) and value == _DEPRECATED != default
            if value is Parameter.empty or is_gone:
                setattr(each, name, default)
        if hasattr(each, "_probA") and not hasattr(each, "_effective_probability"):
            each._effective_probability = each.probability is True
    return model


def _defaults(kind: type) -> dict[str, Any]:
    """Return the parameters of an estimator's class that have a default."""
    parameters = signature(kind.__init__).parameters.values()  # type: ignore[misc]
    return {each.name: each.default for each in parameters if each.default is not Parameter.empty}


@contextmanager
def read_under(written_with: str | None) -> Iterator[None]:
    """Name both versions where a model of another scikit-learn cannot be read or used.

    Parameters
    ----------
    written_with : str or None
        The version that wrote it, where that is known.

    Raises
    ------
    PredictorError

    Examples
    --------
    >>> with read_under("0.1"):  # doctest: +ELLIPSIS
    ...     raise ValueError("no such attribute")
    Traceback (most recent call last):
    featurebank.errors.PredictorError: the model was written by scikit-learn 0.1 and cannot be read under ...
    """
    try:
        yield
    except Exception as error:  # estimators raise all kinds on a state that is not theirs
        if written_with in (None, INSTALLED):
            raise
        raise PredictorError(
            f"the model was written by scikit-learn {written_with} and cannot be read under {INSTALLED} "
            f"({one_line(error)[:120]}); install scikit-learn {written_with}, or fit again"
        ) from error


def try_out(model: Any) -> None:
    """Predict one row of zeros: a model of another version may fail only then."""
    width = getattr(model, "n_features_in_", None)
    if width is not None:
        row = np.zeros((1, width), np.float32)
        for name in ("predict", "predict_proba", "decision_function"):
            if hasattr(model, name):
                getattr(model, name)(row)
