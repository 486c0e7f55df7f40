"""Second moments of every fold's training rows: all rows once, less the rows a fold leaves out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from joblib import Parallel
from numpy.typing import NDArray

from featurebank.topmodels.scaling import FlooredScaler, floored
from featurebank.topmodels.solvers.problem import Problem
from featurebank.topmodels.threads import delayed

Array = NDArray[np.float64]
ROWS = 2048
"""Rows brought to float64 at a time."""


class Sums(NamedTuple):
    """Weighted sums over training rows x (d,), already less the origin, and columns y (t,).

    `xx` (d, d), `x` (d,), `xy` (d, t), `y` (t,), and the sum of the weights.
    """

    xx: Array
    x: Array
    xy: Array
    y: Array
    weight: float


class Moments:
    """Sums over the training part of each fold, with x less the mean of all rows.

    One product of the rows [x, 1, y] with themselves holds every sum that least squares and discriminants
    need; a fold's is that of all rows less that of the rows it leaves out.

    Parameters
    ----------
    weights : ndarray of shape (n,), float64
        One weight a row, the same in every fold.
    columns : ndarray of shape (n, t), float64
        Targets, or indicators of the classes.
    n_jobs : int
        Threads.
    """

    def __init__(self, problem: Problem, weights: Array, columns: Array, n_jobs: int) -> None:
        self.problem, self.weights, self.columns = problem, weights, columns
        self.origin: Array = problem.X.mean(axis=0, dtype=np.float64)  # (d,)
        everyone = np.arange(len(problem.X))
        self.rests = [np.setdiff1d(everyone, train) for train, _ in problem.folds]
        is_whole = np.array_equal(np.sort(np.concatenate(self.rests)), everyone)
        parts = self.rests if is_whole else np.array_split(everyone, n_jobs)
        workers = Parallel(n_jobs, prefer="threads")
        products = workers(delayed(self.product)(part, weights[part]) for part in parts)
        self.left_out: list[Array] = products if is_whole else []  # plain k folds: their parts make the whole
        self.total = np.sum(products, axis=0)

    def rows(self, rows: NDArray[np.intp]) -> Array:
        """Rows less the origin, (n_rows, d), float64."""
        centred: Array = self.problem.X[rows] - self.origin
        return centred

    def product(self, rows: NDArray[np.intp], weights: Array) -> Array:
        """Weighted product of [x, 1, y] with itself over rows, (d + 1 + t, d + 1 + t)."""
        width = len(self.origin) + 1 + self.columns.shape[1]
        total = np.zeros((width, width))
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            block = np.empty((len(part), width))
            block[:, : len(self.origin)] = self.rows(part)
            block[:, len(self.origin)] = 1
            block[:, len(self.origin) + 1 :] = self.columns[part]
            block *= np.sqrt(weights[start : start + ROWS])[:, None]
            total += block.T @ block
        return total

    def training(self, fold: int, weights: Array) -> Sums:
        """Sums over a fold's training rows under `weights` (n_train,)."""
        train, rest, d = self.problem.folds[fold][0], self.rests[fold], len(self.origin)
        is_shared = len(train) + len(rest) == len(self.weights) and np.array_equal(weights, self.weights[train])
        if self.left_out and is_shared:
            sums = self.total - self.left_out[fold]
        elif len(rest) < len(train) and is_shared:
            sums = self.total - self.product(rest, self.weights[rest])
        else:
            sums = self.product(train, weights)
        return Sums(sums[:d, :d], sums[:d, d], sums[:d, d + 1 :], sums[d, d + 1 :], float(sums[d, d]))

    def scaling(self, fold: int, weights: Array, sums: Sums) -> tuple[Array, Array]:
        """Mean, less the origin, and scale (d,) of the fold's `FlooredScaler`; raw rows have scale 1."""
        d, train = len(self.origin), self.problem.folds[fold][0]
        if not self.problem.standardize:
            return -self.origin, np.ones(d)
        if (weights != 1).any():  # the scaler knows no weights
            scaler = FlooredScaler(self.problem.widths).fit(self.problem.X[train])
            return scaler.mean_ - self.origin, scaler.scale_
        mean = sums.x / sums.weight
        spread = deviation(mean, np.diag(sums.xx) / sums.weight, self.origin)
        return mean, floored(spread, mean + self.origin, self.problem.widths)


def deviation(mean: Array, square: Array, origin: Array) -> Array:
    """Standard deviation (d,) from the means of x and of its square, x less the origin."""
    variance = square - mean**2
    constant = variance <= 1e-13 * square + (1e-12 * origin) ** 2  # rounding, not variation
    return np.sqrt(np.where(constant, 0, variance))
