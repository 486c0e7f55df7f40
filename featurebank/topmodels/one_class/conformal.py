"""Conformal p-values of scores: which share of false alarms normal rows can promise, and from how many of them.

If a new normal row is as likely as the calibration rows to have any rank among them, then the share of those at least
as unusual, the new row counted too, is at most a rate in at most that share of cases (Vovk et al. 2005; for outliers
Bates et al. 2023, Testing for outliers with conformal p-values). Of rows that belong together only the groups are
exchangeable: each group counts once, its rows in equal shares.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from featurebank.errors import TopModelError

_ROUNDING = 1e-9


def least_rate(units: int) -> float:
    """Return the lowest rate of false alarms that so many normals (or groups of them) can promise.

    Examples
    --------
    >>> least_rate(99)
    0.01
    """
    return 1 / (units + 1)


def rate_text(rate: float, digits: int = 3) -> str:
    """Return a rate that can be promised with so many digits, rounded up: what is shown can be promised too.

    Examples
    --------
    >>> rate_text(1 / 27), rate_text(0.01)
    ('0.0371', '0.01')
    """
    step = 10.0 ** (math.floor(math.log10(rate)) + 1 - digits)
    return f"{math.ceil(rate / step - _ROUNDING) * step:.{digits}g}"


def least_units(rate: float) -> int:
    """Return how many normals (or groups of them) a promised rate of false alarms takes.

    Examples
    --------
    >>> least_units(0.01), least_units(0.05)
    (99, 19)
    """
    return max(1, math.ceil(1 / rate - 1 - _ROUNDING))


class Conformal(BaseEstimator):
    """P-values of scores, the higher a score the more normal.

    Attributes
    ----------
    scores_ : ndarray of float64, shape (n,)
        Scores of normals that the model had not seen, sorted.
    weights_ : ndarray of float64, shape (n,)
        Cumulated weights of these rows: one a group in all.
    units_ : int
        Groups, or rows where none belong together.

    Examples
    --------
    >>> Conformal().fit(np.arange(99.0)).p_values(np.array([-1.0, 0.0, 98.0]))
    array([0.01, 0.02, 1.  ])
    """

    def fit(self, scores: NDArray[Any], groups: NDArray[Any] | None = None) -> Conformal:
        """Learn from the scores (n,) of normals, with the group of each."""
        codes = np.arange(len(scores)) if groups is None else np.unique(groups, return_inverse=True)[1]
        sizes, order = np.bincount(codes), np.argsort(scores, kind="stable")
        self.scores_ = np.asarray(scores, np.float64)[order]
        self.weights_ = np.cumsum(1 / sizes[codes[order]])
        self.units_ = len(sizes)
        return self

    def p_values(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """Return the p-value of each score, shape (n,)."""
        below = np.searchsorted(self.scores_, scores, side="right")
        found: NDArray[np.float64] = (1 + np.append(0.0, self.weights_)[below]) / (self.units_ + 1)
        return np.minimum(found, 1.0)

    def threshold(self, rate: float) -> float:
        """Return the score below which p-values are at most a rate.

        Raises
        ------
        TopModelError
            When there are too few normals for this rate.
        """
        check_rate(rate, self.units_)
        allowed = rate * (self.units_ + 1) - 1 + _ROUNDING
        first = int(np.searchsorted(self.weights_, allowed, side="right"))
        return float(self.scores_[min(first, len(self.scores_) - 1)])


def check_rate(rate: float, units: int) -> None:
    """Refuse a rate of false alarms that is none, or that so many normals cannot promise.

    Raises
    ------
    TopModelError
    """
    if not 0 < rate < 1:
        raise TopModelError(f"false alarms of {rate!r}; expected a share above 0 and below 1, as 0.01")
    if units < least_units(rate):
        raise TopModelError(
            f"{units} normals can promise false alarms of {least_rate(units):.3g} at least; a rate of {rate:g} takes "
            f"{least_units(rate)}: ask for {rate_text(least_rate(units))} or more, or bring more normals"
        )
