"""The rows as logistic regression multiplies by them: one matrix for all folds, or a rotated one a fold."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurebank.topmodels.solvers.fold_rows import rotated, scaling
from featurebank.topmodels.solvers.lbfgs import Array
from featurebank.topmodels.solvers.problem import Problem

Step = Callable[[Array], Array]


class Design(Protocol):
    """Products with the standardised rows of several folds."""

    width: int

    def logits(self, rows: list[int], points: Array, slab: slice) -> NDArray[Any]:
        """Logits (A, K, m) of a slab of m rows under points (A, K, width + 1) of the folds `rows`."""

    def gradients(self, rows: list[int], residuals: NDArray[Any], slab: slice) -> Array:
        """Gradients (A, K, width + 1) from residuals (A, K, m) of a slab of m rows."""

    def preconditioner(self, row: int, curvature: Array, strength: float) -> Step:
        """Approximate inverse Hessian of one fold; `curvature` (K, K) is the mean Hessian in the logits."""


def design(problem: Problem, folds: list[int], dtype: Any, memory: int, pool: ThreadPoolExecutor) -> Design:
    """Rotated rows where they are fewer than columns and fit the budget, else the shared matrix."""
    n, d = problem.X.shape
    train = max(len(problem.folds[fold][0]) for fold in folds)
    fits = len(folds) * n * train * np.dtype(dtype).itemsize <= memory
    return (Rotated if train < d and fits else Shared)(problem, folds, dtype, pool)


class Shared:
    """One matrix Z (n, d) for all folds; a fold's own standardising is folded into its weights.

    With z = (x - m) / s over all rows and a fold's (x - m_f) / s_f = z a_f + c_f, a product with a fold's
    rows is one with Z and weights scaled by a_f, plus a constant: exact, and all folds share a pass over Z.
    """

    def __init__(self, problem: Problem, folds: list[int], dtype: Any, pool: ThreadPoolExecutor) -> None:
        mean, scale = scaling(problem, np.arange(len(problem.X)))
        self.rows = np.subtract(problem.X, mean, dtype=dtype, casting="unsafe")  # (n, d)
        self.rows /= scale.astype(dtype)
        self.width = problem.X.shape[1]
        own = list(pool.map(lambda fold: scaling(problem, problem.folds[fold][0]), folds))
        self.factor = np.array([scale / own_scale for _, own_scale in own])  # (F, d)
        self.shift = np.array([(mean - own_mean) / own_scale for own_mean, own_scale in own])  # (F, d)
        values, vectors = np.linalg.eigh(self.rows.T @ self.rows / len(self.rows))
        self.values, self.axes = values.clip(min=0), vectors

    def logits(self, rows: list[int], points: Array, slab: slice) -> NDArray[Any]:
        """Logits (A, K, m) of a slab of rows; see `Design`."""
        weights = points[:, :, :-1]  # (A, K, d)
        constant = points[:, :, -1] + (weights * self.shift[rows][:, None]).sum(axis=2)  # (A, K)
        scaled = (weights * self.factor[rows][:, None]).astype(self.rows.dtype)
        logits = scaled.reshape(-1, self.width) @ self.rows[slab].T  # (A K, m)
        return logits.reshape(*constant.shape, -1) + constant[:, :, None].astype(self.rows.dtype)

    def gradients(self, rows: list[int], residuals: NDArray[Any], slab: slice) -> Array:
        """Gradients (A, K, width + 1) from the residuals of a slab; see `Design`."""
        folds, outputs, n = residuals.shape
        total = residuals.sum(axis=2, dtype=np.float64)[:, :, None]  # (A, K, 1)
        products = (residuals.reshape(-1, n) @ self.rows[slab]).reshape(folds, outputs, self.width)
        return np.concatenate(
            [products * self.factor[rows][:, None] + total * self.shift[rows][:, None], total], axis=2
        )

    def preconditioner(self, row: int, curvature: Array, strength: float) -> Step:
        """Approximate inverse Hessian of one fold; see `Design`."""
        return kronecker(curvature, self.values, self.axes, strength)


class Rotated:
    """Each fold's rows in the principal axes of its training rows, (F, n, r): for n < d."""

    def __init__(self, problem: Problem, folds: list[int], dtype: Any, pool: ThreadPoolExecutor) -> None:
        self.width = max(len(problem.folds[fold][0]) for fold in folds)
        self.rows = np.zeros((len(folds), len(problem.X), self.width), dtype)
        self.values = np.zeros((len(folds), self.width))
        found = pool.map(lambda fold: rotated(problem, problem.folds[fold]), folds)
        for row, (fold, (learned, held)) in enumerate(zip(folds, found, strict=True)):
            train, test = problem.folds[fold]
            self.rows[row, train, : learned.shape[1]] = learned
            self.rows[row, test, : held.shape[1]] = held
            self.values[row] = (self.rows[row, train] ** 2).mean(axis=0)

    def logits(self, rows: list[int], points: Array, slab: slice) -> NDArray[Any]:
        """Logits (A, K, m) of a slab of rows; see `Design`."""
        points = points.astype(self.rows.dtype)
        products = [point[:, :-1] @ self.rows[row, slab].T for row, point in zip(rows, points, strict=True)]
        return np.stack(products) + points[:, :, -1:]

    def gradients(self, rows: list[int], residuals: NDArray[Any], slab: slice) -> Array:
        """Gradients (A, K, width + 1) from the residuals of a slab; see `Design`."""
        total = residuals.sum(axis=2, dtype=np.float64)[:, :, None]  # (A, K, 1)
        products = [residual @ self.rows[row, slab] for row, residual in zip(rows, residuals, strict=True)]
        return np.concatenate([np.stack(products), total], axis=2)

    def preconditioner(self, row: int, curvature: Array, strength: float) -> Step:
        """Approximate inverse Hessian of one fold; see `Design`."""
        return kronecker(curvature, self.values[row], None, strength)


def kronecker(curvature: Array, values: Array, axes: NDArray[Any] | None, strength: float) -> Step:
    """Inverse of curvature (K, K) x covariance (d, d) + strength, by the eigenvectors of both.

    The covariance has eigenvalues `values` (d,) along `axes` (d, d), None for the coordinates themselves.
    It is the Hessian where probabilities do not depend on the row, as at the strong end of the path.
    """
    outer, turn = np.linalg.eigh(curvature)  # (K,), (K, K)
    outer = outer.clip(min=0)
    divisor = outer[:, None] * values + strength  # (K, d)
    intercept = np.maximum(outer, 1e-3 * outer.max())[:, None]

    def step(gradient: Array) -> Array:
        turned = turn.T @ gradient
        weights = turned[:, :-1]
        if axes is None:
            weights = weights / divisor
        else:
            weights = ((weights.astype(axes.dtype) @ axes) / divisor).astype(axes.dtype) @ axes.T
        return turn @ np.concatenate([weights, turned[:, -1:] / intercept], axis=1)

    return step
