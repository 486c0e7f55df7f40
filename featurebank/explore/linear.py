"""A top model as one linear function of the embeddings, where it is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from featurebank.topmodels.transforms import SelectDimensions, SelectRelevant

TOLERANCE = 1e-4
"""Largest difference to the model's own decisions, relative to their size or to 1."""


@dataclass(frozen=True)
class Linear:
    """Decisions ``X @ weights.T + bias``.

    Attributes
    ----------
    weights : ndarray of float64, shape (k, d)
    bias : ndarray of float64, shape (k,)
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return the decisions of rows, shape (n, k)."""
        found: NDArray[np.float64] = X.astype(np.float64) @ self.weights.T + self.bias
        return found


def decisions(model: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a model decides by, a column for each class (one for numbers), shape (n, k).

    Decision values where it has them, of two classes with both signs; else probabilities, else predicted numbers.
    """
    if hasattr(model, "decision_function"):
        values = np.asarray(model.decision_function(X), np.float64)
        return np.column_stack([-values, values]) if values.ndim == 1 else values
    name = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    found = np.asarray(getattr(model, name)(X), np.float64)
    return found.reshape(len(X), -1)


def linear_of(model: Any, X: NDArray[Any]) -> Linear | None:
    """Return a pipeline as one linear function with the columns of `decisions`; None where it is not linear.

    Scaling and selected dimensions are folded into the weights. That the function is the model's is checked on rows.

    Parameters
    ----------
    model : Pipeline
        Fitted.
    X : ndarray of float32, shape (n, d)
        Rows to check it on.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 1.0]])
    >>> model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, [0, 1, 1])
    >>> found = linear_of(model, X)
    >>> np.allclose(found(X)[:, 1], model.decision_function(X))
    True
    """
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    last = getattr(steps[-1], "estimator_", steps[-1])  # a tuned threshold moves no decision value
    if not hasattr(last, "coef_") or not hasattr(last, "intercept_"):
        return None
    weights = np.atleast_2d(np.asarray(last.coef_, np.float64))
    bias = np.broadcast_to(np.asarray(last.intercept_, np.float64).ravel(), len(weights))
    for step in reversed(steps[:-1]):
        if isinstance(step, StandardScaler):
            weights = weights / step.scale_ if step.with_std else weights
            bias = bias - weights @ step.mean_ if step.with_mean else bias
        elif isinstance(step, (SelectDimensions, SelectRelevant)):
            taken, weights = weights, np.zeros((len(weights), step.n_features_in_))
            weights[:, step.dimensions_] = taken
        else:
            return None
    expected = decisions(model, X)
    if len(weights) == 1 and expected.shape[1] == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    if len(weights) != expected.shape[1]:
        return None
    found = Linear(weights, bias)
    far = np.abs(found(X) - expected).max() / max(1.0, float(np.abs(expected).max()))
    return found if far < TOLERANCE else None
