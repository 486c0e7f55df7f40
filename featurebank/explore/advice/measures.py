"""How well features would carry a target, without training: LogME and the H-score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.covariance import ledoit_wolf_shrinkage

from featurebank.errors import TopModelError

Array = NDArray[np.float64]
EXACT = 1e-6
"""Share of a target's sum of squares that is taken for noise even where the features give it exactly: without noise the
evidence would have no bound."""
RATIOS = np.geomspace(1e-12, 1e12, 97)
"""Largest variances of the signal over that of the noise among which the best is looked for, before it is refined."""


def logme(X: Any, y: Any, *, task: str = "classification") -> float:
    """Return the logarithm of the maximum evidence of a linear model, a row and a target (LogME).

    You et al. 2021, LogME: practical assessment of pre-trained models for transfer learning. The prior's and the
    noise's precision are those under which the targets are most likely. Here the noise has its closed form, and their
    ratio is searched on one line, so that the maximum is the global one. The features enter as they are, not centred,
    as in the paper: the value depends neither on their scale nor on a rotation.

    Parameters
    ----------
    X : array-like of float, shape (n, d)
    y : array-like, shape (n,) or (n, t)
        Classes (each is a target of 0 and 1), or numbers, one target a column.
    task : str, default "classification"
        ``"classification"``: y holds classes. Anything else: y holds numbers.

    Returns
    -------
    float
        Mean over the targets; the higher, the better the features. Only differences on the same y mean something.

    Raises
    ------
    TopModelError
        When the shapes do not fit, a value is not finite, or y has one class.

    Examples
    --------
    >>> y = np.repeat([0, 1], 50)
    >>> noise = np.random.default_rng(0).normal(size=(100, 3))
    >>> logme(noise + y[:, None], y) > logme(noise, y)
    True
    """
    X, y = _checked(X, y)
    columns = _indicators(y) if task == "classification" else y.reshape(len(y), -1).astype(np.float64)
    values, axes = _axes(X)
    inside = (axes.T @ columns) ** 2  # (r, t): squares of the targets along the features' axes
    whole = (columns**2).sum(axis=0)
    least = EXACT * whole if len(values) < len(X) else 0.0  # as many axes as rows give every target, and need no bound
    outside = np.maximum(whole - inside.sum(axis=0), least)
    found = [_best_evidence(values, *each, len(X)) for each in zip(inside.T, outside, strict=True)]
    return float(np.mean(found)) / len(X)


def _best_evidence(values: Array, inside: Array, outside: float, n: int) -> float:
    """Return the largest log evidence over the ratio of signal to noise; values are the squared singular ones, (r,)."""
    unit = values / values.max(initial=0) if len(values) else values

    def evidence(log_ratio: float) -> float:
        spread = 1 + np.exp(log_ratio) * unit
        noise = float((inside / spread).sum() + outside) / n  # the variance that makes the targets most likely
        return float(-0.5 * (n * np.log(2 * np.pi * noise) + n + np.log(spread).sum()))

    if not inside.any() and not outside:  # a target of zeros alone: nothing to explain
        return 0.0
    grid = np.log(RATIOS)
    best = int(np.argmax([evidence(each) for each in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return -float(minimize_scalar(lambda at: -evidence(at), bounds=around, method="bounded").fun)


def h_score(X: Any, y: Any, *, shrinkage: float | None = None) -> float:
    """Return the H-score: how much of the features' variance, whitened, lies between the classes.

    Bao et al. 2019, An information-theoretic approach to transferability in task transfer learning: the trace of
    cov(X)^-1 cov(E[X|y]). The covariance is shrunk to a multiple of the identity, and the classes' part with it
    (Ibrahim et al. 2022, Newer is not always better: rethinking transferability metrics), since with about as many
    columns as rows the plain one says nothing.

    Parameters
    ----------
    X : array-like of float, shape (n, d)
    y : array-like, shape (n,)
        Classes.
    shrinkage : float, optional
        From 0 (the plain H-score, the sum of the squared canonical correlations) to 1; by default that of Ledoit and
        Wolf 2004.

    Returns
    -------
    float
        From 0 to the number of classes less one, the higher the better.

    Raises
    ------
    TopModelError
        When the shapes do not fit, a value is not finite, y has one class, or the shrinkage is out of its range.

    Examples
    --------
    >>> y = np.array([0, 0, 1, 1])
    >>> round(h_score(np.array([[-1.0], [-1.0], [1.0], [1.0]]), y, shrinkage=0), 6)
    1.0
    """
    X, y = _checked(X, y)
    classes = _indicators(y)
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise TopModelError(f"a shrinkage of {shrinkage}; expected a number from 0 to 1")
    centred = X - X.mean(axis=0)
    values, axes = _axes(centred)
    if not len(values):
        return 0.0  # no column varies
    share = float(ledoit_wolf_shrinkage(centred, assume_centered=True)) if shrinkage is None else shrinkage
    variances = values / len(X)  # (r,) along the axes; outside of them the class means have nothing
    shrunk = (1 - share) * variances + share * variances.sum() / X.shape[1]
    counts = classes.sum(axis=0)
    means = (classes.T @ axes) * np.sqrt(values) / counts[:, None]  # (k, r): class means along the axes
    between = counts / len(X) @ means**2  # (r,)
    return float((1 - share) * (between / shrunk).sum())


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
        raise TopModelError(
            f"X of shape {X.shape} and y of shape {y.shape}; expected rows of features and as many of y"
        )
    if not np.isfinite(X).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise TopModelError("a value is not finite; expected numbers: leave those rows out")
    return X, y
