"""Standardising with a floor: channels that are nearly constant are not blown up to the size of the others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

FLOOR = 0.2
"""Least scale of a channel, as a share of the median deviation; see `floored`."""
FAINT = 1e-4
"""A channel does not vary when its deviation is below this share of what a tenth of the set exceeds."""
LOOKED_AT = 10_000
"""Rows that say which channels are nearly constant."""
RESOLUTIONS = 2.0**-11, 2.0**-24
"""Largest rounding error of a number as a share of it, in float16 and in float32."""


def floored(deviation: Array, mean: Array, widths: Sequence[int] = ()) -> Array:
    """Return the scales that columns are divided by: their deviations, and a floor where these are small.

    On grey or dark images hundreds of a network's channels hardly ever respond. Divided by its own deviation such a
    channel weighs as much as any other, though it holds rounding and rare traces, and a new image may lie hundreds of
    deviations out. The floor is `FLOOR` times the median deviation of the channels that vary at all (`FAINT`), and at
    least what float16 cannot tell apart at the channel's mean.

    The share is measured. On penultimate channels more is better: support vectors that learn 100 digits name 55 % of
    600 others without a floor, 70 at 0.1, 74 at 0.2, 78 at 0.5; on dark blobs they score 73 without, 85, 88 and 90.
    Photographs and solar cells gain little (68 to 69, 85.4 to 85.5), and the channels of middle blocks are not touched.
    From 0.3 on others lose: logistic regression on the solar cells, from 0.5 on the averages of middle blocks beside
    their maxima. A table whose columns have units of their own may lose already (R² of a support vector regression on
    scikit-learn's diabetes, raw: 0.47 without, 0.42 at 0.2): bring such columns to one scale first.

    Parameters
    ----------
    deviation, mean : ndarray of float64, shape (d,)
        Standard deviation and mean of each column over the training rows.
    widths : sequence of int, optional
        Columns of each feature set, where several lie side by side: each has a floor of its own, since networks and
        layers differ in the size of their numbers.

    Returns
    -------
    ndarray of float64, shape (d,)
        Above 0; 1 for every column where none varies at all.

    Examples
    --------
    >>> floored(np.array([3.0, 2.0, 1.0, 1e-6, 0.0]), np.zeros(5)).tolist()
    [3.0, 2.0, 1.0, 0.4, 0.4]
    """
    if len(widths) > 1:
        ends = np.cumsum(widths)[:-1]
        return np.concatenate(list(map(floored, np.split(deviation, ends), np.split(mean, ends))))
    least = FAINT * np.quantile(np.nan_to_num(deviation), 0.9)
    for resolution in RESOLUTIONS:  # the second where no column varies by what float16 tells apart: it never held these
        alive = deviation > np.maximum(resolution * np.abs(mean), least)
        if alive.any():
            floor = FLOOR * np.median(deviation[alive])
            return np.maximum(deviation, np.maximum(floor, resolution * np.abs(mean)))
    return np.ones(len(deviation))


def dead(X: NDArray[Any]) -> int:
    """Count the columns of X that are nearly constant, so that standardising divides them by a floor.

    Of many rows ten thousand are looked at.

    Examples
    --------
    >>> dead(np.array([[0.0, 1.0, 5.0], [2.0, 3.0, 5.0], [4.0, 1.0, 5.0]]))
    1
    """
    scaler = FlooredScaler().fit(X[:: max(1, len(X) // LOOKED_AT)])
    return int((scaler.scale_ > np.sqrt(scaler.var_)).sum())


class FlooredScaler(StandardScaler):
    """`StandardScaler` whose scales have a floor: `featurebank.topmodels.scaling.floored`.

    Where no column is nearly constant it is `StandardScaler`.

    Parameters
    ----------
    widths : sequence of int, optional
        Columns of each feature set, see `floored`.
    copy, with_mean, with_std : bool, default True
        As in `StandardScaler`.

    Attributes
    ----------
    scale_ : ndarray of float64, shape (d,), or None
        What columns are divided by; `var_` are their variances, as in `StandardScaler`.

    Examples
    --------
    >>> X = [[0.0, 0.0, 1.0], [2.0, 1.0, 1.0 + 1e-6], [4.0, 2.0, 1.0]]
    >>> StandardScaler().fit_transform(X)[1].round(2).tolist(), FlooredScaler().fit_transform(X)[1].round(2).tolist()
    ([0.0, 0.0, 1.41], [0.0, 0.0, 0.0])
    """

    def __init__(self, widths: Sequence[int] = (), *, copy: bool = True, with_mean: bool = True, with_std: bool = True):
        super().__init__(copy=copy, with_mean=with_mean, with_std=with_std)
        self.widths = widths

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> FlooredScaler:
        """Learn the means and scales from more rows; `fit` does the same from none before.

        Parameters
        ----------
        X : array-like of float, shape (n, d)
        y : ignored
        sample_weight : array-like of float, shape (n,), optional
        """
        super().partial_fit(X, y, sample_weight)
        if self.with_std:
            self.scale_ = floored(np.sqrt(self.var_), self.mean_, self.widths)
        return self


def make_scaler(mean: Array, scale: Array, count: int) -> FlooredScaler:
    """Return the `FlooredScaler` that has seen `count` rows of this mean and floored scale (d,).

    Examples
    --------
    >>> make_scaler(np.array([1.0]), np.array([2.0]), 9).transform([[5.0]])
    array([[2.]])
    """
    scaler = FlooredScaler().fit(np.zeros((1, len(mean))))
    scaler.mean_, scaler.scale_, scaler.var_, scaler.n_samples_seen_ = mean, scale, scale**2, count
    return scaler


def plain(model: Any) -> Any:
    """Return a fitted model that says the same with scikit-learn's own scalers, as a file holds it; arrays are shared.

    Examples
    --------
    >>> scaler = FlooredScaler().fit([[0.0, 0.0], [2.0, 1e-6]])
    >>> plain(scaler), plain(scaler).scale_.round(3).tolist() == scaler.scale_.round(3).tolist()
    (StandardScaler(), True)
    """
    if type(model) in (list, tuple):
        return type(model)(map(plain, model))
    if not isinstance(model, BaseEstimator):
        return model
    is_floored = type(model) is FlooredScaler
    twin = StandardScaler() if is_floored else copy.copy(model)
    held = {name: plain(value) for name, value in vars(model).items() if not (is_floored and name == "widths")}
    vars(twin).update(held)
    return twin


def with_floor(model: Pipeline, widths: Sequence[int] = ()) -> Pipeline:
    """Return an unfitted pipeline whose scalers have a floor; those of a file (`plain`) lose theirs once refitted.

    `widths` are the columns of each feature set, for a scaler that sees them all.
    """

    def floor_of(fitted: Any, step: Any) -> Any:
        if type(step) is not StandardScaler:
            return step
        seen = widths if getattr(fitted, "n_features_in_", None) == sum(widths) else ()
        return FlooredScaler(seen, **step.get_params())

    pairs = zip(model.steps, clone(model).steps, strict=True)
    return Pipeline([(name, floor_of(fitted, step)) for (_, fitted), (name, step) in pairs])
