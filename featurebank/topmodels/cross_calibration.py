"""Probabilities of rows that their calibrator was not fitted on, and the method that the rows allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.topmodels.calibration import KEEP_LABELS, Calibrator, coded, some_of, weights_of
from featurebank.topmodels.folds import folds_of
from featurebank.topmodels.formulas import columns_of
from featurebank.topmodels.refitting import over_folds


def choose_method(
    scores: Any,
    y: Any,
    fold: Any,
    sample_weight: Any = None,
    *,
    classes: Any = None,
    methods: Sequence[str] = KEEP_LABELS,
) -> str:
    """Return the method that the rows allow, by the log loss of rows that it was not fitted on.

    The first is taken unless another is better by more than one standard error of the difference.

    Parameters
    ----------
    scores, y, fold, sample_weight, classes
        As for `cross_calibrated`.
    methods : sequence of str, default the two of `KEEP_LABELS`
        The simplest first.

    Examples
    --------
    >>> scores, y = np.array([-2.0, -1.0, 1.0, 2.0] * 5), np.array([0, 1, 0, 1] * 5)
    >>> choose_method(scores, y, np.arange(20) % 5)
    'temperature'
    """
    every, true = coded(y, classes)
    weight, best, lowest = weights_of(sample_weight, len(true)), "", np.zeros(0)
    for method in methods:
        proba = cross_calibrated(scores, y, fold, method, sample_weight, classes=every)
        loss = -np.log(np.maximum(proba[np.arange(len(true)), true], np.finfo(float).eps))
        gain = lowest - loss if best else np.full(len(true), np.inf)
        mean = np.average(gain, weights=weight)
        if not best or mean > np.sqrt(np.average((gain - mean) ** 2, weights=weight) / len(gain)):
            best, lowest = method, loss
    return best


def cross_calibrated(
    scores: Any,
    y: Any,
    fold: Any,
    method: str = "sigmoid",
    sample_weight: Any = None,
    *,
    classes: Any = None,
    is_learned: Any = None,
) -> NDArray[np.float64]:
    """Return the probabilities that a `Calibrator` gives rows it was not fitted on.

    For each fold it is fitted on the out-of-fold scores of the other folds, so the probabilities are as honest as
    the scores.

    Parameters
    ----------
    scores, y, sample_weight
        As for `Calibrator.fit`: n rows.
    fold : array-like of int, shape (n,)
        Number of the fold that tested each row.
    method : str, default "sigmoid"
        A method of `Calibrator`.
    classes : array-like, shape (k,), optional
        Sorted; by default those of `y`.
    is_learned : array-like of bool, shape (n,), optional
        Rows that calibrators are fitted on, by default all; the others had scores of a model that did not know their
        class.

    Returns
    -------
    ndarray of float64, shape (n, k)
        In the order of the classes; 0 for a class that the other folds lack.

    Raises
    ------
    TopModelError
        When a row was never tested (fold -1), there is one fold, or a calibrator cannot be fitted.

    Examples
    --------
    >>> cross_calibrated([-1.0, 1.0, -1.0, 1.0], [0, 1, 0, 1], [0, 0, 1, 1], "isotonic")
    array([[1., 0.],
           [0., 1.],
           [1., 0.],
           [0., 1.]])
    """
    classes, codes = coded(y, classes)
    columns, weight = columns_of(scores, len(classes)), weights_of(sample_weight, len(codes))
    proba = np.zeros((len(codes), len(classes)))

    def calibrate(others: NDArray[np.int64], own: NDArray[np.int64]) -> None:
        others = others if is_learned is None else others[np.asarray(is_learned)[others]]
        rows = others[some_of(codes[others])]
        present = np.isin(np.arange(len(classes)), codes[rows])
        used = slice(None) if columns.shape[1] == 1 else present
        calibrator = Calibrator(method).fit(columns[rows][:, used], codes[rows], weight[rows], np.flatnonzero(present))
        proba[np.ix_(own, present)] = calibrator.predict_proba(columns[own][:, used])

    over_folds(calibrate, folds_of(fold))
    return proba
