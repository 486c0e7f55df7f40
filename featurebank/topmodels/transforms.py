"""Transforms of embeddings that scikit-learn lacks; a saved predictor may hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from featurebank.errors import TopModelError, near_names
from featurebank.topmodels.scaling import FlooredScaler

NORMALIZATIONS = ("standardize", "none", "l2", "center-l2", "signed-sqrt", "whiten")
WHITENED = 0.99
"""Share of the variance that whitening keeps: the rest is noise, which it would blow up."""

Step = tuple[str, Any]


def normalization(name: str, select: float | None = None, widths: Sequence[int] = ()) -> list[Step]:
    """Return the steps that stand before a top model, each to be fitted inside the fold.

    Parameters
    ----------
    name : str
        ``"standardize"`` (mean 0, deviation 1 a column, less for columns that are nearly constant:
        `featurebank.topmodels.scaling.floored`), ``"none"``, ``"l2"`` (rows of length 1), ``"center-l2"``
        (the mean taken off, then rows of length 1: Wang et al. 2019, SimpleShot), ``"signed-sqrt"`` (square roots
        that keep their sign, then standardised: Perronnin et al. 2010), or ``"whiten"`` (standardised, then the
        principal components that hold 99 % of the variance, each of deviation 1: Coates, Lee and Ng 2011).
    select : float, optional
        Share of the dimensions to keep, by `SelectRelevant`.
    widths : sequence of int, optional
        Columns of each feature set, where several lie side by side, of which some may be selected: they are
        standardised first.

    Raises
    ------
    TopModelError
        When the name is unknown.

    Examples
    --------
    >>> [name for name, _ in normalization("signed-sqrt", select=0.1)]
    ['root', 'relevant', 'scale']
    """
    if name not in NORMALIZATIONS:
        raise TopModelError(f"no normalisation {name!r}; {near_names(name, NORMALIZATIONS)}")
    rows: dict[str, list[Step]] = {"l2": [("unit", Normalizer())], "signed-sqrt": [("root", SignedSquareRoot())]}
    columns: dict[str, list[Step]] = {
        "standardize": [("scale", FlooredScaler(widths))],
        "signed-sqrt": [("scale", FlooredScaler(widths))],
        "center-l2": [("center", StandardScaler(with_std=False)), ("unit", Normalizer())],
        "whiten": [("scale", FlooredScaler(widths)), ("whiten", PCA(WHITENED, whiten=True))],
    }
    chosen: list[Step] = [] if select is None else [("relevant", SelectRelevant(select))]
    after = columns.get(name, [])
    first = 1 if len(widths) > 1 and after and after[0][0] == "scale" else 0
    return rows.get(name, []) + after[:first] + chosen + after[first:]


class SignedSquareRoot(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Square roots that keep the sign, which tame the long tails of rectified activations.

    Perronnin, Sánchez and Mensink (2010), Improving the Fisher kernel for large-scale image classification.

    Examples
    --------
    >>> SignedSquareRoot().fit_transform([[4.0, -9.0]])
    array([[ 2., -3.]])
    """

    def fit(self, X: Any, y: Any = None) -> SignedSquareRoot:
        """Check X; nothing is learned.

        Parameters
        ----------
        X : array-like of float, shape (n, d)
        y : ignored
        """
        validate_data(self, X, dtype=(np.float64, np.float32))
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return sign(X) sqrt(abs(X)), shape (n, d)."""
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return np.sign(X) * np.sqrt(np.abs(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


class SelectRelevant(TransformerMixin, BaseEstimator):
    """Keep the dimensions that a sparse linear model of all of them needs most.

    A linear model of the standardised columns (`FlooredScaler`) is fitted with a group lasso, whose penalty empties
    whole dimensions, and the dimensions are ranked by the length of their weights; those that the lasso emptied come
    last, by their correlation with what it left unexplained. This is the selection of Head2Toe (Evci et al. 2022),
    with squared error for the loss.

    Parameters
    ----------
    share : float, default 0.1
        Share of the dimensions to keep, 0 < share <= 1; at least one is kept.
    alpha : float, default 0.03
        Strength of the penalty, as a share of the one that would empty every dimension.
    steps : int, default 50
        Iterations of FISTA (Beck and Teboulle 2009).

    Attributes
    ----------
    relevance_ : ndarray of float64, shape (d,)
        Length of each dimension's weights.
    dimensions_ : ndarray of int64, shape (k,)
        The columns that are kept, in their order.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> SelectRelevant(0.2).fit(X, X[:, 3] > 0).dimensions_
    array([3])
    """

    def __init__(self, share: float = 0.1, *, alpha: float = 0.03, steps: int = 50):
        self.share = share
        self.alpha = alpha
        self.steps = steps

    def fit(self, X: Any, y: Any) -> SelectRelevant:
        """Rank the dimensions.

        Parameters
        ----------
        X : array-like of float, shape (n, d)
        y : array-like, shape (n,) or (n, t)
            Classes, numbers, or columns of 0 and 1.

        Raises
        ------
        TopModelError
            When the share is outside (0, 1].
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), multi_output=True)
        if not 0 < self.share <= 1:
            raise TopModelError(f"a share of {self.share!r} dimensions; expected a number above 0, at most 1")
        Z = FlooredScaler().fit_transform(X)
        weights, left = _group_lasso(Z, _targets(y).astype(Z.dtype), self.alpha, self.steps)
        self.relevance_ = np.sqrt((weights.astype(np.float64) ** 2).sum(axis=1))
        order = np.lexsort((-np.linalg.norm(left, axis=1), -self.relevance_))
        self.dimensions_ = np.sort(order[: max(1, round(self.share * X.shape[1]))])
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return the kept columns, shape (n, k)."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=(np.float64, np.float32), reset=False)[:, self.dimensions_]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the kept columns."""
        return _kept_names(self, input_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _targets(y: NDArray[Any]) -> NDArray[np.float64]:
    """Centred columns to predict, (n, t): an indicator for each class, or the numbers themselves, standardised."""
    is_class = y.ndim == 1 and not type_of_target(y).startswith("continuous")
    columns = np.asarray(y[:, None] == np.unique(y) if is_class else y.reshape(len(y), -1), np.float64)
    centred = columns - columns.mean(axis=0)
    return centred if is_class else centred / np.maximum(centred.std(axis=0), np.finfo(np.float64).tiny)


def _group_lasso(Z: NDArray[Any], Y: NDArray[Any], alpha: float, steps: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Minimise |Y - Z W|^2 / 2n + alpha max |Z'Y / n| sum |W_j| by FISTA; return W (d, t) and the last gradient."""
    n = len(Z)
    lipschitz = _largest_eigenvalue(Z) / n
    weights = momentum = np.zeros((Z.shape[1], Y.shape[1]), Z.dtype)
    strength = alpha * np.linalg.norm(Z.T @ Y / n, axis=1).max()
    t = 1.0
    for _ in range(steps):
        moved = momentum - Z.T @ (Z @ momentum - Y) / (n * lipschitz)
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        shrunk = moved * np.maximum(1 - strength / (lipschitz * np.maximum(length, 1e-30)), 0)
        t, before = (1 + math.sqrt(1 + 4 * t * t)) / 2, t
        momentum = shrunk + (before - 1) / t * (shrunk - weights)
        weights = shrunk
    return weights, Z.T @ (Z @ weights - Y) / n


def _largest_eigenvalue(Z: NDArray[Any]) -> float:
    """Largest eigenvalue of Z'Z, a little from above, by power iteration from a fixed start."""
    vector: NDArray[Any] = np.linspace(1, 2, Z.shape[1], dtype=Z.dtype)
    for _ in range(30):
        vector = Z.T @ (Z @ (vector / np.linalg.norm(vector)))
    return max(1.05 * float(np.linalg.norm(vector)), 1e-12)


class SelectDimensions(TransformerMixin, BaseEstimator):
    """Keep some columns of X, in the order given.

    Parameters
    ----------
    dimensions : array-like of int, optional
        Columns to keep; by default all of them.

    Attributes
    ----------
    dimensions_ : ndarray of int64, shape (k,)
        The columns that are kept.

    Examples
    --------
    >>> SelectDimensions([2, 0]).fit_transform([[1.0, 2.0, 3.0]])
    array([[3., 1.]])
    """

    def __init__(self, dimensions: Any = None):
        self.dimensions = dimensions

    def fit(self, X: Any, y: Any = None) -> SelectDimensions:
        """Check the columns against X.

        Parameters
        ----------
        X : array-like of float, shape (n, d)
        y : ignored

        Raises
        ------
        ValueError
            When a column is outside 0..d-1.
        """
        X = validate_data(self, X, dtype=(np.float64, np.float32))
        wanted = np.arange(X.shape[1]) if self.dimensions is None else np.asarray(self.dimensions, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= X.shape[1]):
            raise ValueError(f"dimensions {wanted.min()}..{wanted.max()} of {X.shape[1]}; expected 0..{X.shape[1] - 1}")
        self.dimensions_ = wanted
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return the kept columns.

        Parameters
        ----------
        X : array-like of float, shape (n, d)

        Returns
        -------
        ndarray of float, shape (n, k)
        """
        check_is_fitted(self)
        return validate_data(self, X, dtype=(np.float64, np.float32), reset=False)[:, self.dimensions_]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the kept columns.

        Parameters
        ----------
        input_features : array-like of str, shape (d,), optional
            Names of the columns of X.
        """
        return _kept_names(self, input_features)


def _kept_names(transformer: Any, input_features: Any) -> NDArray[np.object_]:
    from sklearn.utils.validation import _check_feature_names_in

    check_is_fitted(transformer)
    names: NDArray[np.object_] = _check_feature_names_in(transformer, input_features)
    return names[transformer.dimensions_]
