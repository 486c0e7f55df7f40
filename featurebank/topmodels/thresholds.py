"""Decisions made from probabilities: when to answer, where to cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.errors import TopModelError
from featurebank.topmodels.calibration import weights_of
from featurebank.topmodels.calibration_error import confidence_of
from featurebank.topmodels.folds import folds_of
from featurebank.topmodels.refitting import over_folds

CANDIDATES = 200
"""Thresholds tried between the lowest and the highest score."""


def abstention_curve(
    y: Any, predicted: Any, proba: Any, sample_weight: Any = None, *, classes: Any = None
) -> pd.DataFrame:
    """Return how accurate the answers are when only the most confident are given.

    Parameters
    ----------
    y, predicted : array-like, shape (n,)
        True and predicted classes.
    proba : array-like of float, shape (n, k)
        The largest of a row is its confidence.
    sample_weight : array-like of float, shape (n,), optional
    classes : array-like, shape (k,), optional
        Sorted classes of the columns; the confidence is then the probability of the predicted class.

    Returns
    -------
    DataFrame
        A row for each share to answer, 1.0, 0.95, … 0.05: ``coverage``, the share answered, at least the one asked
        for, as rows of one confidence are answered together; ``threshold``, the least confidence answered;
        ``accuracy`` of the answers.

    Examples
    --------
    >>> curve = abstention_curve([0, 0], [0, 1], [[0.9, 0.1], [0.4, 0.6]])
    >>> curve.iloc[[0, -1]].values.tolist()
    [[1.0, 0.6, 0.5], [0.5, 0.9, 1.0]]
    """
    confidence = confidence_of(proba, None if classes is None else predicted, classes)
    order = np.argsort(-confidence, kind="stable")
    confidence, weight = confidence[order], weights_of(sample_weight, len(order))[order]
    answered, right = weight.cumsum(), (weight * (np.asarray(y) == np.asarray(predicted))[order]).cumsum()
    coverage = answered / answered[-1]
    wanted = np.arange(20, 0, -1) / 20
    threshold = confidence[np.searchsorted(coverage, wanted - 1e-9)]
    last = np.searchsorted(-confidence, -threshold, side="right") - 1
    return pd.DataFrame({"coverage": coverage[last], "threshold": threshold, "accuracy": right[last] / answered[last]})


def best_threshold(y: Any, score: Any, metric: Callable[..., float], sample_weight: Any = None) -> float:
    """Return the threshold at which predictions do best; ``score >= threshold`` is then the prediction.

    Thresholds midway between scores are tried, evenly over the distinct ones where they are many, and one below
    and above them all. Of the longest run of equally good ones, the middle is taken.

    Parameters
    ----------
    y : array-like of bool, shape (n,)
        Whether each row is of the positive class.
    score : array-like of float, shape (n,)
        Probability or decision value of the positive class.
    metric : callable
        ``metric(y, predicted)`` to a float, the more the better; ``sample_weight=`` is passed when given.
    sample_weight : array-like of float, shape (n,), optional

    Raises
    ------
    TopModelError
        When the metric is not a number at any threshold.

    Examples
    --------
    >>> from sklearn.metrics import f1_score
    >>> best_threshold([False, False, True, True], [0.125, 0.375, 0.625, 0.875], f1_score)
    0.5
    """
    y, score = np.asarray(y), np.asarray(score, np.float64)
    options = {} if sample_weight is None else {"sample_weight": np.asarray(sample_weight)}
    tried = _thresholds(score)
    values = np.array([metric(y, score >= threshold, **options) for threshold in tried])
    if np.isnan(values).all():
        raise TopModelError("the metric is no number at any threshold; expected one; choose another metric or folds")
    best = np.flatnonzero(np.isclose(values, np.nanmax(values), rtol=1e-12, atol=1e-12))
    plateau = max(np.split(best, np.flatnonzero(np.diff(best) > 1) + 1), key=len)
    return float(tried[plateau[(len(plateau) - 1) // 2]])


def cross_thresholds(
    y: Any, score: Any, fold: Any, metric: Callable[..., float], sample_weight: Any = None
) -> NDArray[np.bool_]:
    """Return predictions by thresholds that were chosen on other rows.

    For each fold the threshold is `best_threshold` of the other folds.

    Parameters
    ----------
    y, score, metric, sample_weight
        As for `best_threshold`: n rows, each scored by a model that did not learn from it.
    fold : array-like of int, shape (n,)
        Number of the fold that tested each row.

    Returns
    -------
    ndarray of bool, shape (n,)

    Raises
    ------
    TopModelError
        When a row was never tested (fold -1), there is one fold, or the metric is not a number.

    Examples
    --------
    >>> from sklearn.metrics import accuracy_score
    >>> cross_thresholds([False, True, False, True], [0.1, 0.3, 0.1, 0.4], [0, 0, 1, 1], accuracy_score)
    array([False,  True, False,  True])
    """
    y, score = np.asarray(y), np.asarray(score)
    predicted = np.zeros(len(y), np.bool_)

    def decide(others: NDArray[np.int64], own: NDArray[np.int64]) -> None:
        weight = None if sample_weight is None else np.asarray(sample_weight)[others]
        predicted[own] = score[own] >= best_threshold(y[others], score[others], metric, weight)

    over_folds(decide, folds_of(fold))
    return predicted


def _thresholds(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """One threshold below all scores, at most `CANDIDATES` between them, one above, in order."""
    distinct = np.unique(score)
    edges = np.concatenate([distinct[:1] - 1, distinct, distinct[-1:] + 1])
    middles = (edges[1:] + edges[:-1]) / 2
    return middles[np.linspace(0, len(middles) - 1, min(len(middles), CANDIDATES + 2)).round().astype(np.int64)]
