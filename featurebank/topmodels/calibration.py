"""Probabilities that mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from featurebank.errors import TopModelError, near_names
from featurebank.topmodels.formulas import calibrated, columns_of, logits

CALIBRATIONS = ("sigmoid", "isotonic", "temperature", "class-temperature")
KEEP_LABELS = ("temperature", "class-temperature")
"""Methods under which the class of the highest score keeps the highest probability, that of fewer parameters first."""
ENOUGH = 100_000
"""Rows that a calibrator learns from, about, where there are more."""
_TEMPERATURES = 1e-4, 1e4
_PULL = 5.0
"""How many rows' log loss it costs to move a class's temperature to e times that of all classes."""

Weights = NDArray[np.float64] | None


class Calibrator(BaseEstimator):
    """Turn the scores of a classifier into probabilities.

    Of more than `ENOUGH` rows it learns from about as many, each class at its share: it has few parameters.

    Fit it on out-of-fold scores: those of a model on its own training rows are too sure. Two classes have one
    score, the decision value; two columns stand for their difference, which for log-probabilities is the log odds.

    Parameters
    ----------
    method : str, default "sigmoid"
        ``"sigmoid"``: logistic regression on the scores (Platt 1999, Probabilistic outputs for support vector
        machines), multinomial for more than two classes; scores that spread by less than 1 count as spread by 1, so
        that those of a strongly penalised model say as much as any. Of two classes it is flat where it would fall.
        ``"isotonic"``: for each class an increasing step of its score against the rest (Zadrozny & Elkan 2002,
        Transforming classifier scores into accurate multiclass probability estimates), then each row is divided by
        its sum; it wants a thousand rows or so. ``"temperature"``: the softmax of the scores divided by one number
        (Guo et al. 2017, On calibration of modern neural networks), which never changes the predicted class. Scores
        without a mistake, of which no temperature is too low, get that of one mistake in n + 2 rows.
        ``"class-temperature"``: one number for each predicted class, drawn to that of all (after Frenkel and
        Goldberger 2021, Network calibration by class-based temperature scaling), which keeps the predicted class as
        well. `choose_method` takes what the rows allow.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        Sorted.
    coef_, intercept_ : ndarray of float64, shapes (k, k) and (k,), or (1, 1) and (1,) for two classes
        Of the sigmoid.
    x_, y_ : lists of k ndarrays of float64, of one for two classes
        Corners of each isotonic function; values between two corners are interpolated.
    temperature_ : float
        From 1e-4 to 1e4.
    temperatures_ : ndarray of float64, shape (k,)
        For the rows whose highest score is of each class.

    Examples
    --------
    >>> scores, y = [-4.0, -2.0, 2.0, 4.0], ["cat", "dog", "cat", "dog"]
    >>> calibrator = Calibrator("isotonic").fit(scores, y)
    >>> calibrator.predict_proba([-4.0, 0.0, 9.0])
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])
    """

    def __init__(self, method: str = "sigmoid"):
        self.method = method

    def fit(self, scores: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Calibrator:
        """Learn how far the scores can be trusted.

        Parameters
        ----------
        scores : array-like of float, shape (n,), (n, 1) or (n, k)
            Decision values, or log-probabilities, in the order of the sorted classes; one column, for two classes,
            is positive where the second is likelier. Minus infinity counts as the log of 2.2e-16.
        y : array-like, shape (n,)
            Classes, at least two.
        sample_weight : array-like of float, shape (n,), optional
        classes : array-like, shape (k,), optional
            Sorted; by default those of `y`. Only a temperature can be learned where `y` lacks one of them.

        Raises
        ------
        TopModelError
            When the method is unknown, `y` has one class, or the scores do not fit the classes.
        """
        if self.method not in CALIBRATIONS:
            raise TopModelError(f"no calibration {self.method!r}; {near_names(self.method, CALIBRATIONS)}")
        self.classes_, true = coded(y, classes)
        some = some_of(true)
        columns = columns_of(np.asarray(scores)[some], len(self.classes_))
        true, weight = true[some], weights_of(sample_weight, len(true))[some]
        if self.method in KEEP_LABELS:
            self.temperature_ = _temperature(logits(columns), true, weight)
        else:
            _check_present(true, self.classes_, self.method)
        if self.method == "class-temperature":
            self.temperatures_ = _class_temperatures(logits(columns), true, weight, self.temperature_)
        elif self.method == "sigmoid":
            self.coef_, self.intercept_ = _sigmoid(columns, true, weight)
        elif self.method == "isotonic":
            self.x_, self.y_ = _isotonic(columns, true, weight)
        return self

    def predict_proba(self, scores: Any) -> NDArray[np.float64]:
        """Return probabilities in the order of `classes_`.

        Parameters
        ----------
        scores : array-like of float, shape (n,), (n, 1) or (n, k)
            Of the kind that was fitted.

        Returns
        -------
        ndarray of float64, shape (n, k)
            Rows sum to 1; uniform where isotonic functions give no class any.

        Raises
        ------
        TopModelError
            When the scores do not fit the classes.
        """
        check_is_fitted(self)
        return calibrated(self, scores)


class LabelsCalibrator(BaseEstimator):
    """A `Calibrator` for each of several labels, every one of which is there or not.

    Parameters
    ----------
    method : str, default "sigmoid"
        As for `Calibrator`.

    Attributes
    ----------
    calibrators_ : list of Calibrator

    Examples
    --------
    >>> scores, y = np.array([[-1.0, 2.0], [1.0, -2.0], [2.0, 1.0], [-2.0, -1.0]]), [[0, 1], [1, 0], [1, 1], [0, 0]]
    >>> LabelsCalibrator().fit(scores, y).predict_proba(scores).shape
    (4, 2)
    """

    def __init__(self, method: str = "sigmoid"):
        self.method = method

    def fit(self, scores: Any, y: Any, sample_weight: Any = None) -> LabelsCalibrator:
        """Fit one calibrator a label.

        Parameters
        ----------
        scores : array-like of float, shape (n, labels)
            Decision values, or logarithms of the probabilities that a label is there.
        y : array-like of 0 and 1, shape (n, labels)
        sample_weight : array-like of float, shape (n,), optional
        """
        scores, y = np.asarray(scores, np.float64), np.asarray(y)
        self.calibrators_ = [
            Calibrator(self.method).fit(scores[:, label], y[:, label], sample_weight) for label in range(y.shape[1])
        ]
        return self

    def predict_proba(self, scores: Any) -> NDArray[np.float64]:
        """Return the probability that each label is there, shape (n, labels)."""
        check_is_fitted(self)
        columns = np.asarray(scores, np.float64).T
        probabilities = [
            each.predict_proba(column)[:, 1] for each, column in zip(self.calibrators_, columns, strict=True)
        ]
        return np.column_stack(probabilities)


def coded(y: Any, classes: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted classes, and the number of each row's."""
    if classes is None:
        return np.unique(np.asarray(y), return_inverse=True)
    classes = np.asarray(classes)
    return classes, np.searchsorted(classes, np.asarray(y))


