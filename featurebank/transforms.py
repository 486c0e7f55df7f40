"""Transforms of embeddings that scikit-learn lacks; a saved predictor may hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data


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
        from sklearn.utils.validation import _check_feature_names_in

        check_is_fitted(self)
        names: NDArray[np.object_] = _check_feature_names_in(self, input_features)
        return names[self.dimensions_]
