"""Ridge, for classes and for numbers, over all alphas from one matrix of moments a fold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.linalg.lapack import dormqr, dsytrd, dsytrd_lwork
from sklearn.base import is_classifier
from sklearn.linear_model import Ridge, RidgeClassifier
from threadpoolctl import threadpool_limits

from featurebank.topmodels.solvers import plain
from featurebank.topmodels.solvers.fold_rows import rotated
from featurebank.topmodels.solvers.moments import Array, Moments
from featurebank.topmodels.solvers.problem import Cells, Events, Prediction, Problem, SolverOptions, label, split
from featurebank.topmodels.threads import delayed

SINGULAR = 1e-10
"""Share of the moments' trace from which alpha alone makes them regular."""


class Normal(NamedTuple):
    """Normal equations of a fold: moments (r, r), right side (r, t), test rows (m, r), mean target (t,)."""

    moments: Array
    right: Array
    test: Array
    mean: Array


def solve(
    problem: Problem, cells: Cells, settings: SolverOptions, estimator: Ridge | RidgeClassifier | None = None
) -> Events:
    """Predictions of `RidgeClassifier` (the default) or `Ridge` for every alpha and fold.

    One decomposition of a fold's moments, in float64, makes every alpha a few small products
    (Hoerl and Kennard 1970).
    """
    model = RidgeClassifier() if estimator is None else estimator
    fast, rest = split(cells, ("alpha",), lambda cell: np.ndim(cell.get("alpha", 1.0)) == 0)
    yield from plain.solve(problem, rest, settings, model, "they change more than one alpha")
    if not fast:
        return
    columns = encode(problem, is_classifier(model))
    is_tall = min(len(train) for train, _ in problem.folds) >= problem.X.shape[1]
    weights, folds = problem.plain_weights(np.arange(len(problem.X))), range(len(problem.folds))
    with threadpool_limits(1):
        moments = Moments(problem, weights, columns, settings.n_jobs) if is_tall else None
        workers = Parallel(settings.n_jobs, prefer="threads", return_as="generator_unordered")
        jobs = (delayed(fit_fold)(problem, fold, moments, columns, fast, model) for fold in folds)
        for found in workers(jobs):
            yield from found


def fit_fold(
    problem: Problem,
    fold: int,
    moments: Moments | None,
    columns: Array,
    cells: Cells,
    model: Ridge | RidgeClassifier,
) -> list[Prediction]:
    """Every alpha on one fold; `columns` (n, t) are the encoded targets."""
    start = time.perf_counter()
    train, is_class = problem.folds[fold][0], is_classifier(model)
    weights = problem.full_weights(fold, False) if is_class else problem.plain_weights(train)
    normal = wide(problem, fold, weights, columns) if moments is None else tall(moments, fold, weights)
    classes = problem.classes(fold) if is_class else None
    if classes is not None:
        seen = chosen(problem, classes)
        normal = normal._replace(right=normal.right[:, seen], mean=normal.mean[seen])
    alphas = {number: float(cell.get("alpha", model.alpha)) for number, cell in cells.items()}
    decide = decisions(normal, min(alphas.values()))
    found = [
        predict(number, fold, classes, decide(alpha) + normal.mean, problem.y.ndim) for number, alpha in alphas.items()
    ]
    seconds = (time.perf_counter() - start) / len(cells)
    return [prediction._replace(seconds=seconds) for prediction in found]


def decisions(normal: Normal, least: float) -> Callable[[float], Array]:
    """Test rows times the weights, (m, t), as a function of alpha; `least` is the smallest alpha to come."""
    is_small = least <= SINGULAR * float(np.trace(normal.moments)) or len(normal.moments) < 3
    return (by_eigenvectors if is_small else by_reflections)(normal)


