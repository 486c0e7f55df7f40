"""Nearest centroids whose label is the most probable class."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.neighbors import NearestCentroid


class LikeliestCentroid(NearestCentroid):
    """`NearestCentroid` whose distances all count each column in units of its spread within the classes.

    Of classes that are equally likely, scikit-learn's own predicts the one at the least plain distance, and gives
    probabilities by the scaled distances, so that some rows' label is not their most probable class.

    Examples
    --------
    >>> X, y = [[-2.0, -9.0], [0.0, 9.0], [0.0, -9.0], [2.0, 12.0]], ["a", "a", "b", "b"]
    >>> plain, ours = NearestCentroid().fit(X, y), LikeliestCentroid().fit(X, y)
    >>> row = [[-0.5, 9.0]]
    >>> plain.predict(row).tolist(), ours.predict(row).tolist(), ours.predict_proba(row).round(2).tolist()
    (['b'], ['a'], [[0.7, 0.3]])
    """

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n,), from array-like of float, shape (n, d)."""
        return super(NearestCentroid, self).predict(X)  # as it does where the classes are not equally likely
