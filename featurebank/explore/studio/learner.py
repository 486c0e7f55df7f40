"""The model that is refitted after every answer, and what it says of what it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.leave_one_out import leave_one_out


@dataclass(frozen=True)
class Learned:
    """A ridge over standardised embeddings whose values a temperature turns into probabilities.

    Attributes
    ----------
    classes : ndarray of str, shape (k,)
        Sorted; those that it has seen.
    weights : ndarray of float32, shape (d, k)
    bias : ndarray of float32, shape (k,)
        Both divided by the temperature already: the softmax of the values is the probability.
    left_out : ndarray of float64, shape (n, k)
        Probabilities of each training row by the ridge of all others.
    penalty : float
        Of the ridge.
    """

    classes: NDArray[np.str_]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    left_out: NDArray[np.float64]
    penalty: float

    def probabilities(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of standardised rows, shape (m, k)."""
        return np.asarray(softmax(X @ self.weights + self.bias, axis=1), np.float32)

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.str_]:
        """Return the likeliest class of standardised rows, shape (m,)."""
        return self.classes[(X @ self.weights + self.bias).argmax(axis=1)]


def learn(X: NDArray[np.float32], y: NDArray[np.str_]) -> Learned | None:
    """Fit a model; None of fewer than two classes.

    Parameters
    ----------
    X : ndarray of float32, shape (n, d)
        Standardised.
    y : ndarray of str, shape (n,)
    """
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        return None
    found = leave_one_out(X.astype(np.float64), np.where(codes[:, None] == np.arange(len(classes)), 1.0, -1.0))
    temperature = Calibrator("temperature").fit(found.values, y).temperature_
    return Learned(
        classes,
        (found.weights / temperature).astype(np.float32),
        (found.bias / temperature).astype(np.float32),
        softmax(found.values / temperature, axis=1),
        found.penalty,
    )
