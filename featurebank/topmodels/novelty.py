"""Novelty: how unlike the rows that a model learned from a new row is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

from featurebank.errors import TopModelError, counted
from featurebank.topmodels.formulas import FLAG as FLAG
from featurebank.topmodels.formulas import unusual
from featurebank.topmodels.refitting import in_place, over_folds

COMPONENTS = 64
"""Directions that keep a variance of their own; 64 of 1,280 dimensions take 330 kB and tell as much as 128 do."""
LEAST_ROWS = 20
"""Fewer rows say too little of what is usual; two thirds of them make a model."""
LEAST_OF_CLASS = 5
ROWS = 2048
POWER = 2
"""Iterations of the randomised decomposition; more take twice the time and flag the same images."""
FOLDS = 3
_SMALLEST = 1e-7
_CHUNK = 4096


class Mahalanobis(BaseEstimator):
    """Mahalanobis distance of rows of length 1 from the nearest class mean, with one covariance for all classes.

    The distance is that of Lee et al. (2018), A simple unified framework for detecting out-of-distribution samples;
    rows are scaled to length 1 first (Müller and Hein 2025, Mahalanobis++). The covariance is the one of
    probabilistic principal components (Tipping and Bishop 1999): the largest directions keep their variance, all
    others share one, so that it stays invertible with fewer rows than dimensions, and small in a file.

    Parameters
    ----------
    components : int, default 64
        Directions that keep their own variance; at most a quarter of the rows.

    Attributes
    ----------
    means_ : ndarray of float32, shape (k, d)
    components_ : ndarray of float32, shape (q, d)
    variances_ : ndarray of float64, shape (q,)
    noise_ : float
        Variance of every other direction.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(3, 1, (200, 8)).astype("float32")
    >>> distances = Mahalanobis().fit(X).distances(np.stack([X.mean(0), -X.mean(0)]))
    >>> bool(distances[0] < distances[1])
    True
    """

    def __init__(self, components: int = COMPONENTS):
        self.components = components

    def fit(self, X: Any, y: Any = None) -> Mahalanobis:
        """Learn the means and the covariance.

        Parameters
        ----------
        X : ndarray of float, shape (n, d)
        y : array-like, shape (n,), optional
            Classes; those of fewer than five rows share a mean.

        Raises
        ------
        TopModelError
            When there are fewer than 13 rows.
        """
        _check_count(len(X), LEAST_ROWS * (FOLDS - 1) // FOLDS)
        unit = normalize(np.asarray(X))
        codes = _codes(len(X), y)
        means = np.stack([unit[codes == code].mean(axis=0, dtype=np.float64) for code in range(codes.max() + 1)])
        width = unit.shape[1]
        kept = max(1, min(self.components, len(X) // 4, width - 1))
        with np.errstate(invalid="ignore"):  # a share of no variance, where all rows are the same
            found = PCA(kept, svd_solver="randomized", iterated_power=POWER, random_state=0).fit(unit - means[codes])
        scale = (len(X) - 1) / (len(X) - len(means))  # what the means took
        total = float((unit - means[codes]).var(axis=0, ddof=1).sum())
        rest = (total - float(found.explained_variance_.sum())) / max(width - kept, 1)
        self.noise_ = max(scale * rest, _SMALLEST)
        self.variances_ = np.maximum(scale * found.explained_variance_.astype(np.float64), self.noise_)
        self.means_, self.components_ = means.astype(np.float32), found.components_.astype(np.float32)
        return self

    def distances(self, X: Any) -> NDArray[np.float64]:
        """Return the distance of each row from the nearest mean, shape (n,)."""
        check_is_fitted(self)
        parts = [unusual(self, X[start : start + _CHUNK]) for start in range(0, len(X), _CHUNK)]
        return np.concatenate([np.empty(0), *parts])


def _check_count(count: int, least: int) -> None:
    if count < least:
        raise TopModelError(
            f"{counted(count, 'different image')} to learn what is usual from; expected at least {least}"
        )


def _codes(count: int, y: Any) -> NDArray[np.int64]:
    """Return the number of each row's class, those of too few rows being one."""
    if y is None:
        return np.zeros(count, np.int64)
    _, codes, counts = np.unique(np.asarray(y), return_inverse=True, return_counts=True)
    return np.unique(np.where(counts[codes] < LEAST_OF_CLASS, -1, codes), return_inverse=True)[1]


