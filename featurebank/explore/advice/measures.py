"""How well features would carry a target, without training: LogME and the H-score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.covariance import ledoit_wolf_shrinkage

from featurebank.errors import TopModelError

Array = NDArray[np.float64]
NOISE = 1e-6
"""Least share of a target's squares that counts as noise; without noise the evidence would have no bound."""
RATIOS = np.log(np.geomspace(1e-12, 1e12, 97))
"""Logarithms of signal over noise among which the best is looked for, before it is refined."""


def logme(X: Any, y: Any, *, task: str = "classification") -> float:
    """Return the log evidence of a linear model, a row and a target (LogME, You et al. 2021): the higher, the better.

    Classes are targets of 0 and 1 each; for another task each column of y is a target. Only differences on the same y
    mean something.
    """
    X, y = _checked(X, y)
    columns = _indicators(y) if task == "classification" else y.reshape(len(y), -1).astype(np.float64)
    values, axes = _axes(X)
    inside, whole = (axes.T @ columns) ** 2, (columns**2).sum(axis=0)  # (r, t) along the axes; (t,)
    least = NOISE * whole if len(values) < len(X) else 0.0  # as many axes as rows give every target
    outside = np.maximum(whole - inside.sum(axis=0), least)
    return float(np.mean([_evidence(values, *each, len(X)) for each in zip(inside.T, outside, strict=True)])) / len(X)


def _evidence(values: Array, inside: Array, outside: float, n: int) -> float:
    """Return the largest log evidence of a target over the ratio of signal to noise."""
    if not inside.any() and not outside:  # a target of zeros alone: nothing to explain
        return 0.0
    unit = values / values.max(initial=0) if len(values) else values

    def loss(log_ratio: float) -> float:
        spread = 1 + np.exp(log_ratio) * unit
        noise = float((inside / spread).sum() + outside) / n  # the variance that makes the target most likely
        return float(0.5 * (n * np.log(2 * np.pi * noise) + n + np.log(spread).sum()))

    best = int(np.argmin([loss(each) for each in RATIOS]))
    around = RATIOS[max(best - 1, 0)], RATIOS[min(best + 1, len(RATIOS) - 1)]
    return -float(minimize_scalar(loss, bounds=around, method="bounded").fun)


def h_score(X: Any, y: Any, *, shrinkage: float | None = None) -> float:
    """Return the H-score: how much of the whitened variance lies between the classes (Bao et al. 2019).

    The covariance is shrunk (Ibrahim et al. 2022), by default as Ledoit and Wolf do; 0 gives the plain H-score.
    """
    X, y = _checked(X, y)
    classes, centred = _indicators(y), X - X.mean(axis=0)
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise TopModelError(f"a shrinkage of {shrinkage}; expected a number from 0 to 1")
    values, axes = _axes(centred)
    if not len(values):
        return 0.0  # no column varies
    share = float(ledoit_wolf_shrinkage(centred, assume_centered=True)) if shrinkage is None else shrinkage
    variances, counts = values / len(X), classes.sum(axis=0)
    means = (classes.T @ axes) * np.sqrt(values) / counts[:, None]  # (k, r): class means along the axes
    between = counts / len(X) @ means**2
    return float((1 - share) * (between / ((1 - share) * variances + share * variances.sum() / X.shape[1])).sum())


def _axes(X: Array) -> tuple[Array, Array]:
    """Return the squared singular values (r,) and the left singular vectors (n, r) of X, from the smaller product."""
    is_tall = X.shape[0] >= X.shape[1]
    values, vectors = np.linalg.eigh(X.T @ X if is_tall else X @ X.T)
    kept = values > values.max(initial=0) * max(X.shape) * np.finfo(np.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    return values, (X @ vectors / np.sqrt(values) if is_tall else vectors)


def _indicators(y: NDArray[Any]) -> Array:
    """Return a column of 0 and 1 for each class, shape (n, k)."""
    classes = np.unique(y)
    if len(classes) < 2:
        raise TopModelError(f"y has one class, {classes.tolist()[0]!r}; expected at least two classes")
    return (y[:, None] == classes).astype(np.float64)


def _checked(X: Any, y: Any) -> tuple[Array, NDArray[Any]]:
    X, y = np.asarray(X, np.float64), np.asarray(y)
    if X.ndim != 2 or not len(X) or len(X) != len(y):
        raise TopModelError(f"X of shape {X.shape}, y of shape {y.shape}; expected rows of features and as many of y")
    if not np.isfinite(X).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise TopModelError("a value is not finite; expected numbers: leave those rows out")
    return X, y
