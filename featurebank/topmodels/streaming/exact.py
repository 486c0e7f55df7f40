"""Ridge and linear discriminants from accumulated moments: exact, one pass over the rows for all folds and parameters.

The solvers of rows in memory (`topmodels.solvers.ridge`, `topmodels.solvers.lda`) need of the training rows their
sums alone, and what they say of a row is an affine function of it. So they are given the sums of a pass, and in the
place of test rows the origin and a step along each column: what they say of these is the function, and the function is
the fitted estimator.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

from featurebank.errors import TopModelError
from featurebank.topmodels.scaling import make_scaler
from featurebank.topmodels.solvers import lda, ridge
from featurebank.topmodels.solvers.moments import Array
from featurebank.topmodels.solvers.problem import Cells, Prediction, Problem, changed
from featurebank.topmodels.streaming.sums import Along, StreamedMoments, fit_steps
from featurebank.topmodels.streaming.trainer import Fitted, Streamed
from featurebank.topmodels.transforms import Step


class Exact(Streamed):
    """Ridge, for classes and for numbers, and LDA by least squares; see the module."""

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float64)

    def train(self, problem: Problem, cells: Cells, whitening: PCA | None) -> list[Fitted]:
        """Return the fitted estimators of every fold."""
        given = self._checked(cells)
        with threadpool_limits(self.n_jobs):
            moments = self._moments(problem)
            whitened = [[] for _ in problem.folds] if whitening is None else fit_steps(problem, whitening)
            return [self._fold(moments, fold, given, steps) for fold, steps in enumerate(whitened)]

    @property
    def _is_lda(self) -> bool:
        return isinstance(self.estimator, LinearDiscriminantAnalysis)

    def _checked(self, cells: Cells) -> dict[int, dict[str, Any]]:
        """Refuse parameters that need the rows themselves."""
        name, known = ("lda", {"solver", "shrinkage"}) if self._is_lda else ("ridge", {"alpha"})
        own = changed(self.estimator, lda.DEFAULT) if self._is_lda else {}
        given = {number: own | dict(cell) for number, cell in cells.items()}
        unknown = sorted({parameter for cell in given.values() for parameter in cell} - known)
        if unknown:
            raise TopModelError(
                f"{name} read in batches has no parameter {unknown[0]!r}; expected {' and '.join(sorted(known))}"
            )
        by_sums = [cell.get("solver") == "lsqr" and cell.get("shrinkage") != "auto" for cell in given.values()]
        if self._is_lda and not all(by_sums):
            raise TopModelError("lda read in batches needs solver lsqr and a number, or nothing, for shrinkage")
        return given

    def _moments(self, problem: Problem) -> StreamedMoments:
        """Return the sums that the estimator needs, from one pass over the rows."""
        if self._is_lda:
            return StreamedMoments(problem, _encoder(problem.y, 0.0))
        if not is_classifier(self.estimator):
            return StreamedMoments(problem, _numbers)
        is_same = problem.class_weight is None  # as the other folds' weights
        weigh = None if is_same else lambda fold: problem.full_weights(fold, False)
        return StreamedMoments(problem, _encoder(problem.y, -1.0), weigh)

    def _fold(
        self, all_folds: StreamedMoments, fold: int, cells: dict[int, dict[str, Any]], whitened: list[Step]
    ) -> Fitted:
        """Return the estimators with the coefficients that a solver's answers stand for."""
        start = time.perf_counter()
        problem, train = all_folds.problem, all_folds.problem.folds[fold][0]
        moments: Any = Along(all_folds, fold, whitened) if whitened else all_folds
        offset, scale = moments.scaling(fold, np.empty(0), moments.training(fold, np.empty(0)))
        models = {
            found.cell: self._with_coefficients(found, cells[found.cell], offset, scale)
            for found in self._solve(problem, fold, moments, cells)
        }
        tests_nothing = not len(problem.folds[fold][1])  # a model that is kept; one that is scored needs no more
        if self._is_lda and tests_nothing:
            _describe(list(models.values()), lda.tall(moments, fold))
        scaler: list[Step] = []
        if problem.standardize:
            scaler = [("scale", make_scaler(offset + moments.origin, scale, len(train)))]
        return Fitted(whitened or scaler, models, (time.perf_counter() - start) / len(models))

    def _solve(self, problem: Problem, fold: int, moments: Any, cells: Cells) -> list[Prediction]:
        """Return what the solver of rows in memory says of the points in the place of test rows."""
        if self._is_lda:
            return lda.fit_fold(problem, fold, moments, cells)
        no_rows = np.empty((0, len(np.unique(problem.y)) if is_classifier(self.estimator) else 1))  # they are summed
        return ridge.fit_fold(problem, fold, moments, no_rows, cells, self.estimator)

    def _with_coefficients(self, found: Prediction, cell: dict[str, Any], offset: Array, scale: Array) -> Any:
        values = found.labels if found.decision is None else found.decision  # (d + 1,) or (d + 1, t)
        steps = values[1:] - values[0]
        model = _skeleton(clone(self.estimator).set_params(**cell), len(scale), found.classes)
        at_mean = values[0] + offset @ steps
        model.coef_ = (steps.T * scale).reshape(*model.coef_.shape[:-1], len(scale))
        model.intercept_ = np.reshape(at_mean, np.shape(model.intercept_))
        return model


def _encoder(y: NDArray[Any], absent: float) -> Callable[[NDArray[Any]], Array]:
    """Return the function that writes labels as a column a class, 1 where it is the label."""
    classes = np.unique(y)
    return lambda some: np.where(some[:, None] == classes, 1.0, absent)


def _numbers(y: NDArray[Any]) -> Array:
    return y.reshape(len(y), -1).astype(np.float64)


def _skeleton(estimator: BaseEstimator, width: int, classes: NDArray[Any] | None) -> Any:
    """Return an estimator fitted to a few rows and columns of noise: its numbers are set next."""
    y = np.arange(4.0) if classes is None else np.repeat(classes, 2)
    model: Any = estimator.fit(np.random.default_rng(0).normal(size=(len(y), min(width, len(y)))), y)
    model.n_features_in_ = width
    return model


def _describe(models: list[LinearDiscriminantAnalysis], scatter: lda.Scatter) -> None:
    """Set the means, priors and covariance that scikit-learn keeps beside the coefficients."""
    for model in models:
        shrinkage = model.shrinkage or 0.0
        model.means_, model.priors_ = scatter.means, np.exp(scatter.prior)
        model.covariance_ = (1 - shrinkage) * scatter.within
        model.covariance_ += shrinkage * scatter.variance * np.eye(len(scatter.within))
