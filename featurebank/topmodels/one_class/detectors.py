"""One-class detectors by name: each a scikit-learn pipeline whose `score_samples` is the higher the more normal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import OneClassSVM
from sklearn.utils.validation import check_is_fitted

from featurebank.errors import TopModelError, near_names
from featurebank.topmodels.scaling import FlooredScaler
from featurebank.topmodels.transforms import SelectDimensions, Step

NEIGHBOURS = 5
MEMORY = 2048
"""Rows that neighbours are looked for among; more are drawn from, with a fixed seed."""
COMPONENTS = 64
NU = 0.1
PER_COMPONENT = 200
"""Rows for each component of a mixture."""
MOST_COMPONENTS = 5


class ShrunkMahalanobis(OutlierMixin, BaseEstimator):
    """Squared Mahalanobis distance from the mean, with the shrunk covariance of Ledoit and Wolf (2004).

    Unlike `featurebank.topmodels.novelty.Mahalanobis`, which is small in a file and knows classes, it keeps the whole
    covariance (`sklearn.covariance.LedoitWolf`), and tells anomalies of middle blocks apart better.

    Attributes
    ----------
    location_ : ndarray of float, shape (d,)
    precision_ : ndarray of float, shape (d, d)

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 8))
    >>> ShrunkMahalanobis().fit(X).score_samples([[0] * 8, [9] * 8]).argmin()
    np.int64(1)
    """

    def fit(self, X: Any, y: Any = None) -> ShrunkMahalanobis:
        """Learn the mean and the covariance of rows X (n, d)."""
        found = LedoitWolf(store_precision=False).fit(X)
        self.location_, self.precision_ = found.location_, linalg.inv(found.covariance_)  # shrunk, so that it has one
        return self

    def score_samples(self, X: Any) -> NDArray[Any]:
        """Return the negated squared distance of each row, shape (n,)."""
        check_is_fitted(self)
        away = np.asarray(X) - self.location_
        return -np.einsum("ij,ij->i", away @ self.precision_, away)  # scikit-learn's own is a loop, 20 times slower


class NeighbourDistance(OutlierMixin, BaseEstimator):
    """Mean distance to the nearest training rows (Ramaswamy et al. 2000), of at most `memory` rows that are kept.

    Parameters
    ----------
    n_neighbors : int, default 5
    memory : int, default 2048
        More rows are drawn from, with a fixed seed.
    """

    def __init__(self, n_neighbors: int = NEIGHBOURS, memory: int = MEMORY):
        self.n_neighbors = n_neighbors
        self.memory = memory

    def fit(self, X: Any, y: Any = None) -> NeighbourDistance:
        """Keep rows X (n, d)."""
        kept = np.sort(np.random.default_rng(0).permutation(len(X))[: self.memory])
        count = min(self.n_neighbors, len(kept))
        self.neighbours_ = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(np.asarray(X)[kept])
        return self

    def score_samples(self, X: Any) -> NDArray[Any]:
        """Return the negated mean distance of each row to its neighbours, shape (n,)."""
        check_is_fitted(self)
        return -self.neighbours_.kneighbors(X)[0].mean(axis=1)


class PCAResidual(OutlierMixin, BaseEstimator):
    """Squared distance from the span of the largest principal components (Jackson and Mudholkar 1979).

    Parameters
    ----------
    n_components : int, default 64
        At most a quarter of the rows.
    """

    def __init__(self, n_components: int = COMPONENTS):
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> PCAResidual:
        """Learn the components of rows X (n, d)."""
        count = min(self.n_components, _components(*np.shape(X)))
        self.pca_ = PCA(count, svd_solver="randomized", random_state=0).fit(X)
        return self

    def score_samples(self, X: Any) -> NDArray[Any]:
        """Return the negated squared residual of each row, shape (n,)."""
        check_is_fitted(self)
        away = np.asarray(X) - self.pca_.mean_
        inside = away @ self.pca_.components_.T
        return np.einsum("ij,ij->i", inside, inside) - np.einsum("ij,ij->i", away, away)


def _components(rows: int, width: int) -> int:
    """Return how many components are kept: at most a quarter of the rows, and not all columns."""
    return max(1, min(COMPONENTS, rows // 4, width - 1))


def _whitened(rows: int, width: int) -> Step:
    return "whiten", PCA(_components(rows, width), whiten=True, svd_solver="randomized", random_state=0)


def _mixture(rows: int, width: int) -> list[Step]:
    count = int(np.clip(rows // PER_COMPONENT, 1, MOST_COMPONENTS))
    mixture = GaussianMixture(count, covariance_type="diag", reg_covar=1e-2, random_state=0)
    return [_whitened(rows, width), ("model", mixture)]


DETECTORS: dict[str, Callable[[int, int], list[Step]]] = {
    "mahalanobis": lambda rows, width: [("model", ShrunkMahalanobis())],
    "knn": lambda rows, width: [("model", NeighbourDistance())],
    "pca-residual": lambda rows, width: [("model", PCAResidual())],
    "ocsvm": lambda rows, width: [_whitened(rows, width), ("model", OneClassSVM(nu=NU))],
    "gmm": _mixture,
}
"""Steps of each detector after standardising, for so many rows of so many columns."""


def parse_detectors(names: str | Sequence[str] | None) -> list[str]:
    """Return the names of detectors that are meant, all of them by default.

    Raises
    ------
    TopModelError
        When a name is unknown.

    Examples
    --------
    >>> parse_detectors("knn"), len(parse_detectors(None))
    (['knn'], 5)
    """
    if names is None or names == "all":
        return list(DETECTORS)
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in DETECTORS:
            raise TopModelError(f"no one-class top model {name!r}; {near_names(str(name), DETECTORS)}")
    return list(dict.fromkeys(wanted))


def make_detector(name: str, columns: NDArray[np.int64], rows: int) -> Pipeline:
    """Return an unfitted pipeline of a detector that sees some columns, to be fitted on about so many rows.

    Rows are brought to length 1 (Müller and Hein 2025, Mahalanobis++) and columns standardised
    (`featurebank.topmodels.scaling.FlooredScaler`) first.

    Examples
    --------
    >>> make_detector("knn", np.arange(4), 100)[-1]
    NeighbourDistance()
    """
    before: list[Step] = [
        ("columns", SelectDimensions(columns)),
        ("unit", Normalizer()),
        ("scale", FlooredScaler()),
    ]
    return Pipeline([*before, *DETECTORS[name](rows, len(columns))])
