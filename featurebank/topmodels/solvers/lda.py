"""Linear discriminant analysis over all shrinkages from one eigendecomposition a fold."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

from featurebank.topmodels.solvers import plain
from featurebank.topmodels.solvers.fold_rows import rotated
from featurebank.topmodels.solvers.moments import Array, Moments
from featurebank.topmodels.solvers.problem import (
    Cells,
    Events,
    Prediction,
    Problem,
    SolverOptions,
    changed,
    label,
    split,
)
from featurebank.topmodels.threads import delayed

DEFAULT = LinearDiscriminantAnalysis()


class Scatter(NamedTuple):
    """A fold in pipeline coordinates.

    Within-class scatter over n (r, r), class means (K, r), test rows (m, r), log of the class shares (K,),
    and the mean within-class variance of a column before any rotation.
    """

    within: Array
    means: Array
    test: Array
    prior: Array
    variance: float


def solve(
    problem: Problem, cells: Cells, settings: SolverOptions, estimator: LinearDiscriminantAnalysis | None = None
) -> Events:
    """Predictions of `LinearDiscriminantAnalysis` for every cell and fold.

    Solvers "lsqr" and "eigen" with a number for shrinkage share one eigendecomposition of the within-class
    covariance; "svd" has its own, of the within-class correlation. The rest goes to plain scikit-learn, and
    so does "svd" where columns outnumber rows: its per-column scaling does not survive a rotation. For
    wide rows that are not standardised, multi-class `decision` may differ by a constant a row.
    """
    if problem.sample_weight is not None:
        raise ValueError("sample weights found; linear discriminant analysis takes none: drop them or the model")
    model = DEFAULT if estimator is None else estimator
    is_tall = min(len(train) for train, _ in problem.folds) >= problem.X.shape[1]
    full = {number: changed(model, DEFAULT) | dict(cell) for number, cell in cells.items()}
    fast, _ = split(full, ("solver", "shrinkage", "tol"), lambda cell: is_shared(cell, is_tall))
    rest = {number: dict(cells[number]) for number in cells if number not in fast}
    yield from plain.solve(problem, rest, settings, model, "no shared decomposition for their parameters")
    if not fast:
        return
    indicators = (problem.y[:, None] == np.unique(problem.y)).astype(np.float64)  # (n, K)
    with threadpool_limits(1):
        weights = np.ones(len(problem.X))
        moments = Moments(problem, weights, indicators, settings.n_jobs) if is_tall else None
        workers = Parallel(settings.n_jobs, prefer="threads", return_as="generator_unordered")
        jobs = (delayed(fit_fold)(problem, fold, moments, fast) for fold in range(len(problem.folds)))
        for found in workers(jobs):
            yield from found


def is_shared(cell: Mapping[str, Any], is_tall: bool) -> bool:
    """Whether a cell's model follows from one decomposition of the fold's covariance."""
    shrinkage = cell.get("shrinkage")
    if cell.get("solver", "svd") == "svd":
        return is_tall and shrinkage is None
    # Without shrinkage a wide covariance is singular, and scikit-learn's answer depends on its solver.
    return is_tall if shrinkage is None else isinstance(shrinkage, (int, float)) and shrinkage > 0


def fit_fold(problem: Problem, fold: int, moments: Moments | None, cells: Cells) -> list[Prediction]:
    """Every cell on one fold."""
    start = time.perf_counter()
    classes = problem.classes(fold)
    scatter = wide(problem, fold) if moments is None else tall(moments, fold)
    axes: dict[bool, tuple[Array, Array]] = {}
    found = []
    for number, cell in cells.items():
        is_svd = cell.get("solver", "svd") == "svd"
        if is_svd not in axes:
            axes[is_svd] = correlation_axes(scatter) if is_svd else covariance_axes(scatter)
        values, vectors = axes[is_svd]
        decision = (
            by_svd(scatter, values, vectors, cell.get("tol", 1e-4))
            if is_svd
            else by_shrinkage(scatter, values, vectors, cell.get("shrinkage") or 0.0)
        )
        found.append(predict(number, fold, classes, decision, time.perf_counter() - start))
        start = time.perf_counter()
    return found


def predict(number: int, fold: int, classes: NDArray[Any], decision: Array, seconds: float) -> Prediction:
    """Labels and probabilities of class scores (m, K)."""
    if len(classes) == 2:
        decision = decision[:, 1] - decision[:, 0]
        second = expit(decision)
        proba = np.column_stack([1 - second, second])
    else:
        proba = softmax(decision, axis=1)
    return Prediction(number, fold, classes, label(classes, decision), decision, proba, seconds)


def tall(moments: Moments, fold: int) -> Scatter:
    """Scatter of standardised rows from the moments of all rows (n >= d)."""
    train, test = moments.problem.folds[fold]
    weights = np.ones(len(train))
    sums = moments.training(fold, weights)
    offset, scale = moments.scaling(fold, weights, sums)
    seen = sums.y > 0.5
    shares = sums.y[seen] / sums.weight  # (K,)
    means = (sums.xy[:, seen] / sums.y[seen]).T  # (K, d)
    within = sums.xx / sums.weight
    noise = 1e-13 * np.diag(within) + 1e-18 * moments.origin**2
    within -= (means.T * shares) @ means
    constant = np.diag(within) <= noise  # within every class; float32 rows vary by more or not at all
    within[constant] = within[:, constant] = 0
    within /= scale
    within /= scale[:, None]
    means, rows = (means - offset) / scale, (moments.rows(test) - offset) / scale
    return Scatter(within, means, rows, np.log(shares), float(np.trace(within)) / len(scale))


def wide(problem: Problem, fold: int) -> Scatter:
    """Scatter in the span of the training rows (n < d)."""
    learned, held = (rows.astype(np.float64) for rows in rotated(problem, problem.folds[fold]))
    shares, indicators = by_class(problem.y[problem.folds[fold][0]])
    means = indicators.T @ learned / (len(learned) * shares[:, None])
    learned -= indicators @ means
    within = learned.T @ learned / len(learned)
    return Scatter(within, means, held, np.log(shares), float(np.trace(within)) / problem.X.shape[1])


def by_class(y: NDArray[Any]) -> tuple[Array, Array]:
    """Share of each class (K,) and indicators (n, K)."""
    classes, codes = np.unique(y, return_inverse=True)
    indicators = np.eye(len(classes))[codes]
    return indicators.mean(axis=0), indicators


def covariance_axes(scatter: Scatter) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of the within-class covariance."""
    return np.linalg.eigh(scatter.within)  # lets other threads run; scipy's holds the interpreter's lock


