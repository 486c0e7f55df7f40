"""Ridge and linear discriminants from accumulated moments: exact, one pass over the rows for all folds and parameters.

The solvers of rows in memory (`featurebank.solvers.ridge`, `featurebank.solvers.lda`) need of the training rows their
sums alone, and what they say of a row is an affine function of it. So they are given the sums of a pass, and in the
place of test rows the origin and a step along each column: what they say of these is the function, and the function is
the fitted estimator.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

from featurebank.errors import TopModelError
from featurebank.solvers import lda, ridge
from featurebank.solvers.moments import Array
from featurebank.solvers.problem import Cells, Prediction, Problem, changed
from featurebank.streaming.sums import StreamedMoments
from featurebank.streaming.trainer import Fitted, Streamed, make_scaler


class Exact(Streamed):
    """Ridge, for classes and for numbers, and LDA by least squares; see the module."""

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float64)

    def train(self, problem: Problem, cells: Cells) -> list[Fitted]:
        """Return the fitted estimators of every fold."""
        solve = self._by_lda if isinstance(self.estimator, LinearDiscriminantAnalysis) else self._by_ridge
        with threadpool_limits(self.n_jobs):
            return solve(problem, cells)

    def _by_ridge(self, problem: Problem, cells: Cells) -> list[Fitted]:
        _refuse(cells, {"alpha"}, "ridge")
        is_class = is_classifier(self.estimator)

        def weigh(fold: int) -> Array:
            return problem.full_weights(fold, False) if is_class else problem.plain_weights(problem.folds[fold][0])

        columns = _encoder(problem.y, -1.0) if is_class else _numbers
        moments = StreamedMoments(problem if is_class else replace(problem, class_weight=None), columns, weigh)
        no_rows = np.empty((0, len(np.unique(problem.y)) if is_class else 1))  # all are in the moments
        return self._every_fold(
            problem,
            moments,
            cells,
            lambda fold: ridge.fit_fold(problem, fold, moments, no_rows, cells, self.estimator),  # type: ignore[arg-type]
        )

    def _by_lda(self, problem: Problem, cells: Cells) -> list[Fitted]:
        given = {number: changed(self.estimator, lda.DEFAULT) | dict(cell) for number, cell in cells.items()}
        _refuse(given, {"solver", "shrinkage"}, "lda")
        if any(cell.get("solver", "svd") != "lsqr" or cell.get("shrinkage") == "auto" for cell in given.values()):
            raise TopModelError("lda read in batches needs solver lsqr and a number, or nothing, for shrinkage")
        moments = StreamedMoments(problem, _encoder(problem.y, 0.0), lambda fold: np.ones(len(problem.folds[fold][0])))
        fitted = self._every_fold(
            problem,
            moments,
            cells,
            lambda fold: lda.fit_fold(problem, fold, moments, given),  # type: ignore[arg-type]
        )
        for fold, each in enumerate(fitted):
            for number, model in each.models.items():
                _describe(model, lda.tall(moments, fold), given[number].get("shrinkage") or 0.0)  # type: ignore[arg-type]
        return fitted

    def _every_fold(
        self, problem: Problem, moments: StreamedMoments, cells: Cells, solve: Callable[[int], list[Prediction]]
    ) -> list[Fitted]:
        """Return estimators with the coefficients that a solver's answers stand for."""
        fitted = []
        for fold, (train, _) in enumerate(problem.folds):
            start = time.perf_counter()
            sums = moments.training(fold, np.empty(0))
            offset, scale = moments.scaling(fold, np.empty(0), sums)
            models = {
                found.cell: self._with_coefficients(problem, fold, cells[found.cell], found, offset, scale)
                for found in solve(fold)
            }
            scaler = make_scaler(offset + moments.origin, scale, len(train)) if problem.standardize else None
            fitted.append(Fitted(scaler, models, (time.perf_counter() - start) / len(models)))
        return fitted

    def _with_coefficients(
        self, problem: Problem, fold: int, cell: Any, found: Prediction, offset: Array, scale: Array
    ) -> Any:
        values = found.labels if found.decision is None else found.decision  # (d + 1,) or (d + 1, t)
        steps = values[1:] - values[0]
        model = _skeleton(clone(self.estimator).set_params(**cell), problem, fold, found.classes)
        at_mean = values[0] + offset @ steps
        slopes = (steps.T * scale).reshape(model.coef_.shape)
        model.coef_, model.intercept_ = slopes, np.reshape(at_mean, np.shape(model.intercept_))
        return model


def _refuse(cells: Cells, known: set[str], name: str) -> None:
    """Refuse parameters that need the rows themselves."""
    unknown = sorted({parameter for cell in cells.values() for parameter in cell} - known)
    if unknown:
        raise TopModelError(
            f"{name} read in batches has no parameter {unknown[0]!r}; expected {' and '.join(sorted(known))}"
        )


def _encoder(y: NDArray[Any], absent: float) -> Callable[[NDArray[Any]], Array]:
    """Return the function that writes labels as a column a class, 1 where it is the label."""
    classes = np.unique(y)
    return lambda some: np.where(some[:, None] == classes, 1.0, absent)


def _numbers(y: NDArray[Any]) -> Array:
    return y.reshape(len(y), -1).astype(np.float64)


def _skeleton(estimator: BaseEstimator, problem: Problem, fold: int, classes: NDArray[Any] | None) -> Any:
    """Return an estimator fitted to a few rows of noise: all of it is right but the numbers, which come next."""
    y = np.arange(4.0) if classes is None else np.repeat(classes, 2)
    rows = np.random.default_rng(0).normal(size=(len(y), problem.X.shape[1]))
    return estimator.fit(rows, y)


def _describe(model: LinearDiscriminantAnalysis, scatter: lda.Scatter, shrinkage: float) -> None:
    """Set the means, priors and covariance that scikit-learn keeps beside the coefficients."""
    width = len(scatter.within)
    model.means_, model.priors_ = scatter.means, np.exp(scatter.prior)
    model.covariance_ = (1 - shrinkage) * scatter.within + shrinkage * scatter.variance * np.eye(width)