def _check_present(true: NDArray[np.int64], classes: NDArray[Any], method: str) -> None:
    absent = np.setdiff1d(np.arange(len(classes)), true)
    if len(absent):
        name = classes.tolist()[absent[0]]
        raise TopModelError(
            f"{method} calibration has no row of the class {name!r} to learn from; expected some of each: label more "
            "of it, or take a temperature"
        )


def some_of(true: NDArray[np.int64]) -> Any:
    """Return what indexes all rows, or about `ENOUGH` of many: each class at its share, none left out."""
    if len(true) <= ENOUGH:
        return slice(None)
    by_class = np.argsort(true, kind="stable")
    firsts = np.unique(true, return_index=True)[1]
    return np.union1d(by_class[np.linspace(0, len(true) - 1, ENOUGH).astype(int)], firsts)


def weights_of(sample_weight: Any, count: int) -> NDArray[np.float64]:
    """Return the weights of rows, ones where there are none."""
    return np.ones(count) if sample_weight is None else np.asarray(sample_weight, np.float64)


def _isotonic(
    columns: NDArray[np.float64], true: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Corners (x, y) of each column's isotonic regression on whether a row is of its class."""
    first = 1 if columns.shape[1] == 1 else 0
    fitted = [
        IsotonicRegression().fit(column, true == number, sample_weight=weight)
        for number, column in enumerate(columns.T, first)
    ]
    return [each.X_thresholds_ for each in fitted], [each.y_thresholds_ for each in fitted]


def _sigmoid(
    columns: NDArray[np.float64], true: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients and intercepts of the logistic regression; of one column it never falls, and is flat at the least.

    A model that is more often wrong than right out of fold would be turned round, and its bad luck counted as skill.
    """
    unit = _unit(columns)
    model = LogisticRegression(max_iter=1000).fit(columns / unit, true, sample_weight=weight)
    if columns.shape[1] > 1 or model.coef_[0, 0] >= 0:
        return model.coef_ / unit, model.intercept_
    share = np.average(true, weights=weight)
    return np.zeros((1, 1)), np.array([np.log(share / (1 - share))])


def _unit(columns: NDArray[np.float64]) -> float:
    """The spread of scores that is less than 1, by which the penalty of a sigmoid would else keep it flat; else 1."""
    spread = float(columns.std(axis=0).max())
    return spread if 1e-9 < spread < 1 else 1.0


def _temperature(logits: NDArray[np.float64], true: NDArray[np.int64], weight: NDArray[np.float64]) -> float:
    """The number that divides the logits for the least weighted log loss, a convex function of its inverse.

    Of rows that are all right, one in n + 2 counts as of any class (as in Platt 1999).
    """
    any_class = 0.0 if (logits.argmax(axis=1) != true).any() else 1 / (len(true) + 2)

    def loss(exponent: float) -> float:
        logs = log_softmax(logits / np.exp(exponent), axis=1)
        own = logs[np.arange(len(true)), true]
        return -float(np.average((1 - any_class) * own + any_class * logs.mean(axis=1), weights=weight))

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def _class_temperatures(
    logits: NDArray[np.float64], true: NDArray[np.int64], weight: NDArray[np.float64], common: float
) -> NDArray[np.float64]:
    """The temperature of the rows that each class is said of, near the common one where they are few, shape (k,)."""
    said, centre = logits.argmax(axis=1), np.log(common)

    def loss(exponent: float, rows: NDArray[np.int64]) -> float:
        logs = log_softmax(logits[rows] / np.exp(exponent), axis=1)[np.arange(len(rows)), true[rows]]
        return float(_PULL * (exponent - centre) ** 2 - weight[rows] @ logs)

    found = [
        minimize_scalar(
            loss,
            bounds=np.log(_TEMPERATURES),
            args=(np.flatnonzero(said == number),),
            method="bounded",
            options={"xatol": 1e-8},
        ).x
        for number in range(logits.shape[1])
    ]
    return np.exp(found)
