"""The power law that learning curves follow, fitted to measured scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

EXPONENTS = np.geomspace(0.01, 2, 200)
"""Rates that are tried; the other two parameters have a closed form for each."""


class PowerLaw(NamedTuple):
    """The score a - b n^-c of n rows (Cortes et al. 1994, Learning curves: asymptotic values and rate of convergence).

    Parameters
    ----------
    a : float or ndarray
        Score of endlessly many rows.
    b : float or ndarray
        What one row falls short of it, at least 0.
    c : float or ndarray
        Rate, above 0 and at most 2.

    Examples
    --------
    >>> PowerLaw(0.9, 1.0, 0.5)(100)
    0.8
    """

    a: Any
    b: Any
    c: Any

    def __call__(self, n: float) -> Any:
        """Return the score of n rows."""
        return self.a - self.b * float(n) ** -self.c


def fit_power_law(n_train: NDArray[Any], scores: NDArray[np.float64], bound: float = np.inf) -> PowerLaw:
    """Fit power laws to scores by weighted least squares, many at once.

    Large sets scatter less and lie nearer to what is asked, so that they weigh more (Figueroa et al. 2012, Predicting
    sample size required for classification performance), here as the square of their rows. Each of `EXPONENTS` is
    tried with the a and b that are best for it (Golub and Pereyra 1973, The differentiation of pseudo-inverses and
    nonlinear least squares problems whose variables separate), so that no local minimum is in the way.

    Parameters
    ----------
    n_train : ndarray, shape (m,)
        Numbers of rows, at least `LEAST_SIZES` different ones.
    scores : ndarray of float64, shape (k, m)
        One curve a row.
    bound : float, default inf
        The best possible score, which a does not exceed.

    Returns
    -------
    PowerLaw
        Of ndarrays of float64, shape (k,).

    Examples
    --------
    >>> n = np.array([10.0, 40.0, 90.0, 160.0])
    >>> [round(float(each[0]), 2) for each in fit_power_law(n, 0.9 - n[None] ** -0.5, bound=1.0)]
    [0.9, 1.0, 0.5]
    """
    weight = n_train**2 / (n_train**2).sum()
    x = n_train ** -EXPONENTS[:, None]
    centre = x @ weight
    off = x - centre[:, None]
    b = np.maximum(-(scores * weight) @ off.T / (off**2 @ weight), 0)
    a = (scores @ weight)[:, None] + b * centre
    if np.isfinite(bound):
        b = np.where(a > bound, np.maximum(((bound - scores) * weight) @ x.T / (x**2 @ weight), 0), b)
        a = np.minimum(a, bound)
    loss = (scores[:, None] - a[..., None] + b[..., None] * x) ** 2 @ weight
    best = loss.argmin(axis=1)
    curve = np.arange(len(scores))
    return PowerLaw(a[curve, best], b[curve, best], EXPONENTS[best])
