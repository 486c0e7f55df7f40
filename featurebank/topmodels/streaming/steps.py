"""The steps before a model that learn: scalers and whitening, of every fold from one pass over the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from featurebank.topmodels.solvers.moments import Array, Sums
from featurebank.topmodels.solvers.problem import Problem
from featurebank.topmodels.streaming.sums import StreamedMoments, scalers
from featurebank.topmodels.transforms import Step


def fit_steps(problem: Problem, whitening: PCA | None) -> list[list[Step]]:
    """Return the fitted steps of every fold: its scaler, if the problem is standardised, and its whitening after it."""
    if whitening is not None:
        return _whitened(problem, whitening)
    if not problem.standardize:
        return [[] for _ in problem.folds]
    fits = scalers(problem.X, problem.folds)  # type: ignore[arg-type]
    return [[("scale", make_scaler(*fit, len(train)))] for fit, (train, _) in zip(fits, problem.folds, strict=True)]


def _whitened(problem: Problem, whitening: PCA) -> list[list[Step]]:
    """Neither step knows weights."""
    plain = replace(problem, sample_weight=None, class_weight=None, standardize=True)
    moments = StreamedMoments(plain, lambda y: np.empty((len(y), 0)))
    found: list[list[Step]] = []
    for fold, (train, _) in enumerate(problem.folds):
        sums = moments.training(fold, np.empty(0))
        mean, scale = moments.scaling(fold, np.empty(0), sums)
        covariance = (sums.xx - np.outer(sums.x, sums.x) / len(train)) / scale / scale[:, None] / (len(train) - 1)
        scaler = make_scaler(mean + moments.origin, scale, len(train))
        found.append([("scale", scaler), ("whiten", make_pca(covariance, len(train), whitening))])
    return found


def make_scaler(mean: NDArray[np.float64], scale: NDArray[np.float64], count: int) -> StandardScaler:
    """Return the `StandardScaler` that has seen `count` rows of this mean and scale (d,).

    Examples
    --------
    >>> make_scaler(np.array([1.0]), np.array([2.0]), 9).transform([[5.0]])
    array([[2.]])
    """
    scaler = StandardScaler().fit(np.zeros((1, len(mean))))
    scaler.mean_, scaler.scale_, scaler.var_, scaler.n_samples_seen_ = mean, scale, scale**2, count
    return scaler


def make_pca(covariance: Array, count: int, pca: PCA) -> PCA:
    """Return the `PCA` that has seen `count` rows of mean 0 and this covariance (d, d).

    It is fitted to rows that have them: the principal axes, each as long as its deviation, there and back.

    Examples
    --------
    >>> make_pca(np.diag([1.0, 4.0]), 9, PCA(1)).transform([[5.0, 3.0]])
    array([[3.]])
    """
    values, vectors = np.linalg.eigh(covariance)
    axes = (vectors * np.sqrt(values.clip(min=0))).T
    rows = np.concatenate([axes, -axes]) * np.sqrt((2 * len(axes) - 1) / 2)
    fitted = clone(pca).fit(rows)
    fitted.n_samples_, fitted.singular_values_ = count, np.sqrt(fitted.explained_variance_ * (count - 1))
    return fitted


class Along:
    """A fold's moments in the coordinates that its steps bring rows to; it stands in for `StreamedMoments`.

    Parameters
    ----------
    moments : StreamedMoments
        Of rows that are not standardised.
    fold : int
    steps : sequence of (name, transformer)
        Fitted, and affine together.
    """

    def __init__(self, moments: StreamedMoments, fold: int, steps: list[Step]):
        points = moments.origin + moments.rows(np.empty(0, np.intp))
        for _, step in steps:
            points = step.transform(points)
        self.moments, self.problem = moments, moments.problem
        self.start, self.axes = points[0], points[1:] - points[0]  # (k,), (d, k)
        self.origin = np.zeros(len(self.start))
        self._sums = self._turned(moments.training(fold, np.empty(0)))

    def rows(self, rows: NDArray[np.intp]) -> Array:
        """Return the origin and a step along each axis, (k + 1, k); see `StreamedMoments`."""
        return np.concatenate([self.origin[None], np.eye(len(self.origin))])

    def training(self, fold: int, weights: Array) -> Sums:
        """Sums over the fold's training rows."""
        return self._sums

    def scaling(self, fold: int, weights: Array, sums: Sums) -> tuple[Array, Array]:
        """Mean and scale of the rows' own coordinates, 0 and 1."""
        return self.origin, np.ones(len(self.origin))

    def _turned(self, sums: Sums) -> Sums:
        x, start = self.axes.T @ sums.x, self.start
        xx = self.axes.T @ sums.xx @ self.axes + np.outer(x, start) + np.outer(start, x)
        xx += sums.weight * np.outer(start, start)
        xy = self.axes.T @ sums.xy + np.outer(start, sums.y)
        return Sums(xx, x + sums.weight * start, xy, sums.y, sums.weight)
