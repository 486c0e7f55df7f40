"""The rows of one fold: standardised as `FlooredScaler` would, and rotated where columns outnumber rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from featurebank.topmodels.scaling import FlooredScaler, floored
from featurebank.topmodels.solvers.problem import Fold, Problem

COLUMNS = 2048
"""Columns copied at a time."""


def scaling(problem: Problem, train: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale (d,) that the fold's `FlooredScaler` learns; (0, 1) without standardising."""
    d = problem.X.shape[1]
    return _scaling(problem, train) if problem.standardize else (np.zeros(d), np.ones(d))


def _scaling(problem: Problem, train: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale (d,) of the fold's training rows; scale 1 without standardising. No wide X is copied whole."""
    starts = range(0, problem.X.shape[1], COLUMNS)
    parts = [StandardScaler().fit(problem.X[train, start : start + COLUMNS]) for start in starts]
    mean = np.concatenate([part.mean_ for part in parts])
    deviation = np.sqrt(np.concatenate([part.var_ for part in parts]))
    return mean, floored(deviation, mean, problem.widths) if problem.standardize else np.ones(len(mean))


def standardised(problem: Problem, fold: Fold) -> tuple[NDArray[Any], NDArray[Any]]:
    """Training rows (n_train, d) and test rows (n_test, d) as the fold's pipeline sees them, in X's dtype."""
    train, test = problem.X[fold[0]], problem.X[fold[1]]
    if not problem.standardize:
        return train, test
    scaler = FlooredScaler(problem.widths, copy=False).fit(train)
    return scaler.transform(train), scaler.transform(test)


def gram(problem: Problem, fold: Fold) -> NDArray[Any]:
    """Inner products (n, n), in X's dtype, of a fold's centred or standardised rows, training rows first.

    Centring changes neither distances nor the solution of a kernel machine with an intercept, and keeps
    float32 products accurate. Blocks of columns are summed, so a wide X is never copied whole.
    """
    rows = np.concatenate(fold)
    products = np.zeros((len(rows), len(rows)), problem.X.dtype)
    mean, scale = (each.astype(products.dtype) for each in _scaling(problem, fold[0]))
    for start in range(0, problem.X.shape[1], COLUMNS):
        block = problem.X[rows, start : start + COLUMNS]  # (n, c)
        block -= mean[start : start + COLUMNS]
        block /= scale[start : start + COLUMNS]
        products += block @ block.T
    return products


def rotated(problem: Problem, fold: Fold) -> tuple[NDArray[Any], NDArray[Any]]:
    """A fold's rows in the principal axes of its training rows: (n_train, r) and (n_test, r), r <= n_train.

    Exact for any model whose penalty a rotation leaves alone (L2): the weights of such a model lie in the
    span of the training rows (the representer theorem), so no column outside the span matters.
    """
    n = len(fold[0])
    products = gram(problem, fold)
    values, vectors = np.linalg.eigh(products[:n, :n])
    keep = values > values[-1] * n * np.finfo(values.dtype).eps
    axes = vectors[:, keep] / np.sqrt(values[keep])  # (n_train, r)
    return products[:n, :n] @ axes, products[n:, :n] @ axes