def out_of_fold(model: Any, X: NDArray[Any], y: Any = None, random_state: int = 0) -> NDArray[np.float64]:
    """Return each row's distance as a model that was fitted without it gives it, shape (n,).

    Parameters
    ----------
    model : Mahalanobis
    X : ndarray of float, shape (n, d)
    y : array-like, shape (n,), optional
    random_state : int, default 0
        Of the three folds.

    Raises
    ------
    TopModelError
        When there are fewer than 20 rows.
    """
    _check_count(len(X), LEAST_ROWS)
    folds = list(KFold(FOLDS, shuffle=True, random_state=random_state).split(X))

    def distances(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.float64]:
        return model.fit(X[train], None if y is None else np.asarray(y)[train]).distances(X[test])

    return in_place(over_folds(distances, folds), folds, len(X))


class Unlike(BaseEstimator):
    """The share of the training rows that are less unusual than a row: what `predict` calls ``unlike``.

    How unusual a training row is comes from a model that did not see it, so that the share is uniform for new rows of
    the same kind: one in a hundred of them is above 0.99 and flagged.

    Attributes
    ----------
    model_ : Mahalanobis
    usual_ : ndarray of float64, shape (m,)
        Sorted out-of-fold distances of at most 2,048 training rows.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(3, 1, (200, 8)).astype("float32")
    >>> Unlike().fit(X).share(-X[:2]).tolist()
    [1.0, 1.0]
    """

    def fit(self, X: NDArray[Any], y: Any = None) -> Unlike:
        """Learn what is usual, from 2,048 rows (drawn with a fixed seed) where there are more.

        Parameters
        ----------
        X : ndarray of float, shape (n, d)
        y : array-like, shape (n,), optional
            Classes.

        Raises
        ------
        TopModelError
            When there are fewer than 20 rows.
        """
        drawn = draw(len(X))
        X, y = X[drawn], None if y is None else np.asarray(y)[drawn]
        self.usual_ = np.sort(out_of_fold(Mahalanobis(), X, y))
        self.model_ = Mahalanobis().fit(X, y)
        return self

    def check(self, width: int | None = None) -> None:
        """Refuse arrays that do not fit together, or not rows of `width` columns: a file may hold anything.

        Raises
        ------
        TopModelError
            When they do not.
        """
        model = getattr(self, "model_", None)
        if not isinstance(model, Mahalanobis):
            raise TopModelError("what says how unlike a row is holds no model; expected one that was fitted")
        arrays = [vars(model).get(name) for name in ("means_", "components_", "variances_")]
        arrays += [vars(self).get("usual_"), vars(model).get("noise_")]
        if not all(isinstance(each, (np.ndarray, float)) and np.isfinite(each).all() for each in arrays):
            raise TopModelError("what says how unlike a row is holds other things than finite numbers")
        means, components, variances, usual, noise = map(np.asarray, arrays)
        shapes = [(components.shape[0], means.shape[-1]), components.shape[:1], means.shape[-1:]]
        found = [components.shape, variances.shape, means.shape[1:]]
        if shapes != found or not len(means) or usual.ndim != 1 or not len(usual) or noise.ndim or not noise > 0:
            raise TopModelError("what says how unlike a row is holds arrays that do not fit together")
        if width not in (None, means.shape[1]):
            raise TopModelError(f"what says how unlike a row is takes {means.shape[1]} columns; expected {width}")

    def share(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return the share of the training rows that are less unusual than each row, from 0 to 1, shape (n,)."""
        check_is_fitted(self)
        return np.searchsorted(self.usual_, self.model_.distances(X)) / len(self.usual_)


def draw(count: int) -> NDArray[np.int64]:
    """Return the rows of `count` that `Unlike` learns from: all, or 2,048 that are drawn with a fixed seed."""
    return np.sort(np.random.default_rng(0).permutation(count)[:ROWS])