def correlation_axes(scatter: Scatter) -> tuple[Array, Array]:
    """Those of the within-class correlation, columns scaled back."""
    deviation = np.sqrt(np.diag(scatter.within).clip(min=0))
    deviation[deviation == 0] = 1
    correlation = scatter.within / deviation / deviation[:, None]
    values, vectors = np.linalg.eigh(correlation)
    return values, vectors / deviation[:, None]


def by_shrinkage(scatter: Scatter, values: Array, vectors: Array, shrinkage: float) -> Array:
    """Class scores (m, K) with covariance (1 - s) S + s variance I (scikit-learn's "lsqr" and "eigen")."""
    shrunk = (1 - shrinkage) * values + shrinkage * scatter.variance
    keep = shrunk > shrunk.max() * len(shrunk) * np.finfo(np.float64).eps
    means = scatter.means @ vectors[:, keep]  # (K, r)
    coefficients = means / shrunk[keep]
    return scatter.test @ vectors[:, keep] @ coefficients.T - 0.5 * (coefficients * means).sum(axis=1) + scatter.prior


def by_svd(scatter: Scatter, values: Array, vectors: Array, tol: float) -> Array:
    """Class scores (m, K) in whitened axes, those with a standard deviation below `tol` left out ("svd")."""
    keep = values > tol**2
    whiten = vectors[:, keep] / np.sqrt(values[keep])
    centre = np.exp(scatter.prior) @ scatter.means  # (r,)
    means = (scatter.means - centre) @ whiten
    return (scatter.test - centre) @ whiten @ means.T - 0.5 * (means**2).sum(axis=1) + scatter.prior
