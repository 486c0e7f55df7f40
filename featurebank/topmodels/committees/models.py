"""Committees as scikit-learn estimators: fitted members whose probabilities, or numbers, are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from featurebank.topmodels.committees.selection import mean_answer
from featurebank.topmodels.refitting import fit_pipeline


def probabilities_of(model: Any, calibrator: Any, X: Any) -> NDArray[np.float64]:
    """Return a fitted model's class probabilities, shape (n, k): its own, or what a calibrator makes of its scores.

    Parameters
    ----------
    model : estimator
        With ``predict_proba``, or with ``decision_function`` and a calibrator.
    calibrator : Calibrator, LabelsCalibrator or None
    X : ndarray of float, shape (n, d)
    """
    if calibrator is None:
        return np.asarray(model.predict_proba(X))
    if not hasattr(model, "predict_proba"):
        return np.asarray(calibrator.predict_proba(model.decision_function(X).reshape(len(X), -1)))
    with np.errstate(divide="ignore"):
        return np.asarray(calibrator.predict_proba(np.log(model.predict_proba(X))))


class _Committee(BaseEstimator):
    """Pipelines that each see the columns they need, and whose answers are averaged."""

    def __init__(self, members: Sequence[Pipeline], weights: Sequence[float]):
        self.members = members
        self.weights = weights

    @classmethod
    def of_fitted(cls, members: Sequence[Pipeline], weights: Sequence[float], **options: Any) -> Any:
        """Return a committee of members that are fitted already, all on the same columns."""
        made = cls([clone(each) for each in members], [float(each) for each in weights], **options)
        made.members_, made.n_features_in_ = list(members), int(members[0].n_features_in_)
        return made

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit every member anew; weights and calibration stay.

        Parameters
        ----------
        X : array-like of float, shape (n, d)
        y : array-like, shape (n,) or (n, labels)
        sample_weight : array-like of float, shape (n,), optional
            For the members that take it.
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), multi_output=True)
        self.members_ = [
            fit_pipeline(
                clone(each), X, y, sample_weight if has_fit_parameter(each.steps[-1][1], "sample_weight") else None
            )
            for each in self.members
        ]
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "members_")

    def _checked(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))


class CommitteeClassifier(ClassifierMixin, _Committee):
    """Classifiers whose probabilities are averaged; the label is the most probable class.

    Parameters
    ----------
    members : sequence of Pipeline
    weights : sequence of float
        They add up to 1.
    calibrators : sequence of FrozenEstimator or None
        What turns each member's scores into probabilities; None for one whose own are taken. They are kept as they are
        when the members are fitted anew.

    Attributes
    ----------
    members_ : list of Pipeline
        Fitted.
    classes_ : ndarray, shape (k,)

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.linear_model import LogisticRegression
    >>> members = [Pipeline([("model", GaussianNB())]), Pipeline([("model", LogisticRegression())])]
    >>> X, y = np.array([[0.0], [1.0], [4.0], [5.0]]), ["low", "low", "high", "high"]
    >>> committee = CommitteeClassifier(members, [0.5, 0.5]).fit(X, y)
    >>> committee.predict([[0.5], [4.5]]).tolist()
    ['low', 'high']
    """

    def __init__(self, members: Sequence[Pipeline], weights: Sequence[float], calibrators: Sequence[Any] | None = None):
        super().__init__(members, weights)
        self.calibrators = calibrators

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes, sorted; the numbers of the labels where a row has several."""
        return np.asarray(self.members_[0].classes_)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the weighted mean of the members' probabilities, shape (n, k)."""
        X = self._checked(X)
        fixed = self.calibrators or [None] * len(self.members_)
        plain = [getattr(each, "estimator", each) for each in fixed]  # without the wrapper that keeps it as it is
        pairs = zip(self.members_, plain, strict=True)
        mean = mean_answer([probabilities_of(*pair, X) for pair in pairs], np.asarray(self.weights))
        return mean if self._is_several else whole(mean)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class, shape (n,); of several labels those likelier than not, (n, labels)."""
        return said(self.predict_proba(X), self.classes_, is_several=self._is_several)

    @property
    def _is_several(self) -> bool:
        return bool(getattr(self.members_[0].steps[-1][1], "multilabel_", False))


class CommitteeRegressor(RegressorMixin, _Committee):
    """Regressors whose numbers are averaged; see `CommitteeClassifier`.

    Examples
    --------
    >>> from sklearn.dummy import DummyRegressor
    >>> members = [Pipeline([("model", DummyRegressor(strategy="constant", constant=each))]) for each in (1.0, 3.0)]
    >>> CommitteeRegressor(members, [0.25, 0.75]).fit([[0.0], [1.0]], [0.0, 1.0]).predict([[0.0]]).tolist()
    [2.5]
    """

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the weighted mean of the members' numbers, shape (n,)."""
        X = self._checked(X)
        return mean_answer([each.predict(X) for each in self.members_], np.asarray(self.weights))


def whole(proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities whose rows add up to 1: those of a model that computes in float32 do only nearly.

    Examples
    --------
    >>> whole(np.array([[0.25, 0.75 + 1e-7]])).sum().item()
    1.0
    """
    added: NDArray[np.float64] = proba / proba.sum(axis=1, keepdims=True)
    return added


def said(proba: NDArray[np.float64], classes: NDArray[Any], is_several: bool) -> NDArray[Any]:
    """Return the labels that mean probabilities stand for.

    Examples
    --------
    >>> said(np.array([[0.4, 0.6]]), np.array(["a", "b"]), is_several=False).tolist()
    ['b']
    """
    return (proba > 0.5).astype(np.int64) if is_several else classes[proba.argmax(axis=1)]