def by_eigenvectors(normal: Normal) -> Callable[[float], Array]:
    """`decisions` by an eigendecomposition, which sees directions that carry nothing."""
    # numpy's LAPACK lets other threads run, scipy's holds the interpreter's lock.
    values, vectors = np.linalg.eigh(normal.moments)  # (r,), (r, r)
    turned, rows = vectors.T @ normal.right, normal.test @ vectors  # (r, t), (m, r)

    def decide(alpha: float) -> Array:
        shifted = values.clip(min=0) + alpha
        shifted[shifted <= shifted[-1] * np.finfo(np.float64).eps] = np.inf
        return rows @ (turned / shifted[:, None])

    return decide


def by_reflections(normal: Normal) -> Callable[[float], Array]:
    """`decisions` by a tridiagonal form Q T Q', a third of the work: T + alpha is solved in no time.

    Golub and Van Loan (2013, section 8.3): reflections bring the moments to T, and turn both sides of the product.
    """
    size = len(normal.moments)
    work = int(dsytrd_lwork(size, lower=1)[0])
    packed, diagonal, beside, scales, _ = dsytrd(np.asfortranarray(normal.moments), lower=1, lwork=work)
    reflections = np.asfortranarray(packed[1:, :-1])

    def turn(columns: Array) -> Array:
        turned = np.asfortranarray(columns)  # (r, k)
        turned[1:] = dormqr("L", "T", reflections, scales, turned[1:], 64 * max(columns.shape))[0]
        return turned

    right, rows = turn(normal.right.copy()), turn(normal.test.T.copy())  # (r, t), (r, m)
    lower = np.append(beside, 0.0)

    def decide(alpha: float) -> Array:
        return rows.T @ solveh_banded(np.stack([diagonal + alpha, lower]), right, lower=True)

    return decide


def predict(number: int, fold: int, classes: NDArray[Any] | None, values: Array, dimensions: int) -> Prediction:
    """Predictions from values (m, t); `dimensions` is that of the regression targets."""
    if values.shape[1] == 1 and (classes is not None or dimensions == 1):
        values = values[:, 0]
    return Prediction(
        number,
        fold,
        classes,
        values if classes is None else label(classes, values),
        None if classes is None else values,
    )


def encode(problem: Problem, is_class: bool) -> Array:
    """Targets (n, t) as floats, or -1 and 1 for each class (n, K)."""
    if not is_class:
        return problem.y.reshape(len(problem.y), -1).astype(np.float64)
    return np.where(problem.y[:, None] == np.unique(problem.y), 1.0, -1.0)


def chosen(problem: Problem, classes: NDArray[Any]) -> NDArray[np.intp]:
    """Columns that a fold with `classes` fits: one a class, of two classes only the second's."""
    columns = np.searchsorted(np.unique(problem.y), classes)
    return columns[1:] if len(classes) == 2 else columns


def tall(moments: Moments, fold: int, weights: Array) -> Normal:
    """Normal equations of centred, standardised rows, from moments of all rows (n >= d)."""
    sums = moments.training(fold, weights)
    _, scale = moments.scaling(fold, weights, sums)
    centre, mean = sums.x / sums.weight, sums.y / sums.weight
    second = sums.xx - np.outer(sums.x, centre)
    second /= scale
    second /= scale[:, None]
    right = (sums.xy - np.outer(sums.x, mean)) / scale[:, None]
    return Normal(second, right, (moments.rows(moments.problem.folds[fold][1]) - centre) / scale, mean)


def wide(problem: Problem, fold: int, weights: Array, columns: Array) -> Normal:
    """Normal equations in the span of the training rows (n < d)."""
    learned, held = (rows.astype(np.float64) for rows in rotated(problem, problem.folds[fold]))
    targets = columns[problem.folds[fold][0]]
    mean, centre = weights @ targets / weights.sum(), weights @ learned / weights.sum()
    learned -= centre
    weighted = learned * weights[:, None]
    return Normal(weighted.T @ learned, weighted.T @ (targets - mean), held - centre, mean)
