"""How sure a prediction is, and how far that is from how often it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def confidence_of(proba: Any, predicted: Any = None, classes: Any = None) -> NDArray[np.float64]:
    """Return the probability of the predicted class, by default the most probable one, shape (n,).

    Examples
    --------
    >>> confidence_of([[0.75, 0.25], [0.75, 0.25]], ["a", "b"], ["a", "b"])
    array([0.75, 0.25])
    """
    proba = np.asarray(proba)
    if predicted is None:
        return proba.max(axis=1)
    return proba[np.arange(len(proba)), np.searchsorted(np.asarray(classes), np.asarray(predicted))]


def expected_calibration_error(
    y: Any, proba: Any, classes: Any, *, predicted: Any = None, bins: int = 15, sample_weight: Any = None
) -> float:
    """Return how far confidence is from accuracy, on average over rows.

    Rows are binned by confidence, the probability of the predicted class, in bins of equal width closed on the
    right; the error is the mean over rows of their bin's gap between mean confidence and accuracy (Guo et al. 2017).
    It is never negative, so chance alone puts it above 0, the more the fewer rows there are.

    Parameters
    ----------
    y : array-like, shape (n,)
        True classes.
    proba : array-like of float, shape (n, k)
    classes : array-like, shape (k,)
        Sorted classes of the columns.
    predicted : array-like, shape (n,), optional
        Predicted classes, by default the most probable ones.
    bins : int, default 15
    sample_weight : array-like of float, shape (n,), optional

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> expected_calibration_error(["a", "b"], [[0.75, 0.25], [0.75, 0.25]], ["a", "b"])
    0.25
    """
    from featurebank.topmodels.calibration import weights_of

    y, proba, weight = np.asarray(y), np.asarray(proba), weights_of(sample_weight, len(proba))
    said = np.asarray(classes)[proba.argmax(axis=1)] if predicted is None else np.asarray(predicted)
    confidence, right = confidence_of(proba, predicted, classes), said == y
    number = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    return float(np.abs(np.bincount(number, weight * (right - confidence))).sum() / weight.sum())
