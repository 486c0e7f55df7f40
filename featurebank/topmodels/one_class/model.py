"""The one-class top model: detectors fused, fitted on folds, with a threshold that keeps its promise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from featurebank.errors import TopModelError, counted
from featurebank.topmodels.folds import Fold, Folds, fold_numbers, make_folds
from featurebank.topmodels.one_class.conformal import Conformal
from featurebank.topmodels.refitting import in_place
from featurebank.topmodels.threads import delayed

FOLDS = 5
LEAST_ROWS = 10
"""Fewer normals say too little of what is normal; these can promise false alarms of a tenth."""
_DEVIATIONS = 1.349
"""The interquartile range of a normal distribution, in standard deviations."""


class OneClassModel(OutlierMixin, BaseEstimator):
    """Detectors whose scores are averaged, fitted on the training part of each fold of the normals.

    Every fold's detectors are kept and a new row gets the mean of what they say: what scores the normals out of fold
    has then learned from as many rows as what scores new ones, so that their scores compare (cross-conformal: Vovk
    2015, Cross-conformal predictors). Scores of a detector are centred and scaled by the median and the quartiles of
    the normals before they are averaged.

    Parameters
    ----------
    detectors : list of (str, Pipeline)
        Unfitted (`featurebank.topmodels.one_class.detectors.make_detector`).
    false_alarms : float, default 0.01
        The largest share of normal rows that `predict` may call outliers, in expectation.
    random_state : int, default 0
        Of the folds.
    n_jobs : int, default 1
        Threads of the fits.

    Attributes
    ----------
    models_ : list of list of Pipeline
        For each fold the fitted detectors.
    centers_, spreads_ : ndarray of float64, shape (detectors,)
    conformal_ : Conformal
        Of the out-of-fold scores.
    offset_ : float
        Scores below it are outliers.
    out_of_fold_ : ndarray of float64, shape (n,)
        What `score_samples` says of each training row when its fold had not seen it.
    folds_ : ndarray of int64, shape (n,)
        The fold that tested each training row.
    n_features_in_ : int

    Examples
    --------
    >>> from featurebank.topmodels.one_class.detectors import make_detector
    >>> X = np.random.default_rng(0).normal(3, 1, size=(300, 6))
    >>> model = OneClassModel([("knn", make_detector("knn", np.arange(6), 300))], false_alarms=0.05).fit(X)
    >>> model.predict([[3.0] * 6, [-3.0] * 6]).tolist(), model.p_values([[-3.0] * 6]).round(4).tolist()
    ([1, -1], [0.0033])
    """

    def __init__(
        self,
        detectors: Sequence[tuple[str, Pipeline]],
        *,
        false_alarms: float = 0.01,
        random_state: int = 0,
        n_jobs: int = 1,
    ):
        self.detectors = detectors
        self.false_alarms = false_alarms
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> OneClassModel:
        """Learn what is normal.

        Parameters
        ----------
        X : ndarray of float, shape (n, d)
            Normal rows.
        y : ignored
        groups : array-like, shape (n,), optional
            Rows of one group never straddle folds, and count as one for the promise.

        Raises
        ------
        TopModelError
            When there are fewer than 10 rows (or groups), or too few for the promise.
        """
        X = np.asarray(X)
        folds = normal_folds(len(X), groups, self.random_state)
        fits = (delayed(_fitted)(pipeline, X, train) for train, _ in folds for _, pipeline in self.detectors)
        fitted = joblib.Parallel(self.n_jobs, prefer="threads", return_as="generator")(fits)
        self.models_ = [list(islice(fitted, len(self.detectors))) for _ in folds]
        said = [_said(models, X[test]) for models, (_, test) in zip(self.models_, folds, strict=True)]
        scores = in_place(said, folds, len(X))
        self.n_features_in_ = X.shape[1]
        self.folds_ = fold_numbers(folds, len(X))
        self.centers_ = np.median(scores, axis=0)
        low, high = np.quantile(scores, [0.25, 0.75], axis=0)
        self.spreads_ = np.maximum((high - low) / _DEVIATIONS, np.finfo(np.float32).tiny)
        self.out_of_fold_ = self._fused(scores)
        self.conformal_ = Conformal().fit(self.out_of_fold_, groups)
        self.offset_ = self.conformal_.threshold(self.false_alarms)
        return self

    def _fused(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        fused: NDArray[np.float64] = ((scores - self.centers_) / self.spreads_).mean(axis=1)
        return fused

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return how normal each row is, shape (n,), in deviations of the normals from their median."""
        check_is_fitted(self)
        return np.mean([self._fused(_said(models, np.asarray(X))) for models in self.models_], axis=0)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the scores less `offset_`, below 0 for outliers, shape (n,)."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return 1 for each normal row and -1 for each outlier, shape (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> NDArray[np.float64]:
        """Return the share of the normals that are at least as unusual as each row, shape (n,)."""
        return self.conformal_.p_values(self.score_samples(X))

    def check(self) -> None:
        """Refuse parts that do not fit together: a file may hold anything.

        Raises
        ------
        TopModelError
            When they do not.
        """
        arrays = [vars(self).get(name) for name in ("centers_", "spreads_", "offset_")]
        known = vars(self).get("conformal_")
        arrays += [vars(known).get(name) for name in ("scores_", "weights_", "units_")] if known is not None else [None]
        if not all(isinstance(each, (np.ndarray, float, int)) and np.isfinite(each).all() for each in arrays):
            raise TopModelError(
                "a one-class model holds other things than finite numbers; expected one that was fitted"
            )
        models = self.models_
        is_whole = bool(models) and all(len(each) == len(self.centers_) == len(self.spreads_) for each in models)
        if not is_whole or not all(hasattr(one, "score_samples") for each in models for one in each):
            raise TopModelError("a one-class model holds parts that do not fit together; expected one that was fitted")


def normal_folds(count: int, groups: Any, random_state: int, n_splits: int = FOLDS) -> list[Fold]:
    """Return folds of normals, kept together in groups.

    Raises
    ------
    TopModelError
        When there are fewer than 10 rows, or groups.
    """
    units = count if groups is None else len(np.unique(groups))
    if units < LEAST_ROWS:
        what = ["normal"] if groups is None else ["group of normals", "groups of normals"]
        together = "" if groups is None else "; images that belong together count once"
        known = counted(units, *what)
        raise TopModelError(f"{known} to learn from; expected at least {LEAST_ROWS}: bring more{together}")
    kind = "plain" if groups is None else "group"
    cv = Folds(kind, n_splits, random_state=random_state)
    return make_folds(cv, np.empty((count, 1)), np.zeros(count), groups, random_state, "regression")


def _fitted(pipeline: Pipeline, X: NDArray[Any], train: NDArray[np.int64]) -> Pipeline:
    return clone(pipeline).fit(X[train])


def _said(models: Sequence[Pipeline], X: NDArray[Any]) -> NDArray[np.float64]:
    """Return what each detector says of rows, shape (n, detectors)."""
    return np.column_stack([model.score_samples(X) for model in models]).astype(np.float64)
