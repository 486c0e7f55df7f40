"""Standardising with a floor: channels that are nearly constant are not blown up to the size of the others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

FLOOR = 0.2
"""Least scale of a channel, as a share of the median deviation of its feature set; see `floored`."""
FAINT = 1e-4
"""A channel does not vary when its deviation is below this share of what a tenth of the set exceeds."""
RESOLUTIONS = 2.0**-11, 2.0**-24
"""Largest rounding error of a number as a share of it, in float16 and in float32."""


def floored(deviation: Array, mean: Array, widths: Sequence[int] | None = None) -> Array:
    """Return the scales that columns are divided by: their deviations, and a floor where these are small.

    On grey or dark images hundreds of a network's channels hardly ever respond. Divided by its own deviation such a
    channel weighs as much as any other, though it holds rounding and rare traces, and a new image may lie hundreds of
    deviations out. The floor is `FLOOR` times the median deviation of the channels that vary at all (`FAINT`), and at
    least what float16 cannot tell apart at the channel's mean.

    The share is measured. On penultimate channels more is better: support vectors that learn 100 digits name 55 % of
    600 others without a floor, 70 at 0.1, 74 at 0.2, 78 at 0.5; on dark blobs they score 73 without, 85, 88 and 90.
    Photographs and solar cells gain little (68 to 69, 85.4 to 85.5), and the channels of middle blocks are not touched.
    From 0.3 on others lose: logistic regression on the solar cells, the averages of middle blocks beside their maxima
    from 0.5 on, and tables whose columns have units of their own.

    Parameters
    ----------
    deviation, mean : ndarray of float64, shape (d,)
        Standard deviation and mean of each column over the training rows.
    widths : sequence of int, optional
        Columns of each feature set, where several lie side by side: each has its own floor. By default one set.

    Returns
    -------
    ndarray of float64, shape (d,)
        Above 0; 1 for every column of a set that does not vary at all.

    Examples
    --------
    >>> floored(np.array([3.0, 2.0, 1.0, 1e-6, 0.0]), np.zeros(5)).tolist()
    [3.0, 2.0, 1.0, 0.4, 0.4]
    >>> floored(np.array([2.0, 1e-6]), np.zeros(2), widths=[1, 1]).tolist()
    [2.0, 1e-06]
    """
    ends = np.cumsum([0, *([len(deviation)] if widths is None else widths)])
    parts = [_of_set(deviation[start:end], np.abs(mean[start:end])) for start, end in pairwise(ends)]
    return np.concatenate(parts)


def _of_set(deviation: Array, size: Array) -> Array:
    least = FAINT * np.quantile(np.nan_to_num(deviation), 0.9)
    for resolution in RESOLUTIONS:  # the second where no column varies by what float16 tells apart: it never held these
        alive = deviation > np.maximum(resolution * size, least)
        if alive.any():
            floor = FLOOR * np.median(deviation[alive])
            return np.maximum(deviation, np.maximum(floor, resolution * size))
    return np.ones(len(deviation))


def dead(X: NDArray[Any], widths: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Say which columns of X are nearly constant, so that standardising divides them by the floor, shape (d,).

    Examples
    --------
    >>> dead(np.array([[0.0, 1.0, 5.0], [2.0, 3.0, 5.0], [4.0, 1.0, 5.0]])).tolist()
    [False, False, True]
    """
    deviation = X.std(axis=0, dtype=np.float64)
    return floored(deviation, X.mean(axis=0, dtype=np.float64), widths) > deviation


class FlooredScaler(StandardScaler):
    """`StandardScaler` whose scales have a floor: `featurebank.topmodels.scaling.floored`.

    Where no column is nearly constant it is `StandardScaler`.

    Parameters
    ----------
    widths : sequence of int, optional
        Columns of each feature set, where X holds several side by side; by default one set.
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

    def __init__(
        self,
        *,
        widths: Sequence[int] | None = None,
        copy: bool = True,
        with_mean: bool = True,
        with_std: bool = True,
    ):
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


def make_scaler(mean: Array, scale: Array, count: int, widths: Sequence[int] | None = None) -> FlooredScaler:
    """Return the `FlooredScaler` that has seen `count` rows of this mean and floored scale (d,).

    Examples
    --------
    >>> make_scaler(np.array([1.0]), np.array([2.0]), 9).transform([[5.0]])
    array([[2.]])
    """
    scaler = FlooredScaler().fit(np.zeros((1, len(mean)))).set_params(widths=widths)
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
    values = {name: plain(value) for name, value in vars(model).items()}
    if isinstance(model, FlooredScaler):
        values.pop("widths")
    twin = StandardScaler() if isinstance(model, FlooredScaler) else copy.copy(model)
    vars(twin).update(values)
    return twin


def with_floor(model: Pipeline) -> Pipeline:
    """Return an unfitted pipeline whose scalers have a floor; those of a file (`plain`) lose theirs once refitted."""
    steps = [
        (name, FlooredScaler(**step.get_params()) if type(step) is StandardScaler else step)
        for name, step in clone(model).steps
    ]
    return Pipeline(steps)
